"""tao.session: the life of a connection, on real sockets, with peers that write frames by hand.

Contents: on_connect, the ways to end, half-close, close and write, back-pressure, set_codec.
"""

from __future__ import annotations

import select
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tao import (
    CloseCause,
    CloseReason,
    Codec,
    ConnectionClosedError,
    ConnectionOptions,
    ConnectionState,
    Context,
    FrameTooLargeError,
    Message,
    MessageRegistry,
    Server,
    ServerConn,
    TypeLengthValueCodec,
    Watermark,
    WouldBlockError,
    WriteCloser,
)
from tao.codec import Frame, Header
from tests.support import DEADLINE, LOCAL, Calls, Peer, Sample, as_bytes, frame, wait_until


def echo(context: Context[bytes], conn: WriteCloser) -> Sample:
    """The same message back, as number 1."""
    return Sample(1, context.message)


def echo_registry() -> MessageRegistry:
    """Message 1 echoes on a worker, message 2 on the loop."""
    registry = MessageRegistry()
    registry.register(1, as_bytes, echo)
    registry.register(2, as_bytes, echo, inline=True)
    return registry


# -- on_connect ----------------------------------------------------------------------------------


def test_on_connect_may_greet() -> None:
    def greet(conn: ServerConn) -> None:
        conn.write(Sample(7, b"welcome"))

    server = Server(registry=echo_registry(), on_connect=greet)
    with server.running(LOCAL) as address, Peer(address) as peer:
        assert peer.receive_frame() == (7, b"welcome")


@pytest.mark.parametrize("number", [1, 2])
def test_on_connect_comes_before_the_first_message(number: int) -> None:
    def greet(conn: ServerConn) -> bool:
        conn.write(Sample(7, b"welcome"))
        return True

    server = Server(registry=echo_registry(), on_connect=greet)
    with server.running(LOCAL) as address:
        for _ in range(20):
            with Peer(address) as peer:
                peer.send_frame(number, b"first")
                assert peer.receive_frames(2) == [(7, b"welcome"), (1, b"first")]


def test_on_connect_refuses_by_false() -> None:
    reasons: Calls[CloseReason] = Calls()
    handled: Calls[bytes] = Calls()
    registry = MessageRegistry()
    registry.register(1, as_bytes, lambda context, conn: handled.add(context.message))
    server = Server(
        registry=registry,
        on_connect=lambda conn: False,
        on_close=lambda conn, reason: reasons.add(reason),
    )
    with server.running(LOCAL) as address, Peer(address) as peer:
        peer.send_frame(1, b"let me in")
        assert peer.receive_to_end() == b""
        peer.close()
        [reason] = reasons.wait()
        assert reason.cause is CloseCause.REFUSED
        assert reason.error is None
    assert len(handled) == 0


def test_what_on_connect_wrote_before_it_refused_arrives() -> None:
    def refuse(conn: ServerConn) -> bool:
        conn.write(Sample(7, b"sorry"))
        return False

    server = Server(registry=echo_registry(), on_connect=refuse)
    with server.running(LOCAL) as address, Peer(address) as peer:
        assert peer.receive_to_end() == frame(7, b"sorry")


@pytest.mark.parametrize("answer", [None, True, 0, ""])
def test_only_false_itself_refuses(answer: bool | None) -> None:
    server = Server(registry=echo_registry(), on_connect=lambda conn: answer)
    with server.running(LOCAL) as address, Peer(address) as peer:
        peer.send_frame(1, b"x")
        assert peer.receive_frame() == (1, b"x")


# -- the ways to end -----------------------------------------------------------------------------

Ending = Callable[[Server, ServerConn, Peer], object]

ENDINGS: dict[str, tuple[Ending, CloseCause]] = {
    "FIN": (lambda server, conn, peer: peer.close(), CloseCause.PEER_CLOSED),
    "RST": (lambda server, conn, peer: peer.reset(), CloseCause.FAILED),
    "close": (lambda server, conn, peer: conn.close(), CloseCause.CLOSED),
    "abort": (lambda server, conn, peer: conn.abort(), CloseCause.ABORTED),
    "stop": (
        lambda server, conn, peer: threading.Thread(target=server.stop).start(),
        CloseCause.STOPPED,
    ),
    "error": (
        lambda server, conn, peer: peer.send(struct.pack("<iI", 1, 0xFFFFFFFF)),
        CloseCause.FAILED,
    ),
}


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "in a handler"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_on_close_comes_exactly_once(ending: str, busy: bool) -> None:
    end, cause = ENDINGS[ending]
    opened: Calls[ServerConn] = Calls()
    closed: Calls[tuple[ServerConn, CloseReason, ConnectionState]] = Calls()
    begun, release = threading.Event(), threading.Event()
    registry = echo_registry()

    def block(context: Context[bytes], conn: WriteCloser) -> None:
        begun.set()
        assert release.wait(DEADLINE)
        assert len(closed) == 0  # it waits for the handler in hand

    errors: Calls[BaseException] = Calls()
    registry.register(5, as_bytes, block)
    server = Server(
        registry=registry,
        on_connect=opened.add,
        on_close=lambda conn, reason: closed.add((conn, reason, conn.state)),
        on_error=lambda conn, error: errors.add(error),
    )
    with server.running(LOCAL) as address, Peer(address) as peer:
        [conn] = opened.wait()
        if busy:
            peer.send_frame(5)
            assert begun.wait(DEADLINE)
        end(server, conn, peer)
        release.set()
        if ending not in ("FIN", "RST"):
            assert peer.is_cut_off()
            peer.close()
        [(closed_conn, reason, state)] = closed.wait()
        assert closed_conn is conn
        assert state is ConnectionState.CLOSED
        assert reason.cause is cause
        # Whatever is done to it now, it has ended.
        conn.close()
        conn.abort()
        assert wait_until(lambda: server.connection_count == 0)
    assert len(closed) == 1
    assert len(errors) == (1 if ending == "error" else 0)
    if ending == "RST":
        assert isinstance(reason.error, ConnectionResetError)
        assert reason.by_peer


def test_a_connection_is_gone_once_on_close_has_returned() -> None:
    release = threading.Event()
    closing = threading.Event()

    def on_close(conn: ServerConn, reason: CloseReason) -> None:
        closing.set()
        assert release.wait(DEADLINE)

    server = Server(registry=echo_registry(), on_close=on_close)
    with server.running(LOCAL) as address:
        Peer(address).close()
        assert closing.wait(DEADLINE)
        assert server.connection_count == 1
        release.set()
        assert wait_until(lambda: server.connection_count == 0)


def test_the_reason_counts_what_was_lost() -> None:
    reasons: Calls[CloseReason] = Calls()
    begun, release = threading.Event(), threading.Event()
    registry = echo_registry()

    def block(context: Context[bytes], conn: WriteCloser) -> None:
        begun.set()
        assert release.wait(DEADLINE)
        conn.close()

    registry.register(5, as_bytes, block)
    server = Server(registry=registry, on_close=lambda conn, reason: reasons.add(reason))
    with server.running(LOCAL) as address, Peer(address) as peer:
        peer.send(frame(5) + frame(1) + frame(2) + frame(1))
        assert begun.wait(DEADLINE)
        release.set()
        assert peer.receive_to_end() == b""
        peer.close()
        [reason] = reasons.wait()
        assert (reason.cause, reason.unhandled) == (CloseCause.CLOSED, 3)
        assert not reason.clean


def test_an_unfinished_frame_is_counted_in_bytes() -> None:
    reasons: Calls[CloseReason] = Calls()
    server = Server(registry=echo_registry(), on_close=lambda conn, reason: reasons.add(reason))
    with server.running(LOCAL) as address:
        with Peer(address) as peer:
            peer.send(frame(1, b"whole") + frame(1, b"unfinished")[:13])
            assert peer.receive_frame() == (1, b"whole")
        [reason] = reasons.wait()
        assert (reason.cause, reason.undecoded) == (CloseCause.PEER_CLOSED, 13)


# -- half-close ----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 1000])
@pytest.mark.parametrize("numbers", [(1,), (2,), (1, 2)], ids=["pooled", "inline", "mixed"])
def test_a_peer_that_has_finished_sending_gets_every_reply(
    numbers: tuple[int, ...], count: int
) -> None:
    values = [b"%d" % index for index in range(count)]
    data = b"".join(
        frame(numbers[index % len(numbers)], value) for index, value in enumerate(values)
    )
    server = Server(registry=echo_registry(), buffer_size=64)
    with server.running(LOCAL) as address, Peer(address) as peer:
        peer.send(data)
        peer.finish_sending()
        assert peer.receive_to_end() == b"".join(frame(1, value) for value in values)


def test_and_so_it_does_when_a_handler_takes_its_time() -> None:
    release = threading.Event()
    registry = echo_registry()

    def block(context: Context[bytes], conn: WriteCloser) -> Sample:
        assert release.wait(DEADLINE)
        conn.write(Sample(6, b"written"))
        return Sample(6, b"returned")

    registry.register(5, as_bytes, block)
    with Server(registry=registry).running(LOCAL) as address, Peer(address) as peer:
        peer.send(frame(5) + frame(1, b"a"))
        peer.finish_sending()
        release.set()
        expected = frame(6, b"written") + frame(6, b"returned") + frame(1, b"a")
        assert peer.receive_to_end() == expected


# -- close and write -----------------------------------------------------------------------------


@pytest.mark.parametrize("inline", [False, True], ids=["pooled", "inline"])
def test_close_after_many_writes_loses_nothing(inline: bool) -> None:
    """More than the kernel's buffers hold, to a peer that reads only later."""
    count, size = 100, 65_536
    registry = MessageRegistry()

    def handle(context: Context[bytes], conn: WriteCloser) -> Sample:
        for index in range(count):
            conn.write(Sample(1, struct.pack("<I", index) * (size // 4)))
        conn.close()
        return Sample(2, b"bye")

    registry.register(1, as_bytes, handle, inline=inline)
    reasons: Calls[CloseReason] = Calls()
    server = Server(registry=registry, on_close=lambda conn, reason: reasons.add(reason))
    with server.running(LOCAL) as address, Peer(address, receive_buffer=4096) as peer:
        peer.send_frame(1)
        for index in range(count):
            assert peer.receive_frame() == (1, struct.pack("<I", index) * (size // 4))
        assert peer.receive_to_end() == frame(2, b"bye")
        peer.close()
        [reason] = reasons.wait()
        assert reason.cause is CloseCause.CLOSED
        assert reason.clean


def test_inline_handlers_go_over_the_high_mark_by_one_reply_at_the_most() -> None:
    """Replies that are about to be sent count, also the one that the last handler has returned."""
    size, count = 900, 9
    sent: list[int] = []

    def handle(context: Context[bytes], conn: WriteCloser) -> Sample:
        assert isinstance(conn, ServerConn)
        sent.append(conn._session.connection.bytes_sent)
        return Sample(1, bytes(size))

    registry = MessageRegistry()
    registry.register(1, as_bytes, handle, inline=True)
    options = ConnectionOptions(output=Watermark(500, 1000), output_limit=2000)
    server = Server(registry=registry, options=options)
    reply = frame(1, bytes(size))
    with server.running(LOCAL) as address, Peer(address) as peer:
        peer.send(frame(1) * count)
        assert peer.receive(count * len(reply)) == reply * count
    # One is below the mark, two are above it: then they are sent.
    assert sent == [index // 2 * 2 * len(reply) for index in range(count)]


@pytest.mark.parametrize("where", ["pooled", "inline", "elsewhere"])
@pytest.mark.parametrize("verb", ["close", "abort"])
def test_a_write_after_the_end_is_refused(verb: str, where: str) -> None:
    errors: Calls[BaseException] = Calls()

    def end_and_write(conn: WriteCloser) -> None:
        getattr(conn, verb)()
        try:
            conn.write(Sample(1, b"too late"))
        except ConnectionClosedError as error:
            errors.add(error)

    registry = MessageRegistry()
    registry.register(
        1, as_bytes, lambda context, conn: end_and_write(conn), inline=where == "inline"
    )
    opened: Calls[ServerConn] = Calls()
    with (
        Server(registry=registry, on_connect=opened.add).running(LOCAL) as address,
        Peer(address) as peer,
    ):
        [conn] = opened.wait()
        if where == "elsewhere":
            end_and_write(conn)
        else:
            peer.send_frame(1)
        errors.wait()
        assert peer.is_cut_off()
        with pytest.raises(ConnectionClosedError):
            conn.write(Sample(1))


def test_a_handler_that_lets_that_error_through_harms_nothing() -> None:
    registry = echo_registry()

    def handle(context: Context[bytes], conn: WriteCloser) -> None:
        conn.write(Sample(6, b"in time"))
        conn.close()
        conn.write(Sample(6, b"too late"))

    registry.register(5, as_bytes, handle)
    with (
        Server(registry=registry).running(LOCAL) as address,
        Peer(address) as peer,
        Peer(address) as other,
    ):
        peer.send_frame(5)
        assert peer.receive_to_end() == frame(6, b"in time")
        other.send_frame(1, b"x")
        assert other.receive_frame() == (1, b"x")


def test_abort_sends_a_reset() -> None:
    opened: Calls[ServerConn] = Calls()
    server = Server(registry=echo_registry(), on_connect=opened.add)
    with server.running(LOCAL) as address, Peer(address) as peer:
        opened.wait()[0].abort()
        with pytest.raises(ConnectionResetError):
            peer.sock.recv(1)


def test_a_peer_that_does_not_answer_our_fin_is_given_a_limited_time() -> None:
    reasons: Calls[CloseReason] = Calls()
    opened: Calls[ServerConn] = Calls()
    server = Server(
        registry=echo_registry(),
        on_connect=opened.add,
        on_close=lambda conn, reason: reasons.add(reason),
        options=ConnectionOptions(linger_timeout=0.05),
    )
    with server.running(LOCAL) as address, Peer(address):
        opened.wait()[0].close()
        [reason] = reasons.wait()
        assert (reason.cause, reason.error) == (CloseCause.CLOSED, None)


def test_a_peer_that_does_not_read_is_given_a_limited_time() -> None:
    reasons: Calls[CloseReason] = Calls()
    opened: Calls[ServerConn] = Calls()
    server = Server(
        registry=echo_registry(),
        on_connect=opened.add,
        on_close=lambda conn, reason: reasons.add(reason),
        options=ConnectionOptions(drain_timeout=0.05),
    )
    with server.running(LOCAL) as address, Peer(address, receive_buffer=4096):
        [conn] = opened.wait()
        conn.write(Sample(1, b"x" * 8_000_000))
        conn.close()
        [reason] = reasons.wait()
        assert reason.cause is CloseCause.CLOSED
        assert isinstance(reason.error, TimeoutError)
        assert reason.unsent > 0


# -- back-pressure -------------------------------------------------------------------------------


def is_stuck(peer: Peer, patience: float = 0.3) -> bool:
    """Whether the system takes no more from it."""
    return not select.select([], [peer.sock], [], patience)[1]


@pytest.mark.parametrize("buffer_size", [1, 8])
def test_a_flood_behind_a_blocked_handler_is_left_to_the_kernel(buffer_size: int) -> None:
    """The peer's send blocks in the end; nothing is dropped, and all is handled once there is room."""
    release, begun = threading.Event(), threading.Event()
    handled: list[int] = []
    done = threading.Event()
    registry = MessageRegistry()

    def handle(context: Context[bytes], conn: WriteCloser) -> None:
        if not begun.is_set():
            begun.set()
            assert release.wait(DEADLINE)
        handled.append(struct.unpack_from("<I", context.message)[0])

    registry.register(1, as_bytes, handle)
    registry.register(2, as_bytes, lambda context, conn: done.set())
    server = Server(registry=registry, buffer_size=buffer_size)
    with server.running(LOCAL) as address, Peer(address, send_buffer=65_536) as peer:
        peer.send_frame(1, struct.pack("<I", 0) * 1024)
        assert begun.wait(DEADLINE)
        peer.sock.setblocking(False)
        sent, rest = 1, b""
        while True:
            if not rest:
                assert sent < 20_000, "80 MB were read behind a handler that does not return"
                rest = frame(1, struct.pack("<I", sent) * 1024)
                sent += 1
            try:
                rest = rest[peer.sock.send(rest) :]
            except BlockingIOError:
                if is_stuck(peer):
                    break
        assert handled == []
        peer.sock.settimeout(DEADLINE)
        release.set()
        peer.send(rest + frame(2))
        assert done.wait(DEADLINE)
        assert handled == list(range(sent))


def test_a_peer_that_does_not_read_its_replies_is_not_read_either() -> None:
    """Its requests stay in the kernel as soon as its replies do not get out."""
    server = Server(registry=echo_registry())
    chunk = frame(2, b"x" * 4096) * 16
    with (
        server.running(LOCAL) as address,
        Peer(address, send_buffer=65_536, receive_buffer=65_536) as peer,
        Peer(address) as other,
    ):
        peer.sock.setblocking(False)
        sent = 0
        while True:
            assert sent < 80_000_000, "80 MB were answered to a peer that does not read"
            try:
                sent += peer.sock.send(chunk[sent % len(chunk) :])
            except BlockingIOError:
                if is_stuck(peer):
                    break
        other.send_frame(1, b"x")
        assert other.receive_frame() == (1, b"x")
        peer.sock.settimeout(DEADLINE)
        received = len(peer.receive(sent // len(frame(2, b"x" * 4096)) * 4104))
        assert received > 0


def fill_options() -> ConnectionOptions:
    return ConnectionOptions(output=Watermark(50_000, 100_000), output_limit=1_000_000)


@pytest.mark.parametrize("where", ["pooled", "inline", "elsewhere"])
def test_write_says_so_above_the_high_watermark_and_refuses_past_the_limit(where: str) -> None:
    """What was refused is not queued: the peer gets every message that was taken, and no other."""
    value = b"x" * 10_000
    outcome: Calls[tuple[list[bool], int]] = Calls()

    def fill(conn: WriteCloser) -> None:
        taken: list[bool] = []
        try:
            while len(taken) < 5000:
                taken.append(conn.write(Sample(1, struct.pack("<I", len(taken)) + value)))
        except WouldBlockError:
            try:
                conn.write(Sample(1, value))  # nor is it by the second try
            except WouldBlockError:
                outcome.add((taken, 2))

    registry = MessageRegistry()
    registry.register(1, as_bytes, lambda context, conn: fill(conn), inline=where == "inline")
    opened: Calls[ServerConn] = Calls()
    server = Server(registry=registry, on_connect=opened.add, options=fill_options())
    with server.running(LOCAL) as address, Peer(address, receive_buffer=4096) as peer:
        [conn] = opened.wait()
        if where == "elsewhere":
            fill(conn)
        else:
            peer.send_frame(1)
        [(taken, _)] = outcome.wait()
        assert taken[0] is True
        assert taken[-1] is False
        for index in range(len(taken)):
            assert peer.receive_frame() == (1, struct.pack("<I", index) + value)
        assert wait_until(lambda: conn.pending == 0)
        assert conn.write(Sample(3, b"there is room again")) is True
        assert peer.receive_frame() == (3, b"there is room again")


def test_a_message_over_the_limit_by_itself_is_refused() -> None:
    opened: Calls[ServerConn] = Calls()
    server = Server(registry=echo_registry(), on_connect=opened.add, options=fill_options())
    with server.running(LOCAL) as address, Peer(address) as peer:
        [conn] = opened.wait()
        with pytest.raises(WouldBlockError, match="1000000"):
            conn.write(Sample(1, b"x" * 1_000_000))
        assert conn.write(Sample(1, b"x" * 999_992)) is False
        assert peer.receive_frame() == (1, b"x" * 999_992)


@pytest.mark.parametrize("where", ["handler", "timer"])
def test_what_the_peer_has_read_does_not_count_any_more(where: str) -> None:
    """One handler may send more than the limit in its life, to a peer that keeps up with it."""
    value = b"x" * 50_000
    rounds = 40  # two million bytes, of which a million may wait
    read = threading.Semaphore(0)
    outcome: Calls[list[bool] | Exception] = Calls()

    def stream(conn: WriteCloser) -> None:
        taken: list[bool] = []
        try:
            for _ in range(rounds):
                taken.append(conn.write(Sample(1, value)))
                assert read.acquire(timeout=DEADLINE)
        except Exception as error:
            outcome.add(error)
        else:
            outcome.add(taken)

    registry = MessageRegistry()

    def handle(context: Context[bytes], conn: WriteCloser) -> None:
        if where == "handler":
            stream(conn)
        else:
            conn.run_after(0.0, lambda now, conn: stream(conn))

    registry.register(1, as_bytes, handle)
    server = Server(registry=registry, options=fill_options())
    with server.running(LOCAL) as address, Peer(address) as peer:
        peer.send_frame(1)
        received = 0
        while received < rounds and not outcome.items:
            assert peer.receive_frame() == (1, value)
            received += 1
            read.release()
        assert outcome.wait() == [[True] * rounds]


@pytest.mark.parametrize("returns", [False, True], ids=["writes", "returns"])
@pytest.mark.parametrize("inline", [False, True], ids=["pooled", "inline"])
def test_short_requests_with_long_answers_are_held_back(inline: bool, returns: bool) -> None:
    """Many requests come in one piece; to answer all at once would be more than may wait."""
    count, answer = 20_000, Sample(2, b"x" * 1000)
    errors: Calls[BaseException] = Calls()
    registry = MessageRegistry()

    def handle(context: Context[bytes], conn: WriteCloser) -> Sample | None:
        if returns:
            return answer
        conn.write(answer)
        return None

    registry.register(1, as_bytes, handle, inline=inline)
    server = Server(
        registry=registry,
        buffer_size=100_000,
        options=fill_options(),
        on_error=lambda conn, error: errors.add(error),
    )
    with server.running(LOCAL) as address, Peer(address, receive_buffer=4096) as peer:
        sender = threading.Thread(target=lambda: peer.send(frame(1) * count))
        sender.start()
        expected = frame(2, answer.value) * 100
        try:
            for _ in range(count // 100):
                assert peer.receive(len(expected)) == expected
        finally:
            peer.close()
            sender.join()
    assert errors.items == []


def test_pause_reading_and_resume() -> None:
    opened: Calls[ServerConn] = Calls()
    server = Server(registry=echo_registry(), on_connect=opened.add)
    with server.running(LOCAL) as address, Peer(address) as peer, Peer(address) as other:
        conn = next(c for c in opened.wait(2) if c.remote_address == peer.sock.getsockname())
        paused = threading.Event()
        conn.pause_reading()
        # A timer runs on the loop behind what was asked of it before.
        conn.run_after(0.0, lambda now, conn: paused.set())
        assert paused.wait(DEADLINE)
        peer.send_frame(1, b"a")
        other.send_frame(1, b"b")
        assert other.receive_frame() == (1, b"b")
        assert not select.select([peer.sock], [], [], 0.05)[0]
        conn.resume_reading()
        assert peer.receive_frame() == (1, b"a")


@pytest.mark.parametrize("inline", [False, True], ids=["pooled", "inline"])
def test_a_handler_may_pause_its_own_connection(inline: bool) -> None:
    """What has come is handled; what comes after has to wait."""
    registry = echo_registry()
    conns: Calls[WriteCloser] = Calls()

    def pause(context: Context[bytes], conn: WriteCloser) -> Sample:
        conn.pause_reading()
        conns.add(conn)
        return Sample(6)

    registry.register(5, as_bytes, pause, inline=inline)
    with Server(registry=registry).running(LOCAL) as address, Peer(address) as peer:
        peer.send(frame(5) + frame(1, b"a"))
        assert peer.receive_frames(2) == [(6, b""), (1, b"a")]
        peer.send_frame(1, b"b")
        assert not select.select([peer.sock], [], [], 0.05)[0]
        conns.wait()[0].resume_reading()
        assert peer.receive_frame() == (1, b"b")


# -- set_codec -----------------------------------------------------------------------------------


class LineCodec:
    """Lines of text, such as `12 hello`: a number, a space, a value. No frame of the default format."""

    def encode(self, message: Message) -> bytes:
        return b"%d %s\n" % (message.message_number, message.serialize())

    def decode(self, data: bytes) -> Iterator[tuple[int, bytes, int]]:
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            number, _, value = data[start:end].partition(b" ")
            start = end + 1
            yield int(number), value, start

    def header(self, data: bytes) -> Header | None:
        return None


LINES: Codec = LineCodec()


def switching_registry(*, inline: bool) -> MessageRegistry:
    """Message 5 changes to lines, message 6 back to frames; both reply."""
    registry = echo_registry()

    def to_lines(context: Context[bytes], conn: WriteCloser) -> Sample:
        conn.set_codec(LINES)
        return Sample(9, b"lines, then")

    def to_frames(context: Context[bytes], conn: WriteCloser) -> Sample:
        conn.set_codec(TypeLengthValueCodec())
        return Sample(9, b"frames, then")

    registry.register(5, as_bytes, to_lines, inline=inline)
    registry.register(6, as_bytes, to_frames, inline=inline)
    return registry


POOLED_AND_INLINE = pytest.mark.parametrize("inline", [False, True], ids=["pooled", "inline"])


@POOLED_AND_INLINE
def test_the_bytes_behind_the_message_that_switches_are_the_new_codecs(inline: bool) -> None:
    """In the same segment; the reply goes out in the old codec, and what follows in the new one."""
    server = Server(registry=switching_registry(inline=inline))
    with server.running(LOCAL) as address, Peer(address) as peer:
        peer.send(frame(1, b"a") + frame(5) + b"1 b\n2 c\n1 d\n")
        assert peer.receive_frames(2) == [(1, b"a"), (9, b"lines, then")]
        assert peer.receive(12) == b"1 b\n1 c\n1 d\n"


@POOLED_AND_INLINE
def test_there_and_back_in_one_segment(inline: bool) -> None:
    server = Server(registry=switching_registry(inline=inline))
    data = frame(1, b"a") + frame(5) + b"1 b\n2 c\n6 back\n" + frame(2, b"d") + frame(1, b"e")
    expected = frame(1, b"a") + frame(9, b"lines, then") + b"1 b\n1 c\n9 frames, then\n"
    expected += frame(1, b"d") + frame(1, b"e")
    with server.running(LOCAL) as address, Peer(address) as peer:
        peer.send(data * 20)
        peer.finish_sending()
        assert peer.receive_to_end() == expected * 20


@POOLED_AND_INLINE
@pytest.mark.parametrize("size", [1, 3, 8, 17])
def test_there_and_back_in_pieces(size: int, inline: bool) -> None:
    server = Server(registry=switching_registry(inline=inline))
    data = frame(1, b"a") + frame(5) + b"1 b\n2 c\n6 back\n" + frame(2, b"d") + frame(1, b"e")
    expected = frame(1, b"a") + frame(9, b"lines, then") + b"1 b\n1 c\n9 frames, then\n"
    expected += frame(1, b"d") + frame(1, b"e")
    with server.running(LOCAL) as address, Peer(address) as peer:
        for begin in range(0, len(data), size):
            peer.send(data[begin : begin + size])
        peer.finish_sending()
        assert peer.receive_to_end() == expected


@POOLED_AND_INLINE
def test_what_the_old_codec_cannot_read_is_no_error(inline: bool) -> None:
    """Read ahead by the old codec, the new one's bytes look like a frame of a gigabyte."""
    errors: Calls[BaseException] = Calls()
    server = Server(
        registry=switching_registry(inline=inline),
        on_error=lambda conn, error: errors.add(error),
    )
    with server.running(LOCAL) as address, Peer(address) as peer:
        peer.send(frame(5) + b"1 this is read as a header\n")
        assert peer.receive_frame() == (9, b"lines, then")
        assert peer.receive(27) == b"1 this is read as a header\n"
        peer.send(b"1 and goes on\n")
        assert peer.receive(14) == b"1 and goes on\n"
        assert len(errors) == 0


@POOLED_AND_INLINE
def test_writes_use_the_old_codec_before_and_the_new_one_after(inline: bool) -> None:
    registry = MessageRegistry()

    def handle(context: Context[bytes], conn: WriteCloser) -> Sample:
        conn.write(Sample(7, b"before"))
        conn.set_codec(LINES)
        return Sample(8, b"reply")

    registry.register(5, as_bytes, handle, inline=inline)
    opened: Calls[ServerConn] = Calls()
    server = Server(registry=registry, on_connect=opened.add)
    with server.running(LOCAL) as address, Peer(address) as peer:
        peer.send_frame(5)
        assert peer.receive_frames(2) == [(7, b"before"), (8, b"reply")]
        opened.wait()[0].write(Sample(7, b"after"))
        assert peer.receive(8) == b"7 after\n"


def test_on_connect_may_choose_the_codec() -> None:
    """The peer's first bytes may be here already."""
    server = Server(registry=echo_registry(), on_connect=lambda conn: conn.set_codec(LINES))
    with server.running(LOCAL) as address:
        for _ in range(20):
            with Peer(address) as peer:
                peer.send(b"1 hello, this is no frame\n")
                assert peer.receive(26) == b"1 hello, this is no frame\n"


def test_another_thread_may_change_the_codec_between_messages() -> None:
    opened: Calls[ServerConn] = Calls()
    server = Server(registry=echo_registry(), on_connect=opened.add)
    with server.running(LOCAL) as address, Peer(address) as peer:
        peer.send_frame(1, b"a")
        assert peer.receive_frame() == (1, b"a")
        opened.wait()[0].set_codec(LINES)
        peer.send(b"1 b\n")
        assert peer.receive(4) == b"1 b\n"


def test_one_connections_codec_is_not_anothers() -> None:
    server = Server(registry=switching_registry(inline=False))
    with server.running(LOCAL) as address, Peer(address) as peer, Peer(address) as other:
        peer.send(frame(5) + b"1 b\n")
        assert peer.receive_frame() == (9, b"lines, then")
        assert peer.receive(4) == b"1 b\n"
        other.send_frame(1, b"c")
        assert other.receive_frame() == (1, b"c")
        report = server.broadcast(Sample(7, b"to all"))
        assert report.sent == 2
        assert peer.receive(9) == b"7 to all\n"
        assert other.receive_frame() == (7, b"to all")


# -- codecs that decode at once -------------------------------------------------------------------


class TupleCodec(TypeLengthValueCodec):
    """Gives all frames that there are in a tuple, and raises when it is called."""

    def decode(self, data: bytes) -> tuple[Frame, ...]:
        return tuple(super().decode(data))


@pytest.mark.parametrize("number", [1, 2], ids=["pooled", "inline"])
@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize("rest", [0, 1, 9], ids=["whole", "part of a header", "part of a value"])
def test_a_codec_may_decode_at_once(rest: int, count: int, number: int) -> None:
    server = Server(registry=echo_registry(), codec=TupleCodec())
    last = frame(number, b"last")
    with server.running(LOCAL) as address, Peer(address) as peer:
        peer.send(frame(number, b"x") * count + last[:rest])
        assert peer.receive_frames(count) == [(1, b"x")] * count
        peer.send(last[rest:])
        assert peer.receive_frame() == (1, b"last")


@pytest.mark.parametrize("behind", [b"", frame(1, b"behind")], ids=["alone", "in front of another"])
def test_a_codec_that_raises_when_it_is_called_ends_the_connection(behind: bytes) -> None:
    reasons: Calls[CloseReason] = Calls()
    server = Server(
        registry=echo_registry(),
        codec=TupleCodec(max_length=10),
        on_close=lambda conn, reason: reasons.add(reason),
    )
    with server.running(LOCAL) as address, Peer(address) as peer:
        peer.send(frame(1, b"first"))
        assert peer.receive_frame() == (1, b"first")
        peer.send(frame(1, bytes(11)) + behind)
        assert peer.receive_to_end() == b""
        peer.close()
        [reason] = reasons.wait()
        assert isinstance(reason.error, FrameTooLargeError)
        assert reason.undecoded == 19 + len(behind)


class BrokenCodec(TypeLengthValueCodec):
    """Gives what is no frame."""

    def __init__(self, frame: object) -> None:
        super().__init__()
        self._frame: Any = frame

    def decode(self, data: bytes) -> Any:
        return (self._frame,)


@pytest.mark.parametrize("broken", [None, (2, b"x"), ([2], b"x", 9)], ids=repr)
def test_a_codec_that_gives_what_is_no_frame_is_told_of(broken: object) -> None:
    errors: Calls[BaseException] = Calls()
    server = Server(
        registry=echo_registry(),
        codec=BrokenCodec(broken),
        on_error=lambda conn, error: errors.add(error),
    )
    with server.running(LOCAL) as address, Peer(address) as peer:
        peer.send(frame(2, b"x"))
        assert peer.receive_to_end() == b""
        [error] = errors.wait()
        assert isinstance(error, (TypeError, ValueError))
