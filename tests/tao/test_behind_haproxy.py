"""A server behind a real HAProxy: it sees the real peer. Skipped, loudly, where there is none."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

import tao
from tao import MessageRegistry, Server, ServerConn
from tao.address import format_address
from tests.support import DEADLINE, LOCAL, Calls, Peer, Sample, as_bytes, frame, wait_until
from tests.tls_support import Certificates, TlsPeer, peer_context

HAPROXY = shutil.which("haproxy")

pytestmark = pytest.mark.skipif(
    HAPROXY is None, reason="there is no haproxy: install it to test the PROXY protocol for real"
)

V1 = "send-proxy"
V2 = "send-proxy-v2"
V2_CHECKED = "send-proxy-v2 proxy-v2-options crc32c,unique-id"

CONFIGURATION = """
defaults
    mode tcp
    timeout connect 10s
    timeout client 10s
    timeout server 10s
    unique-id-format %pid-%rt
listen front
    bind fd@{fd}
    server back {back} {options}
"""

versions = pytest.mark.parametrize("options", [V1, V2, V2_CHECKED])


class Echo:
    """A server that echoes message 1, and what its callbacks were told."""

    def __init__(self, **arguments: Any) -> None:
        self.opened: Calls[ServerConn] = Calls()
        self.errors: Calls[BaseException] = Calls()
        registry = MessageRegistry()
        registry.register(1, as_bytes, lambda context, conn: Sample(1, context.message))
        self.server = Server(
            registry=registry,
            on_connect=self.opened.add,
            on_error=lambda conn, error: self.errors.add(error),
            **arguments,
        )


@contextmanager
def haproxy(tmp_path: Path, back: Any, options: str, host: str = "127.0.0.1") -> Iterator[Any]:
    """In front of the server at `back`, while the block runs; gives where it listens itself."""
    assert HAPROXY is not None
    text = f"unix@{back}" if isinstance(back, str) else format_address(back)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with ExitStack() as stack:
        # Ours, and given to it: no port to be guessed, and clients can come before it is ready.
        front = stack.enter_context(socket.create_server((host, 0), family=family))
        path = tmp_path / "haproxy.cfg"
        path.write_text(CONFIGURATION.format(fd=front.fileno(), back=text, options=options))
        log = stack.enter_context((tmp_path / "haproxy.log").open("w+"))
        process = stack.enter_context(
            subprocess.Popen(
                [HAPROXY, "-db", "-f", str(path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[front.fileno()],
            )
        )
        try:
            yield front.getsockname()[:2]
            assert process.poll() is None, (tmp_path / "haproxy.log").read_text()
        finally:
            process.terminate()
            process.wait(DEADLINE)


def talk(address: Any) -> Any:
    """Have a frame echoed; the client's own address."""
    with socket.create_connection(address, DEADLINE) as sock:
        sock.sendall(frame(1, b"hello"))
        received = b""
        while len(received) < 13:
            data = sock.recv(13 - len(received))
            assert data, "the proxy or the server has closed the connection"
            received += data
        assert received == frame(1, b"hello")
        return sock.getsockname()


@versions
def test_the_real_peer(tmp_path: Path, options: str) -> None:
    echo = Echo()
    with (
        echo.server.running(LOCAL, proxy_protocol=True, trusted_proxies=["127.0.0.1"]) as back,
        haproxy(tmp_path, back, options) as front,
    ):
        clients = [talk(front) for _ in range(3)]
        conns = echo.opened.wait(3)
        assert [conn.remote_address for conn in conns] == clients
        assert {conn.local_address for conn in conns} == {front}
    assert not echo.errors.items


@versions
@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="a system without IPv6")
def test_the_real_peer_over_ipv6(tmp_path: Path, options: str) -> None:
    echo = Echo()
    with (
        echo.server.running(("::1", 0), proxy_protocol=True) as back,
        haproxy(tmp_path, back, options, "::1") as front,
    ):
        client = talk(front)
        assert echo.opened.wait()[0].remote_address == client


@versions
def test_the_real_peer_over_a_unix_socket(tmp_path: Path, options: str) -> None:
    echo = Echo()
    with (
        echo.server.running(str(tmp_path / "s"), proxy_protocol=True, mode=0o600) as back,
        haproxy(tmp_path, back, options) as front,
    ):
        client = talk(front)
        assert echo.opened.wait()[0].remote_address == client


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@versions
def test_the_real_peer_through_tls(
    tmp_path: Path, certificates: Certificates, options: str
) -> None:
    """The client's TLS ends at the server: the proxy puts its header before it."""
    echo = Echo(tls=tao.load_server_tls(certificates.server_file))
    with (
        echo.server.running(LOCAL, proxy_protocol=True) as back,
        haproxy(tmp_path, back, options) as front,
        TlsPeer.connect(front, peer_context(certificates)) as peer,
    ):
        peer.handshake()
        peer.send(frame(1, b"x"))
        assert peer.receive(9) == frame(1, b"x")
        assert echo.opened.wait()[0].remote_address == peer.sock.getsockname()


@versions
def test_tls_that_the_proxy_begins(
    tmp_path: Path, certificates: Certificates, options: str
) -> None:
    """The client speaks plainly, and the proxy's own TLS comes behind its header."""
    echo = Echo(tls=tao.load_server_tls(certificates.server_file))
    secure = f"{options} ssl verify required ca-file {certificates.ca_file} sni str(localhost)"
    with (
        echo.server.running(LOCAL, proxy_protocol=True) as back,
        haproxy(tmp_path, back, f"{secure} verifyhost localhost") as front,
    ):
        client = talk(front)
        assert echo.opened.wait()[0].remote_address == client


@versions
def test_its_checks_whether_the_server_lives_are_no_errors(tmp_path: Path, options: str) -> None:
    echo = Echo()
    with (
        echo.server.running(LOCAL, proxy_protocol=True) as back,
        haproxy(tmp_path, back, f"{options} check inter 20") as front,
    ):
        assert wait_until(lambda: echo.server.metrics().connections_total >= 3)
        client = talk(front)
        assert wait_until(lambda: client in {conn.remote_address for conn in echo.opened.items})
    assert not echo.errors.items
    # It opens a connection of its own each time, and ends it by a reset.
    assert set(echo.server.metrics().errors) <= {"ConnectionResetError"}


def test_limits_behind_it_are_the_client_s(tmp_path: Path) -> None:
    echo = Echo(max_connections_per_address=1)
    with (
        echo.server.running(LOCAL, proxy_protocol=True) as back,
        haproxy(tmp_path, back, V2) as front,
        Peer(front) as first,
    ):
        first.send_frame(1, b"x")
        assert first.receive_frame() == (1, b"x")
        with Peer(front) as second:
            second.send_frame(1, b"x")
            assert second.is_cut_off()
        assert echo.server.metrics().connections_refused == 1


def test_a_proxy_that_nobody_asked_for_is_told(tmp_path: Path) -> None:
    reasons: Calls[tao.CloseReason] = Calls()
    server = Server(registry=MessageRegistry(), on_close=lambda _conn, reason: reasons.add(reason))
    with (
        server.running(LOCAL) as back,
        haproxy(tmp_path, back, V1) as front,
        Peer(front) as peer,
    ):
        assert peer.is_cut_off()
        peer.close()
        assert "listen with proxy_protocol=True" in str(reasons.wait()[0].error)
