"""tao.rate: what is let through of arbitrary arrivals."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tao import Rate
from tao.rate import TokenBucket


def test_a_rate_says_what_it_is() -> None:
    assert (Rate(5).count, Rate(5).per, Rate(5).burst, Rate(5).at_once) == (5, 1.0, None, 5)
    assert (Rate(5, 10.0, 2).interval, Rate(5, 10.0, 2).at_once) == (2.0, 2)
    assert str(Rate(3, per=60.0, burst=9)) == "3 in 60 s, 9 at once"
    assert Rate(5) == Rate(5) != Rate(6)


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ({"count": 0}, ValueError),
        ({"count": 1.5}, TypeError),
        ({"count": True}, TypeError),
        ({"count": 1, "burst": 0}, ValueError),
        ({"count": 1, "burst": 2.0}, TypeError),
        ({"count": None}, TypeError),
        ({"count": 1, "per": 0.0}, ValueError),
        ({"count": 1, "per": -1.0}, ValueError),
        ({"count": 1, "per": float("nan")}, ValueError),
        ({"count": 1, "per": float("inf")}, ValueError),
    ],
)
def test_a_rate_that_makes_no_sense(arguments: dict[str, Any], kind: type[Exception]) -> None:
    with pytest.raises(kind, match="rate"):
        Rate(**arguments)


def test_a_burst_at_once_then_one_for_each_interval() -> None:
    bucket = TokenBucket(Rate(4, per=2.0, burst=3))
    assert [bucket.take(100.0) for _ in range(5)] == [True, True, True, False, False]
    assert not bucket.take(100.25)
    assert bucket.take(100.5)
    assert not bucket.take(100.5)
    assert not bucket.is_full(101.5)
    assert bucket.is_full(102.5)
    assert [bucket.take(1000.0) for _ in range(4)] == [True, True, True, False]


def test_to_look_takes_nothing() -> None:
    bucket = TokenBucket(Rate(1))
    assert all(bucket.has_token(5.0) for _ in range(3))
    assert bucket.take(5.0)
    assert not bucket.has_token(5.0)
    assert not bucket.has_token(5.75)
    assert bucket.has_token(6.0)


def test_a_time_before_the_last_brings_no_tokens() -> None:
    bucket = TokenBucket(Rate(1))
    assert bucket.take(10.0)
    assert not bucket.take(2.0)
    assert not bucket.take(10.5)
    assert bucket.take(11.0)


@pytest.mark.parametrize("now", [0.0, 1e-3, 123_456.789, 1e9])
def test_rounding_denies_nothing(now: float) -> None:
    """Of a burst at one moment, nor of what comes just as often as it may."""
    rate = Rate(3, per=1e9)
    bucket = TokenBucket(rate)
    assert [bucket.take(now) for _ in range(4)] == [True, True, True, False]
    often = TokenBucket(Rate(10, burst=1))
    assert all(often.take(index / 10) for index in range(1000))


@given(
    st.integers(1, 8),
    st.sampled_from([0.5, 1.0, 4.0]),
    st.integers(1, 6),
    st.lists(st.integers(0, 40), max_size=60),
)
def test_it_is_what_exact_arithmetic_says(
    exponent: int, per: float, burst: int, steps: list[int]
) -> None:
    """With numbers that are exact in binary, so that both are."""
    rate = Rate(1 << (exponent % 4), per=per, burst=burst)
    bucket = TokenBucket(rate)
    tokens, now = Fraction(burst), Fraction(1024)
    for step in steps:
        now += Fraction(step, 16)
        tokens = min(Fraction(burst), tokens + Fraction(step, 16) / Fraction(rate.interval))
        assert bucket.take(float(now)) == (tokens >= 1)
        tokens -= tokens >= 1
