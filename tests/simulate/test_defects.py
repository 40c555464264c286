"""Defects that are put in by hand are found, and the seed that has found one finds it again.

All of them, and what they are: `tests.simulate.defects`, and the table in `tests/README.md`. Here are
some of each kind that few seeds find; `python -m tests.simulate --defects` looks for all.
"""

from __future__ import annotations

import pytest

from reactor import Connection
from tests.examples.support import ROOT
from tests.simulate.__main__ import main
from tests.simulate.defects import DEFECTS
from tests.simulate.planting import Defect, Edit, first_found, planted

MOST_SEEDS = 200
"""In which each is found, though the scenario should change: each takes a small part of them."""

BY_NAME = {defect.name: defect for defects in DEFECTS.values() for defect in defects}

FOUND_SOON = [
    "a wake-up sends no byte",
    "write does not wake the loop",
    "write thinks for ever that a flush is posted",
    "a drain ends without waking the loop",
    "the rest of a partial write is dropped",
    "a partial write is repeated from its beginning",
    "a write that the kernel does not take is dropped",
    "the rest waits for a socket that nobody watches",
    "on_close while a batch is out",
    "on_close at once, whatever is under way",
    "on_close twice, once from where it is told of",
    "stop returns before on_close",
    "timers outlive their connection",
    "a heartbeat outlives its connection",
    "a deadline outlives its connection",
    "a draining connection has no deadline",
]


@pytest.mark.parametrize("name", FOUND_SOON)
def test_a_defect_is_found_and_its_seed_plays_the_same_again(name: str) -> None:
    with planted(BY_NAME[name]):
        found = first_found(range(MOST_SEEDS))
        assert found is not None, "nothing was found"
        assert first_found(range(found.seed, found.seed + 1)) == found
    # It was the defect that was found.
    assert first_found(range(found.seed, found.seed + 1)) is None


@pytest.mark.parametrize("defect", BY_NAME.values(), ids=lambda defect: defect.name)
def test_every_defect_can_be_put_in_and_is_taken_out(defect: Defect) -> None:
    before = vars(Connection).copy()
    with planted(defect):
        pass
    assert vars(Connection) == before


def test_what_is_not_there_cannot_be_replaced() -> None:
    edit = Edit("reactor.connection:Connection.flush", "no such words", "")
    with (
        pytest.raises(LookupError, match="has 0 times 'no such words'"),
        planted(Defect("-", (edit,))),
    ):
        pass


def test_names_are_unique_and_listed() -> None:
    assert len(BY_NAME) == sum(map(len, DEFECTS.values()))
    table = (ROOT / "tests" / "README.md").read_text()
    for kind, defects in DEFECTS.items():
        assert f"| {kind} | {'; '.join(defect.name for defect in defects)} |" in table


def test_the_command_says_what_has_found_a_defect(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--defects", "the waker is never armed", "--seeds", "20"]) == 0
    output = capsys.readouterr().out
    assert output.startswith("a lost wake-up:\n  the waker is never armed: seed ")
    assert output.endswith("1 of 1 defects found, in 20 seeds each at the most\n")


def test_the_command_says_what_was_not_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--defects", "the waker is never armed", "--seeds", "0"]) == 1
    assert "  NOT FOUND: the waker is never armed\n" in capsys.readouterr().out
