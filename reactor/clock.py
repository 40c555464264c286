"""Where the time comes from.

Owns the Clock protocol and the system's clock. The loop reads time only through a Clock, so that a
test can drive it by hand. Any thread may read a clock.
"""

from __future__ import annotations

import time
from typing import ClassVar, Protocol

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """A source of time, in seconds."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment; never goes back, whatever is done to the wall clock."""
        ...

    def unix(self) -> float:
        """Seconds since 1970, as `time.time()` gives them; may jump."""
        ...


class SystemClock:
    """The machine's own clocks."""

    __slots__ = ()

    # Bound directly: a Python frame around a 40 ns call would double what the loop pays for time.
    monotonic: ClassVar[staticmethod[[], float]] = staticmethod(time.monotonic)
    """Seconds since an arbitrary moment, as `time.monotonic()` gives them."""
    unix: ClassVar[staticmethod[[], float]] = staticmethod(time.time)
    """Seconds since 1970, as `time.time()` gives them."""

    def __repr__(self) -> str:
        return "SystemClock()"
