"""What `--check` holds: limits, the figures they are about, and that every target can be measured."""

from __future__ import annotations

import pytest

from tests.bench import targets
from tests.bench.discovery import find_workloads
from tests.bench.peer import Peer
from tests.bench.results import Results
from tests.bench.targets import TARGETS, Target, Verdict, check
from tests.bench.workload import Case, Column, Grid, Sample, Workload

CASE = Case(connections=50, in_flight=1, size=64)


def _results(samples: dict[str, list[Sample]]) -> Results:
    """Of a workload with two peers, of which `rate` is the headline."""

    def measure(*_: object) -> Sample:
        raise AssertionError("nothing is measured here")

    workload = Workload(
        name="some",
        summary="",
        peers=(Peer("ours", "no.module"), Peer("theirs", "no.module")),
        grid=Grid(connections=(50,), in_flight=(1,), sizes=(64,)),
        reference="theirs",
        headline=Column("rate", "rate"),
        columns=(Column("late", "late"),),
        measure=measure,
    )
    results = Results(workload, [CASE])
    for peer, of_peer in samples.items():
        for number, sample in enumerate(of_peer):
            results.add(CASE, peer, number, sample)
    return results


RESULTS = _results(
    {
        "ours": [{"rate": 30.0, "late": 4.0}, {"rate": 20.0, "late": 6.0}],
        "theirs": [{"rate": 20.0, "late": 10.0}, {"rate": 10.0, "late": 10.0}],
    }
)


@pytest.mark.parametrize(
    ("target", "value", "is_met"),
    [
        (Target("some", CASE, "ours", "theirs", 1.75), 1.75, True),
        (Target("some", CASE, "ours", "theirs", 1.76), 1.75, False),
        (Target("some", CASE, "ours", "theirs", maximum=0.5, figure="late"), 0.5, True),
        (Target("some", CASE, "ours", "theirs", maximum=0.49, figure="late"), 0.5, False),
        (Target("some", CASE, "ours", "theirs", 1.0, 1.5), 1.75, False),
        (Target("some", CASE, "ours", None, 25.0), 25.0, True),
        (Target("some", CASE, "ours", None, maximum=4.9, figure="late"), 5.0, False),
        (Target("some", CASE, "ours", None, maximum=0.0), 25.0, False),
        (Target("some", CASE, "absent", "theirs", maximum=9.0), None, False),
        (Target("some", CASE, "ours", "absent", 0.0), None, False),
        (Target("some", CASE, "absent", None, maximum=9.0), None, False),
    ],
    ids=str,
)
def test_a_target_is_met_within_its_limits(
    target: Target, value: float | None, is_met: bool
) -> None:
    verdict = Verdict(target, target.value(RESULTS))
    assert verdict.value == value
    assert verdict.is_met == is_met
    assert str(verdict).startswith("ok" if is_met else "MISSED")


def test_a_verdict_says_what_and_how_far() -> None:
    of_ratio = Verdict(Target("some", CASE, "ours", "theirs", 1.5), 1.75)
    assert str(of_ratio) == (
        "ok      some: 50 connections, 1 in flight, 64 bytes: ours / theirs = 1.75 (minimum 1.50)"
    )
    of_figure = Verdict(Target("some", CASE, "ours", None, maximum=0.0, figure="late"), None)
    assert str(of_figure) == (
        "MISSED  some: 50 connections, 1 in flight, 64 bytes: late of ours = not measured"
        " (maximum 0.00)"
    )


def test_a_target_needs_a_limit() -> None:
    with pytest.raises(ValueError, match="without a limit"):
        Target("some", CASE, "ours", "theirs")


def test_only_the_workloads_that_ran_are_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = Target("some", CASE, "ours", "theirs", 1.0)
    monkeypatch.setattr(targets, "TARGETS", (ran, Target("other", CASE, "ours", "theirs", 1.0)))
    assert check([RESULTS]) == [Verdict(ran, 1.75)]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: f"{target.workload}-{target.peer}")
def test_every_target_is_about_something_that_is_measured(target: Target) -> None:
    """Or it would be missed for ever, and nobody would know why."""
    workload = find_workloads()[target.workload]
    assert target.case in workload.grid.cases()
    names = {peer.name for peer in workload.peers}
    assert {target.peer, target.reference} <= names | {None}
    figures = {column.key for column in (workload.headline, *workload.columns)}
    assert (target.figure or workload.headline.key) in figures
