"""The workloads as data: that each can be chosen, shown and run; and what is not the load's part."""

from __future__ import annotations

import resource
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.bench.discovery import find_workloads
from tests.bench.echo import ECHO_PEERS, PEERS, peers_named
from tests.bench.errors import BenchError
from tests.bench.open_connections import SPARE_DESCRIPTORS, OpenConnections, affordable
from tests.bench.peers.frames import ECHO_TYPE, SLOW_TYPE, FrameReader, echo
from tests.bench.peers.work import COMPUTE_SECONDS, WORKS, handler_of
from tests.bench.workload import Workload
from tests.bench.workloads.slow_beside_fast import SlowClient

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the benchmark is Linux only")

WORKLOADS = find_workloads()


def test_the_workloads_are_there() -> None:
    assert WORKLOADS.keys() >= {
        "churn",
        "echo",
        "echo-connections",
        "echo-sizes",
        "idle",
        "memory",
        "monitor-cost",
        "peers",
        "pool-compute",
        "pool-sleep",
        "slow-beside-fast",
        "tls-echo",
        "workers",
    }


def test_the_frozen_workload_is_what_it_was() -> None:
    echo_workload = WORKLOADS["echo"]
    assert echo_workload.peers == ECHO_PEERS
    assert [peer.name for peer in ECHO_PEERS] == [
        "tao-pool",
        "tao-inline",
        "asyncio-each",
        "asyncio-joined",
        "asyncio-buffered",
        "asyncio-streams",
        "asyncio-executor",
        "uvloop-each",
        "uvloop-joined",
        "uvloop-streams",
        "bare-epoll",
    ]
    assert [str(case) for case in echo_workload.grid.cases()] == [
        "50 connections, 1 in flight, 64 bytes",
        "50 connections, 16 in flight, 64 bytes",
    ]


@pytest.mark.parametrize("workload", WORKLOADS.values(), ids=WORKLOADS)
def test_a_workload_has_the_peer_that_it_is_in_ratio_to(workload: Workload) -> None:
    names = [peer.name for peer in workload.peers]
    assert workload.reference in names
    assert len(set(names)) == len(names)


def test_peers_are_chosen_by_name_and_given_work() -> None:
    assert [peer.name for peer in PEERS] == list(dict.fromkeys(peer.name for peer in PEERS))
    plain, busy = peers_named("tao-pool"), peers_named("tao-pool", work="sleep")
    assert plain[0] in PEERS
    assert busy[0].options == (*plain[0].options, "--work", "sleep")
    with pytest.raises(KeyError):
        peers_named("nobody")


# -- what handlers do ----------------------------------------------------------------------------


@pytest.mark.parametrize("work", WORKS)
def test_every_handler_echoes_every_type(work: str) -> None:
    handle = handler_of(work)
    for number in (ECHO_TYPE, SLOW_TYPE):
        assert handle(number, b"value") == echo(number, b"value")


def test_computing_takes_processor_time() -> None:
    handle = handler_of("compute")
    before = time.thread_time()
    for _ in range(20):
        handle(ECHO_TYPE, b"")
    assert time.thread_time() - before >= 20 * COMPUTE_SECONDS


def test_only_the_slow_type_is_slow() -> None:
    assert WORKS["slow-beside-fast"].keys() == {SLOW_TYPE}


# -- connections of Python's ---------------------------------------------------------------------

Reply = Callable[[int, bytes], bytes]


@contextmanager
def serving(reply: Reply) -> Iterator[int]:
    """The port of a server that answers one connection after the other until the context ends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            threads = []
            while True:
                sock, _ = listener.accept()
                if is_over.is_set():
                    sock.close()
                    break
                thread = threading.Thread(target=serve_one, args=(sock,))
                thread.start()
                threads.append(thread)
            for thread in threads:
                thread.join()

        def serve_one(sock: socket.socket) -> None:
            reader = FrameReader()
            with sock:
                while data := sock.recv(65_536):
                    answers = [reply(*message) for message in reader.feed(data)]
                    if b"" in answers:
                        return
                    sock.sendall(b"".join(answers))

        is_over = threading.Event()
        server = threading.Thread(target=serve)
        server.start()
        try:
            yield listener.getsockname()[1]
        finally:
            is_over.set()
            socket.create_connection(listener.getsockname()).close()
            server.join()


def wrong(number: int, value: bytes) -> bytes:
    """A reply that differs in its last byte."""
    return echo(number, value[:-1] + b"?")


def hang_up(number: int, value: bytes) -> bytes:
    """No reply, but the end of the connection."""
    return b""


def test_open_connections_are_answered_and_counted() -> None:
    numbers = []

    def count(number: int, value: bytes) -> bytes:
        numbers.append(number)
        return echo(number, value)

    with serving(count) as port, OpenConnections(port, 64) as connections:
        connections.grow(3)
        connections.grow(5)
        assert len(connections) == 5
        assert numbers == [ECHO_TYPE] * 5
        connections.check()
        assert numbers == [ECHO_TYPE] * 10


@pytest.mark.parametrize("reply", [wrong, hang_up])
def test_open_connections_refuse_what_is_wrong(reply: Reply) -> None:
    with (
        serving(reply) as port,
        OpenConnections(port, 64) as connections,
        pytest.raises(BenchError),
    ):
        connections.grow(1)


def test_fewer_connections_where_descriptors_are_scarce(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = []
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (100, 5000))
    monkeypatch.setattr(resource, "setrlimit", lambda kind, limit: limits.append(limit))
    assert affordable(4000) == 4000
    assert capsys.readouterr().err == ""
    assert affordable(10_000) == 5000 - SPARE_DESCRIPTORS
    assert f"{5000 - SPARE_DESCRIPTORS} connections, not 10000" in capsys.readouterr().err
    assert limits == [(5000, 5000)] * 2


def test_the_slow_client_asks_for_the_slow_handler() -> None:
    numbers = []
    several = threading.Event()

    def count(number: int, value: bytes) -> bytes:
        numbers.append(number)
        if len(numbers) == 3:
            several.set()
        return echo(number, value)

    with serving(count) as port:
        with SlowClient(port) as client:
            assert several.wait(10.0)
        assert client.replies == len(numbers)
    assert set(numbers) == {SLOW_TYPE}


@pytest.mark.parametrize("reply", [wrong, hang_up])
def test_the_slow_client_refuses_what_is_wrong(reply: Reply) -> None:
    with (
        serving(reply) as port,
        pytest.raises(BenchError, match="slow connection"),
        SlowClient(port),
    ):
        pass
