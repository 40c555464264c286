"""Programs under test, and peers that know the wire format and nothing else.

Owns the processes and sockets that it starts, and ends them.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Self

__all__ = ["ROOT", "Peer", "Program", "example"]

ROOT = Path(__file__).resolve().parents[2]

DEADLINE = 30.0
"""Seconds after which something has gone wrong, however busy the machine."""


class Program:
    """A process whose output is read as it comes.

    Warnings are errors in it, so that a socket or file that it leaves open shows on `errors`.
    """

    options: Sequence[str] = ("-X", "dev", "-W", "error")
    """The interpreter's."""

    def __init__(self, command: Sequence[str], *, cwd: Path = ROOT) -> None:
        environment = dict(os.environ, PYTHONPATH=str(ROOT), PYTHONIOENCODING="utf-8")
        # Output that is not flushed shall not be seen: nobody sets this for users.
        environment.pop("PYTHONUNBUFFERED", None)
        self._process = subprocess.Popen(
            [sys.executable, *self.options, *command],
            cwd=cwd,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._changed = threading.Condition()
        self._texts = {"output": "", "errors": ""}  # under the condition
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._readers = [
            threading.Thread(target=self._read, args=("output", self._process.stdout)),
            threading.Thread(target=self._read, args=("errors", self._process.stderr)),
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, name: str, stream: IO[bytes]) -> None:
        for line in stream:
            with self._changed:
                self._texts[name] += line.decode().replace("\r\n", "\n")
                self._changed.notify_all()

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    @property
    def output(self) -> str:
        """Standard output so far."""
        with self._changed:
            return self._texts["output"]

    @property
    def errors(self) -> str:
        """Standard error so far."""
        with self._changed:
            return self._texts["errors"]

    def wait_for(self, pattern: str) -> re.Match[str]:
        """The first match in its output, once it is there."""
        return self._wait_for("output", pattern)

    def wait_for_errors(self, pattern: str) -> re.Match[str]:
        """As `wait_for`, on its standard error."""
        return self._wait_for("errors", pattern)

    def _wait_for(self, name: str, pattern: str) -> re.Match[str]:
        def search() -> re.Match[str] | None:
            return re.search(pattern, self._texts[name])

        with self._changed:
            found = self._changed.wait_for(search, DEADLINE)
        assert found is not None, f"no {pattern!r} in {self.output!r}; errors: {self.errors!r}"
        return found

    def address(self) -> tuple[str, int]:
        """Where it says that it listens."""
        found = self.wait_for(r"listen\w* on ([\d.]+):(\d+)")
        return found[1], int(found[2])

    def enter(self, text: str) -> None:
        """Into its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode())
        self._process.stdin.flush()

    def end_input(self) -> None:
        """There is nothing more to read for it."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def wait(self) -> int:
        """Its exit status; all its output has been read then."""
        status = self._process.wait(DEADLINE)
        for reader in self._readers:
            reader.join(DEADLINE)
        return status

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.kill()  # no harm when it has ended, and been waited for
        self._process.wait()
        for reader in self._readers:
            reader.join()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert stream is not None
            try:
                stream.close()
            except BrokenPipeError:
                pass  # it ended before it had read all


def example(name: str, *arguments: str) -> Program:
    """One of `tao.examples`."""
    return Program(["-m", f"tao.examples.{name}", *arguments])


class Peer:
    """A plain socket that writes and reads frames by hand."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._socket = socket.create_connection(address, timeout=DEADLINE)

    def send(self, number: int, value: bytes) -> None:
        """One frame."""
        self._socket.sendall(struct.pack("<iI", number, len(value)) + value)

    def receive(self) -> tuple[int, bytes]:
        """The next frame."""
        number, length = struct.unpack("<iI", self._exactly(8))
        return number, self._exactly(length)

    def at_end(self) -> bool:
        """Whether the other end finishes, and says nothing before that."""
        return self._socket.recv(1) == b""

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self._socket.recv(size - len(data))
            assert piece, f"the stream ended after {data!r}"
            data += piece
        return data

    def close(self) -> None:
        """Twice is once."""
        self._socket.close()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()
