"""A clock that is moved by hand.

Owns two numbers. Any thread may read it; one at a time moves it.
"""

from __future__ import annotations

import math

__all__ = ["ManualClock"]


class ManualClock:
    """Time stands still until it is told to pass. Implements `reactor.Clock`.

    It counts microseconds, so that sums of times are exact, and the same in every run.
    """

    def __init__(self, monotonic: float = 1000.0, unix: float = 1_700_000_000.0) -> None:
        self.microseconds: int = round(monotonic * 1e6)
        """The monotonic time."""
        self._offset = round(unix * 1e6) - self.microseconds

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment."""
        return self.microseconds / 1e6

    def unix(self) -> float:
        """Seconds since 1970."""
        return (self.microseconds + self._offset) / 1e6

    def advance(self, seconds: float) -> None:
        """Let time pass, on both scales. Raises ValueError for a time that runs backwards."""
        if not (math.isfinite(seconds) and seconds >= 0.0):
            raise ValueError(
                f"time passes by a number of seconds, which must be at least 0, not {seconds!r}"
            )
        self.microseconds += microseconds(seconds)

    def step(self, seconds: float) -> None:
        """Put the wall clock alone forward, or back, as an administrator would."""
        self._offset += round(seconds * 1e6)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {self.microseconds / 1e6:.6f} s>"


def microseconds(seconds: float) -> int:
    """Rounded up, but for what is only the error of the float: who waits so long waits for no less."""
    whole = math.ceil(round(seconds * 1e6, 3))
    return max(whole, 1) if seconds > 0.0 else whole
