"""One connection, on real sockets: bytes, states, and every way in which it can end."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import random
import socket
import threading
import time
from collections.abc import Callable
from functools import partial

import pytest

from reactor import (
    CloseCause,
    CloseReason,
    Connection,
    ConnectionState,
    Environment,
    ForkError,
    Lock,
    Pause,
    Reactor,
    Watermark,
    WriteResult,
)
from reactor.allocator import largest_read
from reactor.connection import FIRST_READ, LARGE_FRAME, READS_TO_SHRINK
from reactor.environment import TAKE_SIZE
from tests.forking import in_child, needs_fork
from tests.interrupting import interrupt, then
from tests.reactor.connections import MUCH, REACHABLE, SMALL_MARKS, Make, Recorder
from tests.reactor.support import (
    DEADLINE,
    LoopThread,
    ManualClock,
    on_thread,
    receive_all,
    reset,
    run_passes,
    tcp_pair,
)

S = ConnectionState


# -- open ----------------------------------------------------------------------------------------


def test_it_opens_and_receives(make: Make) -> None:
    end = make(started=False)
    assert end.is_in(S.CONNECTING)
    end.start()
    assert end.is_in(S.OPEN)
    assert end.handler.calls == ["open"]
    end.peer.sendall(b"hello")
    end.until(lambda: end.handler.data == b"hello")
    assert end.connection.undisturbed
    assert end.connection.last_received == end.reactor.pass_time


def test_data_that_was_there_before_is_received_after_open(make: Make) -> None:
    end = make(started=False)
    end.peer.sendall(b"early")
    end.start()
    assert end.handler.calls == ["open"]
    end.until(lambda: end.handler.data == b"early")


def test_addresses(make: Make) -> None:
    end = make(started=False)
    assert end.connection.address("remote") is None
    end.start()
    assert end.connection.address("remote") == end.peer.getsockname()
    assert end.connection.address("local") == end.peer.getpeername()
    end.connection.abort()
    end.until_closed()
    assert end.connection.address("remote") is None


def test_one_read_a_pass_so_that_others_have_their_turn(make: Make) -> None:
    end = make()
    sizes: list[int] = []
    end.handler.on_data = lambda data: sizes.append(len(data))
    end.peer.setblocking(False)
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while sent < MUCH:
            sent += end.peer.send(bytes(65_536))
    assert sent > 0

    def read() -> bool:
        before = len(sizes)
        end.reactor.run_once(0.01)
        assert len(sizes) <= before + 1
        return sum(sizes) == sent

    end.until(read, "the last byte")
    assert max(sizes) <= largest_read()
    assert end.connection.bytes_received == sent


# -- writing -------------------------------------------------------------------------------------


def test_what_is_written_is_sent_in_order(make: Make) -> None:
    end = make()
    for number in range(100):
        end.write(b"%d," % number)
    expected = b"".join(b"%d," % number for number in range(100))
    assert end.connection.pending == len(expected)
    end.until_received(len(expected))
    assert end.received == expected
    assert end.connection.pending == 0


def test_after_one_that_is_larger_than_a_send_the_next_is_sent_too(make: Make) -> None:
    """The mark that a flush is on its way must not outlive the flush that took all there was."""
    end = make()
    large = bytes(TAKE_SIZE + 1)
    end.write(large)
    end.until_received(len(large))
    end.write(b"next")
    end.until_received(len(large) + 4)
    assert end.received.endswith(b"next")


def test_it_sends_at_once_only_what_overtakes_nothing(make: Make) -> None:
    end = make(buffer_size=4_096)
    sent = [end.connection.send_at_once(b"a")]
    size = end.fill()
    sent.append(end.connection.send_at_once(b"b"))
    end.until_received(size + 1)
    sent.append(end.connection.send_at_once(b"c"))
    end.until_received(size + 2)
    end.write(b"d")  # not flushed yet
    sent.append(end.connection.send_at_once(b"e"))
    end.until_received(size + 3)
    end.connection.append_own(b"f")  # by a handler in hand
    sent.append(end.connection.send_at_once(b"g"))
    end.connection.end()
    end.until_received(size + 4)
    end.connection.close()
    sent.append(end.connection.send_at_once(b"h"))
    assert sent == [True, False, True, False, False, False]
    assert end.received[:1] + end.received[-3:] == b"acdf"


def test_nothing_is_waited_for_when_all_is_sent(make: Make) -> None:
    end = make()
    end.write(b"x")
    end.until_received(1)
    events = end.reactor.statistics().events
    run_passes(end.reactor)
    assert end.reactor.statistics().events == events


def test_writes_from_other_threads_keep_each_threads_order(reactor: Reactor) -> None:
    handler = Recorder()
    connection = Connection(Environment(reactor), handler)
    handler.connection = connection
    ours, peer = tcp_pair()
    size, count, threads = 8, 300, 4

    def write(thread: int) -> None:
        for number in range(count):
            result = connection.write(b"%d:%06d" % (thread, number))
            assert result is not WriteResult.CLOSED

    with LoopThread(reactor) as loop:
        loop.call(lambda: connection.start(ours))
        others = [threading.Thread(target=write, args=(number,)) for number in range(threads)]
        for other in others:
            other.start()
        received = b""
        while len(received) < size * count * threads:
            chunk = peer.recv(65_536)
            assert chunk
            received += chunk
        for other in others:
            other.join(DEADLINE)
        connection.close()
        peer.close()
        _until_closed(handler)
    handler.check()
    records = [received[at : at + size] for at in range(0, len(received), size)]
    for thread in range(threads):
        of_thread = [record for record in records if record.startswith(b"%d:" % thread)]
        assert of_thread == [b"%d:%06d" % (thread, number) for number in range(count)]


def _until_closed(handler: Recorder) -> None:
    """The loop runs on another thread."""
    end = time.monotonic() + DEADLINE
    pause = threading.Event()
    while not handler.reasons:
        assert time.monotonic() < end, "it has not closed"
        pause.wait(0.001)


def test_a_slow_reader_with_a_tiny_buffer_gets_everything(make: Make) -> None:
    end = make(buffer_size=4_096)
    pieces = [random.Random(number).randbytes(size) for number, size in enumerate(_SIZES)]
    for piece in pieces:
        end.write(piece)
    expected = b"".join(pieces)

    def read_a_little() -> bool:
        end.peer_reads(30_000)
        return len(end.received) >= len(expected)

    end.until(read_a_little, "the last byte")
    assert end.received == expected
    assert end.connection.pending == 0


_SIZES = [1, 10, 100_000, 3, 70_000, 1, 1, 500_000, 65_535, 65_536, 65_537, 2]


def test_writes_while_the_kernel_is_full_come_behind(make: Make) -> None:
    end = make(buffer_size=4_096)
    size = end.fill()
    end.write(b"behind")
    end.connection.send_all([b" and", b" after"])
    end.until_received(size + 16)
    assert end.received[size:] == b"behind and after"


def test_send_comes_behind_what_was_written_before(make: Make) -> None:
    end = make()
    end.write(b"first ")
    end.connection.send_all([b"second ", b"third "])
    end.write(b"fourth")
    end.until_received(25)
    assert end.received == b"first second third fourth"


def test_send_sends_at_once(make: Make) -> None:
    end = make()
    end.connection.send_all([b"now"])
    assert end.peer.recv(10) == b"now"  # no pass was made
    assert end.connection.pending == 0


# -- watermarks ----------------------------------------------------------------------------------


def test_above_the_high_watermark_write_says_so(make: Make) -> None:
    end = make(options=SMALL_MARKS)
    assert end.connection.write(bytes(10_000)) is WriteResult.ACCEPTED
    assert end.connection.write(b"x") is WriteResult.ABOVE_HIGH
    assert end.connection.pending == 10_001
    end.until_received(10_001)
    assert end.connection.write(b"x") is WriteResult.ACCEPTED


def test_a_peer_that_does_not_read_is_not_read_either(make: Make) -> None:
    end = make(buffer_size=4_096, options=SMALL_MARKS)
    size = end.fill()
    assert end.connection.paused & Pause.OUTPUT
    assert not end.connection.undisturbed
    end.peer.sendall(b"more requests")
    run_passes(end.reactor)
    assert end.handler.calls == ["open"]

    end.until_received(size)
    end.until(lambda: end.handler.data == b"more requests")
    assert not end.connection.paused
    assert end.handler.calls == ["open", "writable", "data"]


def test_reading_goes_on_at_the_low_watermark_and_not_before(make: Make) -> None:
    end = make(buffer_size=4_096, options=SMALL_MARKS)
    end.fill()

    def read_until_resumed() -> bool:
        pending = end.connection.pending
        assert bool(end.connection.paused) == (pending > 1_000)
        end.peer_reads(10_000)
        return not end.connection.paused

    end.until(read_until_resumed, "the low watermark")
    assert end.handler.calls == ["open", "writable"]


def test_over_the_limit_write_refuses_and_queues_nothing(make: Make) -> None:
    end = make(output=Watermark(10, 100), output_limit=1_000)
    end.write(bytes(900))
    assert end.connection.write(bytes(101)) is WriteResult.FULL
    assert end.connection.pending == 900
    assert end.connection.write(bytes(100)) is WriteResult.ABOVE_HIGH
    assert end.connection.write(b"x") is WriteResult.FULL
    end.until_received(1_000)
    run_passes(end.reactor)
    end.peer_reads()
    assert len(end.received) == 1_000
    assert end.connection.write(b"x") is WriteResult.ACCEPTED


def test_what_the_kernel_has_not_taken_counts_against_the_limit(make: Make) -> None:
    end = make(buffer_size=4_096, output=Watermark(10, 100), output_limit=MUCH)
    end.fill()
    room = MUCH - end.connection.pending
    assert end.connection.write(bytes(room + 1)) is WriteResult.FULL
    assert end.connection.write(bytes(room)) is WriteResult.ABOVE_HIGH
    assert end.connection.pending == MUCH


# -- dropping the oldest --------------------------------------------------------------------------


def test_the_oldest_frames_make_room(make: Make) -> None:
    end = make(output=Watermark(0, 10), output_limit=30)
    for frame in (b"a" * 10, b"b" * 10, b"c" * 10):
        end.write(frame)
    assert end.connection.write(b"d" * 11) is WriteResult.FULL
    result = end.connection.write(b"d" * 11, drop_oldest=True)
    assert result is WriteResult.ABOVE_HIGH
    assert end.connection.frames_dropped == 2
    assert end.connection.pending == 21
    end.until_received(21)
    assert end.received == b"c" * 10 + b"d" * 11


def test_what_cannot_fit_drops_nothing(make: Make) -> None:
    end = make(output=Watermark(0, 10), output_limit=30)
    end.write(b"a" * 10)
    assert end.connection.write(b"b" * 31, drop_oldest=True) is WriteResult.FULL
    assert end.connection.frames_dropped == 0
    end.until_received(10)
    assert end.received == b"a" * 10


def test_what_made_enough_room_is_below_the_watermark_again(make: Make) -> None:
    end = make(output=Watermark(0, 10), output_limit=30)
    end.write(b"a" * 30)
    assert end.connection.write(b"b", drop_oldest=True) is WriteResult.ACCEPTED
    assert end.connection.pending == 1


def test_a_frame_of_which_a_byte_was_sent_is_never_dropped(make: Make) -> None:
    """Whatever is dropped, the peer gets whole frames, in order."""
    size = 5_000
    end = make(buffer_size=4_096, output=Watermark(1_000, 20_000), output_limit=100_000)
    written = 2_000
    for number in range(written):
        frame = b"%08d" % number * (size // 8)
        assert end.connection.write(frame, drop_oldest=True) is not WriteResult.FULL
        if number % 7 == 0:
            end.reactor.run_once(0)
        if number % 50 == 0:
            end.peer_reads(7_777)
    end.connection.close()
    received = end.until_fin()
    end.peer.close()
    reason = end.until_closed()
    assert (reason.unsent, reason.dropped) == (0, end.connection.frames_dropped)
    assert end.connection.frames_dropped > 0
    assert len(received) == size * (written - end.connection.frames_dropped)
    numbers = []
    for at in range(0, len(received), size):
        frame = received[at : at + size]
        assert frame == frame[:8] * (size // 8)
        numbers.append(int(frame[:8]))
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == written - 1


def test_written_without_posting_it_waits_for_the_flush(make: Make) -> None:
    end = make()
    assert end.connection.write(b"one ", post=False) is WriteResult.ACCEPTED
    assert end.connection.write(b"two", post=False) is WriteResult.ACCEPTED
    assert end.reactor.timeout() is None
    run_passes(end.reactor)
    assert end.connection.pending == 7
    end.connection.flush()
    assert end.connection.pending == 0
    assert end.peer.recv(10) == b"one two"


# -- pausing -------------------------------------------------------------------------------------


def test_reading_pauses_until_no_reason_is_left(make: Make) -> None:
    end = make()
    end.connection.pause_reading(Pause.USER)
    end.connection.pause_reading(Pause.WORK)
    end.peer.sendall(b"x")
    run_passes(end.reactor)
    end.connection.resume_reading(Pause.USER)
    run_passes(end.reactor)
    assert end.handler.calls == ["open"]
    assert end.connection.paused == Pause.WORK
    end.connection.resume_reading(Pause.WORK)
    end.until(lambda: end.handler.data == b"x")


def test_paused_it_still_writes(make: Make) -> None:
    end = make(buffer_size=4_096)
    end.connection.pause_reading(Pause.USER)
    size = end.fill()
    end.until_received(size)
    assert end.connection.paused == Pause.USER


def test_paused_by_open_it_begins_paused(make: Make) -> None:
    end = make(started=False)
    end.handler.on_open = lambda: end.connection.pause_reading(Pause.USER)
    end.start()
    end.peer.sendall(b"x")
    run_passes(end.reactor)
    assert end.handler.calls == ["open"]
    end.connection.resume_reading(Pause.USER)
    end.until(lambda: end.handler.data == b"x")


# -- close ---------------------------------------------------------------------------------------


def test_close_sends_everything_and_then_fin(make: Make) -> None:
    end = make(buffer_size=4_096)
    size = end.fill()
    end.write(b"the last")
    assert end.connection.close()
    assert end.is_in(S.DRAINING)
    assert end.connection.write(b"too late") is WriteResult.CLOSED

    received = end.until_fin()
    assert len(received) == size + 8
    assert received.endswith(b"the last")
    assert end.is_in(S.LINGERING)
    assert not end.handler.reasons
    end.peer.close()
    assert end.until_closed() == CloseReason(CloseCause.CLOSED)
    assert end.handler.reason.clean
    assert end.handler.calls == ["open", "draining", "writable", "closed"]
    assert end.connection.bytes_sent == size + 8


def test_the_state_changes_before_close_returns_to_another_thread(reactor: Reactor) -> None:
    handler = Recorder()
    connection = Connection(Environment(reactor), handler)
    handler.connection = connection
    ours, peer = tcp_pair()
    with LoopThread(reactor) as loop:
        loop.call(lambda: connection.start(ours))
        connection.write(b"accepted")
        assert connection.close()
        assert connection.write(b"refused") is WriteResult.CLOSED
        assert receive_all(peer) == b"accepted"
        peer.close()
        _until_closed(handler)
    handler.check()
    assert handler.reason == CloseReason(CloseCause.CLOSED)


def test_close_with_a_cause_and_an_error(make: Make) -> None:
    end = make()
    error = ValueError("a bad frame")
    assert end.connection.close(CloseCause.FAILED, error)
    assert end.connection.cause is CloseCause.FAILED
    assert not end.connection.close(CloseCause.CLOSED)
    assert end.until_fin() == b""
    end.peer.close()
    assert end.until_closed() == CloseReason(CloseCause.FAILED, error)


def test_close_waits_for_what_is_under_way(make: Make) -> None:
    """The handler is not idle: it may still write, and says so."""
    end = make()
    end.handler.idle = False
    end.connection.close()
    run_passes(end.reactor)
    assert end.handler.calls == ["open", "draining"]
    assert end.is_in(S.DRAINING)

    assert end.connection.write(b"from outside") is WriteResult.CLOSED
    end.connection.send_all([b"under ", b"way"])
    run_passes(end.reactor)
    assert end.is_in(S.DRAINING)
    end.handler.idle = True
    end.connection.check_drained()
    assert end.until_fin() == b"under way"
    end.peer.close()
    assert end.until_closed().clean


def test_close_inside_handle_open(make: Make) -> None:
    end = make(started=False)

    def refuse() -> None:
        end.connection.write(b"go away")
        end.connection.close(CloseCause.REFUSED)

    end.handler.on_open = refuse
    end.start()
    assert end.until_fin() == b"go away"
    end.peer.close()
    assert end.until_closed() == CloseReason(CloseCause.REFUSED)


def test_close_inside_handle_data(make: Make) -> None:
    end = make()

    def answer(_data: bytes) -> None:
        end.connection.write(b"bye")
        end.connection.close()

    end.handler.on_data = answer
    end.peer.sendall(b"quit")
    assert end.until_fin() == b"bye"
    end.peer.close()
    assert end.until_closed() == CloseReason(CloseCause.CLOSED)


def test_bytes_that_nobody_will_read_do_not_undo_our_last_ones(make: Make) -> None:
    """To close with bytes unread sends RST, which throws away what the peer has not read yet."""
    end = make(buffer_size=4_096)
    end.connection.pause_reading(Pause.USER)
    size = end.fill()
    end.peer.setblocking(False)
    end.peer.send(bytes(100_000))
    end.connection.close()
    assert len(end.until_fin()) == size
    end.peer.close()
    assert end.until_closed() == CloseReason(CloseCause.CLOSED)
    assert not end.handler.data


def test_a_peer_that_goes_on_sending_is_read_to_its_end(make: Make) -> None:
    end = make()
    end.write(b"ours")
    end.connection.close()
    assert end.until_fin() == b"ours"
    for _ in range(5):
        end.peer.sendall(bytes(10_000))  # a RST would have made this fail
        run_passes(end.reactor)
    assert end.is_in(S.LINGERING)
    end.peer.shutdown(socket.SHUT_WR)
    assert end.until_closed() == CloseReason(CloseCause.CLOSED)
    assert not end.handler.data
    assert end.peer.recv(1) == b""


def test_the_second_close_says_that_it_was_too_late(make: Make) -> None:
    end = make()
    assert end.connection.close()
    assert not end.connection.close()
    end.until_fin()
    assert not end.connection.close()
    end.peer.close()
    end.until_closed()
    assert not end.connection.close()
    assert not end.connection.abort()
    assert end.connection.write(b"x") is WriteResult.CLOSED
    assert end.connection.pending == 0


@pytest.mark.parametrize("verb", ["close", "abort"])
def test_ended_before_it_began(make: Make, verb: str) -> None:
    end = make(started=False)
    assert end.connection.close() if verb == "close" else end.connection.abort()
    assert end.is_in(S.CLOSED)
    end.until_closed()
    end.start()  # too late: the socket is closed, and nothing is said any more
    assert end.peer.recv(1) == b""
    assert end.handler.calls == ["closed"]
    assert end.handler.reason.cause is (
        CloseCause.CLOSED if verb == "close" else CloseCause.ABORTED
    )


# -- abort ---------------------------------------------------------------------------------------


def test_abort_resets_and_counts_what_was_lost(make: Make) -> None:
    end = make(buffer_size=4_096)
    end.fill()
    end.write(b"never sent")
    pending = end.connection.pending
    assert end.connection.abort()
    assert end.is_in(S.CLOSED)
    assert end.connection.write(b"x") is WriteResult.CLOSED
    reason = end.until_closed()
    assert reason == CloseReason(CloseCause.ABORTED, unsent=pending)
    assert not reason.clean
    assert end.handler.calls == ["open", "closed"]
    with pytest.raises(ConnectionResetError):
        receive_all(end.peer)


def test_abort_from_another_thread(make: Make) -> None:
    end = make()
    assert on_thread(end.connection.abort)
    assert end.is_in(S.CLOSED)
    assert end.until_closed() == CloseReason(CloseCause.ABORTED)
    with pytest.raises(ConnectionResetError):
        receive_all(end.peer)


def test_abort_with_a_cause_and_an_error(make: Make) -> None:
    end = make()
    error = TimeoutError("no heartbeat")
    end.connection.abort(CloseCause.EXPIRED, error)
    assert end.until_closed() == CloseReason(CloseCause.EXPIRED, error)


def test_abort_while_it_drains(make: Make) -> None:
    """What set the end in motion stays the cause; what cut it short is the error."""
    end = make(buffer_size=4_096)
    end.fill()
    end.connection.close()
    run_passes(end.reactor)
    pending = end.connection.pending
    error = TimeoutError("the grace was over")
    assert end.connection.abort(CloseCause.STOPPED, error)
    assert end.until_closed() == CloseReason(CloseCause.CLOSED, error, unsent=pending)
    with pytest.raises(ConnectionResetError):
        receive_all(end.peer)


def test_close_then_abort_in_one_pass(make: Make) -> None:
    end = make()
    end.write(b"lost")
    assert end.connection.close()
    assert end.connection.abort()
    assert end.until_closed() == CloseReason(CloseCause.CLOSED, unsent=4)
    assert end.handler.calls == ["open", "closed"]


def test_abort_inside_handle_data(make: Make) -> None:
    end = make()
    end.handler.on_data = lambda _: end.connection.abort()
    end.peer.sendall(b"x")
    assert end.until_closed().cause is CloseCause.ABORTED


# -- what the peer does --------------------------------------------------------------------------


def test_a_peer_that_half_closes_gets_what_is_queued(make: Make) -> None:
    end = make(buffer_size=4_096)
    size = end.fill()
    end.peer.shutdown(socket.SHUT_WR)
    assert len(end.until_fin()) == size
    assert end.until_closed() == CloseReason(CloseCause.PEER_CLOSED)
    assert end.handler.reason.by_peer


def test_a_peer_that_half_closes_gets_the_answers_under_way(make: Make) -> None:
    end = make()
    end.handler.idle = False
    end.peer.sendall(b"request")
    end.peer.shutdown(socket.SHUT_WR)
    end.until(lambda: "draining" in end.handler.calls)
    assert end.handler.data == b"request"
    assert end.connection.cause is CloseCause.PEER_CLOSED
    end.connection.send_all([b"the answer"])
    end.handler.idle = True
    end.connection.check_drained()
    assert end.until_fin() == b"the answer"
    assert end.until_closed() == CloseReason(CloseCause.PEER_CLOSED)


def test_a_close_after_the_peers_fin_changes_nothing(make: Make) -> None:
    end = make()
    end.handler.idle = False
    end.peer.shutdown(socket.SHUT_WR)
    end.until(lambda: "draining" in end.handler.calls)
    assert not end.connection.close()
    end.handler.idle = True
    end.connection.check_drained()
    assert end.until_closed() == CloseReason(CloseCause.PEER_CLOSED)


def test_a_peer_that_resets(make: Make) -> None:
    end = make()
    reset(end.peer)
    reason = end.until_closed()
    assert reason.cause is CloseCause.FAILED
    assert isinstance(reason.error, ConnectionResetError)
    assert reason.by_peer
    assert end.handler.calls == ["open", "closed"]


def test_a_peer_that_resets_while_it_is_not_read(make: Make) -> None:
    """The error comes out of a send, and the end is the end: nothing is called after it."""
    end = make(buffer_size=4_096, options=SMALL_MARKS)
    end.fill()
    assert end.connection.paused & Pause.OUTPUT
    pending = end.connection.pending
    reset(end.peer)
    reason = end.until_closed()
    assert reason.cause is CloseCause.FAILED
    assert isinstance(reason.error, OSError)
    assert 0 < reason.unsent <= pending
    assert end.handler.calls == ["open", "closed"]


def test_a_peer_that_resets_while_we_drain(make: Make) -> None:
    end = make(buffer_size=4_096)
    end.fill()
    end.connection.close()
    run_passes(end.reactor)
    reset(end.peer)
    reason = end.until_closed()
    assert reason.cause is CloseCause.CLOSED
    assert isinstance(reason.error, OSError)
    assert reason.unsent > 0


def test_a_peer_that_resets_while_we_linger(make: Make) -> None:
    end = make()
    end.connection.close()
    end.until_fin()
    assert end.is_in(S.LINGERING)
    reset(end.peer)
    reason = end.until_closed()
    assert reason.cause is CloseCause.CLOSED
    assert reason.unsent == 0


# -- deadlines -----------------------------------------------------------------------------------


def test_the_drain_has_a_deadline(make_manual: Make, clock: ManualClock) -> None:
    end = make_manual(buffer_size=4_096, drain_timeout=30.0)
    end.fill()
    end.connection.close()
    run_passes(end.reactor)
    clock.advance(29.9)
    run_passes(end.reactor)
    assert end.is_in(S.DRAINING)
    pending = end.connection.pending
    clock.advance(0.2)
    run_passes(end.reactor)
    reason = end.until_closed()
    assert reason.cause is CloseCause.CLOSED
    assert isinstance(reason.error, TimeoutError)
    assert reason.unsent == pending


def test_a_handler_that_does_not_end_meets_the_deadline(
    make_manual: Make, clock: ManualClock
) -> None:
    end = make_manual(drain_timeout=30.0)
    end.handler.idle = False
    end.connection.close()
    run_passes(end.reactor)
    clock.advance(30.1)
    run_passes(end.reactor)
    assert isinstance(end.handler.reason.error, TimeoutError)
    end.connection.check_drained()  # by the handler, which ends at last


def test_the_wait_for_the_peers_fin_has_a_deadline(make_manual: Make, clock: ManualClock) -> None:
    """It has had all our bytes, and its time: no failure."""
    end = make_manual(linger_timeout=2.0)
    end.write(b"ours")
    end.connection.close()
    assert end.until_fin() == b"ours"
    clock.advance(1.9)
    run_passes(end.reactor)
    assert end.is_in(S.LINGERING)
    clock.advance(0.2)
    run_passes(end.reactor)
    assert end.until_closed() == CloseReason(CloseCause.CLOSED)
    assert end.handler.reason.clean


def test_no_deadline_is_left_over(make_manual: Make, clock: ManualClock) -> None:
    """The drain's deadline ends with the drain; the fixture looks that none outlasts the end."""
    end = make_manual(drain_timeout=1.0, linger_timeout=100.0)
    end.connection.close()
    end.until_fin()
    clock.advance(50.0)
    run_passes(end.reactor)
    assert end.is_in(S.LINGERING)
    assert end.reactor.statistics().timeouts_waiting == 1
    end.peer.close()
    end.until_closed()


def test_no_time_at_all_is_a_time(make_manual: Make, clock: ManualClock) -> None:
    end = make_manual(buffer_size=4_096, drain_timeout=0.0)
    end.fill()
    end.connection.close()
    clock.advance(0.01)
    run_passes(end.reactor)
    clock.advance(0.01)
    run_passes(end.reactor)
    assert isinstance(end.handler.reason.error, TimeoutError)


# -- failure -------------------------------------------------------------------------------------


def test_fail_ends_it_at_once(make: Make) -> None:
    end = make(buffer_size=4_096)
    end.fill()
    pending = end.connection.pending
    error = ValueError("nonsense")
    end.connection.fail(error)
    assert end.handler.reason == CloseReason(CloseCause.FAILED, error, unsent=pending)
    end.connection.fail(ValueError("again"))
    assert len(end.handler.reasons) == 1


def test_a_handler_that_raises_costs_its_own_connection(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_data: bytes) -> None:
        raise RuntimeError("in the handler")

    end, other = make(), make()
    end.handler.on_data = fail
    end.peer.sendall(b"x")
    reason = end.until_closed()
    assert reason.cause is CloseCause.FAILED
    assert str(reason.error) == "in the handler"
    [record] = caplog.records
    assert (record.name, record.levelname) == ("reactor", "ERROR")

    other.peer.sendall(b"x")
    other.until(lambda: other.handler.data == b"x")
    assert other.is_in(S.OPEN)


@pytest.mark.parametrize("error", [OSError, BlockingIOError, InterruptedError, ConnectionError])
def test_an_os_error_of_the_handler_is_not_taken_for_the_sockets(
    make: Make, caplog: pytest.LogCaptureFixture, error: type[OSError]
) -> None:
    """It raised out of `handle_data`: logged with its traceback, like any other, and the end."""

    def fail(_data: bytes) -> None:
        raise error("of the disk")

    end = make()
    end.handler.on_data = fail
    end.peer.sendall(b"x")
    end.until(lambda: end.handler.data)
    run_passes(end.reactor)
    assert end.handler.reason.cause is CloseCause.FAILED
    assert isinstance(end.handler.reason.error, error)
    assert "of the disk" in caplog.text


class _Intruder:
    """A lock; when it has been released for the first time, another writer comes before anything else."""

    def __init__(self, lock: Lock, intrude: Callable[[], object]) -> None:
        self._lock = lock
        self._intrude: Callable[[], object] | None = intrude

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        return self._lock.acquire(blocking, timeout)

    def release(self) -> None:
        self._lock.release()
        intrude, self._intrude = self._intrude, None
        if intrude is not None:
            intrude()

    def locked(self) -> bool:
        return self._lock.locked()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *error: object) -> None:
        self.release()


def test_what_handlers_that_were_interrupted_have_written_goes_out_before_the_next_ones(
    make: Make,
) -> None:
    end = make()
    connection = end.connection
    connection.begin().append(b"taken, ")
    connection.append_own(b"left, ")
    end.write(b"another's, ")  # takes what there is, and notes how much that is
    connection.append_own(b"late, ")
    connection.begin().append(b"next")  # Ctrl-C: nobody has called `end`
    connection.end()
    expected = b"taken, left, another's, late, next"
    end.until_received(len(expected))
    assert end.received == expected


def test_reading_pauses_for_what_a_writer_has_taken_from_a_handler(make: Make) -> None:
    """Nobody flushes it: the socket takes nothing, and will say so when it does."""
    end = make(buffer_size=8192, output=Watermark(0, 200_000))
    connection = end.connection
    for size in (100_000, 50_000):  # the second waits behind the rest of the first
        end.write(bytes(size))
        run_passes(end.reactor)
    connection.begin().append(bytes(100_000))
    end.write(b"another's")
    run_passes(end.reactor)
    assert connection.pending > 200_000
    assert connection.undisturbed
    connection.end()
    assert connection.paused == Pause.OUTPUT


def _flush(connection: Connection) -> None:
    connection.write(b"written")
    connection.flush()


def _end(connection: Connection) -> None:
    connection.begin().append(b"of a handler")
    connection.end()


@pytest.mark.parametrize("step", [_flush, _end])
def test_ctrl_c_on_the_loops_own_thread_keeps_no_lock(
    make: Make, step: Callable[[Connection], None]
) -> None:
    for place in itertools.count():
        connection = make().connection
        interrupted = interrupt(lambda connection=connection: step(connection), place)  # type: ignore[misc]
        then(lambda connection=connection: connection.write(b"behind"))  # type: ignore[misc]
        if not interrupted:
            break
    assert place > 5


@pytest.mark.parametrize("waits", [b"", b"waiting, "], ids=["nothing waits", "something waits"])
@pytest.mark.parametrize("take", [Connection.collect, Connection.end])
def test_what_a_handler_has_written_is_not_overtaken_while_it_is_taken(
    make: Make, take: Callable[[Connection], object], waits: bytes
) -> None:
    end = make()
    connection = end.connection
    if waits:
        end.write(waits)
    connection.own = [b"handler's ", b"own, "]
    connection.lock = _Intruder(connection.lock, lambda: end.write(b"another's"))
    take(connection)
    end.until_received(len(waits) + 24)
    assert bytes(end.received) == waits + b"handler's own, another's"


def test_its_handler_is_told_to_drain_when_the_last_write_was_just_before(make: Make) -> None:
    """The flush that sends it sends FIN too, and comes before what `close` has posted."""
    end = make()
    end.write(b"last")
    end.connection.close()
    assert end.until_fin() == b"last"
    end.until(lambda: "draining" in end.handler.calls, "the call")
    assert end.connection.state is S.LINGERING
    end.peer.close()
    assert end.until_closed() == CloseReason(CloseCause.CLOSED)


def test_a_handler_that_raises_when_it_is_told_to_drain_still_ends(
    make_manual: Make, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise RuntimeError("while draining")

    end = make_manual(drain_timeout=30.0)
    end.handler.on_draining = fail
    end.connection.close()
    run_passes(end.reactor)
    assert "while draining" in caplog.text
    clock.advance(31.0)
    run_passes(end.reactor)
    clock.advance(31.0)
    run_passes(end.reactor)
    end.until_closed()


# -- all together --------------------------------------------------------------------------------


def test_what_was_accepted_before_a_close_is_received(reactor: Reactor) -> None:
    """Four threads write while a fifth closes: each result that said so was true."""
    for round_ in range(5):
        handler = Recorder()
        connection = Connection(Environment(reactor), handler)
        handler.connection = connection
        ours, peer = tcp_pair()
        accepted: list[list[bytes]] = [[] for _ in range(4)]
        gate = threading.Barrier(5)

        def write(
            thread: int,
            connection: Connection = connection,
            accepted: list[list[bytes]] = accepted,
            gate: threading.Barrier = gate,
        ) -> None:
            gate.wait(DEADLINE)
            for number in range(100_000):
                record = b"%d:%06d" % (thread, number)
                if connection.write(record) is WriteResult.CLOSED:
                    return
                accepted[thread].append(record)

        with LoopThread(reactor) as loop:
            loop.call(lambda connection=connection, ours=ours: connection.start(ours))  # type: ignore[misc]
            others = [threading.Thread(target=write, args=(number,)) for number in range(4)]
            for other in others:
                other.start()
            gate.wait(DEADLINE)
            received = bytearray(peer.recv(1_000 * (round_ + 1)))
            connection.close()
            received += receive_all(peer)
            peer.close()
            for other in others:
                other.join(DEADLINE)
            _until_closed(handler)
        handler.check()
        assert handler.reason == CloseReason(CloseCause.CLOSED)
        records = [bytes(received[at : at + 8]) for at in range(0, len(received), 8)]
        for thread in range(4):
            mine = [record for record in records if record.startswith(b"%d:" % thread)]
            assert mine == accepted[thread]


@pytest.mark.parametrize("seed", range(40))
def test_any_life_keeps_the_promises(make_manual: Make, clock: ManualClock, seed: int) -> None:
    """Whatever happens, in whatever order; the fixture checks the calls and the states.

    What the peer has read is always the beginning of what was accepted; after an end in good order it
    is all of it, and what is missing after any other was counted or lost to a reset.
    """
    choice = random.Random(seed)
    end = make_manual(
        buffer_size=4_096,
        output=Watermark(5_000, 20_000),
        output_limit=600_000,
        drain_timeout=5.0,
        linger_timeout=2.0,
    )
    accepted = bytearray()
    peer_open = True
    undisturbed = True  # neither end has cut it short
    states = [end.connection.state]

    def write() -> None:
        data = choice.randbytes(choice.choice([1, 100, 10_000, 150_000]))
        before = end.connection.pending
        if not end.handler.idle and choice.random() < 0.5:
            # What is under way; it is accepted while it drains too.
            if end.connection.state in (S.OPEN, S.DRAINING):
                end.connection.send(data)
                accepted.extend(data)
            return
        result = end.connection.write(data)
        if result in (WriteResult.ACCEPTED, WriteResult.ABOVE_HIGH):
            accepted.extend(data)
        else:
            assert end.connection.pending == before

    def by_peer(function: Callable[[], object]) -> None:
        nonlocal undisturbed
        end.peer.setblocking(False)
        try:
            function()
        except BlockingIOError:
            pass
        except OSError:
            undisturbed = False

    def peer_sends() -> None:
        if peer_open:
            by_peer(lambda: end.peer.send(bytes(choice.choice([1, 1_000, 50_000]))))

    def peer_reads() -> None:
        by_peer(lambda: end.peer_reads(choice.choice([100, 10_000, 100_000])))

    def peer_finishes() -> None:
        nonlocal peer_open
        if peer_open:
            peer_open = False
            by_peer(lambda: end.peer.shutdown(socket.SHUT_WR))

    def abort() -> None:
        nonlocal undisturbed
        if end.connection.abort():
            undisturbed = False

    def pause() -> None:
        end.connection.pause_reading(Pause.USER)

    def resume() -> None:
        end.connection.resume_reading(Pause.USER)

    def toggle_idle() -> None:
        end.handler.idle = not end.handler.idle
        end.connection.check_drained()

    common: list[Callable[[], object]] = [
        write,
        peer_sends,
        peer_reads,
        pause,
        resume,
        toggle_idle,
        lambda: clock.advance(choice.choice([0.01, 0.1, 1.0])),
    ]
    rare: list[Callable[[], object]] = [
        end.connection.close,
        abort,
        peer_finishes,
        lambda: end.connection.fail(ValueError("by chance")),
    ]
    for _ in range(120):
        choice.choice(rare if choice.random() < 0.03 else common)()
        states.append(end.connection.state)
        if choice.random() < 0.6:
            end.reactor.run_once(0)
            states.append(end.connection.state)

    # The end, if it has not come yet: in good order, with a peer that reads.
    end.handler.idle = True
    end.connection.close()
    end.connection.check_drained()

    def finish() -> bool:
        peer_finishes()
        by_peer(lambda: end.peer_reads(1 << 20))
        states.append(end.connection.state)
        return bool(end.handler.reasons)

    end.until(finish, "the end")
    end.peer.settimeout(DEADLINE)
    try:
        end.received += receive_all(end.peer)
    except OSError:
        undisturbed = False

    for before, after in itertools.pairwise(states):
        assert after in REACHABLE[before]
    assert accepted.startswith(end.received)
    reason = end.handler.reason
    assert len(end.received) + reason.unsent <= len(accepted)
    assert end.connection.bytes_sent + reason.unsent == len(accepted)
    if undisturbed and reason.error is None:
        assert reason.unsent == 0
        assert end.received == accepted


# -- several frames in one flush -----------------------------------------------------------------


@pytest.mark.parametrize("size", [1_000, 100_000], ids=["joined", "in a vector"])
def test_frames_of_one_flush_arrive_in_order(
    size: int, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    if size > LARGE_FRAME:  # not copied into one
        monkeypatch.setattr(Connection, "_transmit", None)
    end = make()
    frames = [bytes([number]) * size for number in range(5)]
    for frame in frames:
        end.write(frame)
    end.until_received(5 * size)
    assert end.received == b"".join(frames)
    assert end.connection.pending == 0
    assert end.connection._environment.ledger.total == 0


@pytest.mark.parametrize("size", [1_000, 100_000], ids=["joined", "in a vector"])
def test_frames_of_one_flush_are_counted_once_when_the_peer_is_gone(size: int, make: Make) -> None:
    end = make()
    for _ in range(2):
        end.write(bytes(size))
    reset(end.peer)
    end.connection._flush()  # before the loop sees the reset
    assert end.until_closed().unsent == 2 * size


def test_many_small_frames_are_one_send(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    end = make()
    sent: list[int] = []
    transmit = Connection._transmit

    def note(connection: Connection, data: bytes) -> bool:
        sent.append(len(data))
        return transmit(connection, data)

    monkeypatch.setattr(Connection, "_transmit", note)
    for _ in range(1_500):
        end.write(b"x" * 64)
    end.until_received(96_000)
    assert sent == [96_000]


@pytest.mark.parametrize("count", [1, 3_000], ids=["at once", "in steps"])
def test_ctrl_c_behind_a_send_leaves_nothing_in_flight(
    make: Make, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    end = make()
    transmit, interrupts = Connection._transmit, [KeyboardInterrupt()]

    def transmitting(connection: Connection, data: bytes) -> bool:
        done = transmit(connection, data)
        if interrupts:
            raise interrupts.pop()
        return done

    monkeypatch.setattr(Connection, "_transmit", transmitting)
    for _ in range(count):
        end.write(b"x" * 100)
    with pytest.raises(KeyboardInterrupt):
        run_passes(end.reactor)
    end.connection.close()
    assert end.until_fin() == b"x" * 100 * count
    assert (end.connection.pending, end.connection._environment.ledger.total) == (0, 0)


# -- when the loop cannot have it ----------------------------------------------------------------


def test_what_the_poller_refuses_is_closed_and_takes_nobody_elses_place(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """epoll_ctl(2): ENOSPC, for too many are watched by the user."""
    refused, other = make(started=False), make(started=False)
    with monkeypatch.context() as patched:
        patched.setattr(refused.reactor._poller, "__class__", _Full)
        refused.start()
    [reason] = refused.handler.reasons
    assert isinstance(reason.error, OSError)
    assert reason.cause is CloseCause.FAILED
    assert refused.connection.fd == -1
    assert refused.reactor.statistics().channels == 0

    other.start()
    refused.connection.abort()
    run_passes(other.reactor)
    other.peer.sendall(b"hello")
    other.until(lambda: other.handler.data == b"hello", "the other one's data")


class _Full(type(Reactor()._poller)):  # type: ignore[misc]
    """Of the system's own kind, and there is no room in it."""

    __slots__ = ()

    def register(self, fd: int, events: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@needs_fork
def test_a_child_does_not_make_the_parents_connection_deaf(make: Make) -> None:
    """They share one epoll: what the child took out of it would be taken out for both."""
    end = make()
    connection = end.connection

    def child() -> None:
        for call in (
            partial(connection.pause_reading, Pause.USER),
            partial(connection.fail, ValueError("the child's own")),
        ):
            with pytest.raises(ForkError):
                call()

    assert in_child(child) == 0
    end.peer.sendall(b"hello")
    end.until(lambda: end.handler.data == b"hello", "the parent's data")


# -- how much is asked for -----------------------------------------------------------------------


class _Counting:
    """A socket that notes what it is asked for."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.asked: list[int] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._sock, name)

    def recv(self, size: int) -> bytes:
        self.asked.append(size)
        return self._sock.recv(size)


def test_as_much_is_asked_for_as_comes(make: Make) -> None:
    end = make()
    assert end.ours is not None
    sock = _Counting(end.ours)
    end.connection._socket = sock  # type: ignore[assignment]

    def receive(size: int) -> list[int]:
        sock.asked.clear()
        expected = len(end.handler.data) + size
        end.peer.sendall(bytes(size))
        end.until(lambda: len(end.handler.data) == expected, f"{size} bytes")
        return list(sock.asked)

    assert receive(100) == [FIRST_READ]
    assert receive(1) == [FIRST_READ]
    assert receive(100_000)[0] == FIRST_READ
    asked = sock.asked[-1]
    assert asked > FIRST_READ
    assert receive(asked // 16) == [asked]  # not worth another size
    less = [receive(1)[0] for _ in range(4 * READS_TO_SHRINK)]
    assert less[0] == asked
    assert less[-1] == FIRST_READ
    assert less == sorted(less, reverse=True)
    assert all(less.count(size) <= READS_TO_SHRINK for size in less if size != FIRST_READ)


def test_little_is_asked_for_while_memory_is_short(reactor: Reactor, make: Make) -> None:
    end = make()
    assert end.ours is not None
    sock = _Counting(end.ours)
    end.connection._socket = sock  # type: ignore[assignment]
    end.peer.sendall(bytes(100_000))
    end.until(lambda: len(end.handler.data) == 100_000, "all of it")
    assert sock.asked[-1] > FIRST_READ
    end.connection._environment.ledger.largest_read = FIRST_READ
    sock.asked.clear()
    end.peer.sendall(bytes(100_000))
    end.until(lambda: len(end.handler.data) == 200_000, "all of the rest")
    assert max(sock.asked) == FIRST_READ
