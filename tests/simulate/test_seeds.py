"""A fixed set of seeds: what must hold in each run does, and a seed plays the same run again."""

from __future__ import annotations

import pytest

from tests.simulate.scenario import Run


@pytest.mark.parametrize("seed", range(40))
def test_what_must_hold_does(seed: int) -> None:
    """`python -m tests.simulate --seed S --trace` shows what happens in one of them."""
    Run(seed).play()


@pytest.mark.parametrize("seed", [1, 7])
def test_a_seed_plays_the_same_run_again(seed: int) -> None:
    runs = [Run(seed), Run(seed)]
    for run in runs:
        run.play()
    first, second = ([str(event) for event in run.simulation.trace] for run in runs)
    assert len(first) > 10
    assert first == second
