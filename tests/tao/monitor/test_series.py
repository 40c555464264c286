"""tao.monitor.series: rates and percentiles out of snapshots."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tao.metrics import BUCKET_BOUNDS, MetricsSnapshot
from tao.monitor.series import COLUMNS, LENGTH, Series, percentile
from tests.tao.monitor.support import NOTHING


def counts(**found: int) -> list[int]:
    """A histogram: `at3=7` are seven in the bucket number 3."""
    each = [0] * (len(BUCKET_BOUNDS) + 1)
    for name, count in found.items():
        each[int(name.removeprefix("at"))] = count
    return each


def last(series: Series) -> dict[str, float | None]:
    """The last point, by the names of its columns."""
    return dict(zip(COLUMNS, series.since(-1.0)[-1], strict=True))


def later(snapshot: MetricsSnapshot, **changes: Any) -> MetricsSnapshot:
    """The same server after a second."""
    return dataclasses.replace(snapshot, uptime=snapshot.uptime + 1.0, **changes)


def test_the_first_point_has_no_rates() -> None:
    series = Series()
    series.add(
        5.0, dataclasses.replace(NOTHING, connections_open=3, bytes_held=9), queue=2, lag=0.5
    )
    point = last(series)
    assert point["time"] == 5.0
    assert (point["connections"], point["queue"], point["lag"], point["held"]) == (3, 2, 0.5, 9)
    rates = {"opened", "messages", "handled", "bytes_in", "bytes_out", "errors", "refused"}
    assert {name for name, value in point.items() if value is None} == {*rates, "p50", "p95", "p99"}


def test_every_rate_is_of_its_own_counter() -> None:
    series = Series()
    series.add(10.0, NOTHING, queue=0, lag=0.0)
    now = later(
        NOTHING,
        connections_total=2,
        messages_in=4,
        handled=6,
        bytes_in=8,
        bytes_out=10,
        errors={"ValueError": 5, "KeyError": 7},
        connections_refused=14,
    )
    series.add(12.0, now, queue=0, lag=0.0)
    point = last(series)
    names = ("opened", "messages", "handled", "bytes_in", "bytes_out", "errors", "refused")
    assert [point[name] for name in names] == [1, 2, 3, 4, 5, 6, 7]


def test_percentiles_are_of_what_came_since_the_last_point() -> None:
    series = Series()
    before = dataclasses.replace(NOTHING, handler_histogram=tuple(counts(at15=1000)))
    series.add(0.0, before, queue=0, lag=0.0)
    series.add(1.0, later(before), queue=0, lag=0.0)
    assert last(series)["p50"] is None
    quick = later(later(before), handler_histogram=tuple(counts(at15=1000, at0=10)))
    series.add(2.0, quick, queue=0, lag=0.0)
    assert last(series)["p99"] == pytest.approx(0.99 * BUCKET_BOUNDS[0])


@pytest.mark.parametrize("uptime", [0.0, 0.5])
def test_another_server_under_the_name_is_not_compared(uptime: float) -> None:
    series = Series()
    series.add(0.0, dataclasses.replace(NOTHING, uptime=9.0, messages_in=99), queue=0, lag=0.0)
    series.add(1.0, dataclasses.replace(NOTHING, uptime=uptime), queue=0, lag=0.0)
    assert last(series)["messages"] is None
    series.add(
        2.0, dataclasses.replace(NOTHING, uptime=uptime + 1, messages_in=3), queue=0, lag=0.0
    )
    assert last(series)["messages"] == 3


def test_after_a_pause_there_is_no_rate_of_the_pause() -> None:
    series = Series()
    series.add(0.0, NOTHING, queue=0, lag=0.0)
    series.pause()
    assert series.last is None
    series.add(500.0, later(NOTHING, messages_in=9), queue=0, lag=0.0)
    assert last(series)["messages"] is None


def test_points_are_bounded_and_can_be_asked_for_from_a_time_on() -> None:
    series = Series()
    for second in range(LENGTH + 50):
        series.add(float(second), NOTHING, queue=0, lag=0.0)
    assert [point[0] for point in series.since(-1.0)] == list(range(50, LENGTH + 50))
    assert [point[0] for point in series.since(LENGTH + 47.0)] == [LENGTH + 48, LENGTH + 49]


@pytest.mark.parametrize(
    ("found", "share", "expected"),
    [
        (counts(), 0.5, None),
        (counts(at0=4), 0.5, BUCKET_BOUNDS[0] / 2),
        (counts(at0=4), 1.0, BUCKET_BOUNDS[0]),
        (counts(at1=1, at3=1), 0.5, BUCKET_BOUNDS[1]),
        (counts(at1=1, at3=1), 0.75, (BUCKET_BOUNDS[2] + BUCKET_BOUNDS[3]) / 2),
        (counts(at19=1), 0.5, BUCKET_BOUNDS[-1]),
    ],
)
def test_a_percentile(found: list[int], share: float, expected: float | None) -> None:
    assert percentile(found, share) == (None if expected is None else pytest.approx(expected))


@given(
    st.lists(
        st.integers(0, 1000), min_size=len(BUCKET_BOUNDS) + 1, max_size=len(BUCKET_BOUNDS) + 1
    ).filter(any),
    st.floats(0.01, 1.0),
)
def test_a_percentile_lies_in_the_bucket_in_which_the_share_is_reached(
    found: list[int], share: float
) -> None:
    value = percentile(found, share)
    assert value is not None
    at_most = sum(
        count for count, bound in zip(found, (0.0, *BUCKET_BOUNDS), strict=True) if bound < value
    )
    below = sum(count for count, bound in zip(found, BUCKET_BOUNDS, strict=False) if bound < value)
    assert below <= share * sum(found) + 1e-6
    assert at_most >= share * sum(found) - 1e-6 or value == BUCKET_BOUNDS[-1]
