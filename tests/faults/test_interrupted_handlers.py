"""Ctrl-C in the middle of an inline handler, in a loop that is run again afterwards."""

from __future__ import annotations

import threading

import pytest

from reactor import Reactor
from tao import CloseReason, Context, MessageRegistry, Server, WriteCloser
from tests.support import LOCAL, Calls, Peer, Sample, as_bytes, frame


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
        thread = threading.Thread(target=reactor.run)
        thread.start()
        try:
            assert peer.receive_frame() == (1, b"before")
            peer.finish_sending()
            received = peer.receive_to_end()
            [reason] = reasons.wait()
            assert received == frame(1, b"behind") or (received == b"" and not reason.clean)
        finally:
            peer.close()
            server.stop()
            reactor.stop()
            thread.join()
            reactor.close()
