"""Connections that are open and idle, each of which has been answered once.

The load generator keeps its connections busy; these are for what a server does, and holds, while
nothing happens. They are opened and closed by the calling thread.
"""

import resource
import socket
import sys
from types import TracebackType
from typing import Self

from tests.bench.errors import BenchError
from tests.bench.peers.frames import ECHO_TYPE, HEADER, echo

HOST = "127.0.0.1"
SECONDS_PER_REPLY = 10.0
# What the server and this process need besides, for files, pipes and pollers.
SPARE_DESCRIPTORS = 200


def affordable(wanted: int) -> int:
    """`wanted`, or fewer, and said to be, if a process may not have as many descriptors.

    Raises the soft limit of this process as far as it may be; peers do so for theirs.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if most == resource.RLIM_INFINITY or wanted <= most - SPARE_DESCRIPTORS:
        return wanted
    count = most - SPARE_DESCRIPTORS
    text = (
        f"*** FEWER: {count} connections, not {wanted}: the hard limit of descriptors is {most} ***"
    )
    print(text, file=sys.stderr, flush=True)
    return count


class OpenConnections:
    """A context manager; what is open is closed with it, at once."""

    def __init__(self, port: int, size: int) -> None:
        self._port = port
        self._size = size
        self._sockets: list[socket.socket] = []

    def __len__(self) -> int:
        return len(self._sockets)

    def grow(self, count: int) -> None:
        """Open more until there are `count`; one message over each new one, whose reply is compared.

        One after the other: a connection counts when the server has accepted, read and replied.
        Raises BenchError when a reply is wrong or late, or a connection is lost.
        """
        while len(self._sockets) < count:
            try:
                sock = socket.create_connection((HOST, self._port), timeout=SECONDS_PER_REPLY)
                self._sockets.append(sock)
                exchange(sock, ECHO_TYPE, len(self._sockets), self._size)
            except OSError as error:
                raise BenchError(f"connection {len(self._sockets)} of {count}: {error}") from None

    def check(self) -> None:
        """Another message over each. Raises BenchError when one of them does not answer any more."""
        for index, sock in enumerate(self._sockets):
            try:
                exchange(sock, ECHO_TYPE, index, self._size)
            except OSError as error:
                raise BenchError(f"connection {index} was lost while idle: {error}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for sock in self._sockets:
            sock.close()
        self._sockets.clear()


def exchange(sock: socket.socket, number: int, sequence: int, size: int) -> None:
    """Send a message of `size` bytes, and compare the reply. Raises BenchError, or OSError."""
    value = sequence.to_bytes(8, "little").ljust(size, b"\xa5")[:size]
    frame = echo(number, value)
    sock.sendall(frame)
    reply = bytearray()
    while len(reply) < HEADER.size + size:
        piece = sock.recv(HEADER.size + size - len(reply))
        if not piece:
            raise BenchError("the server closed a connection before it had replied")
        reply += piece
    if reply != frame:
        raise BenchError("wrong reply: differs from what was sent")
