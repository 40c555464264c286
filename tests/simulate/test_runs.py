"""A fixed set of seeds; that a seed plays the same run again; the command."""

from __future__ import annotations

import subprocess
import sys

import pytest

from reactor.testing import SimulationError
from tests.examples.support import ROOT
from tests.simulate.__main__ import main
from tests.simulate.scenario import Run, run

SEEDS = range(150)


@pytest.mark.parametrize("seeds", [SEEDS[start::10] for start in range(10)], ids=str)
def test_every_rule_holds(seeds: range) -> None:
    for seed in seeds:
        run(seed)


# -- replay --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 8, 12, 14, 17, 41, 96])
def test_a_seed_plays_the_same_run_again(seed: int) -> None:
    assert run(seed) == run(seed)


def test_another_process_plays_the_same_run() -> None:
    """With other addresses of objects, and strings that have other hashes."""
    program = "import sys; from tests.simulate.scenario import run; print(*run(14), sep='\\n')"
    here = "".join(f"{entry}\n" for entry in run(14))
    for hash_seed in ("1", "2"):
        result = subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert result.stdout == here


def test_seeds_differ() -> None:
    assert len({tuple(run(seed)) for seed in range(20)}) == 20


# -- the command ---------------------------------------------------------------------------------


def test_the_command_counts_what_it_plays(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "12", "--first", "100"]) == 0
    output = capsys.readouterr().out
    assert "\r10 of 12 seeds, " in output
    assert "\r12 of 12 seeds, " in output
    assert output.endswith(" 0 failed\n")


def test_the_command_prints_a_trace(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seed", "1", "--trace"]) == 0
    assert capsys.readouterr().out == "".join(f"{entry}\n" for entry in run(1))


def test_the_command_tells_the_seed_that_failed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def play(self: Run) -> None:
        if self.seed == 7:
            raise SimulationError("something is wrong")

    monkeypatch.setattr(Run, "play", play)
    assert main(["--seeds", "10"]) == 1
    output = capsys.readouterr().out
    assert "\nseed 7: SimulationError: something is wrong\n" in output
    assert output.endswith("\nfailed: 7\nagain: python -m tests.simulate --seed 7 --trace\n")
    assert main(["--seed", "7"]) == 1
