"""What became of a write.

Owns the value that `Connection.write` returns. Immutable; any thread.
"""

from __future__ import annotations

import enum

__all__ = ["WriteResult"]


class WriteResult(enum.Enum):
    """What became of a write."""

    ACCEPTED = "accepted"
    """It will be sent, and there is room for more."""
    ABOVE_HIGH = "accepted; above the high watermark"
    """It will be sent, and it would be wise to wait before the next."""
    FULL = "refused; over the limit"
    CLOSED = "refused; the connection is closing or closed"
