"""How long things took, in buckets.

Owns the counting only: no clock. One thread; histograms of several processes are added up.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

__all__ = ["Histogram"]

PRECISION = 8
"""Bits of a value that are kept: a bucket is less than 1 % of its value wide."""


class Histogram:
    """Counts of whole numbers from 0 on, such as nanoseconds; each is known to within 1 %.

    Buckets are linear within each power of two, so that few of them cover all magnitudes (HdrHistogram,
    by Gil Tene, is made like that). Memory is that of the buckets in use.
    """

    __slots__ = ("_counts", "maximum", "minimum", "total")

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self.minimum = 0
        """The least value, exactly; 0 as long as there is none."""
        self.maximum = 0
        """The largest value, exactly."""
        self.total = 0
        """The sum of all values."""

    @property
    def count(self) -> int:
        """How many values there are. O(buckets)."""
        return sum(self._counts.values())

    def add_all(self, values: Iterable[int]) -> None:
        """Count each value. Best many at once: that costs a third of one call for each."""
        counts = self._counts
        seen = list(values)
        if not seen:
            return
        least = min(seen)
        self.minimum = min(self.minimum, least) if counts else least
        self.maximum = max(self.maximum, *seen) if len(seen) > 1 else max(self.maximum, seen[0])
        self.total += sum(seen)
        for value in seen:
            shift = value.bit_length() - PRECISION
            # The bits that are kept, and how many were left out: by both it is ordered, and found again.
            bucket = value if shift <= 0 else (shift << PRECISION) + (value >> shift)
            counts[bucket] = counts.get(bucket, 0) + 1

    def merge(self, other: Histogram) -> None:
        """Add another's counts to these."""
        if other._counts:
            self.minimum = min(self.minimum, other.minimum) if self._counts else other.minimum
        self.maximum = max(self.maximum, other.maximum)
        self.total += other.total
        for bucket, count in other._counts.items():
            self._counts[bucket] = self._counts.get(bucket, 0) + count

    def percentile(self, share: float) -> int:
        """The least value that `share`, from 0 to 1, of all values do not exceed; 0 if there are none."""
        rank = max(1, math.ceil(share * self.count))
        for bucket in sorted(self._counts):
            rank -= self._counts[bucket]
            if rank <= 0:
                return min(_highest(bucket), self.maximum)
        return 0

    def mean(self) -> float:
        """0.0 if there are no values."""
        return self.total / (self.count or 1)

    def below(self, limit: int) -> int:
        """How many values are less than `limit`, to within the width of its bucket."""
        return sum(count for bucket, count in self._counts.items() if _highest(bucket) < limit)

    def as_json(self) -> dict[str, object]:
        """For `from_json`, in another process."""
        return {
            "counts": {str(bucket): count for bucket, count in self._counts.items()},
            "minimum": self.minimum,
            "maximum": self.maximum,
            "total": self.total,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> Histogram:
        """What `as_json` has given. Raises TypeError or ValueError for anything else."""
        counts = data["counts"]
        made = cls()
        if not isinstance(counts, dict):
            raise TypeError(f"counts must be a dict, not {counts!r}")
        made._counts = {int(bucket): int(count) for bucket, count in counts.items()}
        made.minimum, made.maximum, made.total = (
            int(str(data[name])) for name in ("minimum", "maximum", "total")
        )
        return made

    def __repr__(self) -> str:
        return f"<Histogram of {self.count} values from {self.minimum} to {self.maximum}>"


def _highest(bucket: int) -> int:
    """The largest value that is counted in a bucket."""
    shift, bits = bucket >> PRECISION, bucket & ((1 << PRECISION) - 1)
    return ((bits + 1) << shift) - 1 if shift > 0 else bucket
