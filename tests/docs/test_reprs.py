"""What is public says in a log what it is: in one line, and with what one wants to know of it."""

from __future__ import annotations

import asyncio
import enum
import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

import reactor
import tao
import tao.testing
from reactor.embed.asyncio import attach
from tests.docs.api import PACKAGES
from tests.support import DEADLINE, LOCAL, Calls, ManualClock, Sample, as_bytes, wait_until

Told = dict[str, tuple[object, str]]
"""By the name of the class: an instance, and a pattern for what it must say."""

NEVER_MADE = {
    "reactor.Pause",
    "tao.ListenOptions",
    "tao.testing.ClientArguments",
    "tao.testing.ServerArguments",
}
"""Names for constants, and types of keyword arguments: there are no instances."""

LONGEST = 600
"""Characters in the longest line; a snapshot of all counters has the most."""


class Handler:
    """What a Connection is made with, and does nothing."""

    def handle_open(self) -> None: ...
    def handle_data(self, data: bytes) -> None: ...
    def handle_draining(self) -> None: ...
    def handle_writable(self) -> None: ...
    def handle_closed(self, reason: reactor.CloseReason) -> None: ...
    def is_idle(self) -> bool:
        return True


def values() -> Told:
    """What needs nothing else."""
    queue = reactor.SendQueue()
    queue.append(b"12345")
    received = reactor.ReceiveBuffer()
    received.put(b"123", 8)
    wheel = reactor.TimingWheel()
    timeout = reactor.Timeout(values)
    wheel.add(timeout, 7)
    ann: tao.ConnectionMap[str, int] = tao.ConnectionMap()
    ann.put("Ann", 1)
    registry = tao.MessageRegistry()
    registry.register(7, as_bytes)
    closed = tao.CloseReason(tao.CloseCause.FAILED, TimeoutError("no answer"), unsent=3)
    watermark = tao.Watermark(1, 2)
    options = tao.ConnectionOptions(drain_timeout=1.5)
    return {
        "reactor.CloseReason": (closed, "FAILED.*no answer.*unsent=3"),
        "reactor.ConnectionOptions": (options, "drain_timeout=1.5"),
        "reactor.OperatingSystem": (reactor.OperatingSystem(), "OperatingSystem"),
        "reactor.ReceiveBuffer": (received, "3 of 8 bytes"),
        "reactor.SendQueue": (queue, "5 bytes in 1"),
        "reactor.SocketFile": (reactor.SocketFile("/tmp/socket"), "/tmp/socket"),
        "reactor.StateMachine": (reactor.StateMachine(reactor.ConnectionState.OPEN), "OPEN"),
        "reactor.SystemClock": (reactor.SystemClock(), "SystemClock"),
        "reactor.Timeout": (timeout, "tick 7 for .*values"),
        "reactor.TimingWheel": (wheel, "1 waiting"),
        "reactor.TlsStream": (
            reactor.TlsStream(
                tao.load_client_tls(), server_side=False, server_hostname="localhost"
            ),
            "handshake",
        ),
        "reactor.Watermark": (watermark, "low=1, high=2"),
        "tao.AtomicBoolean": (tao.AtomicBoolean(True), "True"),
        "tao.AtomicInt32": (tao.AtomicInt32(5), "5"),
        "tao.AtomicInt64": (tao.AtomicInt64(6), "6"),
        "tao.Backoff": (tao.Backoff(first=0.5), "first=0.5"),
        "tao.BackplaneReport": (
            tao.BackplaneReport(tao.BackplaneEvent.GIVEN_UP, 3, "3 messages"),
            "GIVEN_UP.*count=3.*'3 messages'",
        ),
        "tao.BroadcastReport": (tao.BroadcastReport(1, 2, 3), "sent=1, refused=2, closed=3"),
        "tao.CloseReason": (closed, "FAILED"),
        "tao.ConnectionMap": (ann, " of 1"),
        "tao.ConnectionOptions": (options, "drain_timeout=1.5"),
        "tao.ContextKey": (tao.ContextKey[str]("user"), "'user'"),
        "tao.DataSource": (tao.DataSource(list), "0 resources"),
        "tao.Envelope": (
            tao.Envelope(tao.Reach.GROUP, "room", 7, b"x" * 1000),
            "GROUP.*'room', number=7",
        ),
        "tao.HeartBeatMessage": (tao.HeartBeatMessage(3), "timestamp=3"),
        "tao.Heartbeat": (tao.Heartbeat(interval=2.0), "interval=2.0"),
        "tao.LengthPrefixedCodec": (tao.LengthPrefixedCodec(2), "size=2"),
        "tao.LineCodec": (tao.LineCodec(b";"), "b';'"),
        "tao.LocalBackplane": (tao.LocalBackplane(), "of 0 servers"),
        "tao.MessageRegistry": (registry, "7"),
        "tao.Rate": (tao.Rate(10), "10"),
        "tao.RedisBackplane": (
            tao.RedisBackplane("redis://localhost:6379"),
            "redis://localhost:6379, channel main",
        ),
        "tao.StopReport": (tao.StopReport(1, 2, True), "drained=1, aborted=2"),
        "tao.TypeLengthValueCodec": (tao.TypeLengthValueCodec(99), "max_length=99"),
        "tao.Watermark": (watermark, "low=1, high=2"),
        "tao.testing.Faults": (tao.testing.Faults.none(), "switch=0.0"),
    }


def of_the_loop(run: ExitStack) -> Told:
    """What belongs to a loop, which is not run."""
    loop = reactor.Reactor(clock=ManualClock())
    run.callback(loop.close)
    ours, theirs = socket.socketpair()
    run.callback(ours.close)
    run.callback(theirs.close)
    channel = loop.register(ours, reactor.READ, print)
    acceptor = reactor.Acceptor(loop, reactor.listen(LOCAL), print)
    run.callback(acceptor.close)
    connector = reactor.Connector(loop, LOCAL, timeout=1.0, on_connected=print, on_failed=print)
    run.callback(connector.cancel)
    pool = reactor.WorkerPool(loop, worker_size=3)
    run.callback(pool.shutdown)
    waker = reactor.Waker()
    run.callback(waker.close)
    ledger = reactor.Ledger(loop, 1_000_000)
    ledger.move(1234)
    environment = reactor.Environment(loop, ledger=ledger)
    connection = reactor.Connection(environment, Handler())
    return {
        "reactor.Acceptor": (acceptor, "127.0.0.1"),
        "reactor.Channel": (channel, f"fd={ours.fileno()} events=READ"),
        "reactor.Connection": (connection, "CONNECTING"),
        "reactor.Environment": (environment, "1234"),
        "reactor.Connector": (connector, "127.0.0.1"),
        "reactor.Ledger": (ledger, "1234"),
        "reactor.Reactor": (loop, "idle, 2 channels"),
        "reactor.Statistics": (loop.statistics(), "channels=2"),
        "reactor.Waker": (waker, f"fd={waker.fileno()}"),
        "reactor.WorkerPool": (pool, "3 workers"),
    }


def of_a_conversation(run: ExitStack) -> Told:
    """What there is while a client talks to a server."""
    contexts: Calls[tao.Context[bytes]] = Calls()
    registry = tao.MessageRegistry()

    def handle(context: tao.Context[bytes], _conn: tao.WriteCloser) -> None:
        contexts.add(context)

    registry.register(1, as_bytes, handle)
    server = tao.Server(registry=registry)
    address = run.enter_context(server.running(LOCAL))
    client = run.enter_context(tao.ClientConn(address, registry=tao.MessageRegistry()))
    client.write(Sample(1, b"hello"))
    (context,) = contexts.wait()
    (conn,) = server.connections()
    group = server.group("lobby")
    group.join(conn)
    monitor = run.enter_context(tao.monitor_on(0))
    assert wait_until(lambda: server.metrics().handled == 1)
    return {
        "tao.ClientConn": (client, f"127.0.0.1:{address[1]} OPEN"),
        "tao.Context": (context, "hello.* on connection 1"),
        "tao.Group": (group, "'lobby', 1 member"),
        "tao.MetricsSnapshot": (server.metrics(), "connections_open=1"),
        "tao.Monitor": (monitor, "127.0.0.1"),
        "tao.Server": (server, f"127.0.0.1:{address[1]}, 1 connection"),
        "tao.ServerConn": (conn, "1 127.0.0.1:.*OPEN"),
    }


def of_a_host(run: ExitStack) -> Told:
    """What there is while asyncio drives a reactor."""
    loop = reactor.Reactor()
    run.callback(loop.close)
    host = asyncio.new_event_loop()
    run.callback(host.close)
    embedding = run.enter_context(attach(loop, host))
    return {"reactor.embed.Embedding": (embedding, "of <Reactor idle.* in <.*EventLoop")}


@pytest.fixture(scope="module")
def told() -> Iterator[Told]:
    with ExitStack() as run:
        simulation = run.enter_context(tao.testing.Simulation(seed=3))
        yield {
            **values(),
            **of_the_loop(run),
            **of_a_conversation(run),
            **of_a_host(run),
            "tao.testing.Simulation": (simulation, "seed 3"),
        }


def classes(*, of_errors: bool) -> list[str]:
    found = []
    for package, module in PACKAGES.items():
        for name in module.__all__:
            value = getattr(module, name)
            if (
                isinstance(value, type)
                and not getattr(value, "_is_protocol", False)
                and not issubclass(value, enum.Enum)
                and issubclass(value, BaseException) == of_errors
            ):
                found.append(f"{package}.{name}")
    return [name for name in found if name not in NEVER_MADE]


@pytest.mark.parametrize("name", classes(of_errors=False))
def test_an_instance_says_what_it_is(name: str, told: Told) -> None:
    assert name in told, f"make one of {name} above, and say what its repr must tell"
    instance, pattern = told[name]
    assert type(instance).__repr__ is not object.__repr__
    text = repr(instance)
    assert type(instance).__name__ in text
    assert re.search(pattern, text), f"{text!r} does not tell {pattern!r}"
    assert " at 0x" not in text.replace(repr(values), "")
    assert "\n" not in text
    assert len(text) <= LONGEST


@pytest.mark.parametrize("package", PACKAGES)
def test_an_enumeration_says_its_members(package: str) -> None:
    for name in PACKAGES[package].__all__:
        value = getattr(PACKAGES[package], name)
        if isinstance(value, type) and issubclass(value, enum.Enum):
            for member in value:
                assert str(member.name) in repr(member)
                assert len(f"{member}") <= 60


def made(error: type[BaseException]) -> BaseException:
    """One as the packages make it."""
    arguments: dict[type[BaseException], tuple[object, ...]] = {
        tao.FrameTooLargeError: (11, 10),
        tao.UndefinedMessageError: (7,),
        tao.AdmissionError: (7, tao.Objection.RATE, tao.Refusal.SKIP),
        reactor.IllegalTransitionError: (
            reactor.ConnectionState.CLOSED,
            reactor.ConnectionEvent.CLOSE,
        ),
        reactor.TlsTruncationError: (),
    }
    return error(*arguments.get(error, ("what to do",)))


@pytest.mark.parametrize("name", classes(of_errors=True))
def test_an_error_says_what_it_is(name: str) -> None:
    package, _, short = name.rpartition(".")
    error = made(getattr(PACKAGES[package], short))
    assert short in repr(error)
    assert str(error)
    simulated = tao.testing.SimulationError
    assert isinstance(error, tao.TaoError | reactor.ReactorError | ssl.SSLError | simulated)


def test_a_server_says_how_it_is() -> None:
    """In a log one wants to know whether it listens, serves or has been stopped."""
    server = tao.Server(registry=tao.MessageRegistry())
    assert "not listening" in repr(server)
    with server.running(LOCAL) as address:
        assert f"127.0.0.1:{address[1]}" in repr(server)
    assert "stopped" in repr(server)


def test_a_client_says_how_it_is() -> None:
    server = tao.Server(registry=tao.MessageRegistry())
    with server.running(LOCAL) as address:
        client = tao.ClientConn(address, registry=tao.MessageRegistry())
        assert "CONNECTING" in repr(client)
        with client:
            assert "OPEN" in repr(client)
        assert client.wait_closed(DEADLINE) is not None
        assert "CLOSED" in repr(client)
