"""Why a connection ended, as people read it."""

from __future__ import annotations

from reactor import CloseCause, CloseReason


def test_a_reason_reads_like_a_line_of_a_log() -> None:
    assert str(CloseReason(CloseCause.PEER_CLOSED)) == "closed by the peer"
    error = TimeoutError("too long")
    reason = CloseReason(CloseCause.CLOSED, error, unsent=5, unhandled=2, undecoded=1)
    assert str(reason) == (
        "closed by this side: TimeoutError: too long "
        "(5 bytes unsent, 2 messages unhandled, 1 bytes undecoded)"
    )
    assert not reason.clean
    assert CloseReason(CloseCause.CLOSED).clean
    assert CloseReason(CloseCause.FAILED, ConnectionResetError()).by_peer
    assert not CloseReason(CloseCause.FAILED, error).by_peer
