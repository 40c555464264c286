"""Why a connection is not read from.

Owns the reasons, and nothing else: who gives and withdraws them is said where that is done, and what
follows from them in `reactor.connection`. Plain numbers; any thread.
"""

from __future__ import annotations

from typing import Final

__all__ = ["Pause"]


class Pause:
    """Why reading is paused; it goes on when no reason is left. Bits, to be or-ed."""

    USER: Final = 1
    """The application asked for it."""
    WORK: Final = 2
    """Enough messages wait for a worker."""
    OUTPUT: Final = 4
    """Enough bytes wait for the peer: it shall read before it asks for more."""
    PROTOCOL: Final = 8
    """What comes can no longer be understood."""
    MEMORY: Final = 16
    """All connections together hold too much, and this one more than its share."""
