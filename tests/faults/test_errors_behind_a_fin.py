"""A handler that raises when the peer's FIN has been seen already: its error belongs into the reason."""

from __future__ import annotations

import threading

import pytest

from tao import CloseCause, ConnectionState, Context, WriteCloser
from tests.faults.support import Watched
from tests.support import DEADLINE, LOCAL, Peer, as_bytes, wait_until


@pytest.mark.parametrize("finished", [False, True], ids=["open", "after the FIN"])
def test_a_handler_that_raises(finished: bool) -> None:
    """Whether the FIN or the handler was quicker is nothing that an application can know."""
    release = threading.Event()

    def fail(_context: Context[bytes], _conn: WriteCloser) -> None:
        assert release.wait(DEADLINE)
        raise ValueError("on purpose")

    watched = Watched()
    watched.registry.register(3, as_bytes, fail)
    with watched.server.running(LOCAL) as address, Peer(address) as peer:
        peer.send_frame(3)
        assert wait_until(watched.server.connections)
        [conn] = watched.server.connections()
        if finished:
            peer.finish_sending()
            assert wait_until(lambda: conn.state is ConnectionState.DRAINING)
        release.set()
        assert peer.receive_to_end() == b""
        peer.close()
        reason = watched.only_reason()
        assert reason.cause is (CloseCause.PEER_CLOSED if finished else CloseCause.FAILED)
        assert isinstance(reason.error, ValueError)
        assert not reason.clean
