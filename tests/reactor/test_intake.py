"""What is read in one pass is handled together, and answered together; nobody can tell but by the clock."""

from __future__ import annotations

import socket

import pytest

from reactor import CloseCause, Connection, ConnectionState, Pause, Reactor, Watermark
from reactor.connection import (
    GATHERED_READS,
    HANDLED_PER_LOOK,
    LARGE_REPLY,
    REPLY_PATIENCE,
    Intake,
)
from tests.reactor.connections import MUCH, End, Make, Recorder
from tests.reactor.support import DEADLINE, ManualClock, reset, run_passes

LARGE = 2048
"""Bytes above which what is read is handled at once; so much comes in one piece on any system."""


@pytest.fixture(autouse=True)
def _small_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reactor.connection.GATHERED_SIZE", LARGE)


def some(make: Make, count: int, **options: object) -> list[End]:
    return [make(**options) for _ in range(count)]


def send_to(ends: list[End], data: bytes) -> None:
    """Have all of them ready in the same pass."""
    for end in ends:
        end.peer.sendall(data)


def one_pass(end: End) -> None:
    end.reactor.run_once(DEADLINE)


def replying(end: End) -> Recorder:
    """Its handler answers with the number of bytes that it was given."""
    handler = end.handler

    def answer(data: bytes) -> None:
        handler.reply = b"%d." % len(data)

    handler.on_data = answer
    return handler


def interrupt(_: object) -> None:
    raise KeyboardInterrupt


def test_all_that_are_ready_are_read_before_the_first_is_handled(make: Make) -> None:
    ends = some(make, 5)
    seen: list[list[int]] = []
    for end in ends:
        end.handler.on_data = lambda _: seen.append([e.connection.bytes_received for e in ends])
    send_to(ends, b"abc")
    one_pass(ends[0])
    assert seen == [[3] * 5] * 5


def test_all_are_handled_before_the_first_is_answered(make: Make) -> None:
    ends = some(make, 5)
    seen: list[list[int]] = []
    for end in ends:
        end.handler.reply = b"reply"
        end.handler.on_data = lambda _: seen.append([e.connection.bytes_sent for e in ends])
    send_to(ends, b"abc")
    one_pass(ends[0])
    assert seen == [[0] * 5] * 5
    for end in ends:
        assert end.connection.bytes_sent == 5
        assert end.connection.pending == 0
        end.until_received(5)
        assert end.received == b"reply"


def test_it_is_handled_before_time_outs_fire(make: Make) -> None:
    [end] = some(make, 1)
    order: list[str] = []
    end.handler.on_data = lambda _: order.append("data")
    send_to([end], b"abc")
    end.reactor.call_at(end.reactor.time() - 1.0, order.append, "time-out")
    end.reactor.call_soon(order.append, "posted")
    end.until(lambda: len(order) == 3)
    assert order == ["data", "time-out", "posted"]


def test_so_many_are_handled_that_what_is_set_aside_stays_little(make: Make) -> None:
    ends = some(make, GATHERED_READS + 3)
    seen: list[int] = []
    for end in ends:
        end.handler.on_data = lambda _: seen.append(sum(e.connection.bytes_received for e in ends))
    send_to(ends, b"a")
    one_pass(ends[0])
    assert seen == [GATHERED_READS] * GATHERED_READS + [len(ends)] * 3


@pytest.mark.parametrize("takes", [0.0, REPLY_PATIENCE / 2], ids=["at once", "a while"])
def test_replies_do_not_wait_for_long(make_manual: Make, clock: ManualClock, takes: float) -> None:
    count = 3 * HANDLED_PER_LOOK
    ends = some(make_manual, count)
    seen: list[int] = []

    def handle(_: bytes) -> None:
        seen.append(sum(end.connection.bytes_sent for end in ends))
        clock.advance(takes)

    for end in ends:
        end.handler.reply = b"."
        end.handler.on_data = handle
    send_to(ends, b"abc")
    one_pass(ends[0])
    assert [end.connection.bytes_sent for end in ends] == [1] * count
    looks = [at // HANDLED_PER_LOOK * HANDLED_PER_LOOK for at in range(count)]
    assert seen == (looks if takes else [0] * count)


def test_what_is_large_is_handled_at_once_and_behind_what_is_set_aside(make: Make) -> None:
    ends = some(make, 3)
    seen: list[list[bool]] = []
    for end in ends:
        end.handler.on_data = lambda _: seen.append([e.connection.bytes_received > 0 for e in ends])
    ends[0].peer.sendall(b"a")
    ends[1].peer.sendall(bytes(LARGE + 1))
    ends[2].peer.sendall(b"c")
    one_pass(ends[0])
    assert seen == [[True, True, False], [True, True, False], [True, True, True]]
    assert ends[1].handler.data == bytes(LARGE + 1)


def test_what_is_written_after_a_reply_was_returned_comes_after_it(make: Make) -> None:
    first, second = some(make, 2)
    first.handler.reply = b"reply "
    second.handler.on_data = lambda _: first.write(b"written")
    send_to([first, second], b"abc")
    first.until_received(13)
    assert first.received == b"reply written"


def test_a_reply_that_waits_before_what_was_written_behind_it_is_counted(make: Make) -> None:
    first, second = some(make, 2, buffer_size=8192)
    first.write(bytes(200_000))
    run_passes(first.reactor)
    first.handler.reply = b"reply "
    second.handler.on_data = lambda _: first.write(b"written")
    written = first.connection.bytes_sent + first.connection.pending
    send_to([first, second], b"abc")
    one_pass(first)
    assert first.connection.pending > 13
    assert first.connection.bytes_sent + first.connection.pending == written + 13
    first.until_received(written + 13)
    assert first.received.endswith(b"reply written")
    assert first.connection.pending == 0


def test_what_is_sent_at_once_after_a_reply_was_returned_comes_after_it(make: Make) -> None:
    first, second = some(make, 2)
    first.handler.reply = b"reply"
    taken: list[bool] = []
    second.handler.on_data = lambda _: taken.append(first.connection.send_at_once(b"at once"))
    send_to([first, second], b"abc")
    first.until_received(5)
    assert taken == [False], "it would have overtaken the reply"
    assert first.received == b"reply"
    assert first.connection.send_at_once(b"at once")


def test_a_reply_comes_behind_what_was_written_before(make: Make) -> None:
    first, second = some(make, 2)
    first.handler.on_data = lambda _: second.write(b"written ")
    second.handler.reply = b"reply"
    send_to([first, second], b"abc")
    second.until_received(13)
    assert second.received == b"written reply"


def test_a_reply_comes_behind_what_the_kernel_has_not_taken(make: Make) -> None:
    end = make(buffer_size=4_096, output=Watermark(1 << 20, 8 << 20))
    size = end.fill()
    end.handler.reply = b"reply"

    def read(data: bytes) -> None:  # when that has ended the kernel would take the reply
        for _ in range(100):
            end.peer_reads()

    end.handler.on_data = read
    end.peer.sendall(b"abc")
    end.until(lambda: end.handler.data == b"abc")
    assert end.connection.pending > 5
    end.until_received(size + 5)
    assert end.received == bytes(size) + b"reply"


def test_a_reply_that_the_kernel_does_not_take_is_queued(make: Make) -> None:
    end = make(buffer_size=4_096, output=Watermark(1_000, 10_000))
    reply = bytes(range(256)) * 16_384
    end.handler.reply = reply
    end.peer.sendall(b"abc")
    end.until(lambda: end.connection.pending)
    assert end.connection.paused & Pause.OUTPUT
    end.until_received(len(reply))
    assert end.received == reply
    end.until(lambda: not end.connection.paused)
    assert end.handler.calls[-1] == "writable"


def test_a_handler_that_raises_costs_its_own_connection(make: Make) -> None:
    ends = some(make, 3)
    for end in ends:
        replying(end)

    def fail(_: bytes) -> None:
        raise LookupError("on purpose")

    ends[1].handler.on_data = fail
    send_to(ends, b"abc")
    reason = ends[1].until_closed()
    assert isinstance(reason.error, LookupError)
    for end in (ends[0], ends[2]):
        end.until_received(2)
        assert end.received == b"3."


def test_who_has_been_told_of_the_end_is_told_of_no_data(make: Make) -> None:
    first, second = some(make, 2)
    first.handler.on_data = lambda _: second.connection.fail(ConnectionResetError("gone"))
    send_to([first, second], b"abc")
    second.until_closed()
    run_passes(first.reactor)
    assert first.handler.data == b"abc"
    assert second.handler.calls == ["open", "closed"]


def test_a_reply_that_the_end_of_its_connection_overtakes_is_counted_as_unsent(make: Make) -> None:
    first, second = some(make, 2)
    first.handler.reply = b"reply"
    second.handler.on_data = lambda _: first.connection.fail(ConnectionResetError("gone"))
    send_to([first, second], b"abc")
    assert first.until_closed().unsent == 5
    run_passes(first.reactor)
    assert first.connection.pending == 0


def test_a_reply_of_a_connection_that_is_aborted_meanwhile_is_counted_as_unsent(make: Make) -> None:
    first, second = some(make, 2)
    first.handler.reply = b"reply"
    second.handler.on_data = lambda _: first.connection.abort()
    send_to([first, second], b"abc")
    assert first.until_closed().unsent == 5


def test_a_reply_of_a_connection_that_is_closed_meanwhile_is_sent(make: Make) -> None:
    first, second = some(make, 2)
    first.handler.reply = b"reply"
    second.handler.on_data = lambda _: first.connection.close()
    send_to([first, second], b"abc")
    assert first.until_fin() == b"reply"
    first.peer.close()
    reason = first.until_closed()
    assert (reason.cause, reason.unsent) == (CloseCause.CLOSED, 0)


def test_a_reply_to_who_is_gone_costs_that_connection(make: Make) -> None:
    first, second = some(make, 2)
    first.handler.reply = second.handler.reply = b"reply"
    second.handler.on_data = lambda _: reset(first.peer)
    send_to([first, second], b"abc")
    reason = first.until_closed()
    assert isinstance(reason.error, OSError)
    second.until_received(5)
    assert second.received == b"reply"


def test_reading_that_is_paused_because_of_a_reply_goes_on_when_that_is_sent(make: Make) -> None:
    # Memory turns short while the reply waits for its turn: it is looked at what waits, and it is much.
    first, second = some(make, 2)
    first.handler.reply = bytes(100)
    second.handler.on_data = lambda _: first.connection.squeeze(10)
    send_to([first, second], b"abc")
    first.until_received(100)
    run_passes(first.reactor)
    assert not first.connection.paused
    assert first.connection._environment.ledger.total == 0


@pytest.fixture
def interrupted(make: Make) -> list[End]:
    """Five that have read b"abc", of which only the first has handled it: then came Ctrl-C."""
    ends = some(make, 6)
    for end in ends:
        replying(end)

    interrupting = ends.pop(1)
    interrupting.handler.on_data = interrupt
    send_to([ends[0], interrupting, *ends[1:]], b"abc")
    with pytest.raises(KeyboardInterrupt):
        one_pass(ends[0])
    assert ends[0].connection.bytes_sent == 2, "what came before is answered"
    assert [end.connection.bytes_received for end in ends] == [3] * 5
    assert not any(end.handler.data for end in ends[1:])
    assert ends[0].reactor.timeout() == 0.0
    return ends


def test_what_ctrl_c_has_left_is_handled_by_the_next_pass(interrupted: list[End]) -> None:
    one_pass(interrupted[0])
    for end in interrupted:
        assert end.handler.data == b"abc"
        assert end.connection.bytes_sent == 2


def test_what_ctrl_c_has_left_comes_before_what_comes_then(interrupted: list[End]) -> None:
    _, lost, small, ended, large = interrupted
    reset(lost.peer)
    small.peer.sendall(b"defg")
    ended.peer.shutdown(socket.SHUT_WR)
    large.peer.sendall(bytes(LARGE + 1))
    order: list[bytes] = []
    for end in interrupted:
        end.handler.on_data = lambda data: order.append(data[:3])
    one_pass(small)
    run_passes(small.reactor)
    assert order[:4] == [b"abc"] * 4
    assert small.handler.data == b"abcdefg"
    assert large.handler.data == b"abc" + bytes(LARGE + 1)
    assert ended.handler.calls[:2] == lost.handler.calls[:2] == ["open", "data"]
    ended.until_closed()
    lost.until_closed()


def test_a_reply_to_what_ctrl_c_has_left_comes_before_what_is_sent_then(
    interrupted: list[End],
) -> None:
    end = interrupted[1]
    end.peer.sendall(b"defg")

    def send(data: bytes) -> None:
        end.handler.reply = b"reply " if data == b"abc" else None
        if data == b"defg":
            end.connection.send(b"sent")

    end.handler.on_data = send
    end.until_received(10)
    assert end.received == b"reply sent"


def test_ctrl_c_while_replies_are_sent_leaves_the_rest_to_the_next_pass(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = some(make, 3)
    for end in (first, second, third):
        replying(end)

    # The first one's reply is not taken whole, and what is done about that is interrupted.
    first.handler.on_data = lambda _: None
    first.handler.reply = bytes(MUCH)
    monkeypatch.setattr("reactor.connection.LARGE_REPLY", MUCH)
    monkeypatch.setattr(Connection, "_after_send", interrupt)
    send_to([first, second, third], b"abc")
    with pytest.raises(KeyboardInterrupt):
        one_pass(first)
    monkeypatch.undo()
    assert second.handler.data == third.handler.data == b"abc"
    assert second.connection.bytes_sent == 0
    assert first.reactor.timeout() == 0.0
    one_pass(first)
    assert second.connection.bytes_sent == third.connection.bytes_sent == 2


@pytest.mark.parametrize("how", ["send", "send_all", "flush", "end"])
def test_nothing_that_is_sent_meanwhile_overtakes_a_reply(make: Make, how: str) -> None:
    first, second = some(make, 2)
    first.handler.reply = b"reply "

    def send(_: bytes) -> None:
        connection = first.connection
        if how == "send":
            connection.send(b"later")
        elif how == "send_all":
            connection.send_all([b"la", b"ter"])
        elif how == "flush":
            first.write(b"later")
            connection.flush()
        else:
            connection.append_own(b"later")
            connection.end()

    second.handler.on_data = send
    send_to([first, second], b"abc")
    first.until_received(11)
    assert first.received == b"reply later"
    assert first.connection.pending == 0


def test_a_fin_does_not_overtake_a_reply(make: Make) -> None:
    first, second = some(make, 2)
    first.handler.reply = b"reply"

    def close(_: bytes) -> None:
        first.connection.close()
        first.connection.squeeze(10)  # looks whether all has been sent

    second.handler.on_data = close
    send_to([first, second], b"abc")
    assert first.until_fin() == b"reply"


def test_what_is_read_is_not_overwritten_by_what_a_closing_connection_reads(make: Make) -> None:
    # While it says goodbye, it throws away what still comes: into the buffer that all read into.
    closing, large = some(make, 2)

    def close(_: bytes) -> None:
        closing.peer.sendall(b"x" * 64)
        closing.write(b"bye")
        closing.connection.close()
        closing.connection.flush()

    closing.handler.on_data = close
    closing.peer.sendall(b"quit")
    large.peer.sendall(b"y" * (LARGE + 1))
    large.until(lambda: large.handler.data)
    assert large.handler.data == b"y" * (LARGE + 1)
    assert closing.until_fin() == b"bye"


@pytest.mark.parametrize("reply", [None, b"reply"])
def test_who_has_been_told_of_the_end_is_told_of_nothing_large_either(
    make: Make, reply: bytes | None
) -> None:
    first, second = some(make, 2)
    second.handler.reply = reply
    first.handler.on_data = lambda _: second.connection.fail(ConnectionResetError("gone"))
    first.peer.sendall(b"a")
    second.peer.sendall(bytes(LARGE + 1))
    one_pass(first)
    run_passes(first.reactor)
    assert second.handler.calls == ["open", "closed"]
    assert second.connection.pending == 0


def test_ctrl_c_in_anothers_handler_loses_nothing_large(make: Make) -> None:
    first, second = some(make, 2)
    first.handler.on_data = interrupt
    first.peer.sendall(b"a")
    second.peer.sendall(b"b" * (LARGE + 1))
    with pytest.raises(KeyboardInterrupt):
        one_pass(first)
    run_passes(first.reactor)
    assert second.handler.data == b"b" * (LARGE + 1)


def test_ctrl_c_in_anothers_handler_hides_no_reset(make: Make) -> None:
    first, second = some(make, 2)
    first.handler.on_data = interrupt
    first.peer.sendall(b"a")
    reset(second.peer)
    with pytest.raises(KeyboardInterrupt):
        one_pass(first)
    assert isinstance(second.until_closed().error, ConnectionResetError)


def test_ctrl_c_before_the_first_is_handled_loses_nothing(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    [end] = some(make, 1)
    handle, interrupts = Intake.handle, [KeyboardInterrupt()]

    def interrupted(intake: Intake) -> None:
        if interrupts:
            raise interrupts.pop()
        handle(intake)

    monkeypatch.setattr(Intake, "handle", interrupted)
    end.peer.sendall(b"a")
    with pytest.raises(KeyboardInterrupt):
        one_pass(end)
    run_passes(end.reactor)
    assert end.handler.data == b"a"


def test_ctrl_c_within_another_ones_send_loses_no_reply(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The end of the second has its handler send on the sixth, whose reply must go first: in there comes
    # Ctrl-C, at the fourth.
    ends = some(make, 8)
    for end in ends:
        end.handler.reply = b"re."
    transmit, interrupts = Connection._transmit, [KeyboardInterrupt()]

    def transmitting(connection: Connection, data: bytes) -> bool:
        if connection is ends[1].connection:
            connection._enqueue(data)
            connection.fail(ConnectionResetError("gone"))
            ends[5].connection.send(b"more")
            return False
        if connection is ends[3].connection and interrupts:
            raise interrupts.pop()
        return transmit(connection, data)

    monkeypatch.setattr(Connection, "_transmit", transmitting)
    send_to(ends, b"abc")
    with pytest.raises(KeyboardInterrupt):
        one_pass(ends[0])
    run_passes(ends[0].reactor)
    for end in (ends[0], ends[2], ends[4], ends[6], ends[7]):
        assert (end.connection.bytes_sent, end.connection.pending) == (3, 0)


def test_a_handler_that_fails_twice_costs_nobody_else(make: Make) -> None:
    first, second = some(make, 2)

    def fail(_: object) -> None:
        raise LookupError("on purpose")

    first.handler.on_data = first.handler.on_closed = fail
    first.peer.sendall(b"a")
    second.peer.sendall(b"b" * (LARGE + 1))
    first.until_closed()
    run_passes(first.reactor)
    assert second.is_in(ConnectionState.OPEN)
    assert second.handler.data == b"b" * (LARGE + 1)


def test_it_is_one_for_a_loop_and_says_what_it_holds(reactor: Reactor) -> None:
    intake = reactor.shared(Intake)
    assert reactor.shared(Intake) is intake
    assert repr(intake) == "<Intake 0 reads, 0 replies>"


# -- the peer's FIN ------------------------------------------------------------------------------


def test_a_fin_does_not_have_others_handled_before_their_time(make: Make) -> None:
    """It has its turn among what has been read: those behind it are read before it is dealt with."""
    ends = some(make, 5)
    seen: list[list[int]] = []
    for end in ends:
        end.handler.on_data = lambda _: seen.append([e.connection.bytes_received for e in ends])
    send_to(ends[:2], b"abc")  # they are ready in this order
    ends[2].peer.shutdown(socket.SHUT_WR)
    send_to(ends[3:], b"abc")
    one_pass(ends[0])
    assert seen == [[3, 3, 0, 3, 3]] * 4
    assert ends[2].connection.state is ConnectionState.CLOSED
    assert ends[2].handler.reasons[0].cause is CloseCause.PEER_CLOSED


def test_a_fin_counts_before_time_outs_fire(make: Make) -> None:
    [end] = some(make, 1)
    states: list[ConnectionState] = []
    end.peer.shutdown(socket.SHUT_WR)
    end.reactor.call_at(end.reactor.time() - 1.0, lambda: states.append(end.connection.state))
    one_pass(end)
    assert states == [ConnectionState.CLOSED]


def test_a_fin_of_one_that_another_has_closed_meanwhile(make: Make) -> None:
    first, second = some(make, 2)
    first.handler.on_data = lambda _: second.connection.abort()
    first.peer.sendall(b"abc")
    second.peer.shutdown(socket.SHUT_WR)
    run_passes(first.reactor)
    assert [reason.cause for reason in second.handler.reasons] == [CloseCause.ABORTED]


def test_a_fin_behind_what_ctrl_c_has_left(make: Make) -> None:
    """It is read twice, and counts once."""
    first, second = some(make, 2)
    first.handler.on_data = interrupt
    first.peer.sendall(b"abc")
    second.peer.shutdown(socket.SHUT_WR)
    with pytest.raises(KeyboardInterrupt):
        one_pass(first)
    assert second.handler.reasons == []
    run_passes(first.reactor)
    assert [reason.cause for reason in second.handler.reasons] == [CloseCause.PEER_CLOSED]
    assert second.connection.state is ConnectionState.CLOSED


def test_a_large_reply_does_not_wait_for_others(make: Make) -> None:
    """They would all be held at once."""
    ends = some(make, 3)
    seen: list[list[int]] = []
    for end in ends:
        end.handler.reply = bytes(LARGE_REPLY + 1)
        end.handler.on_data = lambda _: seen.append([e.connection.bytes_sent for e in ends])
    send_to(ends, b"abc")
    one_pass(ends[0])
    sent = LARGE_REPLY + 1
    assert seen == [[0, 0, 0], [sent, 0, 0], [sent, sent, 0]]
