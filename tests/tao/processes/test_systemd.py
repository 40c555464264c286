"""What is agreed with systemd, on real sockets."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tao.processes import Activation, Notifier, systemd
from tests.support import DEADLINE

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no systemd")


def abstract() -> str:
    return f"@tao-test-{os.getpid()}"


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_what_is_said_arrives(kind: str, tmp_path: Path) -> None:
    if kind == "abstract" and sys.platform != "linux":
        pytest.skip("abstract names are Linux's")
    address = abstract() if kind == "abstract" else str(tmp_path / "notify")
    environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "3000000", "HOME": "/"}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address.replace("@", "\0"))
        manager.settimeout(DEADLINE)
        notifier = Notifier(environment)
        assert environment == {"HOME": "/"}
        assert notifier.watchdog == 3.0
        notifier.ready("all is well")
        notifier.alive()
        notifier.stopping()
        notifier.close()
        notifier.alive()  # to nobody
        said = [manager.recv(4096).decode() for _ in range(3)]
        assert said == [
            "READY=1\nSTATUS=all is well",
            "WATCHDOG=1",
            "STOPPING=1\nSTATUS=stopping",
        ]
        manager.setblocking(False)
        with pytest.raises(BlockingIOError):
            manager.recv(4096)


def test_a_manager_that_is_gone_is_only_missed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")})
    notifier.ready("here I am")
    notifier.close()
    assert "cannot tell NOTIFY_SOCKET 'READY=1'" in caplog.text


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"WATCHDOG_USEC": "1000"},
        {"NOTIFY_SOCKET": "vsock:2:3", "WATCHDOG_USEC": "1000"},
        {"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"},
        {"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "soon"},
        {"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "0"},
    ],
)
def test_a_watchdog_that_is_not_ours_is_not_fed(environment: dict[str, str]) -> None:
    notifier = Notifier(environment)
    assert notifier.watchdog is None
    assert environment == {}
    notifier.close()


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    """A socket whose descriptor is the first that is handed over."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


def handed(
    monkeypatch: pytest.MonkeyPatch, sock: socket.socket, **variables: str
) -> dict[str, str]:
    monkeypatch.setattr(systemd, "FIRST_DESCRIPTOR", os.dup(sock.fileno()))
    return {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid()), **variables}


def test_a_socket_is_taken_with_its_name(
    listening: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = handed(monkeypatch, listening, LISTEN_FDNAMES="web")
    activation = Activation.take(environment)
    assert environment == {}
    ((name, sock),) = activation.sockets
    with sock:
        assert name == "web"
        assert activation.named("web") == [sock]
        assert activation.named("other") == []
        assert sock.getsockname() == listening.getsockname()
        assert not sock.get_inheritable()


def test_what_is_another_process_s_is_left(
    listening: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = handed(monkeypatch, listening, LISTEN_PID="1")
    descriptor = systemd.FIRST_DESCRIPTOR
    assert Activation.take(environment) == Activation(())
    os.close(descriptor)
    assert Activation.take({}) == Activation(())


def test_a_socket_that_does_not_listen_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as sock:
        environment = handed(monkeypatch, sock)
        with pytest.raises(ValueError, match="must be a stream socket that listens"):
            Activation.take(environment)


def test_a_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with open(os.devnull) as file:
        monkeypatch.setattr(systemd, "FIRST_DESCRIPTOR", file.fileno())
        with pytest.raises(ValueError, match="which must be a socket"):
            Activation.take({"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())})
