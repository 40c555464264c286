"""tao.metrics: what is counted, and what is made of it."""

from __future__ import annotations

import math
import random
import sys
import threading
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import pytest

from tao.metrics import BUCKET_BOUNDS, Metrics, MetricsSnapshot
from tao.registry import MessageRegistry
from tao.server import Server
from tests.support import LOCAL, Peer, as_bytes


def snapshot_of(metrics: Metrics, **changes: Any) -> MetricsSnapshot:
    """With zeros for all that a server adds of its own."""
    own: dict[str, Any] = {
        "uptime": 0.0,
        "open_traffic": (),
        "connections_open": 0,
        "queue_depth": 0,
        "loop_lag": 0.0,
        "timers": 0,
        "wakeups": 0,
        "passes": 0,
    }
    return metrics.snapshot(**{**own, **changes})


def buckets(**counts: int) -> tuple[int, ...]:
    """A histogram with these counts: `at3=7` are seven in the bucket number 3."""
    found = [0] * (len(BUCKET_BOUNDS) + 1)
    for name, count in counts.items():
        found[int(name.removeprefix("at"))] = count
    return tuple(found)


def observed(seconds: Sequence[float]) -> MetricsSnapshot:
    """The snapshot after handlers that took so long."""
    metrics = Metrics()
    for each in seconds:
        metrics.observe(1, each, weight=1)
    return snapshot_of(metrics)


# -- bounds and buckets --------------------------------------------------------------------------


def test_the_bounds_rise_from_microseconds_to_seconds() -> None:
    assert list(BUCKET_BOUNDS) == sorted(set(BUCKET_BOUNDS))
    assert BUCKET_BOUNDS[0] == 1e-5
    assert BUCKET_BOUNDS[-1] == 10.0


@pytest.mark.parametrize("index", range(len(BUCKET_BOUNDS)))
def test_a_bound_belongs_to_its_bucket(index: int) -> None:
    """As Prometheus' "le" has it: less or equal."""
    bound = BUCKET_BOUNDS[index]
    assert observed([bound]).handler_histogram == buckets(**{f"at{index}": 1})
    above = math.nextafter(bound, math.inf)
    assert observed([above]).handler_histogram == buckets(**{f"at{index + 1}": 1})


@pytest.mark.parametrize(("seconds", "index"), [(0.0, 0), (11.0, -1), (math.inf, -1)])
def test_the_ends_of_the_histogram(seconds: float, index: int) -> None:
    assert observed([seconds]).handler_histogram[index] == 1


def test_a_batch_is_counted_at_the_time_that_each_of_it_took() -> None:
    metrics = Metrics()
    metrics.observe(4, 0.008, weight=1)
    metrics.observe(1, 0.008, weight=1)

    snapshot = snapshot_of(metrics)
    at = [BUCKET_BOUNDS.index(bound) for bound in (0.0025, 0.01)]
    assert snapshot.handler_histogram == buckets(**{f"at{at[0]}": 4, f"at{at[1]}": 1})
    assert snapshot.handler_seconds == pytest.approx(0.016)


def test_a_sample_stands_for_others_like_it() -> None:
    metrics = Metrics()
    metrics.observe(3, 0.0003, weight=16)

    snapshot = snapshot_of(metrics)
    at = BUCKET_BOUNDS.index(0.0001)
    assert snapshot.handler_histogram == buckets(**{f"at{at}": 48})
    assert snapshot.handler_seconds == pytest.approx(0.0048)


# -- snapshots -----------------------------------------------------------------------------------


def test_a_new_server_has_counted_nothing() -> None:
    snapshot = snapshot_of(Metrics())
    assert snapshot.connections_total == snapshot.connections_refused == 0
    assert snapshot.messages_in == snapshot.bytes_in == snapshot.bytes_out == 0
    assert snapshot.handled == 0
    assert snapshot.handler_seconds == 0.0
    assert snapshot.handler_histogram == buckets()
    assert snapshot.errors == {}


def test_what_the_server_says_is_passed_on() -> None:
    snapshot = snapshot_of(
        Metrics(),
        uptime=1.5,
        connections_open=2,
        queue_depth=3,
        loop_lag=0.25,
        timers=4,
        wakeups=5,
        passes=6,
    )
    assert snapshot.uptime == 1.5
    assert snapshot.connections_open == 2
    assert snapshot.queue_depth == 3
    assert snapshot.loop_lag == 0.25
    assert snapshot.timers == 4
    assert snapshot.wakeups == 5
    assert snapshot.passes == 6


def test_counters_are_what_has_been_counted() -> None:
    metrics = Metrics()
    metrics.connections_total += 3
    metrics.connections_refused += 2
    metrics.handled += 7

    snapshot = snapshot_of(metrics)
    assert snapshot.handled == 7
    assert snapshot.connections_total == 3
    assert snapshot.connections_refused == 2


def test_traffic_is_that_of_connections_gone_and_open() -> None:
    metrics = Metrics()
    metrics.add_traffic((1, 20, 300))
    metrics.add_traffic((4, 50, 600))

    snapshot = snapshot_of(metrics, open_traffic=[(1000, 2000, 3000), (10_000, 20_000, 30_000)])
    assert snapshot.messages_in == 11_005
    assert snapshot.bytes_in == 22_070
    assert snapshot.bytes_out == 33_900

    again = snapshot_of(metrics)  # those open are counted once they are gone, and not before
    assert (again.messages_in, again.bytes_in, again.bytes_out) == (5, 70, 900)


def test_errors_are_counted_by_their_kind() -> None:
    class StrangeError(ValueError):
        pass

    metrics = Metrics()
    for error in [ValueError("a"), ValueError("b"), StrangeError(), KeyboardInterrupt()]:
        metrics.count_error(error)
    assert snapshot_of(metrics).errors == {
        "ValueError": 2,
        "StrangeError": 1,
        "KeyboardInterrupt": 1,
    }


def test_a_snapshot_does_not_change_with_what_is_counted_after_it() -> None:
    metrics = Metrics()
    metrics.handled += 1
    metrics.observe(1, 0.5, weight=1)
    metrics.count_error(ValueError())
    before = snapshot_of(metrics)

    metrics.handled += 1
    metrics.observe(1, 0.5, weight=1)
    metrics.count_error(ValueError())
    metrics.count_error(KeyError())
    metrics.add_traffic((1, 1, 1))

    assert before.handled == 1
    assert sum(before.handler_histogram) == 1
    assert before.errors == {"ValueError": 1}
    assert before.messages_in == 0


def test_a_snapshot_cannot_be_written() -> None:
    snapshot: Any = snapshot_of(Metrics())
    with pytest.raises(AttributeError):
        snapshot.handled = 1
    with pytest.raises(TypeError):
        snapshot.errors["ValueError"] = 1


# -- what is made of them ------------------------------------------------------------------------


def test_queries_per_second_are_of_the_handlers_time() -> None:
    metrics = Metrics()
    metrics.handled = 5
    metrics.observe(1, 0.5, weight=4)
    assert snapshot_of(metrics).queries_per_second == 2.5


def test_no_queries_per_second_before_the_first() -> None:
    assert snapshot_of(Metrics()).queries_per_second == 0.0


def test_no_queries_per_second_before_the_first_that_was_timed() -> None:
    metrics = Metrics()
    metrics.handled = 5
    assert snapshot_of(metrics).queries_per_second == 0.0


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_percentiles_before_any_handler(share: float) -> None:
    assert snapshot_of(Metrics()).handler_percentile(share) == 0.0


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.01, 0.001), (0.25, 0.001), (0.26, 0.01), (0.75, 0.01), (0.76, 1.0), (1.0, 1.0)],
)
def test_percentiles(share: float, expected: float) -> None:
    assert observed([0.001, 0.009, 0.01, 0.9]).handler_percentile(share) == expected


def test_a_percentile_beyond_the_last_bound_is_infinite() -> None:
    snapshot = observed([1.0, 60.0])
    assert snapshot.handler_percentile(0.5) == 1.0
    assert snapshot.handler_percentile(1.0) == math.inf


@pytest.mark.parametrize("share", [-0.01, 1.01, 95, math.nan])
def test_a_share_is_no_percentage(share: float) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        snapshot_of(Metrics()).handler_percentile(share)


def test_percentiles_of_a_hundred_are_exact() -> None:
    """The n-th percentile of a hundred is the n-th of them, though n / 100 is no binary fraction."""
    wrong = [
        percent
        for percent in range(1, 101)
        if observed([0.001] * percent + [1.0] * (100 - percent)).handler_percentile(percent / 100)
        != 0.001
    ]
    assert wrong == []


def test_percentiles_do_not_fall() -> None:
    chance = random.Random(1)
    snapshot = observed([chance.lognormvariate(-5, 3) for _ in range(200)])
    found = [snapshot.handler_percentile(step / 1000) for step in range(1001)]
    assert found == sorted(found)


# -- of a server ---------------------------------------------------------------------------------


@pytest.fixture
def impatient_threads() -> Iterator[None]:
    """Threads take turns so often that what must not be interrupted soon is."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("impatient_threads")
def test_counters_of_a_server_only_grow() -> None:
    """A connection that goes while a snapshot is made is in it once: not twice, and not left out."""
    registry = MessageRegistry()
    registry.register(1, as_bytes, lambda context, conn: None, inline=True)
    server = Server(registry=registry)
    ended = threading.Event()

    def come_and_go(address: Any) -> None:
        try:
            for _ in range(500):
                with Peer(address) as peer:
                    peer.send_frame(1, bytes(100))
                    peer.finish_sending()
                    peer.receive_to_end()
        finally:
            ended.set()

    snapshots = [server.metrics()]
    with server.running(LOCAL) as address:
        client = threading.Thread(target=come_and_go, args=(address,))
        client.start()
        while not ended.is_set():
            snapshots.append(server.metrics())
        client.join()
    fallen = [
        (name, before, after)
        for name in ("connections_total", "messages_in", "bytes_in", "bytes_out", "handled")
        for before, after in pairwise(getattr(snapshot, name) for snapshot in snapshots)
        if after < before
    ]
    assert fallen == []
