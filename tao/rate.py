"""How often something may happen.

Contents: Rate (what is asked for), TokenBucket (what keeps to it).

Owns arithmetic, and no clock: whoever asks says what time it is, in monotonic seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Rate", "TokenBucket"]


ENOUGH = 1.0 - 1e-9
"""Tokens that count as one: a token that has come to the very moment may lack what rounding has cost."""


@dataclass(frozen=True, slots=True)
class Rate:
    """`count` times in `per` seconds in the long run, and `burst` times at once; `count` unless set.

    It is a token bucket: what has not been used is saved up, but never more than the burst. Raises
    TypeError or ValueError for numbers that make no sense.
    """

    count: int
    per: float = 1.0
    burst: int | None = None

    def __post_init__(self) -> None:
        for name in ("count", "burst"):
            value = getattr(self, name)
            if value is None and name == "burst":
                continue
            if type(value) is not int:
                raise TypeError(f"a rate's {name} is a number of times: an int, not {value!r}")
            if value < 1:
                raise ValueError(f"a rate's {name} must be at least 1, not {value}")
        if not (math.isfinite(self.per) and self.per > 0):
            raise ValueError(f"a rate is per a positive number of seconds, not {self.per!r}")

    @property
    def interval(self) -> float:
        """Seconds from one time to the next, in the long run."""
        return self.per / self.count

    @property
    def at_once(self) -> int:
        """The burst, whether it was set or not."""
        return self.count if self.burst is None else self.burst

    def __str__(self) -> str:
        return f"{self.count} in {self.per:g} s, {self.at_once} at once"


class TokenBucket:
    """Keeps to one rate. It is full at first, with `rate.at_once` tokens. Belongs to one thread."""

    __slots__ = ("_at", "_tokens", "rate")

    def __init__(self, rate: Rate) -> None:
        self.rate: Rate = rate
        # So many at that time; nothing happens to them between two calls. Not one number, the time at
        # which it is full: of a whole burst at one moment, rounding could deny the last.
        self._tokens = float(rate.at_once)
        self._at = -math.inf

    def take(self, now: float) -> bool:
        """Take a token, if there is one; whether there was."""
        self._tokens, self._at = self._tokens_at(now), max(now, self._at)
        if self._tokens < ENOUGH:
            return False
        self._tokens -= 1.0
        return True

    def has_token(self, now: float) -> bool:
        """Whether `take` would find one."""
        return self._tokens_at(now) >= ENOUGH

    def is_full(self, now: float) -> bool:
        """Whether it is as good as new."""
        return self._tokens_at(now) >= self.rate.at_once

    def _tokens_at(self, now: float) -> float:
        come = (now - self._at) / self.rate.interval if now > self._at else 0.0
        return min(self._tokens + come, float(self.rate.at_once))

    def __repr__(self) -> str:
        return f"<TokenBucket of {self.rate}>"
