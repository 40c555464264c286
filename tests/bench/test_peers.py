"""Every peer serves: messages alone, many at once, large ones, and on TLS where it has it."""

from __future__ import annotations

import socket
import ssl
import struct
import sys
from pathlib import Path

import pytest

from tests.bench.discovery import find_workloads
from tests.bench.echo import BARE_EPOLL, PEERS
from tests.bench.embedded import embedded_peers
from tests.bench.errors import BenchError
from tests.bench.open_connections import OpenConnections, exchange
from tests.bench.peer import Peer
from tests.bench.peers.frames import ECHO_TYPE, MAX_LENGTH, echo
from tests.bench.server_process import ServerProcess
from tests.display import lacks_display
from tests.support import wait_until
from tests.tls_support import Certificates, peer_context

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the benchmark is Linux only")

DEADLINE = 10.0

WORKING = {
    (peer.module, peer.options): peer
    for workload in find_workloads().values()
    for peer in workload.peers
    if "--work" in peer.options
}
"""The peers with handlers that do something, as the workloads have them."""


def _started(peer: Peer, certificate_file: Path | None = None) -> ServerProcess:
    if not peer.is_available():
        pytest.skip(f"the module {peer.requires} is not installed")
    if peer.requires == "tkinter" and (lack := lacks_display()) is not None:
        pytest.skip(f"Tk needs a display, and {lack}")
    return ServerProcess(peer.name, peer.command(None, certificate_file))


def _receive(sock: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            break
        data += piece
    return bytes(data)


@pytest.mark.parametrize("peer", [*PEERS, *embedded_peers("pool")], ids=lambda peer: peer.name)
def test_a_peer_echoes(peer: Peer) -> None:
    with _started(peer) as server:
        with OpenConnections(server.port, 64) as connections:
            connections.grow(3)
            connections.check()
        address = ("127.0.0.1", server.port)
        with socket.create_connection(address, timeout=DEADLINE) as sock:
            for size in (0, 1, 300_000):
                exchange(sock, ECHO_TYPE, 1, size)
            frames = b"".join(echo(ECHO_TYPE, b"%d" % index) for index in range(1000))
            sock.sendall(frames[:-3])  # many in one read, and one cut in two
            sock.sendall(frames[-3:])
            assert _receive(sock, len(frames)) == frames
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(1) == b""


@pytest.mark.parametrize(
    "peer", [peer for peer in PEERS if peer.name != BARE_EPOLL], ids=lambda peer: peer.name
)
def test_a_peer_hangs_up_on_a_frame_that_is_too_long(peer: Peer) -> None:
    with _started(peer) as server:
        address = ("127.0.0.1", server.port)
        with socket.create_connection(address, timeout=DEADLINE) as sock:
            sock.sendall(struct.pack("<iI", ECHO_TYPE, MAX_LENGTH + 1))
            try:
                assert sock.recv(1) == b""
            except ConnectionResetError:
                pass


@pytest.mark.parametrize("peer", find_workloads()["workers"].peers[1:], ids=lambda peer: peer.name)
def test_a_peer_of_two_processes_echoes(peer: Peer) -> None:
    with _started(peer) as server, OpenConnections(server.port, 64) as connections:
        connections.grow(3)
        connections.check()


@pytest.mark.parametrize("peer", WORKING.values(), ids=lambda peer: "-".join(peer.options))
def test_a_peer_with_work_echoes(peer: Peer) -> None:
    with _started(peer) as server, OpenConnections(server.port, 64) as connections:
        connections.grow(3)
        connections.check()


@pytest.mark.parametrize(
    "peer", find_workloads()["tls-echo"].peers, ids=lambda peer: f"{peer.name}"
)
def test_a_peer_echoes_over_tls(peer: Peer, tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    context = peer_context(certificates)
    with _started(peer, certificates.server_file) as server:
        address = ("127.0.0.1", server.port)
        with (
            socket.create_connection(address, timeout=DEADLINE) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as sock,
        ):
            assert isinstance(sock, ssl.SSLSocket)
            for size in (0, 64, 300_000):
                exchange(sock, ECHO_TYPE, 1, size)


# -- what is read of a server --------------------------------------------------------------------


def test_the_figures_of_a_server() -> None:
    peer = next(peer for peer in PEERS if peer.name == BARE_EPOLL)
    with _started(peer) as server:
        wake_ups, cpu = server.wake_ups(), server.exact_cpu_seconds()
        assert cpu > 0.0
        assert server.resident_bytes() > 1 << 20
        with OpenConnections(server.port, 64) as connections:
            connections.grow(20)
        # The system has accepted them; the server may still be about to.
        assert wait_until(lambda: server.wake_ups() > wake_ups)
        assert wait_until(lambda: server.exact_cpu_seconds() > cpu)


def test_the_figures_of_a_server_that_has_died() -> None:
    with ServerProcess("dying", [sys.executable, "-c", "print(1)"]) as server:
        assert server._process is not None
        server._process.wait(DEADLINE)
        with pytest.raises(BenchError, match="died"):
            server.resident_bytes()
        with pytest.raises(BenchError, match="died"):
            server.wake_ups()
