"""What a server does per second.

Contents: COLUMNS, percentile, Series.

Owns the points of one source's charts, each made of two snapshots, and no way to get them. A Series is
written by the sampler's thread; its points may be listed by any.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TypeAlias

from tao.metrics import BUCKET_BOUNDS, MetricsSnapshot

__all__ = ["COLUMNS", "Point", "Series", "percentile"]

LENGTH = 300
"""Points that are kept: at one in a second, five minutes."""

Point: TypeAlias = tuple[float | None, ...]

COLUMNS = (
    "time",  # seconds since the monitor was made
    "connections",
    "opened",  # per second, as are the next six
    "messages",
    "handled",
    "bytes_in",
    "bytes_out",
    "errors",
    "refused",
    "p50",  # of handler time in the time since the last point, in seconds; None if there was none
    "p95",
    "p99",
    "queue",  # the most since the last point
    "lag",  # in seconds; likewise
    "held",
)
"""What a point has, in this order. What is per second is None in the first point."""

_PER_SECOND = (
    "connections_total",
    "messages_in",
    "handled",
    "bytes_in",
    "bytes_out",
)


class Series:
    """The points of one source."""

    def __init__(self) -> None:
        self._points: deque[Point] = deque(maxlen=LENGTH)
        self._last: MetricsSnapshot | None = None
        self._last_time = 0.0

    def add(self, when: float, now: MetricsSnapshot, *, queue: int, lag: float) -> None:
        """Another point, of what has happened since the last one. `when` and `lag` are in seconds."""
        before, elapsed = self._last, when - self._last_time
        # A source may be another server's all of a sudden: nothing is less than it was.
        if before is not None and (elapsed <= 0 or now.uptime < before.uptime):
            before = None
        rates: list[float | None] = [None] * (len(_PER_SECOND) + 2)
        shares: list[float | None] = [None] * 3
        if before is not None:
            rates = [
                *((getattr(now, name) - getattr(before, name)) / elapsed for name in _PER_SECOND),
                (sum(now.errors.values()) - sum(before.errors.values())) / elapsed,
                (now.connections_refused - before.connections_refused) / elapsed,
            ]
            counts = [
                late - early
                for late, early in zip(now.handler_histogram, before.handler_histogram, strict=True)
            ]
            shares = [percentile(counts, share) for share in (0.5, 0.95, 0.99)]
        values = (*rates, *shares, queue, lag, now.bytes_held)
        # To the millisecond, and of the rest what a chart can show: it goes over the wire.
        self._points.append((round(when, 3), now.connections_open, *map(_short, values)))
        self._last, self._last_time = now, when

    def pause(self) -> None:
        """The next point is not to be of all the time since the last one."""
        self._last = None

    @property
    def last(self) -> MetricsSnapshot | None:
        """The snapshot of the last point; None before the first, and after `pause`."""
        return self._last

    def since(self, time: float) -> list[Point]:
        """The points after that one, in seconds as they have it."""
        return [point for point in tuple(self._points) if point[0] is not None and point[0] > time]


def _short(value: float | None) -> float | None:
    return None if value is None else value if isinstance(value, int) else float(f"{value:.5g}")


def percentile(counts: Sequence[int], share: float) -> float | None:
    """What that share of handlers did not exceed, in seconds, by `counts` in the buckets of BUCKET_BOUNDS.

    Inside a bucket they are taken to lie evenly, as by Prometheus' `histogram_quantile`. The last bucket
    has no end: what is in there counts as its beginning. None if there are none.
    """
    total = sum(counts)
    if not total:
        return None
    wanted, seen = total * share, 0
    below = 0.0
    for bound, count in zip(BUCKET_BOUNDS, counts, strict=False):
        if count and seen + count >= wanted:
            return below + (bound - below) * max(0.0, wanted - seen) / count
        seen += count
        below = bound
    return below
