"""The ratios that must hold: what ``--check`` compares with the results.

A bound is what the design promised before the code existed, with room for a shared machine. A target
whose case or peers were not measured counts as missed: silence is not success.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from tests.bench.echo import TAO_INLINE, TAO_POOL, UVLOOP_EACH, UVLOOP_JOINED
from tests.bench.results import Results
from tests.bench.workload import AnyCase, Case


@dataclass(frozen=True, slots=True)
class Target:
    """The ratio of `peer` to `reference`, of the headline figure, must lie within the bounds.

    A rate has a minimum, a cost a maximum.
    """

    workload: str
    case: AnyCase
    peer: str
    reference: str
    minimum: float | None = None
    maximum: float | None = None

    def admits(self, ratio: float) -> bool:
        return (self.minimum is None or ratio >= self.minimum) and (
            self.maximum is None or ratio <= self.maximum
        )

    @property
    def bounds(self) -> str:
        bounds = (("minimum", self.minimum), ("maximum", self.maximum))
        return ", ".join(f"{name} {bound:.2f}" for name, bound in bounds if bound is not None)


ONE = Case(connections=50, in_flight=1, size=64)
SIXTEEN = Case(connections=50, in_flight=16, size=64)

TARGETS = (
    Target("echo", ONE, TAO_INLINE, UVLOOP_EACH, 1.0),
    Target("echo", SIXTEEN, TAO_INLINE, UVLOOP_EACH, 3.5),
    Target("echo", SIXTEEN, TAO_INLINE, UVLOOP_JOINED, 1.0),
    Target("echo", ONE, TAO_POOL, UVLOOP_EACH, 0.75),
    Target("echo", SIXTEEN, TAO_POOL, UVLOOP_EACH, 2.5),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A target and the median ratio that was reached; None when it was not measured."""

    target: Target
    ratio: float | None

    @property
    def is_met(self) -> bool:
        return self.ratio is not None and self.target.admits(self.ratio)

    def __str__(self) -> str:
        target = self.target
        reached = "not measured" if self.ratio is None else f"{self.ratio:.2f}"
        return (
            f"{'ok    ' if self.is_met else 'MISSED'}  {target.workload}: {target.case}: "
            f"{target.peer} / {target.reference} = {reached} ({target.bounds})"
        )


def check(all_results: Iterable[Results]) -> list[Verdict]:
    """A verdict on every target that concerns one of the workloads that ran."""
    by_name = {results.workload.name: results for results in all_results}
    verdicts = []
    for target in TARGETS:
        if target.workload in by_name:
            results = by_name[target.workload]
            ratio = results.ratio(target.case, target.peer, target.reference)
            verdicts.append(Verdict(target, None if ratio is None else ratio.median))
    return verdicts
