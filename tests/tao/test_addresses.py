"""Servers and clients at every kind of address: IPv6, link-local, both at once, paths, abstract names."""

from __future__ import annotations

import logging
import os
import socket
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

import tao
from tao import ClientConn, Rate, Server, ServerConn
from tao.address import format_address, format_peer, parse_address
from tests.support import DEADLINE, LOCAL, Calls, Peer, Sample, as_bytes, frame, wait_until
from tests.tls_support import Certificates

needs_unix = pytest.mark.skipif(
    not hasattr(socket, "AF_UNIX"), reason="a system without Unix sockets"
)
needs_ipv6 = pytest.mark.skipif(
    not socket.has_dualstack_ipv6(), reason="a system without sockets for both IPv4 and IPv6"
)
needs_abstract_names = pytest.mark.skipif(
    sys.platform != "linux", reason="a system without abstract names"
)


class Echo:
    """A server that echoes message 1, and the connections that it has had."""

    def __init__(self, **arguments: Any) -> None:
        self.opened: Calls[ServerConn] = Calls()
        registry = tao.MessageRegistry()
        registry.register(
            1, as_bytes, lambda context, conn: Sample(1, context.message), inline=True
        )
        self.server = Server(registry=registry, on_connect=self.opened.add, **arguments)


def check_echo(address: Any, **arguments: Any) -> ClientConn:
    """A ClientConn is served at that address; it is closed when it is returned."""
    seen: Calls[bytes] = Calls()
    registry = tao.MessageRegistry()
    registry.register(1, as_bytes, lambda context, conn: seen.add(context.message))
    with ClientConn(address, registry=registry, **arguments) as client:
        client.write(Sample(1, b"x"))
        assert seen.wait() == [b"x"]
    return client


# -- IPv6 ----------------------------------------------------------------------------------------


@needs_ipv6
def test_all_addresses_of_ipv6_serve_ipv4_too() -> None:
    echo = Echo()
    with echo.server.running(("::", 0)) as address:
        assert address[0] == "::"
        check_echo(("127.0.0.1", address[1]))
        check_echo(("::1", address[1]))
        first, second = echo.opened.wait(2)
    # As the socket has it, and as people do.
    assert first.remote_address[0] == "::ffff:127.0.0.1"
    assert first.name == f"127.0.0.1:{first.remote_address[1]}"
    assert second.name == f"[::1]:{second.remote_address[1]}"


@needs_ipv6
@pytest.mark.parametrize("host", ["", "::", "0.0.0.0"])
def test_what_listens_everywhere_is_reached_on_this_machine(host: str) -> None:
    """An address without a host means the same to both."""
    echo = Echo()
    with echo.server.running((host, 0)) as address:
        client = check_echo(("", address[1]))
        assert client.name == f":{address[1]}"


@needs_ipv6
def test_an_address_of_ipv4_counts_once_however_it_is_written() -> None:
    echo = Echo(max_connections_per_address=1)
    port = echo.server.listen(("::", 0))[1]
    with echo.server.running(LOCAL) as other, Peer(("127.0.0.1", port)) as peer:
        peer.send_frame(1)
        peer.receive_frame()
        with Peer(other) as second:
            assert second.is_cut_off()
        assert echo.server.metrics().connections_refused == 1
    assert not echo.server._limits._open


def link_local() -> str | None:
    """An address that leads to this machine and begins with fe80, with its interface."""
    try:
        lines = Path("/proc/net/if_inet6").read_text().splitlines()
    except OSError:
        return None
    for digits, _, _, scope, _, name in map(str.split, lines):
        if scope == "20":
            packed = bytes.fromhex(digits)
            return f"{socket.inet_ntop(socket.AF_INET6, packed)}%{name}"
    return None


LINK_LOCAL = link_local()


@pytest.mark.skipif(LINK_LOCAL is None, reason="no interface here has a link-local address")
def test_a_link_local_address_keeps_its_interface() -> None:
    assert LINK_LOCAL is not None
    echo = Echo(max_connections_per_address=1)
    with echo.server.running((LINK_LOCAL, 0)) as address:
        assert address[0] == LINK_LOCAL
        assert f"[{LINK_LOCAL}]:{address[1]}" in repr(echo.server)
        client = check_echo(parse_address(format_address(address)))
        assert client.name == f"[{LINK_LOCAL}]:{address[1]}"
        (conn,) = echo.opened.wait()
        assert conn.name == f"[{LINK_LOCAL}]:{conn.remote_address[1]}"


@pytest.mark.skipif(LINK_LOCAL is None, reason="no interface here has a link-local address")
def test_a_certificate_has_no_interface(tmp_path: Path) -> None:
    assert LINK_LOCAL is not None
    certificates = Certificates(tmp_path)
    server_file = certificates.issue(LINK_LOCAL.partition("%")[0])
    echo = Echo(tls=tao.load_server_tls(server_file))
    with echo.server.running((LINK_LOCAL, 0)) as address:
        check_echo(address, tls=tao.load_client_tls(certificates.ca_file))


def test_an_interface_that_there_is_not() -> None:
    server = Server(registry=tao.MessageRegistry())
    with pytest.raises(OSError, match="cannot listen on"):
        server.listen(("fe80::1%no-such-interface", 0))


# -- Unix sockets --------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Short, by being relative: a Unix address has a hundred bytes or so."""
    monkeypatch.chdir(tmp_path)
    return "socket"


@needs_unix
def test_the_path_that_a_peer_has_chosen_writes_no_lines_of_a_log(tmp_path: Path) -> None:
    echo = Echo()
    with (
        echo.server.running(str(tmp_path / "server")) as address,
        socket.socket(socket.AF_UNIX) as peer,
    ):
        peer.bind(os.fsencode(tmp_path) + b"/ann\nERROR \x1b[2J\xff")
        peer.connect(address)
        (conn,) = echo.opened.wait()
        assert conn.name == f"{tmp_path}/ann\\nERROR \\x1b[2J\\udcff"


@needs_unix
def test_what_a_killed_server_left_behind_is_in_nobody_s_way(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
        dead.listen()
    echo = Echo()
    with echo.server.running(path) as address:
        check_echo(address)
    assert not os.path.exists(path)


@needs_unix
def test_two_servers_cannot_have_one_path(path: str) -> None:
    first, second = Echo(), Echo()
    with first.server.running(path) as address:
        with pytest.raises(OSError, match="stop the program that listens there"):
            second.server.listen(path)
        second.server.stop()
        check_echo(address)


@needs_unix
@pytest.mark.parametrize("verb", ["listen", "running"])
def test_a_path_with_a_mode(path: str, verb: str) -> None:
    echo = Echo()
    if verb == "listen":
        echo.server.listen(path, mode=0o620)
        assert stat.S_IMODE(os.lstat(path).st_mode) == 0o620
        echo.server.stop()
    else:
        with echo.server.running(path, mode=0o620):
            assert stat.S_IMODE(os.lstat(path).st_mode) == 0o620


@needs_unix
def test_the_next_server_s_file_is_not_removed(path: str) -> None:
    """A deployment: the new one has taken the path over when the old one ends."""
    old, new = Echo(), Echo()
    with new.server.running(path + ".new") as address:
        with old.server.running(path):
            os.rename(address, path)
        check_echo(path)
    os.unlink(path)


@needs_unix
def test_the_file_of_a_socket_that_was_handed_over_stays(path: str) -> None:
    """Its maker's: systemd's, or of a process that starts others."""
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    sock.listen()
    echo = Echo()
    with echo.server.running(sock) as address:
        check_echo(address)
    assert os.path.exists(path)


@needs_unix
def test_what_is_not_listened_on_after_all_leaves_no_file(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: Any) -> None:
        raise RuntimeError("no threads to be had")

    server = Server(registry=tao.MessageRegistry())
    monkeypatch.setattr(Server, "_add_acceptor", fail)
    with pytest.raises(RuntimeError, match="no threads"):
        server.listen(path)
    assert not os.path.exists(path)
    server.stop()


@needs_unix
def test_a_peer_on_a_unix_socket_is_named_by_it(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tao")
    echo = Echo(max_connections=1)
    with echo.server.running(path):
        with Peer(path) as peer, Peer(path) as second:
            peer.send_frame(1)
            peer.receive_frame()
            assert second.is_cut_off()
            (conn,) = echo.opened.wait()
            assert conn.remote_address == ""
            assert conn.local_address == path
            assert conn.name == "unix:socket"
            assert "unix:socket" in repr(conn)
        assert wait_until(lambda: echo.server.connection_count == 0)
    assert "refused unix:socket: max_connections (1) is reached" in caplog.text
    assert {record.__dict__.get("peer") for record in caplog.records} == {None, "unix:socket"}


@needs_unix
def test_a_peer_on_a_unix_socket_that_has_a_name_of_its_own(path: str) -> None:
    echo = Echo()
    with echo.server.running(path), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(DEADLINE)
        client.bind("mine")
        client.connect(path)
        client.sendall(frame(1))
        assert client.recv(8) == frame(1)
        assert echo.opened.wait()[0].name == "mine"


@needs_unix
def test_no_limit_of_addresses_is_a_unix_socket_s(path: str) -> None:
    """Its peers have none, and would all be one."""
    echo = Echo(max_connections_per_address=1, connection_rate=Rate(1), frame_rate=Rate(1))
    with echo.server.running(path), Peer(path) as first, Peer(path) as second:
        for peer in (first, second):
            for _ in range(3):
                peer.send_frame(1)
                assert peer.receive_frame() == (1, b"")
    assert echo.server.metrics().connections_refused == 0


@needs_abstract_names
@pytest.mark.parametrize("text", ["@tao-{}", "unix:@tao-{}"])
def test_an_abstract_name(text: str) -> None:
    name = parse_address(text.format(os.getpid()))
    assert isinstance(name, str)
    echo = Echo()
    with echo.server.running(name) as address:
        assert address == name
        assert f"@tao-{os.getpid()}" in repr(echo.server)
        client = check_echo(address)
        assert client.name == f"@tao-{os.getpid()}"
        assert echo.opened.wait()[0].name == f"unix:@tao-{os.getpid()}"
        with pytest.raises(OSError, match="choose another path"):
            Server(registry=tao.MessageRegistry()).listen(name)


@pytest.mark.parametrize(
    ("remote", "local", "name"),
    [
        ("", "/run/s", "unix:/run/s"),
        ("", b"\0name", "unix:@name"),
        ("/run/c", "/run/s", "/run/c"),
        ("", None, "-"),
        (None, None, "-"),
        (None, ("127.0.0.1", 80), "-"),
        (("127.0.0.1", 80), None, "127.0.0.1:80"),
    ],
)
def test_what_a_peer_is_called(remote: object, local: object, name: str) -> None:
    assert format_peer(remote, local) == name


def test_a_system_without_unix_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "AF_UNIX", raising=False)
    server = Server(registry=tao.MessageRegistry())
    with pytest.raises(OSError, match=r"no Unix sockets; use \(host, port\)"):
        server.listen("/tmp/socket")
