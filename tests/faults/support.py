"""What the tests of faults share.

Contents: POOLED, INLINE, ALL_ONES, Watched, check_alive, header, serving, sleeping_server.
"""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tao import CloseReason, Context, MessageRegistry, Server, ServerConn, WriteCloser
from tests.support import Calls, Peer, Sample, as_bytes, frame, wait_until

__all__ = [
    "ALL_ONES",
    "INLINE",
    "POOLED",
    "Watched",
    "check_alive",
    "header",
    "serving",
    "sleeping_server",
]

POOLED, INLINE = 1, 2
"""The messages that echo as number POOLED: from a worker, and from the loop."""

ALL_ONES = b"\xff" * 8
"""A header of the default wire format: type -1, and the longest length that there is."""


def _echo(context: Context[bytes], _conn: WriteCloser) -> Sample:
    return Sample(POOLED, context.message)


class Watched:
    """A server that echoes, and what it has told of its connections, by the peer's address."""

    def __init__(self, **arguments: Any) -> None:
        self.errors: Calls[tuple[Any, BaseException]] = Calls()
        self.reasons: Calls[tuple[Any, CloseReason]] = Calls()
        self.registry = MessageRegistry()
        self.registry.register(POOLED, as_bytes, _echo)
        self.registry.register(INLINE, as_bytes, _echo, inline=True)
        self.server = Server(
            registry=self.registry,
            on_error=self._note_error,
            on_close=self._note_reason,
            **arguments,
        )

    def _note_error(self, conn: ServerConn, error: BaseException) -> None:
        self.errors.add((conn.remote_address, error))

    def _note_reason(self, conn: ServerConn, reason: CloseReason) -> None:
        self.reasons.add((conn.remote_address, reason))

    def only_reason(self) -> CloseReason:
        """Of the first connection that ended, as soon as it has."""
        return self.reasons.wait()[0][1]


def check_alive(peer: Peer) -> None:
    """Its connection still serves, on workers and on the loop."""
    peer.send(frame(POOLED, b"pooled") + frame(INLINE, b"inline"))
    assert peer.receive_frames(2) == [(POOLED, b"pooled"), (POOLED, b"inline")]


def header(number: int, length: int) -> bytes:
    """The eight bytes before a value of the default wire format."""
    return struct.pack("<iI", number, length)


@contextmanager
def serving(server: Server) -> Iterator[None]:
    """Run a server that listens already while the block lasts."""
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield
    finally:
        server.stop()
        thread.join()


def sleeping_server(watched: Watched, peer: Peer) -> ServerConn:
    """Its one connection, when the loop has nothing left to do."""
    check_alive(peer)
    reactor = watched.server._reactor
    assert reactor is not None
    passes = -1

    def settled() -> bool:
        nonlocal passes
        before, passes = passes, reactor.statistics().passes
        time.sleep(0.1)  # longer than a worker waits before it gives its thread back
        return passes == before == reactor.statistics().passes

    assert wait_until(settled)
    [conn] = watched.server.connections()
    return conn
