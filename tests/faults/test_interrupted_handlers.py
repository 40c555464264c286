"""Ctrl-C in the middle of an inline handler, in a loop that is run again afterwards."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from reactor import Reactor
from tao import (
    CloseReason,
    Context,
    MessageRegistry,
    Server,
    TypeLengthValueCodec,
    WriteCloser,
)
from tao.codec import Frame
from tests.support import LOCAL, Calls, Peer, Sample, as_bytes, frame


@contextmanager
def running_again(reactor: Reactor, server: Server, peer: Peer) -> Iterator[None]:
    """The loop runs on while the block does; then all is closed."""
    thread = threading.Thread(target=reactor.run)
    thread.start()
    try:
        yield
    finally:
        peer.close()
        server.stop()
        reactor.stop()
        thread.join()
        reactor.close()


def test_ctrl_c_in_an_inline_handler_loses_nothing_else() -> None:
    """`run` raises it and may be called again: what came before is answered; what came behind it is
    handled, or else the connection ends and its reason says that something was lost."""
    reasons: Calls[CloseReason] = Calls()
    registry = MessageRegistry()

    def handle(context: Context[bytes], _conn: WriteCloser) -> Sample:
        if context.message == b"Ctrl-C":
            raise KeyboardInterrupt
        return Sample(1, context.message)

    registry.register(1, as_bytes, handle, inline=True)
    reactor = Reactor()
    server = Server(
        registry=registry, reactor=reactor, on_close=lambda conn, reason: reasons.add(reason)
    )
    address = server.listen(LOCAL)
    with Peer(address) as peer:
        peer.send(frame(1, b"before") + frame(1, b"Ctrl-C") + frame(1, b"behind"))
        with pytest.raises(KeyboardInterrupt):
            reactor.run()
        with running_again(reactor, server, peer):
            assert peer.receive_frame() == (1, b"before")
            peer.finish_sending()
            received = peer.receive_to_end()
            [reason] = reasons.wait()
            assert received == frame(1, b"behind") or (received == b"" and not reason.clean)


class Interrupted(TypeLengthValueCodec):
    """Ctrl-C comes while it looks for the frame behind the first."""

    __slots__ = ("due",)

    def __init__(self) -> None:
        super().__init__()
        self.due = True

    def decode(self, data: bytes) -> Iterator[Frame]:
        for index, one in enumerate(super().decode(data)):
            if index == 1 and self.due:
                self.due = False
                raise KeyboardInterrupt
            yield one


def test_ctrl_c_in_a_codec_loses_nothing() -> None:
    """What was handled is answered, what its handler has written is sent, and the rest is decoded later."""
    registry = MessageRegistry()

    def handle(context: Context[bytes], conn: WriteCloser) -> Sample:
        conn.write(Sample(2, context.message))
        return Sample(1, context.message)

    registry.register(1, as_bytes, handle, inline=True)
    reactor = Reactor()
    server = Server(registry=registry, reactor=reactor, codec=Interrupted())
    address = server.listen(LOCAL)
    values = [b"first", b"second", b"third"]
    with Peer(address) as peer:
        peer.send(b"".join(frame(1, value) for value in values))
        with pytest.raises(KeyboardInterrupt):
            reactor.run()
        with running_again(reactor, server, peer):
            for value in values:
                assert peer.receive_frame() == (2, value)
                assert peer.receive_frame() == (1, value)
