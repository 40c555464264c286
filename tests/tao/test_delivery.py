"""tao.delivery: one message for one or for many receivers, some of whom do not read."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tao import (
    BroadcastReport,
    CloseCause,
    CloseReason,
    ConnectionClosedError,
    ConnectionOptions,
    ConnectionState,
    Context,
    FrameTooLargeError,
    LineCodec,
    MessageRegistry,
    NotRegisteredError,
    Server,
    ServerConn,
    TypeLengthValueCodec,
    Watermark,
    WouldBlockError,
    WriteCloser,
)
from tests.support import (
    DEADLINE,
    LOCAL,
    Calls,
    Peer,
    Sample,
    as_bytes,
    frame,
    wait_until,
)
from tests.tao.crowd import crowd, fill, number_of, numbered, numbers_of

LIMIT = 50_000
"""Bytes that may wait for one receiver, in the tests with slow ones."""

SMALL = ConnectionOptions(output=Watermark(1000, 2000), output_limit=LIMIT)

POLICIES: list[Any] = ["refuse", "drop_oldest", "close"]


def counts(report: BroadcastReport) -> tuple[int, int, int]:
    """Sent, refused, closed."""
    return report.sent, report.refused, report.closed


class Counting:
    """A message that counts how often it is encoded."""

    message_number = 7

    def __init__(self, value: bytes) -> None:
        self._value = value
        self.serialized = 0

    def serialize(self) -> bytes:
        """The value."""
        self.serialized += 1
        return self._value


# -- one encoding, a report that adds up ---------------------------------------------------------


@pytest.mark.parametrize("where", ["another thread", "the loop"])
@pytest.mark.parametrize("when_full", POLICIES)
def test_it_is_encoded_once(when_full: Any, where: str) -> None:
    with crowd() as these:
        peers = these.join_many(10)
        message = Counting(b"to all")

        def broadcast() -> BroadcastReport:
            return these.server.broadcast(message, when_full=when_full)

        report = these.on_loop(broadcast) if where == "the loop" else broadcast()
        assert counts(report) == (10, 0, 0)
        assert message.serialized == 1
        for peer in peers:
            assert peer.receive_frame() == (7, b"to all")


@pytest.mark.parametrize("when_full", POLICIES)
def test_the_report_adds_up(when_full: Any) -> None:
    begun, release = threading.Event(), threading.Event()
    registry = MessageRegistry()

    def hold(_context: Context[bytes], _conn: WriteCloser) -> None:
        begun.set()
        assert release.wait(DEADLINE)

    registry.register(1, as_bytes, hold)
    with crowd(registry=registry, options=SMALL) as these:
        peers = these.join_many(3)
        _, full = these.join(slow=True)
        leaving_peer, leaving = these.join()
        leaving_peer.send_frame(1)  # its handler keeps it in DRAINING
        assert begun.wait(DEADLINE)
        fill(these, full)
        leaving.close()

        report = these.server.broadcast(numbered(1, 1000), when_full=when_full)
        assert sum(counts(report)) == 5
        assert report.closed == (2 if when_full == "close" else 1)
        if when_full == "refuse":
            assert counts(report) == (3, 1, 1)
        for peer in peers:
            assert number_of(peer.receive_frame()) == (0, 1)
        release.set()
        assert leaving_peer.receive_to_end() == b""


@pytest.mark.parametrize("policy", ["", "drop", "REFUSE", None, 1])
def test_an_unknown_policy(policy: Any) -> None:
    with crowd() as these:
        [peer] = these.join_many(1)
        with pytest.raises(ValueError, match="drop_oldest"):
            these.server.broadcast(numbered(1), when_full=policy)
        these.server.broadcast(numbered(2))
        assert number_of(peer.receive_frame()) == (0, 2)


def test_before_listen_and_after_stop_there_is_nobody() -> None:
    server = Server(registry=MessageRegistry())
    assert counts(server.broadcast(numbered(1))) == (0, 0, 0)
    with server.running(LOCAL) as address, Peer(address) as peer:
        assert wait_until(lambda: server.connection_count == 1)
        peer.close()
    assert counts(server.broadcast(numbered(1))) == (0, 0, 0)


# -- a receiver that does not read ---------------------------------------------------------------


@pytest.mark.parametrize("where", ["another thread", "the loop"])
@pytest.mark.parametrize("when_full", POLICIES)
def test_who_does_not_read_costs_nobody_else(when_full: Any, where: str) -> None:
    """The others read as it comes, and nothing of theirs waits; the slow one is held to its limit."""
    with crowd(options=SMALL) as these:
        fast = these.join_many(5)
        _, slow = these.join(slow=True)
        fill(these, slow)
        for number in range(100):
            message = numbered(number, 1000)

            def broadcast(message: Sample = message) -> BroadcastReport:
                return these.server.broadcast(message, when_full=when_full)

            report = these.on_loop(broadcast) if where == "the loop" else broadcast()
            assert report.sent >= 5
            assert slow.pending <= LIMIT
            for peer in fast:
                assert number_of(peer.receive_frame()) == (0, number)
        others = [conn for conn in these.server.connections() if conn is not slow]
        assert len(others) == 5
        assert wait_until(lambda: not any(conn.pending for conn in others))


def test_refused_means_that_it_never_arrives() -> None:
    with crowd(options=SMALL) as these:
        peer, slow = these.join(slow=True)
        filled = fill(these, slow)
        assert counts(these.server.broadcast(numbered(1, 1000))) == (0, 1, 0)
        for _ in range(filled):
            assert peer.receive_frame() == (99, b"x" * 1000)
        assert wait_until(lambda: slow.pending == 0)
        assert counts(these.server.broadcast(numbered(2, 1000))) == (1, 0, 0)
        assert number_of(peer.receive_frame()) == (0, 2)


# -- drop_oldest ---------------------------------------------------------------------------------


def check_newest(numbers: list[int], last: int) -> None:
    """What the kernel had taken, from the first on; a gap; and the newest, up to the last of all."""
    assert numbers[-1] == last
    assert numbers == sorted(set(numbers))
    gaps = [index for index in range(1, len(numbers)) if numbers[index] != numbers[index - 1] + 1]
    assert len(gaps) <= 1, "something was dropped from between two that were kept"


def test_drop_oldest_keeps_whole_frames_the_newest_in_order() -> None:
    count = 500
    closed: Calls[CloseReason] = Calls()
    with crowd(options=SMALL, on_close=lambda conn, reason: closed.add(reason)) as these:
        peer, slow = these.join(slow=True)

        def broadcast_all() -> list[BroadcastReport]:
            return [
                these.server.broadcast(numbered(number, 1000), when_full="drop_oldest")
                for number in range(count)
            ]

        reports = these.on_loop(broadcast_all)
        assert {counts(report) for report in reports} == {(1, 0, 0)}
        assert slow.pending <= LIMIT
        slow.close()
        numbers = numbers_of(peer.receive_to_end())
        assert len(numbers) < count  # or nothing was dropped, and the test shows nothing
        assert numbers[0] == 0
        check_newest(numbers, count - 1)
        # All the room there was has been used, but for what is no whole frame at either end.
        room = LIMIT // len(frame(7, b"x" * 1000)) - 2
        assert numbers[-room:] == list(range(count - room, count))
        peer.close()
        [reason] = closed.wait()
        assert (reason.dropped, reason.unsent) == (count - len(numbers), 0)


def test_drop_oldest_in_a_burst_from_another_thread() -> None:
    """Faster than the loop sends: what is on its way to the system cannot be dropped any more, but what
    comes after it can."""
    count = 500
    with crowd(options=SMALL) as these:
        peer, slow = these.join(slow=True)
        reports = [
            these.server.broadcast(numbered(number, 1000), when_full="drop_oldest")
            for number in range(count)
        ]
        assert sum(report.sent for report in reports) == count
        slow.close()
        numbers = numbers_of(peer.receive_to_end())
        assert numbers[-1] == count - 1
        assert numbers == sorted(set(numbers))


def test_drop_oldest_for_a_receiver_that_reads_slowly() -> None:
    """It has read a little, and the loop has offered the system all that waited. Of these frames those of
    which no byte has been sent can still make room: the newest is never refused."""
    with crowd(options=SMALL) as these:
        peer, slow = these.join(slow=True)
        filled = fill(these, slow)
        before = slow.pending
        received = 0
        while slow.pending >= before:  # until the server has sent more
            assert peer.receive_frame() == (99, b"x" * 1000)
            received += 1
        assert received < filled

        def broadcast_all() -> list[BroadcastReport]:
            return [
                these.server.broadcast(numbered(number, 20_000), when_full="drop_oldest")
                for number in range(20)
            ]

        reports = these.on_loop(broadcast_all)
        assert sum(report.sent for report in reports) == 20
        assert slow.pending <= LIMIT
        slow.close()
        check_newest(numbers_of(peer.receive_to_end()), 19)


def test_drop_oldest_is_no_use_for_what_is_over_the_limit_by_itself() -> None:
    with crowd(options=SMALL) as these:
        peer, _ = these.join()
        report = these.server.broadcast(numbered(1, LIMIT), when_full="drop_oldest")
        assert counts(report) == (0, 1, 0)
        these.server.broadcast(numbered(2), when_full="drop_oldest")
        assert number_of(peer.receive_frame()) == (0, 2)


# -- close ---------------------------------------------------------------------------------------


def test_close_aborts_who_is_full_and_says_why() -> None:
    closed: Calls[tuple[ServerConn, CloseReason]] = Calls()
    with crowd(options=SMALL, on_close=lambda conn, reason: closed.add((conn, reason))) as these:
        fast = these.join_many(2)
        peer, slow = these.join(slow=True)
        fill(these, slow)
        report = these.server.broadcast(numbered(1, 1000), when_full="close")
        assert counts(report) == (2, 0, 1)
        [(conn, reason)] = closed.wait()
        assert conn is slow
        assert reason.cause is CloseCause.ABORTED
        assert isinstance(reason.error, WouldBlockError)
        assert reason.unsent > 0
        assert slow.state is ConnectionState.CLOSED
        with pytest.raises(ConnectionResetError):
            peer.receive_to_end()
        for other in fast:
            assert number_of(other.receive_frame()) == (0, 1)
        assert wait_until(lambda: these.server.connection_count == 2)
        assert counts(these.server.broadcast(numbered(2), when_full="close")) == (2, 0, 0)


# -- from wherever -------------------------------------------------------------------------------


@pytest.mark.parametrize("inline", [False, True], ids=["pooled", "inline"])
@pytest.mark.parametrize("when_full", POLICIES)
def test_from_a_handler(when_full: Any, inline: bool) -> None:
    reports: Calls[BroadcastReport] = Calls()
    registry = MessageRegistry()
    with crowd(registry=registry, options=SMALL) as these:

        def handle(_context: Context[bytes], _conn: WriteCloser) -> None:
            reports.add(these.server.broadcast(numbered(1, 1000), when_full=when_full))

        registry.register(5, as_bytes, handle, inline=inline)
        peers = these.join_many(3)
        _, slow = these.join(slow=True)
        fill(these, slow)
        peers[0].send_frame(5)
        for peer in peers:
            assert number_of(peer.receive_frame()) == (0, 1)
        [report] = reports.wait()
        assert sum(counts(report)) == 4
        assert report.sent >= 3
        if when_full == "refuse":
            assert report.refused == 1
        elif when_full == "close":
            assert report.closed == 1


def test_from_on_connect() -> None:
    """Who comes is announced to all, itself too."""
    arrived: Calls[int] = Calls()

    def announce(conn: ServerConn) -> None:
        arrived.add(server.broadcast(numbered(conn.net_id)).sent)

    server = Server(registry=MessageRegistry(), on_connect=announce)
    with server.running(LOCAL) as address, Peer(address) as first:
        assert number_of(first.receive_frame()) == (0, 1)
        with Peer(address) as second:
            assert number_of(second.receive_frame()) == (0, 2)
            assert number_of(first.receive_frame()) == (0, 2)
            assert arrived.wait(2) == [1, 2]


def test_from_a_timer() -> None:
    with crowd() as these:
        first, conn = these.join()
        [second] = these.join_many(1)
        conn.run_after(0.0, lambda now, conn: these.server.broadcast(numbered(1)))
        for peer in (first, second):
            assert number_of(peer.receive_frame()) == (0, 1)


@pytest.mark.parametrize("inline", [False, True], ids=["pooled", "inline"])
def test_drop_oldest_holds_for_the_handlers_own_connection(inline: bool) -> None:
    """It is one receiver like the others: what it has written itself is not counted out."""
    reports: Calls[list[BroadcastReport]] = Calls()
    registry = MessageRegistry()
    with crowd(registry=registry, options=SMALL) as these:

        def handle(_context: Context[bytes], _conn: WriteCloser) -> None:
            reports.add(
                [
                    these.server.broadcast(numbered(number, 1000), when_full="drop_oldest")
                    for number in range(100)
                ]
            )

        registry.register(5, as_bytes, handle, inline=inline)
        [peer] = these.join_many(1)
        peer.send_frame(5)
        [made] = reports.wait()
        assert sum(report.sent for report in made) == 100
        assert wait_until(lambda: not any(conn.pending for conn in these.server.connections()))
        these.server.connections()[0].close()
        assert numbers_of(peer.receive_to_end())[-1] == 99


# -- codecs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["another thread", "the loop"])
def test_a_connection_with_another_codec_gets_it_in_its_own(where: str) -> None:
    with crowd() as these:
        peers = these.join_many(3)
        line_peer, line_conn = these.join()
        line_conn.set_codec(LineCodec())
        message = Counting(b"to all")

        def broadcast() -> BroadcastReport:
            return these.server.broadcast(message)

        report = these.on_loop(broadcast) if where == "the loop" else broadcast()
        assert counts(report) == (4, 0, 0)
        assert line_peer.receive(7) == b"to all\n"
        for peer in peers:
            assert peer.receive_frame() == (7, b"to all")
        assert message.serialized == 2


def test_a_codec_that_cannot_encode_it_does_not_stop_the_others() -> None:
    """One connection of three has a codec for which the message is impossible, or too large."""
    with crowd() as these:
        [first] = these.join_many(1)
        _, odd = these.join()
        [last] = these.join_many(1)
        odd.set_codec(TypeLengthValueCodec(max_length=4))
        report = these.server.broadcast(Sample(7, b"too long for one"))
        assert counts(report) == (2, 1, 0)
        these.server.broadcast(Sample(8, b"ok"))
        assert first.receive_frame() == (7, b"too long for one")
        assert last.receive_frame() == (7, b"too long for one")


def test_what_cannot_be_encoded_reaches_nobody() -> None:
    with crowd(codec=TypeLengthValueCodec(max_length=10)) as these:
        [peer] = these.join_many(1)
        with pytest.raises(FrameTooLargeError):
            these.server.broadcast(Sample(7, b"more than ten bytes"))
        these.server.broadcast(Sample(7, b"less"))
        assert peer.receive_frame() == (7, b"less")


# -- connections that come and go ----------------------------------------------------------------


def test_connections_closing_meanwhile() -> None:
    count = 300
    with crowd() as these:
        [steady] = these.join_many(1)
        over = threading.Event()

        def come_and_go(reset: bool) -> None:
            while not over.is_set():
                with Peer(these.address) as peer:
                    if reset:
                        peer.reset()
                    else:
                        peer.finish_sending()

        with ThreadPoolExecutor(2) as executor:
            comers = [executor.submit(come_and_go, reset) for reset in (False, True)]
            try:
                for number in range(count):
                    report = these.server.broadcast(numbered(number))
                    assert report.sent >= 1
                    assert report.refused == 0
            finally:
                over.set()
            for comer in comers:
                comer.result(DEADLINE)
        received = [number_of(one)[1] for one in steady.receive_frames(count)]
        assert received == list(range(count))


# -- order ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["another thread", "the loop"])
def test_two_from_one_thread_stay_in_order(where: str) -> None:
    """Large ones, so that the second begins while the first is half sent."""
    with crowd() as these:
        peers = [these.join(slow=True)[0] for _ in range(4)]

        def broadcast() -> None:
            for number in range(20):
                these.server.broadcast(numbered(number, 20_000 if number % 2 else 100))

        if where == "the loop":
            these.on_loop(broadcast)
        else:
            broadcast()
        for peer in peers:
            received = [number_of(one)[1] for one in peer.receive_frames(20)]
            assert received == list(range(20))


def test_what_one_thread_sends_first_by_unicast_and_then_to_all() -> None:
    with crowd() as these:
        peer, conn = these.join()
        for number in range(0, 100, 3):
            these.server.unicast(conn.net_id, numbered(number))
            these.server.broadcast(numbered(number + 1))
            conn.write(numbered(number + 2))
        received = [number_of(one)[1] for one in peer.receive_frames(102)]
        assert received == list(range(102))


def test_one_handler_after_another() -> None:
    """The second handler broadcasts because the first one has: everybody sees them in that order, the
    connections of the two handlers too."""
    waiting, first_done, second_done = threading.Event(), threading.Event(), threading.Event()
    registry = MessageRegistry()
    with crowd(registry=registry) as these:

        def first(_context: Context[bytes], _conn: WriteCloser) -> None:
            these.server.broadcast(numbered(1))
            first_done.set()
            assert second_done.wait(DEADLINE)

        def second(_context: Context[bytes], _conn: WriteCloser) -> None:
            waiting.set()
            assert first_done.wait(DEADLINE)
            these.server.broadcast(numbered(2))
            second_done.set()

        registry.register(1, as_bytes, first)
        registry.register(2, as_bytes, second)
        peers = these.join_many(3)
        for _ in range(5):
            for event in (waiting, first_done, second_done):
                event.clear()
            peers[1].send_frame(2)
            assert waiting.wait(DEADLINE)
            peers[0].send_frame(1)
            received = [[number_of(one)[1] for one in peer.receive_frames(2)] for peer in peers]
            assert received == [[1, 2]] * 3


def test_many_threads_and_the_loop_lose_and_tear_nothing() -> None:
    """Twenty receivers, four threads and the loop's own, sizes that the system takes in pieces."""
    receivers, threads, count = 20, 4, 60
    with crowd() as these:
        peers = these.join_many(receivers)
        together = threading.Barrier(threads)

        def send(thread: int, number: int) -> None:
            size = 16 + (number * 97 + thread * 31) % 2000
            report = these.server.broadcast(numbered(number, size, thread))
            assert counts(report) == (receivers, 0, 0)

        def send_all(thread: int) -> None:
            together.wait(DEADLINE)
            for number in range(count):
                send(thread, number)

        def send_on_loop() -> None:
            for number in range(count):
                these.on_loop(lambda number=number: send(threads, number))  # type: ignore[misc]

        with ThreadPoolExecutor(threads + 1) as executor:
            senders = [executor.submit(send_all, thread) for thread in range(threads)]
            senders.append(executor.submit(send_on_loop))
            received: list[list[tuple[int, int]]] = [
                [number_of(one) for one in peer.receive_frames(count * (threads + 1))]
                for peer in peers
            ]
            for sender in senders:
                sender.result(DEADLINE)
        for stream in received:
            for thread in range(threads + 1):
                assert [number for who, number in stream if who == thread] == list(range(count))


def test_handlers_and_another_thread_at_once() -> None:
    """Every handler broadcasts; each receiver sees each sender's in order, and all of them."""
    peers_count, count = 6, 40
    registry = MessageRegistry()
    with crowd(registry=registry) as these:

        def handle(context: Context[bytes], _conn: WriteCloser) -> None:
            thread, number = number_of((7, context.message))
            these.server.broadcast(numbered(number, 200, thread))

        registry.register(7, as_bytes, handle)
        peers = these.join_many(peers_count)
        for thread, peer in enumerate(peers):
            peer.send(
                b"".join(
                    frame(7, numbered(number, 16, thread).serialize()) for number in range(count)
                )
            )
        for number in range(count):
            these.server.broadcast(numbered(number, 300, peers_count))
        for peer in peers:
            stream = [number_of(one) for one in peer.receive_frames(count * (peers_count + 1))]
            for thread in range(peers_count + 1):
                assert [number for who, number in stream if who == thread] == list(range(count))


# -- unicast -------------------------------------------------------------------------------------


def test_unicast_reaches_one_from_any_thread() -> None:
    with crowd() as these:
        first, first_conn = these.join()
        second, second_conn = these.join()
        assert these.server.unicast(first_conn.net_id, numbered(1)) is True
        assert these.on_loop(lambda: these.server.unicast(second_conn.net_id, numbered(2))) is True
        assert number_of(first.receive_frame()) == (0, 1)
        assert number_of(second.receive_frame()) == (0, 2)


def test_unicast_tells_the_watermark_the_limit_and_the_end() -> None:
    with crowd(options=SMALL) as these:
        _, slow = these.join(slow=True)
        fill(these, slow)
        with pytest.raises(WouldBlockError):
            these.server.unicast(slow.net_id, numbered(1, 1000))
        assert these.server.unicast(slow.net_id, Sample(7)) is False  # there is room for that
        slow.abort()
        assert wait_until(lambda: these.server.connection_count == 0)
        with pytest.raises(NotRegisteredError):
            these.server.unicast(slow.net_id, numbered(1))
        with pytest.raises(ConnectionClosedError):
            slow.write(numbered(1))


def test_a_policy_for_each_broadcast_alone() -> None:
    """What one broadcast did to a slow receiver is nothing that the next remembers."""
    with crowd(options=SMALL) as these:
        _, slow = these.join(slow=True)
        fill(these, slow)
        made: queue.SimpleQueue[tuple[int, int, int]] = queue.SimpleQueue()
        steps: list[Callable[[], BroadcastReport]] = [
            lambda: these.server.broadcast(numbered(1, 1000)),
            lambda: these.server.broadcast(numbered(2, 1000), when_full="drop_oldest"),
            lambda: these.server.broadcast(numbered(3, 1000)),
            lambda: these.server.broadcast(numbered(4, 1000), when_full="close"),
        ]
        for step in steps:
            made.put(counts(these.on_loop(step)))
        assert [made.get() for _ in steps] == [(0, 1, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]


# -- on the wire ---------------------------------------------------------------------------------


def echo_registry() -> MessageRegistry:
    """Message 1 echoes."""
    registry = MessageRegistry()
    registry.register(1, as_bytes, lambda context, conn: Sample(1, context.message))
    return registry


def test_unicast_is_for_one() -> None:
    opened: Calls[ServerConn] = Calls()
    server = Server(registry=echo_registry(), on_connect=opened.add)
    with server.running(LOCAL) as address, Peer(address) as first, Peer(address) as second:
        by_port = {conn.remote_address[1]: conn for conn in opened.wait(2)}
        for peer, value in ((first, b"one"), (second, b"two")):
            net_id = by_port[peer.sock.getsockname()[1]].net_id
            assert server.unicast(net_id, Sample(7, value)) is True
        assert first.receive_frame() == (7, b"one")
        assert second.receive_frame() == (7, b"two")


def test_broadcast_is_for_all() -> None:
    opened: Calls[ServerConn] = Calls()
    server = Server(registry=echo_registry(), on_connect=opened.add)
    with server.running(LOCAL) as address:
        assert server.broadcast(Sample(7)).sent == 0
        peers = [Peer(address) for _ in range(10)]
        try:
            opened.wait(10)
            report = server.broadcast(Sample(7, b"hello"))
            assert (report.sent, report.refused, report.closed) == (10, 0, 0)
            for peer in peers:
                assert peer.receive_frame() == (7, b"hello")
        finally:
            for peer in peers:
                peer.close()


@pytest.mark.parametrize("inline", [False, True])
def test_a_handler_may_broadcast(inline: bool) -> None:
    """Its own connection gets it in line: behind what the handler wrote, before what it returns."""
    registry = echo_registry()

    def handle(context: Context[bytes], conn: WriteCloser) -> Sample:
        conn.write(Sample(6, b"first"))
        context.server.broadcast(Sample(7, b"to all"))
        return Sample(8, b"last")

    registry.register(5, as_bytes, handle, inline=inline)
    opened: Calls[ServerConn] = Calls()
    server = Server(registry=registry, on_connect=opened.add)
    with server.running(LOCAL) as address, Peer(address) as peer, Peer(address) as other:
        opened.wait(2)
        peer.send(frame(5) + frame(1, b"x"))
        assert other.receive_frame() == (7, b"to all")
        assert peer.receive_frames(4) == [
            (6, b"first"),
            (7, b"to all"),
            (8, b"last"),
            (1, b"x"),
        ]


def test_a_full_connection_does_not_stop_a_broadcast() -> None:
    opened: Calls[ServerConn] = Calls()
    server = Server(
        registry=echo_registry(),
        on_connect=opened.add,
        options=ConnectionOptions(output=Watermark(1000, 2000), output_limit=100_000),
    )
    with (
        server.running(LOCAL) as address,
        Peer(address, receive_buffer=4096) as full,
        Peer(address) as closing,
        Peer(address) as first,
        Peer(address) as second,
    ):
        by_port = {conn.remote_address[1]: conn for conn in opened.wait(4)}

        def conn_of(peer: Peer) -> ServerConn:
            return by_port[peer.sock.getsockname()[1]]

        def fill() -> None:
            for _ in range(100_000):  # no kernel takes a gigabyte
                server.unicast(conn_of(full).net_id, Sample(1, b"x" * 10_000))

        with pytest.raises(WouldBlockError):
            fill()
        conn_of(closing).close()
        report = server.broadcast(Sample(7, b"y" * 10_000))
        assert (report.sent, report.refused, report.closed) == (2, 1, 1)
        assert first.receive_frame() == (7, b"y" * 10_000)
        assert second.receive_frame() == (7, b"y" * 10_000)


def test_a_broadcast_that_cannot_be_encoded() -> None:
    opened: Calls[ServerConn] = Calls()
    server = Server(registry=echo_registry(), on_connect=opened.add)
    with server.running(LOCAL) as address, Peer(address) as peer:
        opened.wait()
        with pytest.raises(ValueError, match="int32"):
            server.broadcast(Sample(1 << 31))
        peer.send_frame(1, b"x")
        assert peer.receive_frame() == (1, b"x")
