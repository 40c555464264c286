"""The load generator, against servers that are right, and servers that are not."""

from __future__ import annotations

import shutil
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.bench.errors import BenchError
from tests.bench.load import TLS_NEEDS, LoadSpec, compiled_load, run_load
from tests.bench.peers.frames import FrameReader, echo
from tests.tls_support import Certificates

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the load generator uses epoll"),
    pytest.mark.skipif(shutil.which("cc") is None, reason="the load generator needs a C compiler"),
]

Replies = Callable[[list[tuple[int, bytes]]], list[bytes]]


@pytest.fixture(scope="module")
def program() -> Iterator[Path]:
    """The generator without TLS."""
    with compiled_load() as path:
        yield path


@pytest.fixture(scope="module")
def tls_program() -> Iterator[Path]:
    """The generator with TLS."""
    with ExitStack() as stack:
        try:
            path = stack.enter_context(compiled_load(tls=True))
        except BenchError as error:
            if "openssl/" in str(error) or "-lssl" in str(error):
                pytest.skip(TLS_NEEDS)
            raise
        yield path


class Server:
    """A thread per connection. `replies` turns the messages of a read into what is sent back."""

    def __init__(self, replies: Replies, context: ssl.SSLContext | None) -> None:
        self.connections = 0
        self.messages = 0
        self.unclean = 0
        self._replies = replies
        self._context = context
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self._thread = threading.Thread(target=self._accept)
        self._is_over = False
        self.port: int = self._listener.getsockname()[1]

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """When all that its clients have sent was answered, and they are gone."""
        self._is_over = True
        socket.create_connection(("127.0.0.1", self.port)).close()
        self._thread.join()
        self._listener.close()

    def _accept(self) -> None:
        threads = []
        while True:
            sock, _ = self._listener.accept()
            if self._is_over:
                sock.close()
                break
            thread = threading.Thread(target=self._serve, args=(sock,))
            thread.start()
            threads.append(thread)
        for thread in threads:
            thread.join()

    def _serve(self, sock: socket.socket) -> None:
        with self._lock:
            self.connections += 1
        reader = FrameReader()
        try:
            if self._context is not None:
                sock = self._context.wrap_socket(sock, server_side=True)
            while data := sock.recv(65_536):
                messages = reader.feed(data)
                with self._lock:
                    self.messages += len(messages)
                replies = self._replies(messages)
                if messages and not replies:
                    break
                sock.sendall(b"".join(replies))
        except OSError:
            with self._lock:
                self.unclean += 1
        finally:
            sock.close()


@contextmanager
def serving(replies: Replies, context: ssl.SSLContext | None = None) -> Iterator[Server]:
    """A server that stops with the context."""
    server = Server(replies, context)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def right(messages: list[tuple[int, bytes]]) -> list[bytes]:
    """Each as it came."""
    return [echo(number, value) for number, value in messages]


def changed(messages: list[tuple[int, bytes]]) -> list[bytes]:
    """The last byte is another."""
    return [echo(number, value[:-1] + b"?") for number, value in messages]


def repeated(messages: list[tuple[int, bytes]]) -> list[bytes]:
    """Everything twice."""
    return right(messages) * 2


def reversed_(messages: list[tuple[int, bytes]]) -> list[bytes]:
    """The messages of a read in the wrong order."""
    return right(messages)[::-1]


def none(messages: list[tuple[int, bytes]]) -> list[bytes]:
    """The server hangs up."""
    return []


def asking(server: Server, size: int = 64, in_flight: int = 4) -> LoadSpec:
    """A short load on few connections."""
    return LoadSpec(
        port=server.port,
        connections=3,
        in_flight=in_flight,
        size=size,
        seconds=0.1,
        warm_up=0.05,
        cpu=None,
    )


# -- echo ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 7, 64, 65_536, 300_000])
def test_every_reply_is_counted(program: Path, size: int) -> None:
    with serving(right) as server:
        result = run_load(program, asking(server, size))
    assert server.connections == 3
    assert result.messages_total == server.messages > 0
    assert result.messages <= result.messages_total
    assert result.errors == 0
    if result.messages:
        assert 0 < result.p50_us <= result.p90_us <= result.p99_us <= result.p99_9_us
        assert result.p99_9_us <= result.max_us


@pytest.mark.parametrize(
    ("replies", "what"),
    [
        (changed, "wrong reply"),
        (repeated, "more bytes came back"),
        (reversed_, "wrong reply"),
        (none, "closed the connection|Connection reset"),
    ],
)
def test_a_wrong_reply_is_an_error(program: Path, replies: Replies, what: str) -> None:
    with serving(replies) as server, pytest.raises(BenchError, match=what):
        run_load(program, asking(server))


def test_nobody_listens(program: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    spec = LoadSpec(port, 1, 1, 64, 0.1, 0.0, None)
    with pytest.raises(BenchError, match="cannot connect"):
        run_load(program, spec)
    with pytest.raises(BenchError, match="Connection refused"):
        run_load(program, replace(spec, churn=True))


# -- churn ---------------------------------------------------------------------------------------


def churning(server: Server, size: int = 64) -> LoadSpec:
    """One message on each connection."""
    return replace(asking(server, size, in_flight=1), churn=True)


@pytest.mark.parametrize("size", [0, 64, 300_000])
def test_every_connection_is_counted(program: Path, size: int) -> None:
    with serving(right) as server:
        result = run_load(program, churning(server, size))
    assert result.messages_total == server.connections == server.messages > 3
    assert server.unclean == 0, "a connection ended by RST"


@pytest.mark.parametrize(
    ("replies", "what"),
    [
        (changed, "wrong reply"),
        (repeated, "more bytes came back"),
        (none, "closed the connection before|Connection reset"),
    ],
)
def test_a_wrong_reply_ends_the_churn(program: Path, replies: Replies, what: str) -> None:
    with serving(replies) as server, pytest.raises(BenchError, match=what):
        run_load(program, churning(server))


def test_churn_refuses_what_it_does_not_do(program: Path) -> None:
    spec = LoadSpec(1, 1, 2, 64, 0.1, 0.0, None, churn=True)
    with pytest.raises(BenchError, match="one frame for each connection"):
        run_load(program, spec)


# -- TLS -----------------------------------------------------------------------------------------


def server_context(certificates: Certificates) -> ssl.SSLContext:
    """The standard library's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server_file)
    return context


@pytest.mark.parametrize("size", [0, 64, 65_536, 300_000])
def test_every_reply_over_tls_is_counted(tls_program: Path, tmp_path: Path, size: int) -> None:
    certificates = Certificates(tmp_path)
    with serving(right, server_context(certificates)) as server:
        spec = replace(asking(server, size), ca_file=certificates.ca_file)
        result = run_load(tls_program, spec)
    assert result.messages_total == server.messages > 0


def test_a_wrong_reply_over_tls_is_an_error(tls_program: Path, tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    with serving(changed, server_context(certificates)) as server:
        spec = replace(asking(server), ca_file=certificates.ca_file)
        with pytest.raises(BenchError, match="wrong reply"):
            run_load(tls_program, spec)


def test_the_certificate_is_checked(tls_program: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    certificates, others = Certificates(tmp_path), Certificates(tmp_path / "other")
    with serving(right, server_context(certificates)) as server:
        spec = replace(asking(server), ca_file=others.ca_file)
        with pytest.raises(BenchError, match="certificate verify failed"):
            run_load(tls_program, spec)


def test_what_tls_needs_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "false")
    with pytest.raises(BenchError, match="libssl-dev"), compiled_load(tls=True):
        pass
    with pytest.raises(BenchError) as caught, compiled_load():
        pass
    assert "libssl-dev" not in str(caught.value)


def test_without_tls_it_says_so(program: Path, tmp_path: Path) -> None:
    with serving(right) as server, pytest.raises(BenchError, match="compiled without TLS"):
        run_load(program, replace(asking(server), ca_file=tmp_path))
