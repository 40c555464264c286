"""The broadcast's readers and its ways to send: everybody who reads gets every frame."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.broadcast import BROADCAST_PEERS, FEWEST, measure_broadcast
from tests.bench.errors import BenchError
from tests.bench.peer import Peer
from tests.bench.processors import Placement
from tests.bench.readers import Readers
from tests.bench.server_process import ServerProcess
from tests.bench.workload import Case, Conditions
from tests.bench.workloads.broadcast import WORKLOAD

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the benchmark is Linux only")

AVAILABLE = [peer for peer in BROADCAST_PEERS if peer.is_available()]
BRIEF = Conditions(Path("no load"), 0.01, 0.0, Placement(server=None, load=None))


@pytest.mark.parametrize("peer", AVAILABLE, ids=lambda peer: peer.name)
def test_a_sample(peer: Peer) -> None:
    with ServerProcess(peer.name, peer.command(None)) as server:
        sample = measure_broadcast(server, Case(connections=5, in_flight=1, size=100), BRIEF)
    figures = {column.key for column in (WORKLOAD.headline, *WORKLOAD.columns)}
    assert sample.keys() == figures
    assert sample["broadcasts"] >= FEWEST
    assert sample["ms"] >= sample["least_ms"] > 0


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10.0)
        yield listener


def test_all_readers_but_the_first_read(listener: socket.socket) -> None:
    with Readers(listener.getsockname()[1], 3, None) as readers:
        socks = [listener.accept()[0] for _ in range(3)]
        try:
            for sock in socks:
                sock.sendall(b"seven..")
            readers.wait_read(14)
            for sock in socks[1:]:
                sock.sendall(b"seven..")
            readers.wait_read(28)
        finally:
            for sock in socks:
                sock.close()


def test_a_reader_that_is_hung_up_on_says_so(listener: socket.socket) -> None:
    with Readers(listener.getsockname()[1], 2, None) as readers:
        for _ in range(2):
            listener.accept()[0].close()
        with pytest.raises(BenchError, match="readers have died"):
            readers.wait_read(1)


def test_readers_without_a_server_say_so() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))  # and does not listen
        port = sock.getsockname()[1]
        with pytest.raises(BenchError, match="readers have died"), Readers(port, 1, None):
            pass
