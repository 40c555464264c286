"""Peers that are gone before they were accepted: who they were is known from accept all the same."""

from __future__ import annotations

from tests.faults.support import Watched, check_alive, serving
from tests.support import LOCAL, Peer, wait_until


def test_a_peer_that_was_reset_early_has_had_an_address() -> None:
    """For on_close, and for the log; the socket itself does not know it any more (ENOTCONN)."""
    watched = Watched()
    address = watched.server.listen(LOCAL)
    peer = Peer(address)
    own = peer.sock.getsockname()
    peer.reset()
    with serving(watched.server):
        [(remote_address, reason)] = watched.reasons.wait()
    assert isinstance(reason.error, ConnectionResetError)
    assert remote_address == own


def test_peers_that_were_reset_early_do_not_count_for_ever() -> None:
    """With `max_connections_per_address`: there is room again for others from their address."""
    limit = 3
    watched = Watched(max_connections_per_address=limit)
    address = watched.server.listen(LOCAL)
    for _ in range(limit):
        Peer(address).reset()
    with serving(watched.server):
        watched.reasons.wait(limit)
        for _ in range(limit):
            # There is room when on_close has returned, and not while it runs.
            assert wait_until(lambda: not watched.server.connection_count)
            with Peer(address) as peer:
                check_alive(peer)
