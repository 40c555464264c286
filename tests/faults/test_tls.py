"""TLS that asks for a handshake in the middle, while there is something to write.

What else can go wrong with TLS is tested in `tests/tao/test_tls.py` and `tests/reactor/test_tls.py`.
"""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tao import ClientConn, CloseCause, LineCodec, MessageRegistry, load_client_tls
from tests.support import DEADLINE, LOCAL, Sample, as_bytes, wait_until
from tests.tls_support import Certificates, peer_context

OPENSSL = shutil.which("openssl")

needs_openssl = pytest.mark.skipif(
    OPENSSL is None, reason="there is no openssl program: RENEGOTIATION IS NOT TESTED"
)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


class RenegotiatingServer:
    """`openssl s_server` for TLS 1.2, behind a relay that can hold back what it says."""

    def __init__(self, certificates: Certificates, folder: Path) -> None:
        self._output = folder / "received"
        with socket.create_server(LOCAL) as free:
            self._port = free.getsockname()[1]
        certificate = str(certificates.server_file)
        arguments = ["-accept", f"127.0.0.1:{self._port}", "-tls1_2"]
        arguments += ["-cert", certificate, "-key", certificate]
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [str(OPENSSL), "s_server", *arguments],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        assert wait_until(lambda: b"ACCEPT" in self.received)
        self._listener = socket.create_server(LOCAL)
        self._listener.settimeout(DEADLINE)
        self.address: tuple[str, int] = self._listener.getsockname()
        self.answered = threading.Event()
        """Set when the client has sent something while the server is held back."""
        self._held = False
        self._let_go = threading.Event()
        self._let_go.set()
        self._socks: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._relay)]
        self._threads[0].start()

    @property
    def received(self) -> bytes:
        """All that the server has printed: what it has decrypted, among other things."""
        return self._output.read_bytes()

    def _relay(self) -> None:
        client, _ = self._listener.accept()
        server = socket.create_connection(("127.0.0.1", self._port))
        self._socks += [client, server]
        thread = threading.Thread(target=self._copy, args=(server, client, True))
        thread.start()
        self._threads.append(thread)
        self._copy(client, server, False)

    def _copy(self, source: socket.socket, target: socket.socket, from_server: bool) -> None:
        try:
            while data := source.recv(65_536):
                if not from_server and self._held:
                    self.answered.set()
                if from_server and self._held:
                    if self._let_go.is_set():
                        self._let_go.clear()  # this goes through: what comes after it does not
                    else:
                        self._let_go.wait(DEADLINE)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the other direction has ended it

    def ask_for_a_handshake(self) -> None:
        """It sends its HelloRequest, and nothing after it before `let_go`. RFC 5246, 7.4.1.1."""
        self._held = True
        assert self._process.stdin is not None
        self._process.stdin.write(b"r\n")
        self._process.stdin.flush()

    def let_go(self) -> None:
        """What was held back goes out."""
        self._held = False
        self._let_go.set()

    def close(self) -> None:
        """End it."""
        self.let_go()
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()
        for sock in self._socks:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # both ends have left already
        for thread in self._threads:
            thread.join(DEADLINE)
        for sock in [*self._socks, self._listener]:
            sock.close()


@pytest.fixture
def server(certificates: Certificates, tmp_path: Path) -> Iterator[RenegotiatingServer]:
    made = RenegotiatingServer(certificates, tmp_path)
    yield made
    made.close()


def client_of(server: RenegotiatingServer, tls: ssl.SSLContext) -> ClientConn:
    """A client that is connected, and has written its first line."""
    registry = MessageRegistry()
    registry.register(1, as_bytes, lambda context, conn: None)
    client = ClientConn(server.address, registry=registry, codec=LineCodec(), tls=tls)
    client.start()
    assert client.wait_connected(DEADLINE)
    client.write(Sample(1, b"the first line"))
    assert wait_until(lambda: b"the first line" in server.received)
    return client


@needs_openssl
@pytest.mark.skipif(os.name != "posix", reason="openssl's s_server takes no commands there")
def test_a_handshake_in_the_middle_is_refused_with_a_typed_reason(
    server: RenegotiatingServer, certificates: Certificates
) -> None:
    """`load_client_tls` allows none (RFC 9325, 3.5): the server gives up, and it does not hang."""
    client = client_of(server, load_client_tls(certificates.ca_file))
    server.ask_for_a_handshake()
    assert server.answered.wait(DEADLINE)
    client.write(Sample(1, b"the second line"))
    server.let_go()
    reason = client.wait_closed(DEADLINE)
    assert reason is not None
    assert reason.cause is CloseCause.FAILED
    assert isinstance(reason.error, (ssl.SSLError, ConnectionError))


@needs_openssl
@pytest.mark.skipif(os.name != "posix", reason="openssl's s_server takes no commands there")
def test_what_is_written_during_a_handshake_in_the_middle_arrives(
    server: RenegotiatingServer,
    certificates: Certificates,
) -> None:
    """OpenSSL wants to read before it writes (SSL_ERROR_WANT_READ): that is no error of the stream's.

    "Any other context of the standard library's will do too", and those allow it.
    """
    client = client_of(server, peer_context(certificates, version=ssl.TLSVersion.TLSv1_2))
    server.ask_for_a_handshake()
    assert server.answered.wait(DEADLINE)
    client.write(Sample(1, b"the second line"))
    server.let_go()
    client.write(Sample(1, b"the third line"))
    assert wait_until(lambda: b"the third line" in server.received)
    assert b"the second line" in server.received
    client.close()
    reason = client.wait_closed(DEADLINE)
    assert reason is not None
    assert reason.cause is CloseCause.CLOSED
