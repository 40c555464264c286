"""What goes wrong, on real sockets: on_error hears of it, and nobody else pays.

The peers write their frames by hand, so they can write wrong ones.
"""

from __future__ import annotations

import struct
import threading
from typing import Any

import pytest

from tao import (
    CloseCause,
    CloseReason,
    Context,
    FrameTooLargeError,
    MessageRegistry,
    NotRegisteredError,
    Server,
    ServerConn,
    TypeLengthValueCodec,
    UndefinedMessageError,
    WriteCloser,
)
from tests.support import DEADLINE, LOCAL, Calls, Peer, Sample, as_bytes, frame


def echo(context: Context[bytes], conn: WriteCloser) -> Sample:
    """The same message back, as number 1."""
    return Sample(1, context.message)


class Watched:
    """A server whose errors and ends are kept. Message 1 echoes on a worker, message 2 on the loop."""

    def __init__(self, **arguments: Any) -> None:
        self.errors: Calls[BaseException] = Calls()
        self.reasons: Calls[CloseReason] = Calls()
        self.registry = MessageRegistry()
        self.registry.register(1, as_bytes, echo)
        self.registry.register(2, as_bytes, echo, inline=True)
        arguments.setdefault("on_error", lambda conn, error: self.errors.add(error))
        arguments.setdefault("on_close", lambda conn, reason: self.reasons.add(reason))
        self.server = Server(registry=self.registry, **arguments)

    def error(self) -> BaseException:
        """The one error that there was."""
        [error] = self.errors.wait()
        return error

    def reason(self) -> CloseReason:
        """Of the first connection that ended."""
        return self.reasons.wait()[0]


def check_alive(peer: Peer) -> None:
    """Its connection still serves, on workers and on the loop."""
    peer.send(frame(1, b"pooled") + frame(2, b"inline"))
    assert peer.receive_frames(2) == [(1, b"pooled"), (1, b"inline")]


# -- what the peer sends -------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 2])
def test_a_length_over_the_limit_is_refused_from_its_header(number: int) -> None:
    watched = Watched()
    with watched.server.running(LOCAL) as address, Peer(address) as peer, Peer(address) as other:
        peer.send(struct.pack("<iI", number, (1 << 23) + 1))  # and never any of its value
        assert peer.is_cut_off()
        peer.close()
        reason = watched.reason()
        assert reason.cause is CloseCause.FAILED
        assert isinstance(reason.error, FrameTooLargeError)
        assert (reason.error.size, reason.error.limit) == ((1 << 23) + 1, 1 << 23)
        assert watched.error() is reason.error
        check_alive(other)
        assert len(watched.reasons) == 1


@pytest.mark.parametrize("close_on_error", [False, True])
def test_a_stream_that_lost_its_frames_ends_whatever_the_policy(close_on_error: bool) -> None:
    watched = Watched(close_on_error=close_on_error, codec=TypeLengthValueCodec(max_length=10))
    with watched.server.running(LOCAL) as address, Peer(address) as peer:
        peer.send_frame(1, b"x" * 10)
        assert peer.receive_frame() == (1, b"x" * 10)
        peer.send(struct.pack("<iI", 1, 11) + b"x" * 11)
        assert peer.is_cut_off()


@pytest.mark.parametrize("split", [0, 1, 4, 7, 8])
def test_what_came_before_a_bad_frame_is_answered(split: int) -> None:
    """In one segment, or with the bad header in two."""
    watched = Watched()
    good = frame(1, b"a") + frame(2, b"b") + frame(1, b"c")
    bad = struct.pack("<iI", 1, 0xFFFFFFFF)
    with watched.server.running(LOCAL) as address, Peer(address) as peer:
        peer.send(good + bad[:split])
        assert peer.receive_frames(2) == [(1, b"a"), (1, b"b")]
        peer.send(bad[split:])
        assert peer.receive_to_end() == frame(1, b"c")
        assert isinstance(watched.error(), FrameTooLargeError)


@pytest.mark.parametrize("number", [3, -1, 1 << 30])
def test_an_unregistered_type_is_skipped(number: int) -> None:
    watched = Watched()
    with watched.server.running(LOCAL) as address, Peer(address) as peer:
        peer.send(frame(1, b"a") + frame(number, b"what?") + frame(2, b"b"))
        assert peer.receive_frames(2) == [(1, b"a"), (1, b"b")]
        error = watched.error()
        assert isinstance(error, UndefinedMessageError)
        assert error.number == number
        check_alive(peer)
    assert watched.reason().cause is CloseCause.PEER_CLOSED


def test_an_unregistered_type_is_skipped_even_if_it_comes_in_pieces() -> None:
    watched = Watched()
    with watched.server.running(LOCAL) as address, Peer(address) as peer:
        data = frame(3, b"what?") + frame(1, b"x")
        for begin in range(len(data)):
            peer.send(data[begin : begin + 1])
        assert peer.receive_frame() == (1, b"x")
        assert isinstance(watched.error(), UndefinedMessageError)


def test_a_zero_length_value_is_legal() -> None:
    with Watched().server.running(LOCAL) as address, Peer(address) as peer:
        peer.send(frame(1) + frame(2) + frame(1))
        assert peer.receive_frames(3) == [(1, b"")] * 3


def test_a_heartbeat_is_no_error_and_has_no_answer() -> None:
    watched = Watched()
    with watched.server.running(LOCAL) as address, Peer(address) as peer:
        peer.send_frame(0, struct.pack("<q", 5))
        check_alive(peer)
        assert len(watched.errors) == 0


# -- max_size ------------------------------------------------------------------------------------


@pytest.mark.parametrize("inline", [False, True])
def test_a_value_of_exactly_max_size(inline: bool) -> None:
    watched = Watched()
    watched.registry.register(5, as_bytes, echo, inline=inline, max_size=4)
    with watched.server.running(LOCAL) as address, Peer(address) as peer:
        peer.send_frame(5, b"1234")
        assert peer.receive_frame() == (1, b"1234")
        assert len(watched.errors) == 0


@pytest.mark.parametrize("close_on_error", [False, True])
@pytest.mark.parametrize("inline", [False, True])
@pytest.mark.parametrize("value", [b"", b"123", b"12345"], ids=["header", "a part", "whole"])
def test_a_value_over_max_size_ends_the_connection_however_it_is_cut(
    value: bytes, inline: bool, close_on_error: bool
) -> None:
    """How TCP cuts the stream is nothing that an application should be able to notice."""
    watched = Watched(close_on_error=close_on_error)
    watched.registry.register(5, as_bytes, echo, inline=inline, max_size=4)
    with watched.server.running(LOCAL) as address, Peer(address) as peer, Peer(address) as other:
        peer.send(frame(1, b"before") + struct.pack("<iI", 5, 5) + value)
        assert peer.receive_frame() == (1, b"before")
        error = watched.error()
        assert isinstance(error, FrameTooLargeError)
        assert (error.size, error.limit) == (5, 4)
        check_alive(other)
        assert peer.is_cut_off()
        peer.close()
        assert watched.reason().error is error
        check_alive(other)


# -- decoders and handlers that raise ------------------------------------------------------------


class Raises:
    """Called in any way, it raises."""

    def __init__(self, kind: type[BaseException]) -> None:
        self.error = kind("on purpose")

    def __call__(self, *arguments: object) -> Any:
        raise self.error


POOLED = [ValueError, SystemExit, KeyboardInterrupt]
INLINE = [ValueError, SystemExit]
BOTH = [pytest.param(kind, False, id=f"{kind.__name__}, pooled") for kind in POOLED] + [
    pytest.param(kind, True, id=f"{kind.__name__}, inline") for kind in INLINE
]


@pytest.mark.parametrize(("kind", "inline"), BOTH)
def test_a_handler_that_raises_costs_its_connection(
    kind: type[BaseException], inline: bool
) -> None:
    watched, raises = Watched(), Raises(kind)
    watched.registry.register(5, as_bytes, raises, inline=inline)
    with watched.server.running(LOCAL) as address, Peer(address) as peer, Peer(address) as other:
        peer.send(frame(1, b"before") + frame(5) + frame(1, b"behind") + frame(2, b"behind"))
        assert peer.receive_to_end() == frame(1, b"before")
        peer.close()
        assert watched.error() is raises.error
        reason = watched.reason()
        assert reason.cause is CloseCause.FAILED
        assert reason.error is raises.error
        assert reason.unhandled == 2
        check_alive(other)


@pytest.mark.parametrize(("kind", "inline"), BOTH)
def test_with_close_on_error_off_it_does_not(kind: type[BaseException], inline: bool) -> None:
    watched, raises = Watched(close_on_error=False), Raises(kind)
    watched.registry.register(5, as_bytes, raises, inline=inline)
    with watched.server.running(LOCAL) as address, Peer(address) as peer:
        peer.send(frame(1, b"before") + frame(5) * 2 + frame(1, b"behind") + frame(2, b"behind"))
        assert peer.receive_frames(3) == [(1, b"before"), (1, b"behind"), (1, b"behind")]
        assert watched.errors.wait(2) == [raises.error] * 2
        check_alive(peer)
        assert len(watched.reasons) == 0


@pytest.mark.parametrize("kind", INLINE)
@pytest.mark.parametrize("close_on_error", [False, True])
def test_a_decoder_that_raises(close_on_error: bool, kind: type[BaseException]) -> None:
    watched, raises = Watched(close_on_error=close_on_error), Raises(kind)
    watched.registry.register(5, raises, echo)
    with watched.server.running(LOCAL) as address, Peer(address) as peer, Peer(address) as other:
        peer.send(frame(1, b"before") + frame(5) + frame(1, b"behind"))
        assert peer.receive_frame() == (1, b"before")
        assert watched.error() is raises.error
        if close_on_error:
            assert peer.is_cut_off()
            peer.close()
            assert watched.reason().error is raises.error
        else:
            assert peer.receive_frame() == (1, b"behind")
            check_alive(peer)
        check_alive(other)


@pytest.mark.parametrize("inline", [False, True])
def test_a_reply_that_cannot_be_encoded_is_the_handlers_error(inline: bool) -> None:
    watched = Watched()
    watched.registry.register(5, as_bytes, lambda context, conn: Sample(1 << 31), inline=inline)
    with watched.server.running(LOCAL) as address, Peer(address) as peer:
        peer.send(frame(1, b"before") + frame(5))
        assert peer.receive_to_end() == frame(1, b"before")
        assert isinstance(watched.error(), ValueError)


def test_one_of_many_that_raise_costs_nobody_else() -> None:
    watched = Watched()
    watched.registry.register(5, as_bytes, Raises(RuntimeError))
    with watched.server.running(LOCAL) as address, Peer(address) as other:
        peers = [Peer(address) for _ in range(10)]
        try:
            for peer in peers:
                peer.send_frame(5)
            for peer in peers:
                assert peer.is_cut_off()
        finally:
            for peer in peers:
                peer.close()
        watched.reasons.wait(10)
        assert len(watched.errors) == 10
        check_alive(other)


@pytest.mark.parametrize("close_on_error", [False, True])
def test_a_timer_that_raises_is_a_handler_that_raises(close_on_error: bool) -> None:
    raises = Raises(ValueError)

    def on_connect(conn: ServerConn) -> None:
        conn.run_after(0.0, raises)

    watched = Watched(close_on_error=close_on_error, on_connect=on_connect)
    with watched.server.running(LOCAL) as address, Peer(address) as peer:
        assert watched.error() is raises.error
        if close_on_error:
            assert peer.is_cut_off()
        else:
            check_alive(peer)


# -- messages without a handler ------------------------------------------------------------------


def test_messages_without_a_handler_go_to_on_message() -> None:
    seen: Calls[tuple[bytes, ServerConn]] = Calls()

    def on_message(message: bytes, conn: ServerConn) -> None:
        seen.add((message, conn))
        conn.write(Sample(9, message))

    watched = Watched(on_message=on_message)
    watched.registry.register(5, as_bytes)
    with watched.server.running(LOCAL) as address, Peer(address) as peer:
        peer.send(frame(1, b"a") + frame(5, b"b") + frame(2, b"c") + frame(5, b"d"))
        assert peer.receive_frames(4) == [(1, b"a"), (9, b"b"), (1, b"c"), (9, b"d")]
        assert [message for message, _ in seen.items] == [b"b", b"d"]
        assert {conn for _, conn in seen.items} == set(watched.server.connections())


def test_without_on_message_either_it_is_reported_and_skipped() -> None:
    watched = Watched()
    watched.registry.register(5, as_bytes)
    with watched.server.running(LOCAL) as address, Peer(address) as peer:
        peer.send(frame(1, b"a") + frame(5, b"b") + frame(2, b"c"))
        assert peer.receive_frames(2) == [(1, b"a"), (1, b"c")]
        error = watched.error()
        assert isinstance(error, NotRegisteredError)
        assert "5" in str(error)
        check_alive(peer)


def test_on_message_that_raises_is_a_handler_that_raises() -> None:
    raises = Raises(ValueError)
    watched = Watched(on_message=raises)
    watched.registry.register(5, as_bytes)
    with watched.server.running(LOCAL) as address, Peer(address) as peer:
        peer.send_frame(5)
        assert peer.is_cut_off()
        assert watched.error() is raises.error


def test_a_handler_that_is_registered_later_is_found() -> None:
    watched = Watched()
    with watched.server.running(LOCAL) as address, Peer(address) as peer:
        peer.send_frame(5, b"a")
        assert isinstance(watched.error(), UndefinedMessageError)
        watched.registry.register(5, as_bytes, echo)
        peer.send_frame(5, b"b")
        assert peer.receive_frame() == (1, b"b")


# -- callbacks that raise ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", POOLED)
def test_on_error_that_raises_harms_nothing(kind: type[BaseException]) -> None:
    told = threading.Event()

    def on_error(conn: ServerConn, error: BaseException) -> None:
        told.set()
        raise kind("on purpose")

    watched = Watched(on_error=on_error)
    with watched.server.running(LOCAL) as address, Peer(address) as peer:
        peer.send_frame(99)
        assert told.wait(DEADLINE)
        check_alive(peer)
    assert watched.reason().error is None


@pytest.mark.parametrize("kind", POOLED)
def test_on_close_that_raises_harms_nothing(kind: type[BaseException]) -> None:
    told: Calls[CloseReason] = Calls()

    def on_close(conn: ServerConn, reason: CloseReason) -> None:
        told.add(reason)
        raise kind("on purpose")

    watched = Watched(on_close=on_close)
    with watched.server.running(LOCAL) as address, Peer(address) as other:
        with Peer(address) as peer:
            check_alive(peer)
        told.wait()
        check_alive(other)
    assert len(told) == 2


@pytest.mark.parametrize("kind", POOLED)
def test_on_connect_that_raises_is_reported_and_costs_its_connection_at_most(
    kind: type[BaseException],
) -> None:
    calls: Calls[ServerConn] = Calls()
    error = kind("on purpose")

    def on_connect(conn: ServerConn) -> None:
        calls.add(conn)
        if len(calls) == 1:
            raise error

    watched = Watched(on_connect=on_connect)
    with watched.server.running(LOCAL) as address, Peer(address) as peer:
        calls.wait()
        assert watched.error() is error
        assert peer.is_cut_off()
        peer.close()
        assert watched.reason().error is error
        with Peer(address) as other:
            check_alive(other)


@pytest.mark.parametrize("close_on_error", [False, True])
def test_errors_are_told_in_the_connections_order(close_on_error: bool) -> None:
    """Behind the handlers of what came before, even where they came up on the loop before those."""
    order: Calls[str] = Calls()
    release = threading.Event()
    watched = Watched(
        close_on_error=close_on_error,
        on_error=lambda conn, error: order.add(type(error).__name__),
    )

    def block(context: Context[bytes], conn: WriteCloser) -> None:
        assert release.wait(DEADLINE)
        order.add("handler")

    watched.registry.register(5, as_bytes, block)
    with watched.server.running(LOCAL) as address, Peer(address) as peer:
        peer.send(frame(5) + frame(99) + frame(5) + struct.pack("<iI", 1, 0xFFFFFFFF))
        release.set()
        assert order.wait(4) == [
            "handler",
            "UndefinedMessageError",
            "handler",
            "FrameTooLargeError",
        ]
        assert peer.is_cut_off()


@pytest.mark.parametrize("name", ["on_connect", "on_message", "on_close", "on_error"])
def test_a_callback_must_be_callable(name: str) -> None:
    arguments: dict[str, Any] = {name: "not callable"}
    with pytest.raises(TypeError, match=name):
        Server(**arguments)
