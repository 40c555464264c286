"""tao.testing: servers and clients in a simulation, as a user's tests have them."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import tao.testing
from reactor.testing import Entry
from tao import (
    Backoff,
    CloseCause,
    CloseReason,
    ConnectionClosedError,
    ConnectionState,
    Context,
    DataSource,
    Heartbeat,
    MessageRegistry,
    WriteCloser,
)
from tao.testing import Faults, Simulation, SimulationError
from tests.examples.support import ROOT
from tests.support import Sample, as_bytes, frame, reset

SEEDS = range(25)


def registry(handler: Callable[[Context[bytes], WriteCloser], Sample | None]) -> MessageRegistry:
    """One kind of message."""
    made = MessageRegistry()
    made.register(1, as_bytes, handler)
    return made


def echo(ctx: Context[bytes], _conn: WriteCloser) -> Sample:
    """The same again."""
    return Sample(1, ctx.message)


def into(heard: list[bytes]) -> MessageRegistry:
    """A client's, that notes what comes."""
    return registry(lambda ctx, _conn: heard.append(ctx.message))


def receive_to_end(peer: socket.socket) -> bytes:
    """All that comes up to the FIN."""
    data = b""
    while chunk := peer.recv(4096):
        data += chunk
    return data


@pytest.mark.parametrize("seed", SEEDS)
def test_several_clients_are_answered_each_in_order(seed: int) -> None:
    with Simulation(seed) as simulation:
        server = simulation.server(registry=registry(echo))
        heard: list[list[bytes]] = [[] for _ in range(3)]
        clients = [simulation.client(server, registry=into(words)) for words in heard]
        for number in range(10):
            for client in clients:
                client.write(Sample(1, b"%d" % number))
        simulation.wait(lambda: all(len(words) == 10 for words in heard))
        assert heard == [[b"%d" % number for number in range(10)]] * 3


@pytest.mark.parametrize("seed", SEEDS)
def test_handlers_that_sleep_do_so_side_by_side(seed: int) -> None:
    heard: list[bytes] = []
    with Simulation(seed) as simulation:

        def slow(ctx: Context[bytes], conn: WriteCloser) -> Sample:
            conn.write(Sample(1, b"begun"))
            simulation.sleep(60.0)
            return Sample(1, b"done")

        server = simulation.server(registry=registry(slow), worker_size=3)
        clients = [simulation.client(server, registry=into(heard)) for _ in range(3)]
        begun = simulation.time
        for client in clients:
            client.write(Sample(1))
        simulation.wait(lambda: len(heard) == 3)
        assert heard == [b"begun"] * 3
        assert simulation.time < begun + 1.0
        simulation.wait(lambda: len(heard) == 6, timeout=120.0)
        assert begun + 60.0 <= simulation.time < begun + 62.0


def test_what_waits_waits_in_the_simulation() -> None:
    seen: list[bool] = []
    with Simulation() as simulation:

        def wait(ctx: Context[bytes], _conn: WriteCloser) -> None:
            inner = ctx.with_timeout(600.0)
            assert inner.remaining == pytest.approx(600.0)
            seen.append(inner.wait_cancelled(300.0))
            seen.append(inner.wait_cancelled(3600.0))

        server = simulation.server(registry=registry(wait))
        client = simulation.client(server, registry=into([]))
        begun = simulation.time
        client.write(Sample(1))
        simulation.wait(lambda: len(seen) == 2, timeout=1000.0)
        assert seen == [False, True]
        assert begun + 600.0 <= simulation.time < begun + 601.0
        assert server.stop(5.0).finished
        reason = client.wait_closed(5.0)
        assert reason is not None
        assert reason.cause is CloseCause.PEER_CLOSED


def test_timers_and_heartbeats_take_no_time() -> None:
    with Simulation() as simulation:
        heartbeat = Heartbeat(interval=10.0, timeout=30.0)
        server = simulation.server(registry=registry(echo), heartbeat=heartbeat)
        client = simulation.client(server, registry=into([]), heartbeat=heartbeat)
        rung: list[float] = []
        client.run_every(600.0, lambda now, conn: rung.append(now))
        begun = simulation.clock.unix()
        simulation.sleep(3601.0)
        assert [round(now - begun, 1) for now in rung] == [600.0 * count for count in range(1, 7)]
        assert client.state is ConnectionState.OPEN


@pytest.mark.parametrize("seed", SEEDS)
def test_a_silent_peer_is_given_up_in_time(seed: int) -> None:
    reasons: list[CloseReason] = []
    with Simulation(seed) as simulation:
        server = simulation.server(
            registry=registry(echo),
            heartbeat=Heartbeat(interval=1.0, timeout=5.0),
            on_close=lambda conn, reason: reasons.append(reason),
        )
        with simulation.peer(server) as peer:
            simulation.wait(lambda: server.connection_count == 1)
            begun = simulation.time
            simulation.wait(lambda: reasons)
            assert begun + 4.9 <= simulation.time < begun + 5.2
            assert reasons[0].cause is CloseCause.EXPIRED
            with pytest.raises(ConnectionResetError):
                receive_to_end(peer)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_client_comes_back_when_its_server_does(seed: int) -> None:
    heard: list[bytes] = []
    with Simulation(seed) as simulation:
        server = simulation.server(registry=registry(echo))
        address = simulation.address(server)
        client = simulation.client(
            server, registry=into(heard), reconnect=Backoff(first=1.0), offline_limit=1000
        )
        server.stop()
        simulation.wait(lambda: client.state is not ConnectionState.OPEN)
        simulation.sleep(10.0)
        client.write(Sample(1, b"kept"))
        simulation.server(address, registry=registry(echo))
        assert client.wait_connected(60.0)
        simulation.wait(lambda: heard == [b"kept"])


def test_nobody_listens() -> None:
    with Simulation() as simulation, pytest.raises(ConnectionClosedError):
        simulation.client(("10.0.0.9", 80), registry=MessageRegistry())


def test_a_name_is_resolved_in_the_simulation() -> None:
    with Simulation() as simulation:
        simulation.network.names["chat.example"] = ["10.9.9.9", "10.0.0.1"]
        server = simulation.server(registry=registry(echo))
        port = simulation.address(server)[1]
        client = simulation.client(("chat.example", port), registry=into([]))
        assert client.remote_address == ("10.0.0.1", port)


def test_a_server_of_another_simulation() -> None:
    with Simulation() as simulation:
        server = simulation.server(registry=registry(echo))
        with pytest.raises(ValueError, match="none of this simulation's"):
            Simulation().address(server)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_data_source_has_one_resource_for_each_worker(seed: int) -> None:
    made: list[int] = []
    closed: list[int] = []
    heard: list[bytes] = []

    def make() -> int:
        made.append(len(made))
        return made[-1]

    source = DataSource(make, closed.append)
    with Simulation(seed) as simulation:

        def use(ctx: Context[bytes], _conn: WriteCloser) -> Sample:
            first = source.get()
            simulation.sleep(0.1)
            assert source.get() == first
            return Sample(1)

        server = simulation.server(registry=registry(use), worker_size=2, data_source=source)
        for client in [simulation.client(server, registry=into(heard)) for _ in range(4)]:
            client.write(Sample(1))
        simulation.wait(lambda: len(heard) == 4)
        assert 1 <= len(made) <= 2
        assert not closed
    assert closed == made


def test_nothing_of_the_system_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **named: object) -> None:
        raise AssertionError("this asks the system")

    for name in ("os.pipe", "select.epoll", "time.sleep", "socket.socketpair"):
        monkeypatch.setattr(name, fail)
    test_several_clients_are_answered_each_in_order(0)


# -- what is wrong ---------------------------------------------------------------------------------


def test_a_test_that_fails_is_told_its_seed() -> None:
    def fails() -> None:
        with Simulation(17) as simulation:
            server = simulation.server(registry=registry(echo))
            client = simulation.client(server, registry=into([]))
            client.write(Sample(1))
            raise AssertionError("as if it were the test's")

    with pytest.raises(AssertionError) as caught:
        fails()
    assert "seed is 17" in caught.value.__notes__[0]


# -- replay --------------------------------------------------------------------------------------


def trace_of(seed: int) -> list[Entry]:
    """Of a run in which things break."""
    with Simulation(seed, Faults.harsh()) as simulation:
        server = simulation.server(registry=registry(echo))
        address = simulation.address(server)
        for _ in range(5):
            try:
                client = simulation.client(address, registry=into([]))
                for number in range(20):
                    client.write(Sample(1, bytes(number)))
                    simulation.sleep(0.01)
            except ConnectionClosedError:
                pass
        return simulation.trace


def test_a_seed_plays_the_same_run_again() -> None:
    seeds = range(6)
    traces = [trace_of(seed) for seed in seeds]
    assert traces == [trace_of(seed) for seed in seeds]
    assert len({tuple(trace) for trace in traces}) == len(seeds)
    assert any("RST" in entry.what for trace in traces for entry in trace)


# -- the fixture -----------------------------------------------------------------------------------

simulation = pytest.fixture(tao.testing.simulation, params=[3, 4])
plain_simulation = pytest.fixture(tao.testing.simulation)


def test_the_fixture_has_its_parameter_as_seed(
    simulation: Simulation, request: pytest.FixtureRequest
) -> None:
    assert simulation.seed in (3, 4)
    assert request.node.name.endswith(f"[{simulation.seed}]")
    heard: list[bytes] = []
    client = simulation.client(simulation.server(registry=registry(echo)), registry=into(heard))
    client.write(Sample(1, b"hello"))
    simulation.wait(lambda: heard == [b"hello"])


def test_the_fixture_without_parameters(plain_simulation: Simulation) -> None:
    assert plain_simulation.seed == 0


def test_a_failing_test_with_the_fixture_says_its_seed(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(
        "import pytest\n"
        "import tao.testing\n"
        "simulation = pytest.fixture(tao.testing.simulation, params=range(3))\n"
        "def test_mine(simulation):\n"
        "    simulation.wait(lambda: simulation.seed != 1, timeout=5.0)\n"
    )
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mine.py"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "FAILED test_mine.py::test_mine[1]" in result.stdout
    assert "1 failed, 2 passed" in result.stdout


def test_pytest_is_not_needed() -> None:
    program = "import sys, tao.testing; sys.exit('pytest' in sys.modules)"
    subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        timeout=60,
        check=True,
    )


# -- a bare peer -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_a_bare_peer_may_send_what_no_client_would(seed: int) -> None:
    reasons: list[CloseReason] = []
    with Simulation(seed) as simulation:
        server = simulation.server(
            registry=registry(echo), on_close=lambda conn, reason: reasons.append(reason)
        )
        with simulation.peer(server) as peer:
            for byte in frame(1, b"hello"):
                peer.sendall(bytes([byte]))
            received = b""
            while len(received) < 13:
                received += peer.recv(100)
            assert received == frame(1, b"hello")
            peer.sendall(frame(1, b"half")[:9])
        simulation.wait(lambda: reasons)
        assert reasons[0].undecoded == 9
        with simulation.peer(server) as peer:
            simulation.wait(lambda: server.connection_count == 1)
            reset(peer)
        simulation.wait(lambda: len(reasons) == 2)
        assert reasons[1].by_peer


def test_what_has_not_happened_is_told_with_the_seed() -> None:
    def fails() -> None:
        with Simulation(9) as simulation:
            simulation.wait(lambda: False, timeout=3600.0)

    with pytest.raises(SimulationError, match="has not happened in 3600 s") as caught:
        fails()
    assert "seed is 9" in caught.value.__notes__[0]
