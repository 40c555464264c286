"""Why a write was refused, in the words of the exception.

Contents: not_open, too_much.

Owns two texts, which say what to do next; that a write is refused is decided by `tao.session` and
`reactor.connection`. Any thread.
"""

from __future__ import annotations

from reactor import ConnectionState, Ledger
from tao.errors import ConnectionClosedError, WouldBlockError
from tao.interfaces import WriteCloser

__all__ = ["not_open", "too_much"]

_NOT_YET_OPEN = (
    ConnectionState.CONNECTING,
    ConnectionState.PREFACING,
    ConnectionState.HANDSHAKING,
)


def not_open(conn: WriteCloser, state: ConnectionState) -> ConnectionClosedError:
    """It is not open yet, or no more: `state` says which."""
    if state in _NOT_YET_OPEN:
        return ConnectionClosedError(
            f"{conn} is not connected yet: nothing was queued; wait_connected() comes first"
        )
    return ConnectionClosedError(f"{conn} is closing or closed: nothing was queued")


def too_much(conn: WriteCloser, waiting: int, limit: int, ledger: Ledger) -> WouldBlockError:
    """`waiting` bytes wait to be sent, of at most `limit`; or all connections together hold too much."""
    why = f"and the limit is {limit}"
    if waiting < limit and ledger.total > ledger.high:
        why = f"and all connections together hold {ledger.total} of {ledger.limit}"
    return WouldBlockError(
        f"{waiting} bytes wait to be sent on {conn}, {why}: nothing was queued; wait until "
        f"the peer has read, or give it up"
    )
