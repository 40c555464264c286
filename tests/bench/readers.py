"""Many clients in one process that read all they get, but for one: the crowd of a broadcast.

Owns both ends of that: the program (``python -m tests.bench.readers``), and Readers, which starts and
asks it. They count bytes and look at none: a broadcast is one frame to everybody.
"""

import argparse
import os
import selectors
import socket
import struct
import subprocess
import sys
from types import TracebackType
from typing import IO, Self

from tests.bench.errors import BenchError
from tests.bench.peers.common import HOST, prepare_process
from tests.bench.server_process import ROOT

SYNC = struct.Struct("<q")
ANSWER = b"+"
RECEIVE_SIZE = 65_536
# Of the one that does not read: small, so that it is full soon.
SMALL_BUFFER = 8192
STOP_SECONDS = 10.0


class Readers:
    """A context manager: `count` clients connected to `port`; the first never reads."""

    def __init__(self, port: int, count: int, cpu: int | None) -> None:
        pin = () if cpu is None else ("--cpu", str(cpu))
        self._command = [
            *(sys.executable, "-m", "tests.bench.readers"),
            *("--port", str(port), "--count", str(count), *pin),
        ]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._orders: IO[bytes] = self._process.stdin
        self._answers: IO[bytes] = self._process.stdout
        try:
            self._await_answer()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()

    def wait_read(self, total: int) -> None:
        """They have read so many bytes, all together and since the beginning."""
        try:
            self._orders.write(SYNC.pack(total))
        except BrokenPipeError:
            raise BenchError("the readers have died") from None
        self._await_answer()

    def _await_answer(self) -> None:
        if self._answers.read(len(ANSWER)) != ANSWER:
            raise BenchError("the readers have died")

    def _end(self) -> None:
        """The end of its orders is the end of it."""
        self._orders.close()
        self._answers.close()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self._process.kill()
            self._process.wait()


def read_all(port: int, count: int) -> None:
    """Connect `count` times, and read.

    On standard input come totals of bytes, one at a time; each is answered on standard output when so
    many have been read.
    """
    selector = selectors.DefaultSelector()
    socks = []
    for index in range(count):
        sock = socket.socket()
        socks.append(sock)
        if index == 0:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
        sock.connect((HOST, port))
        if index:
            sock.setblocking(False)
            selector.register(sock, selectors.EVENT_READ)
    orders, answers = sys.stdin.fileno(), sys.stdout.fileno()
    selector.register(orders, selectors.EVENT_READ)
    os.write(answers, ANSWER)
    total, wanted = 0, -1
    while True:
        for key, _ in selector.select():
            if key.fd == orders:
                order = os.read(orders, SYNC.size)
                if not order:
                    return
                (wanted,) = SYNC.unpack(order)
                continue
            data = os.read(key.fd, RECEIVE_SIZE)
            if not data:
                raise SystemExit("the server has closed a connection")
            total += len(data)
        if total == wanted:
            wanted = -1
            os.write(answers, ANSWER)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.readers")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--cpu", type=int, help="the processor to stay on")
    options = parser.parse_args()
    prepare_process(options.cpu)
    read_all(options.port, options.count)


if __name__ == "__main__":
    main()
