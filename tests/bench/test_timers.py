"""The program that measures time-outs: that it does what it counts, on every loop."""

from __future__ import annotations

import importlib.util
import json
import random
import sys
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from tests.bench.errors import BenchError
from tests.bench.peer import Peer
from tests.bench.peers import timers
from tests.bench.peers.timers import Host, host_named, run_passes
from tests.bench.processors import Placement
from tests.bench.server_process import ServerProcess
from tests.bench.timers import TIMER_PEERS, measure_timers
from tests.bench.workload import Conditions, Operation
from tests.bench.workloads import timers as timers_workload
from tests.bench.workloads import timers_lateness

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the benchmark is Linux only")

AVAILABLE = [peer for peer in TIMER_PEERS if peer.is_available()]
BRIEF = Conditions(Path("no load"), 0.01, 0.0, Placement(server=None, load=None))


@pytest.fixture(
    params=[
        "reactor",
        "asyncio",
        pytest.param(
            "uvloop",
            marks=pytest.mark.skipif(
                importlib.util.find_spec("uvloop") is None, reason="uvloop is not installed"
            ),
        ),
    ]
)
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    with closing(host_named(request.param)) as host:
        yield host


def test_a_pass_is_made_between_two_steps(host: Host) -> None:
    seen: list[str] = []

    def steps() -> Iterator[None]:
        for number in range(3):
            host.call_soon(partial(seen.append, f"pass {number}"))
            yield
            seen.append(f"step {number}")

    run_passes(host, steps())
    assert seen == ["pass 0", "step 0", "pass 1", "step 1", "pass 2", "step 2"]


def test_a_step_that_raises_ends_it(host: Host) -> None:
    def steps() -> Iterator[None]:
        yield
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_passes(host, steps())


def test_all_that_should_expire_do(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timers, "EARLIEST", 0.01)
    monkeypatch.setattr(timers, "LATEST", 0.05)
    figures = timers.lateness(host, 200)
    assert figures["least_ms"] <= figures["p50_ms"] <= figures["p99_ms"] <= figures["max_ms"]
    assert figures["max_ms"] < 10_000.0


def test_those_that_do_not_expire_are_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timers, "LATEST", 0.01)
    monkeypatch.setattr(timers, "SPARE", 0.0)
    monkeypatch.setattr(random, "uniform", lambda least, most: 60.0)
    with closing(host_named("reactor")) as host, pytest.raises(SystemExit, match="of 10 time-outs"):
        timers.lateness(host, 10)


def test_what_memory_is_held(host: Host) -> None:
    """A time-out that waits holds some; one that was called off, a pass later, nothing to speak of."""
    added = timers.memory(host, "add", 5000, 0)
    assert added["bytes_at_once"] > 50
    assert added["bytes_soon"] == pytest.approx(added["bytes_at_once"], rel=0.1)


def test_the_framework_gives_memory_back_at_once() -> None:
    for operation in ("cancel", "restart"):
        held = {}
        for name in ("reactor", "asyncio"):
            with closing(host_named(name)) as host:
                held[name] = timers.memory(host, operation, 5000, 10_000)["bytes_at_once"]
        assert held["reactor"] < 0.5 * held["asyncio"]


@pytest.mark.parametrize("peer", AVAILABLE, ids=lambda peer: peer.name)
@pytest.mark.parametrize("name", ["add", "cancel", "restart"])
def test_a_sample(peer: Peer, name: str) -> None:
    with ServerProcess(peer.name, peer.command(None)) as server:
        sample = measure_timers(server, Operation(name, 500, 1000), BRIEF)
    workload = timers_workload.WORKLOAD
    assert sample.keys() == {column.key for column in (workload.headline, *workload.columns)}
    assert sample["ns_each"] > 0


def test_a_sample_of_lateness() -> None:
    peer = TIMER_PEERS[0]
    with ServerProcess(peer.name, peer.command(None)) as server:
        sample = measure_timers(server, Operation("expire", 100), BRIEF)
    workload = timers_lateness.WORKLOAD
    assert sample.keys() == {column.key for column in (workload.headline, *workload.columns)}
    assert sample["least_ms"] >= 0


def test_a_server_that_fails_says_so() -> None:
    peer = TIMER_PEERS[0]
    with ServerProcess(peer.name, peer.command(None)) as server:
        with pytest.raises(BenchError, match="ended before it printed its answer") as raised:
            server.ask(json.dumps({"operation": "add"}), 10.0)
        assert "KeyError" in str(server.explain(raised.value))


def test_a_server_that_does_not_answer_is_not_waited_for() -> None:
    peer = TIMER_PEERS[0]
    request = {"operation": "add", "count": 10, "resident": 0, "seconds": 60.0}
    with (
        ServerProcess(peer.name, peer.command(None)) as server,
        pytest.raises(BenchError, match=r"printed no answer within 0\.05 s"),
    ):
        server.ask(json.dumps(request), 0.05)
