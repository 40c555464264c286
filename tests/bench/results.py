"""Samples of one workload, and what follows from them: medians, ranges, ratios."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Self

from tests.bench.workload import AnyCase, Sample, Workload


@dataclass(frozen=True, slots=True)
class Spread:
    """The middle and the ends of a figure over the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        return cls(median(values), min(values), max(values))


class Results:
    """Every sample by case, peer and round; and what could not be measured, in words."""

    def __init__(self, workload: Workload, cases: Sequence[AnyCase]) -> None:
        self.workload = workload
        self.cases = tuple(cases)
        self.failures: list[str] = []
        self._samples: dict[tuple[AnyCase, str], dict[int, Sample]] = {}

    def add(self, case: AnyCase, peer: str, round_number: int, sample: Sample) -> None:
        self._samples.setdefault((case, peer), {})[round_number] = sample

    def samples(self, case: AnyCase, peer: str) -> dict[int, Sample]:
        """By round; empty when the peer was not measured."""
        return self._samples.get((case, peer), {})

    def peers(self, case: AnyCase) -> list[str]:
        """Those with samples, in the workload's order."""
        names = (peer.name for peer in self.workload.peers)
        return [name for name in names if self.samples(case, name)]

    def spread(self, case: AnyCase, peer: str, key: str) -> Spread:
        return Spread.of([sample[key] for sample in self.samples(case, peer).values()])

    def ratio(
        self, case: AnyCase, peer: str, reference: str, key: str | None = None
    ) -> Spread | None:
        """Of the figure `key`, or the headline, peer to reference; None when they share no round.

        A ratio is taken within each round, where both ran moments apart, so that a machine that
        slows down between rounds does not enter into it.
        """
        key = key or self.workload.headline.key
        theirs = self.samples(case, reference)
        ratios = [
            sample[key] / theirs[round_number][key]
            for round_number, sample in self.samples(case, peer).items()
            if round_number in theirs and theirs[round_number][key] > 0
        ]
        return Spread.of(ratios) if ratios else None
