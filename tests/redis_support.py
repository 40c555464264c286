"""A redis-server of a test's own: on a Unix socket, in a folder of its own, without a port.

Contents: RedisServer, Reports.

Owns the process that it starts, and ends it. Where there is no redis-server its tests are skipped.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

from tao import BackplaneEvent, BackplaneReport
from tests.support import DEADLINE, Calls, wait_until

__all__ = ["MISSING", "Commands", "RedisServer", "Reports", "needs_redis"]

PROGRAM = shutil.which("redis-server")

MISSING = (
    "NOT TESTED: there is no redis-server on this machine, so nothing says whether RedisBackplane works; "
    "install Debian's package redis-server"
)

needs_redis = pytest.mark.skipif(PROGRAM is None, reason=MISSING)


class RedisServer:
    """A context manager: Redis runs inside the context, unless it is told else, and is gone after it."""

    def __init__(self) -> None:
        # Short: a Unix socket's path has about a hundred characters at the most.
        self._folder = Path(tempfile.mkdtemp(prefix="tao-redis-"))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def path(self) -> str:
        """Of the socket."""
        return str(self._folder / "socket")

    @property
    def url(self) -> str:
        """What RedisBackplane takes."""
        return f"unix://{self.path}"

    def start(self, *arguments: str) -> None:
        """Start it, with whatever data is there, and wait until it answers."""
        assert self._process is None
        assert PROGRAM is not None, MISSING
        command = [PROGRAM, "--port", "0", "--unixsocket", self.path, "--dir", str(self._folder)]
        self._process = subprocess.Popen(
            [*command, "--save", "", *arguments], stdout=subprocess.DEVNULL
        )
        assert wait_until(self._answers)

    def _answers(self) -> bool:
        try:
            with Commands(self.path) as commands:
                return commands.send("PING") == b"+PONG\r\n"
        except OSError:
            return False

    def freeze(self) -> None:
        """It takes connections, and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once; what it has not written to disk is lost."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def commands(self) -> Commands:
        """A connection to it, for a test that does something to it."""
        return Commands(self.path)

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        if self._process is not None:
            self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)


class Commands:
    """A plain socket that speaks Redis's protocol, and knows nothing of the code under test."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.settimeout(DEADLINE)
            self._socket.connect(path)
        except BaseException:
            self._socket.close()
            raise

    def send(self, *parts: str | bytes) -> bytes:
        """A command; returns the reply as it stands on the wire, if that is short."""
        encoded = [part.encode() if isinstance(part, str) else part for part in parts]
        texts = [b"*%d\r\n" % len(parts)]
        texts += [b"$%d\r\n%s\r\n" % (len(part), part) for part in encoded]
        self._socket.sendall(b"".join(texts))
        return self._socket.recv(65_536)

    def __enter__(self) -> Commands:
        return self

    def __exit__(self, *_error: object) -> None:
        self._socket.close()


class Reports(Calls[BackplaneReport]):
    """What a backplane has reported."""

    def of(self, event: BackplaneEvent) -> list[BackplaneReport]:
        """Those of one kind."""
        return [report for report in self.items if report.event is event]

    def count(self, event: BackplaneEvent) -> int:
        """The sum of their counts."""
        return sum(report.count or 0 for report in self.of(event))

    def wait_for(self, event: BackplaneEvent, count: int = 1) -> list[BackplaneReport]:
        """Until there are `count` of one kind."""
        assert wait_until(lambda: len(self.of(event)) >= count), f"no {event} in {self.items}"
        return self.of(event)
