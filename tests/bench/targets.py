"""The ratios that must hold: what ``--check`` compares with the results.

A limit is what the design promised before the code existed, with room for a shared machine. A
target whose case or peers were not measured counts as missed: silence is not success.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from tests.bench.broadcast import BARE_LOOP, TAO_LOOP, TAO_THREAD
from tests.bench.echo import (
    ASYNCIO_EACH,
    ASYNCIO_EXECUTOR,
    ASYNCIO_EXECUTOR_ORDERED,
    ASYNCIO_JOINED,
    TAO_INLINE,
    TAO_POOL,
    UVLOOP_EACH,
    UVLOOP_JOINED,
)
from tests.bench.embedded import embedded_name
from tests.bench.results import Results
from tests.bench.timers import TAO_TIMERS, TIMERS_REFERENCE
from tests.bench.workload import AnyCase, Case
from tests.bench.workloads.timers import ADD, CANCEL, RESTART
from tests.bench.workloads.timers_lateness import EXPIRE
from tests.bench.workloads.workers import WORKERS_1, WORKERS_2


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure of `peer` must be: in ratio to that of `reference`, or by itself if it is None.

    At least `minimum`, where more is better; at most `maximum`, where less is. `figure` is the key of
    a sample; None is the workload's headline.
    """

    workload: str
    case: AnyCase
    peer: str
    reference: str | None
    minimum: float | None = None
    maximum: float | None = None
    figure: str | None = None

    def __post_init__(self) -> None:
        if self.minimum is None and self.maximum is None:
            raise ValueError(f"{self.workload}: a target without a limit would always be met")

    def value(self, results: Results) -> float | None:
        """The median of the ratio or figure; None when it was not measured."""
        key = self.figure or results.workload.headline.key
        if self.reference is not None:
            ratio = results.ratio(self.case, self.peer, self.reference, key)
            return None if ratio is None else ratio.median
        if not results.samples(self.case, self.peer):
            return None
        return results.spread(self.case, self.peer, key).median

    def allows(self, value: float) -> bool:
        return (self.minimum is None or value >= self.minimum) and (
            self.maximum is None or value <= self.maximum
        )


ONE = Case(connections=50, in_flight=1, size=64)
SIXTEEN = Case(connections=50, in_flight=16, size=64)
THOUSAND = Case(connections=1000, in_flight=1, size=64)
SLEEPERS = Case(connections=200, in_flight=1, size=64)
IDLERS = Case(connections=10_000, in_flight=1, size=64)
CROWDS = tuple(Case(connections=1000, in_flight=1, size=size) for size in (64, 1024))
LARGE = tuple(Case(connections=50, in_flight=number, size=65_536) for number in (1, 16))

TARGETS = (
    Target("echo", ONE, TAO_INLINE, UVLOOP_EACH, 1.0),
    Target("echo", SIXTEEN, TAO_INLINE, UVLOOP_EACH, 3.5),
    Target("echo", SIXTEEN, TAO_INLINE, UVLOOP_JOINED, 1.0),
    Target("echo", ONE, TAO_POOL, UVLOOP_EACH, 0.75),
    Target("echo", SIXTEEN, TAO_POOL, UVLOOP_EACH, 2.5),
    Target("echo", ONE, TAO_POOL, ASYNCIO_EXECUTOR, 6.0),
    Target("echo", SIXTEEN, TAO_POOL, ASYNCIO_EXECUTOR, 25.0),
    # The same guarantee as the pool's: the messages of a connection handled one after the other.
    Target("peers", ONE, TAO_POOL, ASYNCIO_EXECUTOR_ORDERED, 6.0),
    Target("peers", SIXTEEN, TAO_POOL, ASYNCIO_EXECUTOR_ORDERED, 25.0),
    *(
        Target("echo-sizes", case, TAO_INLINE, uvloop, 1.0)
        for case in LARGE
        for uvloop in (UVLOOP_EACH, UVLOOP_JOINED)
    ),
    Target("echo-connections", THOUSAND, TAO_INLINE, UVLOOP_EACH, 1.0),
    Target("pool-sleep", SLEEPERS, TAO_POOL, None, 0.95, figure="of_ideal"),
    Target("slow-beside-fast", ONE, TAO_POOL, None, maximum=1.5),
    *(
        Target("tls-echo", case, TAO_INLINE, other, 1.0)
        for case in (ONE, SIXTEEN)
        for other in (ASYNCIO_EACH, ASYNCIO_JOINED, UVLOOP_EACH, UVLOOP_JOINED)
    ),
    Target("churn", ONE, TAO_INLINE, ASYNCIO_EACH, 1.5),
    Target("memory", IDLERS, TAO_POOL, ASYNCIO_EACH, maximum=0.7),
    Target("idle", IDLERS, TAO_POOL, None, maximum=0.0, figure="wake_ups"),
    Target("idle", IDLERS, TAO_POOL, None, maximum=0.0, figure="cpu_ms"),
    *(
        Target(
            workload, case, embedded_name("asyncio", handlers), embedded_name("none", handlers), 0.9
        )
        for workload, handlers in (("embedded", "inline"), ("embedded-pool", "pool"))
        for case in (ONE, SIXTEEN)
    ),
    Target("timers", ADD, TAO_TIMERS, TIMERS_REFERENCE, maximum=0.6),
    Target("timers", CANCEL, TAO_TIMERS, TIMERS_REFERENCE, maximum=1.0),
    Target("timers", RESTART, TAO_TIMERS, TIMERS_REFERENCE, maximum=0.6),
    Target("timers-lateness", EXPIRE, TAO_TIMERS, TIMERS_REFERENCE, maximum=1.0),
    *(
        Target("broadcast", case, peer, BARE_LOOP, maximum=1.2)
        for case in CROWDS
        for peer in (TAO_LOOP, TAO_THREAD)
    ),
    Target("workers", ONE, WORKERS_2, WORKERS_1, 1.7),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A target and the median that was reached; None when it was not measured."""

    target: Target
    value: float | None

    @property
    def is_met(self) -> bool:
        return self.value is not None and self.target.allows(self.value)

    def __str__(self) -> str:
        target = self.target
        what = target.peer
        if target.figure is not None:
            what = f"{target.figure} of {what}"
        if target.reference is not None:
            what = f"{what} / {target.reference}"
        reached = "not measured" if self.value is None else f"{self.value:.2f}"
        limits = {"minimum": target.minimum, "maximum": target.maximum}
        shown = ", ".join(f"{name} {x:.2f}" for name, x in limits.items() if x is not None)
        return (
            f"{'ok    ' if self.is_met else 'MISSED'}  {target.workload}: {target.case}: "
            f"{what} = {reached} ({shown})"
        )


def check(all_results: Iterable[Results]) -> list[Verdict]:
    """A verdict on every target that concerns one of the workloads that ran."""
    by_name = {results.workload.name: results for results in all_results}
    verdicts = []
    for target in TARGETS:
        if target.workload in by_name:
            verdicts.append(Verdict(target, target.value(by_name[target.workload])))
    return verdicts
