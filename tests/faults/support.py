"""What the tests of faults share.

Contents: POOLED, INLINE, ALL_ONES, Watched, check_alive, header.
"""

from __future__ import annotations

import struct
from typing import Any

from tao import CloseReason, Context, MessageRegistry, Server, ServerConn, WriteCloser
from tests.support import Calls, Peer, Sample, as_bytes, frame

__all__ = ["ALL_ONES", "INLINE", "POOLED", "Watched", "check_alive", "header"]

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
