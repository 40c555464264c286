"""A server with many peers, some of whom do not read.

Contents: Crowd, crowd, fill, numbered, number_of, numbers_of.

The server runs on a reactor of the test's own, so that a test can have something done on the loop's
thread; and its sockets have small buffers, so that who does not read is soon known to.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

from reactor import Reactor
from tao import ConnectionState, Server, ServerConn
from tests.support import DEADLINE, LOCAL, Peer, Sample, wait_until

__all__ = ["Crowd", "crowd", "fill", "narrow_listener", "number_of", "numbered", "numbers_of"]

T = TypeVar("T")

NUMBERED = 7
"""The message number of `numbered`."""


def narrow_listener() -> socket.socket:
    """Listens; the system keeps little for a peer that does not read."""
    sock = socket.socket()
    # Those that are accepted inherit it: socket(7), tcp(7).
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    sock.bind(LOCAL)
    sock.listen(128)
    return sock


class Crowd:
    """The peers of one server."""

    def __init__(self, server: Server, address: Any, reactor: Reactor, stack: ExitStack) -> None:
        self.server = server
        self.address = address
        self._reactor = reactor
        self._stack = stack

    def join(self, *, slow: bool = False) -> tuple[Peer, ServerConn]:
        """One more peer, and its connection at the server's end, which is open."""
        peer = Peer(self.address, receive_buffer=4096 if slow else None)
        self._stack.callback(peer.close)
        own = peer.sock.getsockname()

        def find() -> list[ServerConn]:
            return [
                conn
                for conn in self.server.connections()
                if conn.remote_address == own and conn.state is ConnectionState.OPEN
            ]

        assert wait_until(find)
        [conn] = find()
        return peer, conn

    def join_many(self, count: int) -> list[Peer]:
        """As many peers that read."""
        return [self.join()[0] for _ in range(count)]

    def on_loop(self, function: Callable[[], T]) -> T:
        """Call it on the loop's thread; what it returns, or raises."""
        future: Future[T] = Future()

        def call() -> None:
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)

        self._reactor.call_soon_threadsafe(call)
        return future.result(DEADLINE)


@contextmanager
def crowd(**arguments: Any) -> Iterator[Crowd]:
    """Serve with these arguments, on a thread, while the block runs."""
    reactor = Reactor()
    server = Server(reactor=reactor, **arguments)
    address = server.listen(narrow_listener())
    thread = threading.Thread(target=reactor.run)
    thread.start()
    try:
        with ExitStack() as stack:
            yield Crowd(server, address, reactor, stack)
    finally:
        server.stop(grace=1.0)
        reactor.stop()
        thread.join()
        reactor.close()


def fill(these: Crowd, conn: ServerConn, size: int = 1000) -> int:
    """Write to a peer that does not read until the limit is reached; how many messages it took.

    On the loop's thread, where a broadcast is offered to the system at once: when one is refused, the
    system's buffers are full, and so is ours.
    """
    alone = these.server.group(f"filled: {conn.net_id}")
    alone.join(conn)

    def write_all() -> int:
        written = 0
        while alone.broadcast(Sample(99, b"x" * size)).sent:
            written += 1
        return written

    return these.on_loop(write_all)


def numbered(number: int, size: int = 16, thread: int = 0) -> Sample:
    """A message that says which it is, and can be seen to be whole."""
    body = struct.pack("<II", thread, number)
    return Sample(NUMBERED, body + bytes([number & 0xFF]) * (size - len(body)))


def number_of(frame: tuple[int, bytes]) -> tuple[int, int]:
    """The thread and the number of a `numbered` message, which must be whole."""
    kind, value = frame
    assert kind == NUMBERED
    thread, number = struct.unpack_from("<II", value)
    assert value[8:] == bytes([number & 0xFF]) * (len(value) - 8)
    return thread, number


def numbers_of(stream: bytes) -> list[int]:
    """The numbers in a whole stream; others' messages are passed over, but must be whole as well."""
    numbers: list[int] = []
    start = 0
    while start < len(stream):
        kind, size = struct.unpack_from("<iI", stream, start)
        value = stream[start + 8 : start + 8 + size]
        assert len(value) == size, "the stream ends inside a frame"
        if kind == NUMBERED:
            numbers.append(number_of((kind, value))[1])
        else:
            assert value == b"x" * size
        start += 8 + size
    return numbers
