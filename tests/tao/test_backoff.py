"""tao.backoff: the arithmetic of waiting."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tao import Backoff


def lowest(low: float, _high: float) -> float:
    return low


def highest(_low: float, high: float) -> float:
    return high


def middle(low: float, high: float) -> float:
    return (low + high) / 2


def test_the_defaults_are_grpcs() -> None:
    backoff = Backoff()
    assert (backoff.first, backoff.factor, backoff.maximum, backoff.jitter) == (
        1.0,
        1.6,
        120.0,
        0.2,
    )


def test_it_grows_by_the_factor() -> None:
    backoff = Backoff(first=0.5, factor=2.0, maximum=60.0, jitter=0.0)
    assert [backoff.delay(attempt) for attempt in range(5)] == [0.5, 1.0, 2.0, 4.0, 8.0]


def test_with_grpcs_numbers() -> None:
    delays = [Backoff().delay(attempt, middle) for attempt in range(12)]
    assert delays[:3] == pytest.approx([1.0, 1.6, 2.56])
    assert delays[10] == pytest.approx(1.6**10)
    assert delays[11] == 120.0


def test_the_cap_comes_before_the_jitter() -> None:
    """Else all that have reached the cap would come at the same moments."""
    backoff = Backoff(first=1.0, maximum=10.0, jitter=0.5)
    assert backoff.delay(100, lowest) == 5.0
    assert backoff.delay(100, highest) == 15.0
    assert len({backoff.delay(100) for _ in range(20)}) > 1


def test_without_jitter_there_is_no_chance_in_it() -> None:
    backoff = Backoff(jitter=0.0)
    assert len({backoff.delay(3) for _ in range(20)}) == 1


def test_a_factor_of_one_never_grows() -> None:
    backoff = Backoff(first=3.0, factor=1.0, jitter=0.0)
    assert backoff.delay(0) == backoff.delay(1_000_000) == 3.0


@pytest.mark.parametrize("attempt", [1_000, 100_000, 10**9])
def test_many_attempts_are_the_maximum(attempt: int) -> None:
    """1.6 ** 1_000 is a float; 1.6 ** 100_000 is none."""
    assert Backoff(jitter=0.0).delay(attempt) == 120.0


def test_numbers_need_not_be_floats() -> None:
    backoff = Backoff(first=1, factor=2, maximum=120, jitter=0)
    assert [backoff.delay(attempt) for attempt in (0, 3, 7, 5_000)] == [1, 8, 120, 120]


times = st.floats(min_value=1e-6, max_value=1e6)


@st.composite
def backoffs(draw: st.DrawFn) -> Backoff:
    first, maximum = sorted((draw(times), draw(times)))
    return Backoff(
        first=first,
        factor=draw(st.floats(min_value=1.0, max_value=1e6)),
        maximum=maximum,
        jitter=draw(st.floats(min_value=0.0, max_value=1.0, exclude_max=True)),
    )


@given(backoffs(), st.integers(min_value=0, max_value=10**6))
def test_every_delay_is_within_its_bounds(backoff: Backoff, attempt: int) -> None:
    delay = backoff.delay(attempt)
    assert math.isfinite(delay)
    assert delay >= backoff.first * (1 - backoff.jitter) * (1 - 1e-12)
    assert delay <= backoff.maximum * (1 + backoff.jitter) * (1 + 1e-12)
    assert delay > 0.0
    assert backoff.delay(attempt, lowest) * (1 - 1e-12) <= delay
    assert delay <= backoff.delay(attempt, highest) * (1 + 1e-12)


@given(backoffs(), st.integers(min_value=0, max_value=1000))
def test_the_next_is_never_shorter(backoff: Backoff, attempt: int) -> None:
    assert backoff.delay(attempt, middle) <= backoff.delay(attempt + 1, middle)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"first": 0.0}, "first must be positive and at most maximum, not 0.0 and 120.0"),
        ({"first": -1.0}, "first must be positive and at most maximum, not -1.0 and 120.0"),
        ({"first": 2.0, "maximum": 1.0}, "first must be positive and at most maximum, not 2.0 and"),
        ({"factor": 0.9}, "factor must be at least 1, not 0.9"),
        ({"jitter": -0.1}, "jitter is a share from 0 to below 1, not -0.1"),
        ({"jitter": 1.0}, "jitter is a share from 0 to below 1, not 1.0"),
        ({"stable": -1.0}, "stable must not be negative, not -1.0"),
        *(
            ({name: value}, f"{name} must be finite, not {value}")
            for name in asdict(Backoff())
            for value in (math.inf, math.nan)
        ),
    ],
)
def test_what_makes_no_sense(arguments: dict[str, float], text: str) -> None:
    with pytest.raises(ValueError) as caught:
        Backoff(**arguments)
    assert text in str(caught.value)


def test_the_borders_make_sense() -> None:
    Backoff(first=1.0, maximum=1.0, factor=1.0, jitter=0.0, stable=0.0)


def test_it_is_a_value() -> None:
    assert Backoff(first=2.0) == Backoff(first=2.0) != Backoff()
    assert len({Backoff(), Backoff()}) == 1
    with pytest.raises(FrozenInstanceError):
        Backoff().first = 2.0  # type: ignore[misc]
