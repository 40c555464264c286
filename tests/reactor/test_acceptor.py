"""Listening and accepting, over real sockets."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reactor import Acceptor, Reactor, SocketFile, listen
from tests.reactor.support import DEADLINE, ManualClock, open_descriptors, run_passes, run_until
from tests.support import no_descriptors_left

HOST = "127.0.0.1"
UNIX = hasattr(socket, "AF_UNIX")

needs_unix = pytest.mark.skipif(not UNIX, reason="a system without Unix sockets")


class Service:
    """An acceptor on the loopback, its clients, and what it has accepted."""

    def __init__(self, reactor: Reactor, address: tuple[str, int] | str = (HOST, 0)) -> None:
        self.reactor = reactor
        self.accepted: list[tuple[socket.socket, Any]] = []
        self.on_accept: Callable[[socket.socket, Any], object] = self.keep
        self.clients: list[socket.socket] = []
        sock = listen(address)
        file = SocketFile(address) if isinstance(address, str) else None
        self.acceptor = Acceptor(reactor, sock, self._handle_accepted, file=file)

    def _handle_accepted(self, sock: socket.socket, address: Any) -> None:
        self.on_accept(sock, address)

    def keep(self, sock: socket.socket, address: Any) -> None:
        self.accepted.append((sock, address))

    def new_client(self) -> socket.socket:
        client = socket.socket(
            socket.AF_UNIX if isinstance(self.acceptor.address, str) else socket.AF_INET
        )
        client.settimeout(DEADLINE)
        self.clients.append(client)
        return client

    def connect(self, client: socket.socket | None = None) -> socket.socket:
        client = client or self.new_client()
        client.connect(self.acceptor.address)
        return client

    def run_until_accepted(self, count: int) -> None:
        run_until(self.reactor, lambda: len(self.accepted) >= count, f"connection {count}")

    def close(self) -> None:
        self.acceptor.close()
        for sock in [*self.clients, *(sock for sock, _ in self.accepted)]:
            sock.close()


@pytest.fixture
def service(reactor: Reactor) -> Iterator[Service]:
    made = Service(reactor)
    yield made
    made.close()


# -- accepting -----------------------------------------------------------------------------------


def test_a_connection_is_handed_over(service: Service) -> None:
    client = service.connect()
    service.run_until_accepted(1)
    [(sock, address)] = service.accepted
    assert not sock.getblocking()
    assert address == client.getsockname()
    assert sock.getpeername() == client.getsockname()
    client.sendall(b"hello")
    sock.settimeout(DEADLINE)
    assert sock.recv(10) == b"hello"


@pytest.mark.parametrize("bare", [False, True])
def test_what_kind_of_socket_is_handed_over(reactor: Reactor, bare: bool) -> None:
    accepted: list[socket.socket] = []
    acceptor = Acceptor(
        reactor, listen((HOST, 0)), lambda sock, address: accepted.append(sock), bare=bare
    )
    assert isinstance(acceptor.address, tuple)
    with socket.create_connection(acceptor.address[:2]):
        run_until(reactor, lambda: bool(accepted), "the connection")
        [sock] = accepted
        assert isinstance(sock, socket.SocketType)
        assert isinstance(sock, socket.socket) is not bare
        sock.close()
    acceptor.close()


def test_it_tells_where_it_listens(service: Service) -> None:
    address = service.acceptor.address
    assert isinstance(address, tuple)
    assert address[0] == HOST
    assert address[1] > 0
    assert str(address[1]) in repr(service.acceptor)


def test_accepts_are_bounded_by_the_pass(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reactor.acceptor.ACCEPTS_PER_PASS", 4)
    for _ in range(11):
        service.connect()
    before = 0
    passes = 0
    while before < 11:
        service.reactor.run_once(DEADLINE)
        accepted = len(service.accepted)
        assert before < accepted <= before + 4
        before = accepted
        passes += 1
    assert passes >= 3
    assert service.reactor.run_once(0) == 0


def test_paused_it_leaves_clients_waiting(service: Service) -> None:
    service.acceptor.pause()
    service.acceptor.pause()
    service.connect()
    run_passes(service.reactor)
    service.reactor.run_once(0.02)
    assert service.accepted == []

    service.acceptor.resume()
    service.run_until_accepted(1)


def test_closed_it_is_gone(service: Service) -> None:
    address = service.acceptor.address
    service.acceptor.close()
    service.acceptor.close()
    assert service.reactor.statistics().channels == 0
    with socket.socket() as client, pytest.raises(ConnectionRefusedError):
        client.connect(address)
    assert "closed" in repr(service.acceptor)


def test_pause_and_resume_after_close_do_nothing(service: Service) -> None:
    service.acceptor.close()
    before = open_descriptors()
    service.acceptor.pause()
    service.acceptor.resume()
    left = open_descriptors() - before
    for number in left:
        os.close(number)
    assert not left, "a spare descriptor that nobody will close"


def test_closed_by_what_it_has_called_it_accepts_no_more(service: Service) -> None:
    def close(sock: socket.socket, address: Any) -> None:
        service.keep(sock, address)
        service.acceptor.close()

    service.on_accept = close
    service.connect()
    service.connect()
    service.run_until_accepted(1)
    run_passes(service.reactor)
    assert len(service.accepted) == 1


def test_a_callback_that_raises_costs_its_connection_only(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    def fail_once(sock: socket.socket, address: Any) -> None:
        service.on_accept = service.keep
        raise RuntimeError("not this one")

    service.on_accept = fail_once
    first, second = service.connect(), service.connect()
    service.run_until_accepted(1)
    assert first.recv(1) == b""
    assert service.accepted[0][1] == second.getsockname()
    [record] = caplog.records
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "not this one"


# -- out of descriptors --------------------------------------------------------------------------


@pytest.fixture
def manual_service(manual: Reactor) -> Iterator[Service]:
    made = Service(manual)
    yield made
    made.close()


def test_out_of_descriptors_the_client_is_told_off_and_accepting_resumes(
    manual_service: Service, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    service = manual_service
    first, second = service.new_client(), service.new_client()
    with no_descriptors_left():
        service.connect(first)
        run_until(service.reactor, lambda: service.acceptor.refused == 1, "the refusal")
        assert first.recv(1) == b""  # it does not hang

        # It waits before it tries again, and the loop does not spin meanwhile.
        service.connect(second)
        passes = service.reactor.statistics().events
        run_passes(service.reactor, 5)
        assert service.reactor.statistics().events == passes
    assert service.accepted == []
    assert [record.levelname for record in caplog.records] == ["WARNING"]

    clock.advance(1.0)
    service.run_until_accepted(1)
    assert service.accepted[0][1] == second.getsockname()


def test_it_survives_a_second_shortage(manual_service: Service, clock: ManualClock) -> None:
    """The spare descriptor was taken back after the first."""
    service = manual_service
    clients = [service.new_client() for _ in range(2)]
    for number, client in enumerate(clients, 1):
        with no_descriptors_left():
            service.connect(client)
            run_until(
                service.reactor,
                lambda number=number: service.acceptor.refused == number,  # type: ignore[misc]
                "the refusal",
            )
            assert client.recv(1) == b""
        clock.advance(1.0)
        run_passes(service.reactor)
    service.connect()
    service.run_until_accepted(1)


def test_a_pause_outlasts_the_wait_for_descriptors(
    manual_service: Service, clock: ManualClock
) -> None:
    """Somebody asked for it: it ends when that somebody says so."""
    service = manual_service
    client = service.new_client()
    with no_descriptors_left():
        service.connect(client)
        run_until(service.reactor, lambda: service.acceptor.refused == 1, "the refusal")
    service.acceptor.pause()
    clock.advance(1.0)
    run_passes(service.reactor)
    service.connect()
    service.reactor.run_once(0.02)
    assert service.accepted == []
    service.acceptor.resume()
    service.run_until_accepted(1)


def test_closed_during_the_wait_it_stays_closed(
    manual_service: Service, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    service = manual_service
    client = service.new_client()
    with no_descriptors_left():
        service.connect(client)
        run_until(service.reactor, lambda: service.acceptor.refused == 1, "the refusal")
    service.acceptor.close()
    assert service.reactor.statistics().timeouts_waiting == 0
    clock.advance(1.0)
    run_passes(service.reactor)
    assert [record.levelname for record in caplog.records] == ["WARNING"]


# -- listen --------------------------------------------------------------------------------------


def test_the_socket_does_not_block_and_is_not_inherited() -> None:
    with listen((HOST, 0)) as sock:
        assert not sock.getblocking()
        assert not sock.get_inheritable()
        with pytest.raises(BlockingIOError):
            sock.accept()


def test_an_empty_host_is_every_address() -> None:
    with listen(("", 0)) as sock:
        sock.settimeout(DEADLINE)
        hosts = [(socket.AF_INET, HOST)]
        if sock.family == socket.AF_INET6:
            hosts.append((socket.AF_INET6, "::1"))
        for family, host in hosts:
            with socket.socket(family) as client:
                client.settimeout(DEADLINE)
                try:
                    client.connect((host, sock.getsockname()[1]))
                except OSError as error:
                    # A machine may have IPv6 sockets, and no IPv6 on its loopback.
                    if family == socket.AF_INET6 and error.errno == errno.EADDRNOTAVAIL:
                        continue
                    raise
                sock.accept()[0].close()


def test_an_address_in_use_says_what_to_do() -> None:
    with listen((HOST, 0)) as first:
        address = first.getsockname()
        with pytest.raises(OSError, match="cannot listen on") as caught:
            listen(address)
    assert caught.value.errno == errno.EADDRINUSE
    assert repr(address) in str(caught.value)
    assert "choose another port" in str(caught.value)


def test_an_address_of_another_machine_is_refused_with_its_name() -> None:
    with pytest.raises(OSError, match=r"cannot listen on \('192\.0\.2\.1', 0\)"):
        listen(("192.0.2.1", 0))  # RFC 5737: nobody's


def test_a_name_that_cannot_be_resolved_is_refused_with_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(OSError, match=r"'no\.such\.host'.*not known"):
        listen(("no.such.host", 0))


@pytest.mark.parametrize("host", [HOST, ""])
@pytest.mark.parametrize("port", [-1, 65_536, 70_000, 1 << 40])
def test_a_port_out_of_range_is_refused(host: str, port: int) -> None:
    """The resolver takes it modulo 65,536, so it has to be looked at before."""
    with pytest.raises(ValueError, match="a port is a number from 0 to 65535"):
        listen((host, port)).close()


# -- Unix sockets --------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Short, by being relative: a Unix address has a hundred bytes or so, and tmp_path may have
    more."""
    monkeypatch.chdir(tmp_path)
    return "socket"


@needs_unix
def test_a_unix_socket_is_listened_on_and_tidied_up(reactor: Reactor, path: str) -> None:
    service = Service(reactor, path)
    try:
        assert os.path.exists(path)
        assert service.acceptor.address == path
        client = service.connect()
        service.run_until_accepted(1)
        client.sendall(b"x")
        service.accepted[0][0].settimeout(DEADLINE)
        assert service.accepted[0][0].recv(1) == b"x"
    finally:
        service.close()
    assert not os.path.exists(path)
    Service(reactor, path).close()  # and may be used again


@needs_unix
def test_a_unix_socket_that_somebody_else_removed(reactor: Reactor, path: str) -> None:
    service = Service(reactor, path)
    os.unlink(path)
    service.close()


@needs_unix
def test_a_unix_path_in_use(path: str) -> None:
    with listen(path), pytest.raises(OSError, match="cannot listen on 'socket'") as caught:
        listen(path)
    assert caught.value.errno == errno.EADDRINUSE


@needs_unix
def test_a_socket_s_file_that_is_not_ours_stays(reactor: Reactor, path: str) -> None:
    """It was made for a socket that came from elsewhere, of a supervisor of ours say."""
    Acceptor(reactor, listen(path), print).close()
    assert os.path.exists(path)


@needs_unix
@pytest.mark.parametrize("bad", ["x" * 1_000, "no/such/directory/socket"])
def test_a_bad_unix_path(path: str, bad: str) -> None:
    with pytest.raises(OSError, match="cannot listen on") as caught:
        listen(bad)
    assert caught.value.errno in (errno.EINVAL, errno.ENOENT)


@pytest.mark.skipif(sys.platform != "linux", reason="an address that only Linux has")
def test_an_abstract_unix_address_has_no_file_to_tidy_up(reactor: Reactor) -> None:
    """unix(7): it begins with a zero byte, and no system call on paths takes one."""
    service = Service(reactor, f"\0reactor-test-{os.getpid()}")
    service.acceptor.close()
    assert reactor.statistics().channels == 0


# -- IPv6 ----------------------------------------------------------------------------------------

needs_ipv6 = pytest.mark.skipif(
    not socket.has_dualstack_ipv6(), reason="a system without sockets for both IPv4 and IPv6"
)


def _port_of(sock: socket.socket) -> int:
    port: int = sock.getsockname()[1]
    return port


@needs_ipv6
@pytest.mark.parametrize("host", ["", "::"])
def test_all_addresses_of_ipv6_are_those_of_ipv4_too(host: str) -> None:
    with listen((host, 0)) as sock:
        assert sock.family == socket.AF_INET6
        assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 0
        for own in ("127.0.0.1", "::1"):
            socket.create_connection((own, _port_of(sock)), timeout=DEADLINE).close()


@needs_ipv6
def test_one_address_of_ipv6_is_that_alone() -> None:
    with listen(("::1", 0)) as sock:
        assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", _port_of(sock)), timeout=DEADLINE)


def test_all_addresses_of_ipv4_are_those_alone() -> None:
    with listen(("0.0.0.0", 0)) as sock:
        assert sock.family == socket.AF_INET


def test_a_mode_is_no_tcp_port_s() -> None:
    with pytest.raises(ValueError, match="for the file of a Unix socket"):
        listen((HOST, 0), mode=0o600)
