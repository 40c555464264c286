"""What a server counts.

Contents: Metrics (the counters), MetricsSnapshot (what they say at one moment).

Owns numbers, and no way to show them: `tao.monitor` does that. Counters are written on the loop's thread
alone, in sums over what a segment or a batch brought, so that a message costs a share of an addition.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeAlias

__all__ = ["BUCKET_BOUNDS", "Metrics", "MetricsSnapshot"]

BUCKET_BOUNDS = (
    0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005,
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
"""Upper bounds, in seconds, of the buckets of handler time; there is one more, without a bound."""

SLOW = 0.001
"""Seconds from which on every batch of pooled handlers is entered in the histogram."""

SAMPLING = 16
"""Of quicker ones, and of handlers inline, those of every so manieth pass of the loop are, with that
weight: to time each of them cost an echo 7 in 100 of its rate."""
SAMPLING_MASK = SAMPLING - 1


def _nothing() -> Mapping[str, int]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class MetricsSnapshot:
    """A server's numbers at one moment. Counters only grow; they count since the server was made."""

    uptime: float
    """Seconds since the server was made."""
    connections_total: int
    """Connections accepted and not refused at once."""
    connections_open: int
    """Connections that there are now, those in a TLS handshake among them."""
    bytes_held: int
    """Read and not handled, or waiting to be sent, on all connections; see `Server(memory_limit=...)`."""
    connections_refused: int
    """For want of room: max_connections, the limit of an address, or descriptors."""
    messages_in: int
    """Frames received, whatever became of them."""
    bytes_in: int
    """As they came from the sockets; with TLS, ciphertext."""
    bytes_out: int
    """As the sockets took them; with TLS, ciphertext."""
    handled: int
    """Messages whose handler has returned or raised."""
    handler_seconds: float
    """Seconds spent in handlers, all together, from samples; those inline with the decoding of their
    messages."""
    handler_histogram: tuple[int, ...]
    """Handlers by the time they took: one count for each of BUCKET_BOUNDS, one for what is above.
    Messages that were handled as one batch share its time evenly. What takes below a millisecond is
    sampled, so the counts add up to `handled` only about."""
    queue_depth: int
    """Connections whose messages wait for a worker."""
    loop_lag: float
    """Seconds that the loop took for its last pass: how long a descriptor had to wait for it."""
    timers: int
    """Time-outs that are set: timers of the application's, and those of the connections themselves."""
    wakeups: int
    """How often another thread ended the loop's sleep."""
    passes: int
    """How often the loop has come out of its sleep."""
    errors: Mapping[str, int]
    """Errors by the name of the exception: of decoders, handlers, and connections that failed."""
    backplane: Mapping[str, int] = field(default_factory=_nothing)
    """What the link to the other servers counts, by name; empty without one."""

    @property
    def queries_per_second(self) -> float:
        """Messages handled per second of handler time; 0.0 before the first."""
        return self.handled / self.handler_seconds if self.handler_seconds else 0.0

    def handler_percentile(self, share: float) -> float:
        """The upper bound, in seconds, of the bucket in which that share of handlers is reached.

        `share` is from 0 to 1. Infinite where it is beyond the last bound, 0.0 before any handler.
        Raises ValueError for another share.
        """
        if not 0 <= share <= 1:
            raise ValueError(f"a share is from 0 to 1, not {share!r}")
        total, seen = sum(self.handler_histogram), 0
        if not total:
            return 0.0
        for bound, count in zip(
            (*BUCKET_BOUNDS, float("inf")), self.handler_histogram, strict=True
        ):
            seen += count
            if count and seen / total >= share:
                return bound
        return float("inf")


Traffic: TypeAlias = tuple[int, int, int]
"""What one connection has brought: messages received, bytes received, bytes sent."""


class Metrics:
    """The counters of one server. Written on the loop's thread; read by `snapshot` on any."""

    __slots__ = (
        "bytes_in",
        "bytes_out",
        "connections_refused",
        "connections_total",
        "errors",
        "handled",
        "handler_seconds",
        "histogram",
        "messages_in",
    )

    def __init__(self) -> None:
        self.connections_total: int = 0
        self.connections_refused: int = 0
        # Of connections that are gone; those that are open count for themselves.
        self.messages_in: int = 0
        self.bytes_in: int = 0
        self.bytes_out: int = 0
        self.handled: int = 0
        self.handler_seconds: float = 0.0
        self.histogram: list[int] = [0] * (len(BUCKET_BOUNDS) + 1)
        self.errors: dict[str, int] = {}

    def observe(self, count: int, seconds: float, *, weight: int) -> None:
        """`count` handlers took `seconds` together, about the same each; they stand for more like them."""
        self.handler_seconds += seconds * weight
        self.histogram[bisect_left(BUCKET_BOUNDS, seconds / count)] += count * weight

    def add_traffic(self, traffic: Traffic) -> None:
        """Of a connection that is gone."""
        messages, received, sent = traffic
        self.messages_in += messages
        self.bytes_in += received
        self.bytes_out += sent

    def count_error(self, error: BaseException) -> None:
        """One more of its kind."""
        kind = type(error).__name__
        self.errors[kind] = self.errors.get(kind, 0) + 1

    def snapshot(
        self,
        *,
        uptime: float,
        open_traffic: Iterable[Traffic],
        connections_open: int,
        bytes_held: int = 0,
        refused_by_system: int = 0,
        queue_depth: int,
        loop_lag: float,
        timers: int,
        wakeups: int,
        passes: int,
        backplane: Mapping[str, int] | None = None,
    ) -> MetricsSnapshot:
        """All of them at this moment. Each number is right; all together are close."""
        messages_in, bytes_in, bytes_out = self.messages_in, self.bytes_in, self.bytes_out
        for messages, received, sent in open_traffic:
            messages_in += messages
            bytes_in += received
            bytes_out += sent
        return MetricsSnapshot(
            uptime=uptime,
            connections_total=self.connections_total,
            connections_open=connections_open,
            bytes_held=bytes_held,
            connections_refused=self.connections_refused + refused_by_system,
            messages_in=messages_in,
            bytes_in=bytes_in,
            bytes_out=bytes_out,
            handled=self.handled,
            handler_seconds=self.handler_seconds,
            handler_histogram=tuple(self.histogram),
            queue_depth=queue_depth,
            loop_lag=loop_lag,
            timers=timers,
            wakeups=wakeups,
            passes=passes,
            errors=MappingProxyType(dict(self.errors)),
            backplane=MappingProxyType(dict(backplane or {})),
        )
