"""How a server's stop went.

Owns the value that `stop` returns. Immutable; any thread.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["StopReport"]


@dataclass(frozen=True, slots=True)
class StopReport:
    """How a stop went."""

    drained: int
    """Connections that ended in good order, with nothing lost."""
    aborted: int
    """Connections that were cut off at the end of the grace."""
    finished: bool
    """Whether all is over. False where `stop` could not wait: inside a handler, or on the loop's
    thread; and where a handler has not returned by the end of the grace."""
