"""The server whose counting is cut out: only that, all of it, and it serves as before."""

from __future__ import annotations

import socket
import sys
from types import FunctionType

import pytest

from tests.bench.peers.frames import HEADER, echo
from tests.bench.peers.tao_uncounted import COUNTERS, COUNTING, SAMPLING, without_counting
from tests.bench.server_process import ServerProcess
from tests.bench.workloads.metrics_cost import UNCOUNTED, WORKLOAD

SAMPLING_MASK = 15


class Counter:
    """Counts in the ways that the framework does."""

    def __init__(self) -> None:
        self.handled = self.calls = 0
        self.pass_seconds = 0.0

    def reset(self) -> None:
        self.calls = 0

    def handle(self, number: int) -> float:
        self.handled += 1
        self.calls += 1
        self.pass_seconds = 7.0
        return 0.0 if number & SAMPLING_MASK else 1.0


def function(name: str) -> FunctionType:
    found = vars(Counter)[name]
    assert isinstance(found, FunctionType)
    return found


def test_counting_is_cut_and_the_rest_stays() -> None:
    handle, found = without_counting(function("handle"))
    assert found == {"handled", "pass_seconds", SAMPLING}
    counter = Counter()
    assert handle(counter, 0) == 0.0
    assert (counter.handled, counter.pass_seconds, counter.calls) == (0, 0.0, 1)
    assert counter.handle(0) == 1.0
    assert (counter.handled, counter.pass_seconds, counter.calls) == (1, 7.0, 2)


def test_where_nothing_counts_nothing_changes() -> None:
    original = function("reset")
    assert without_counting(original) == (original, set())


def test_every_counter_is_found_in_the_framework() -> None:
    """Where this fails the hot path has changed: let COUNTERS name what it counts now."""
    found: set[str] = set()
    for owner in COUNTING:
        for name, member in vars(owner).items():
            if isinstance(member, FunctionType) and name != "__init__":
                found |= without_counting(member)[1]
    assert found == COUNTERS | {SAMPLING}


@pytest.mark.skipif(sys.platform != "linux", reason="the benchmark is Linux only")
def test_it_still_echoes() -> None:
    (peer,) = (peer for peer in WORKLOAD.peers if peer.name == UNCOUNTED)
    frames = b"".join(echo(1, bytes([number]) * 64) for number in range(10))
    received = b""
    with (
        ServerProcess(peer.name, peer.command(None)) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=10.0) as sock,
    ):
        sock.sendall(frames)
        while len(received) < len(frames):
            data = sock.recv(65_536)
            assert data, "closed by the server"
            received += data
    assert received == frames
    assert len(received) == 10 * (HEADER.size + 64)
