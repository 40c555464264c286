"""How long to wait before trying again.

Owns the arithmetic only: no clock, no loop. Any thread.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Backoff"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Exponential back-off with jitter, in the shape of gRPC's; all times in seconds.

    The delay before attempt `n` is `first * factor ** n`, at most `maximum`, give or take a share of
    `jitter` of it, so that clients which lost the same server do not come back all at once. A connection
    that has been open for `stable` seconds starts the count again: one that is accepted and dropped over
    and over does not.

    Raises ValueError for numbers that make no sense.

    Source: gRPC, "Connection Backoff Protocol" (1 s, 1.6, 120 s, 0.2).
    """

    first: float = 1.0
    factor: float = 1.6
    maximum: float = 120.0
    jitter: float = 0.2
    stable: float = 5.0

    def __post_init__(self) -> None:
        for name in ("first", "factor", "maximum", "jitter", "stable"):
            value = getattr(self, name)
            if not math.isfinite(value):
                raise ValueError(f"{name} must be finite, not {value!r}")
        if not 0 < self.first <= self.maximum:
            raise ValueError(
                f"first must be positive and at most maximum, not {self.first!r} and {self.maximum!r}"
            )
        if self.factor < 1:
            raise ValueError(f"factor must be at least 1, not {self.factor!r}")
        if not 0 <= self.jitter < 1:
            raise ValueError(f"jitter is a share from 0 to below 1, not {self.jitter!r}")
        if self.stable < 0:
            raise ValueError(f"stable must not be negative, not {self.stable!r}")

    def delay(
        self, attempt: int, uniform: Callable[[float, float], float] = random.uniform
    ) -> float:
        """Seconds to wait before attempt number `attempt`, the first being 0.

        The cap comes before the jitter: capped clients must not fall into step either.
        """
        try:
            grown = self.first * self.factor**attempt
        except OverflowError:
            grown = self.maximum
        return min(grown, self.maximum) * uniform(1 - self.jitter, 1 + self.jitter)
