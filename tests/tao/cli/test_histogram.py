"""Buckets of times: how exact they are, and that they add up."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tao.cli.histogram import Histogram

VALUES = st.lists(st.integers(0, 10**12), min_size=1, max_size=200)


def made_of(values: list[int]) -> Histogram:
    made = Histogram()
    made.add_all(values)
    return made


def test_an_empty_one() -> None:
    empty = Histogram()
    assert (empty.count, empty.minimum, empty.maximum, empty.mean()) == (0, 0, 0, 0.0)
    assert empty.percentile(0.5) == empty.below(10) == 0
    empty.add_all([])
    empty.merge(Histogram())
    assert empty.count == 0


@given(VALUES, st.floats(0, 1))
def test_a_percentile_is_within_a_hundredth(values: list[int], share: float) -> None:
    exact = sorted(values)[max(1, math.ceil(share * len(values))) - 1]
    found = made_of(values).percentile(share)
    assert exact <= found <= exact * 1.01


@given(VALUES)
def test_the_ends_and_the_mean_are_exact(values: list[int]) -> None:
    histogram = made_of(values)
    assert histogram.count == len(values)
    assert (histogram.minimum, histogram.maximum) == (min(values), max(values))
    assert histogram.mean() == sum(values) / len(values)
    assert histogram.percentile(1.0) == max(values)


@given(VALUES, VALUES)
def test_two_add_up_by_way_of_json_too(some: list[int], others: list[int]) -> None:
    total = made_of(some)
    total.merge(Histogram.from_json(json.loads(json.dumps(made_of(others).as_json()))))
    assert total.as_json() == made_of(some + others).as_json()


@given(VALUES)
def test_added_at_once_or_one_by_one_is_the_same(values: list[int]) -> None:
    one_by_one = Histogram()
    for value in values:
        one_by_one.add_all([value])
    assert one_by_one.as_json() == made_of(values).as_json()


@given(st.integers(0, 10**12))
def test_below(value: int) -> None:
    histogram = made_of([value])
    assert histogram.below(value) == 0
    assert histogram.below(math.ceil(value * 1.01) + 1) == 1


@pytest.mark.parametrize("counts", [None, [1, 2]])
def test_what_is_no_histogram(counts: object) -> None:
    with pytest.raises(TypeError, match="counts must be a dict"):
        Histogram.from_json({"counts": counts})
