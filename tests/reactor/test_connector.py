"""One connect: it succeeds, or fails, or is called off, and says so once."""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reactor import Connector, Reactor, listen
from tests.reactor.support import DEADLINE, ManualClock, run_passes, run_until

HOST = "127.0.0.1"

needs_unix = pytest.mark.skipif(
    not hasattr(socket, "AF_UNIX"), reason="a system without Unix sockets"
)


class Outcome:
    """What a connector has reported."""

    def __init__(self, reactor: Reactor) -> None:
        self.reactor = reactor
        self.connected: list[socket.socket] = []
        self.errors: list[OSError] = []
        self.threads: set[int] = set()

    def connect(self, address: tuple[str, int] | str, timeout: float = DEADLINE) -> Connector:
        return Connector(
            self.reactor,
            address,
            timeout=timeout,
            on_connected=self._on_connected,
            on_failed=self._on_failed,
        )

    def _on_connected(self, sock: socket.socket) -> None:
        self.connected.append(sock)
        self.threads.add(threading.get_ident())

    def _on_failed(self, error: OSError) -> None:
        self.errors.append(error)
        self.threads.add(threading.get_ident())

    def wait(self) -> None:
        """Until it is reported; then look that it is reported once, on the loop's thread."""
        run_until(self.reactor, lambda: self.connected or self.errors, "the outcome")
        run_passes(self.reactor)
        assert len(self.connected) + len(self.errors) == 1
        assert self.threads == {threading.get_ident()}
        self.assert_nothing_held()

    def assert_nothing_held(self) -> None:
        statistics = self.reactor.statistics()
        assert (statistics.channels, statistics.timeouts_waiting) == (0, 0)

    def close(self) -> None:
        for sock in self.connected:
            sock.close()


@pytest.fixture
def outcome(reactor: Reactor) -> Iterator[Outcome]:
    made = Outcome(reactor)
    yield made
    made.close()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with listen((HOST, 0)) as sock:
        sock.settimeout(DEADLINE)
        yield sock


@pytest.fixture
def refusing() -> Iterator[tuple[str, int]]:
    """An address at which nobody listens, and which nobody else can take."""
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        yield sock.getsockname()


Resolver = Callable[[list[tuple[str, int]] | BaseException], list[str]]


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Resolver:
    """Have every name resolve to the given addresses; gives the list of names that were asked for."""
    real: Any = socket.getaddrinfo
    asked: list[str] = []

    def set_answer(answer: list[tuple[str, int]] | BaseException) -> list[str]:
        def getaddrinfo(host: str, port: int, *arguments: Any, **options: Any) -> Any:
            if options.get("flags", 0) & socket.AI_NUMERICHOST:
                return real(host, port, *arguments, **options)
            asked.append(host)
            if isinstance(answer, BaseException):
                raise answer
            return [
                (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", address)
                for address in answer
            ]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        return asked

    return set_answer


def test_it_connects(outcome: Outcome, listener: socket.socket) -> None:
    outcome.connect(listener.getsockname())
    outcome.wait()
    [sock] = outcome.connected
    accepted, address = listener.accept()
    with accepted:
        assert address == sock.getsockname()
        assert not sock.getblocking()
        sock.send(b"x")
        accepted.settimeout(DEADLINE)
        assert accepted.recv(1) == b"x"


def test_nothing_is_reported_before_the_constructor_returns(
    outcome: Outcome, refusing: tuple[str, int]
) -> None:
    connector = outcome.connect(refusing)
    assert not outcome.errors
    outcome.wait()
    assert "done" in repr(connector)


def test_a_refusal_is_reported(outcome: Outcome, refusing: tuple[str, int]) -> None:
    outcome.connect(refusing)
    outcome.wait()
    [error] = outcome.errors
    assert isinstance(error, ConnectionRefusedError)
    assert error.errno == errno.ECONNREFUSED


def test_a_name_is_resolved_off_the_loop(outcome: Outcome, listener: socket.socket) -> None:
    """localhost may well be ::1 first, where nobody listens."""
    outcome.connect(("localhost", listener.getsockname()[1]))
    outcome.wait()
    assert outcome.errors == []
    listener.accept()[0].close()


def test_all_addresses_of_a_name_are_tried_in_order(
    outcome: Outcome, listener: socket.socket, refusing: tuple[str, int], resolve: Resolver
) -> None:
    asked = resolve([refusing, refusing, listener.getsockname(), refusing])
    outcome.connect(("some.name", 1))
    outcome.wait()
    assert asked == ["some.name"]
    assert outcome.connected[0].getpeername() == listener.getsockname()
    listener.accept()[0].close()


def test_the_error_is_that_of_the_last_address(
    outcome: Outcome, refusing: tuple[str, int], resolve: Resolver
) -> None:
    resolve([("255.255.255.255", 1), refusing])  # the first cannot even be tried
    outcome.connect(("some.name", 1))
    outcome.wait()
    assert isinstance(outcome.errors[0], ConnectionRefusedError)


def test_a_name_without_addresses(outcome: Outcome, resolve: Resolver) -> None:
    resolve([])
    outcome.connect(("some.name", 1))
    outcome.wait()
    assert isinstance(outcome.errors[0], OSError)


def test_a_name_that_does_not_exist(outcome: Outcome, resolve: Resolver) -> None:
    resolve(socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
    outcome.connect(("no.such.name", 1))
    outcome.wait()
    assert isinstance(outcome.errors[0], socket.gaierror)


@pytest.mark.parametrize("name", ["a..b", "x" * 64 + ".example", ".example"])
def test_what_cannot_be_a_name_is_reported_like_any_failure(outcome: Outcome, name: str) -> None:
    """Its labels are empty or too long for IDNA, which is no OSError to begin with."""
    outcome.connect((name, 1))
    outcome.wait()
    assert isinstance(outcome.errors[0], OSError)


def test_a_port_out_of_range_is_not_another_port(outcome: Outcome, listener: socket.socket) -> None:
    """The resolver takes it modulo 65,536: that would be the listener's."""
    host, port = listener.getsockname()
    outcome.connect((host, port + 65_536))
    outcome.wait()
    assert outcome.connected == []


# -- time ----------------------------------------------------------------------------------------


@pytest.fixture
def blackhole() -> Iterator[tuple[str, int]]:
    """An address at which a connect is neither answered nor refused: the backlog is full."""
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        sock.listen(0)
        address = sock.getsockname()
        waiting = [socket.socket() for _ in range(16)]
        try:
            for client in waiting:
                client.setblocking(False)
                client.connect_ex(address)
            if not _hangs(address):
                pytest.skip("a system that answers with a full backlog")
            yield address
        finally:
            for client in waiting:
                client.close()


def _hangs(address: tuple[str, int]) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.2)
        try:
            probe.connect(address)
        except TimeoutError:
            return True
        except OSError:
            return False
    return False


def test_no_answer_in_time_is_a_time_out(
    manual: Reactor, clock: ManualClock, blackhole: tuple[str, int]
) -> None:
    outcome = Outcome(manual)
    outcome.connect(blackhole, timeout=3.0)
    run_passes(manual)
    clock.advance(2.9)
    run_passes(manual)
    assert not outcome.errors
    clock.advance(0.2)
    outcome.wait()
    [error] = outcome.errors
    assert isinstance(error, TimeoutError)
    assert "3 s" in str(error)
    outcome.close()


def test_the_time_is_for_each_address(
    manual: Reactor,
    clock: ManualClock,
    blackhole: tuple[str, int],
    listener: socket.socket,
    resolve: Resolver,
) -> None:
    outcome = Outcome(manual)
    resolve([blackhole, listener.getsockname()])
    outcome.connect(("some.name", 1), timeout=3.0)
    run_until(manual, lambda: manual.statistics().channels == 1, "the first attempt")
    clock.advance(3.1)
    outcome.wait()
    assert outcome.errors == []
    assert outcome.connected[0].getpeername() == listener.getsockname()
    listener.accept()[0].close()
    outcome.close()


# -- calling it off ------------------------------------------------------------------------------


def test_cancelled_before_it_began(outcome: Outcome, listener: socket.socket) -> None:
    connector = outcome.connect(listener.getsockname())
    connector.cancel()
    connector.cancel()
    run_passes(outcome.reactor, 5)
    assert not outcome.connected
    assert not outcome.errors
    outcome.assert_nothing_held()


def test_cancelled_while_it_waits(
    manual: Reactor, clock: ManualClock, blackhole: tuple[str, int]
) -> None:
    outcome = Outcome(manual)
    connector = outcome.connect(blackhole, timeout=3.0)
    run_passes(manual)
    assert manual.statistics().channels == 1
    connector.cancel()
    outcome.assert_nothing_held()
    clock.advance(10.0)
    run_passes(manual)
    assert not outcome.errors


def test_cancelled_while_the_name_is_resolved(
    outcome: Outcome, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Any = socket.getaddrinfo
    asked, answer = threading.Event(), threading.Event()

    def getaddrinfo(host: str, port: int, *arguments: Any, **options: Any) -> Any:
        if options.get("flags", 0) & socket.AI_NUMERICHOST:
            return real(host, port, *arguments, **options)
        asked.set()
        assert answer.wait(DEADLINE)
        return real(HOST, listener.getsockname()[1], *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    connector = outcome.connect(("some.name", 1))
    assert asked.wait(DEADLINE)
    connector.cancel()
    before = outcome.reactor.statistics().callbacks
    answer.set()
    run_until(outcome.reactor, lambda: outcome.reactor.statistics().callbacks > before)
    run_passes(outcome.reactor)
    assert not outcome.connected
    assert not outcome.errors
    outcome.assert_nothing_held()


def test_cancelled_after_it_has_connected_it_leaves_the_socket_alone(
    outcome: Outcome, listener: socket.socket
) -> None:
    connector = outcome.connect(listener.getsockname())
    outcome.wait()
    connector.cancel()
    assert outcome.connected[0].getpeername() == listener.getsockname()
    listener.accept()[0].close()


def test_a_name_resolved_after_the_loop_was_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for the answer; the thread ends in silence."""
    asked, answer = threading.Event(), threading.Event()
    resolver: list[threading.Thread] = []
    real: Any = socket.getaddrinfo

    def getaddrinfo(*arguments: Any, **options: Any) -> Any:
        if options.get("flags", 0) & socket.AI_NUMERICHOST:
            return real(*arguments, **options)
        resolver.append(threading.current_thread())
        asked.set()
        assert answer.wait(DEADLINE)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    reactor = Reactor()
    Outcome(reactor).connect(("some.name", 1))
    assert asked.wait(DEADLINE)
    assert resolver[0].daemon  # a resolver that hangs does not hold up the end of the program
    reactor.close()
    answer.set()
    resolver[0].join(DEADLINE)
    assert not resolver[0].is_alive()


# -- Unix sockets --------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    return "socket"


@needs_unix
def test_it_connects_to_a_path(outcome: Outcome, path: str) -> None:
    with listen(path) as listener:
        outcome.connect(path)
        outcome.wait()
        assert outcome.connected[0].family == socket.AF_UNIX
        listener.accept()[0].close()


@needs_unix
def test_a_path_that_is_not_there(outcome: Outcome, path: str) -> None:
    outcome.connect(path)
    outcome.wait()
    assert isinstance(outcome.errors[0], FileNotFoundError)


@needs_unix
def test_a_path_that_is_too_long(outcome: Outcome) -> None:
    outcome.connect("x" * 1_000)
    outcome.wait()
    assert isinstance(outcome.errors[0], OSError)


@needs_unix
def test_a_full_backlog_of_a_path_is_no_connection(outcome: Outcome, path: str) -> None:
    """connect(2): EAGAIN of a Unix socket means that nothing is under way."""
    with listen(path, backlog=0):
        waiting = [socket.socket(socket.AF_UNIX) for _ in range(8)]
        try:
            for client in waiting:
                client.setblocking(False)
            if not any(client.connect_ex(path) == errno.EAGAIN for client in waiting):
                pytest.skip("a system whose backlog does not fill up")
            connector = outcome.connect(path, timeout=0.05)
            end = time.monotonic() + 0.5
            while not (outcome.connected or outcome.errors) and time.monotonic() < end:
                outcome.reactor.run_once(0.02)
            connector.cancel()
        finally:
            for client in waiting:
                client.close()
    assert outcome.connected == [], "it was handed over, and has no peer"


def test_a_connector_says_what_it_is_for(outcome: Outcome, refusing: tuple[str, int]) -> None:
    connector = outcome.connect(refusing)
    assert str(refusing[1]) in repr(connector)
    connector.cancel()
    assert "done" in repr(connector)
