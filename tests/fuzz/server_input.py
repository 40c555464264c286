"""A server's whole input path, over real sockets.

Contents: ServerInput, server_inputs, Host.

Invariants, for any stream: what is valid before the damage is answered, in order; the connection ends once,
with a typed reason, and no other one does; the server goes on serving others.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from hypothesis import strategies as st

from tao import (
    CloseCause,
    CloseReason,
    Context,
    FrameTooLargeError,
    MessageRegistry,
    Server,
    ServerConn,
    UndefinedMessageError,
    WriteCloser,
)
from tests.fuzz.codec_input import cut, pieces
from tests.fuzz.reference import Dialect
from tests.support import DEADLINE, LOCAL, Peer, Sample

__all__ = ["Host", "ServerInput", "server_inputs"]

POOLED, INLINE, SIZED = 1, 2, 3
"""Messages that are echoed as POOLED: by a worker; by the loop; by a worker, if they are short."""

MAX_SIZE = 16
"""Bytes in the largest value of a SIZED message."""

BAD_DECODER, BAD_HANDLER = b"D!", b"H!"
"""Values that begin like this make the decoder, or the handler, raise."""


class OnPurposeError(Exception):
    """What they raise."""


@dataclass(frozen=True)
class ServerInput:
    """A stream, where it is cut, and how it ends."""

    parts: tuple[bytes | int, ...]
    """Bytes, or how many thousands of them an INLINE message has: more than one reads in a failure."""
    cuts: tuple[int, ...]
    resets: bool
    """Whether the peer resets the connection behind it, and does not wait for answers."""


@st.composite
def server_inputs(draw: st.DrawFn, dialect: Dialect) -> ServerInput:
    """Streams for a server that speaks this dialect."""
    numbers = st.sampled_from([POOLED, INLINE, SIZED, POOLED, INLINE, 0, 4, -1])
    part = st.one_of(
        pieces(dialect, numbers, 60),
        pieces(dialect, numbers, 60),
        st.builds(
            lambda number, value, more: dialect.frame(number, value + more) or b"",
            numbers,
            st.sampled_from([BAD_DECODER, BAD_HANDLER]),
            st.binary(max_size=4),
        ),
        st.integers(1, 400),  # more than is read at once, and more than may be
    )
    return ServerInput(
        tuple(draw(st.lists(part, max_size=12))),
        tuple(draw(st.lists(st.integers(0, 1 << 20), max_size=8))),
        draw(st.sampled_from([False, False, False, True])),
    )


@dataclass
class Expected:
    """What a server must make of a stream."""

    replies: bytes = b""
    errors: tuple[type[BaseException], ...] = ()
    """Of which the last ends the connection, if `ends`."""
    ends: bool = False
    undecoded: int = 0


def expect(dialect: Dialect, stream: bytes) -> Expected:
    """By the reference, and by what the README says of errors."""
    parsed = dialect.parse(stream)
    expected = Expected(undecoded=len(parsed.rest))

    def fail(kind: type[BaseException]) -> Expected:
        expected.errors += (kind,)
        expected.ends = True
        return expected

    for number, value in parsed.frames:
        if number == 0:
            if len(value) != 8:
                return fail(ValueError)
        elif number not in (POOLED, INLINE, SIZED):
            expected.errors += (UndefinedMessageError,)
        elif number == SIZED and len(value) > MAX_SIZE:
            return fail(FrameTooLargeError)
        elif value.startswith((BAD_DECODER, BAD_HANDLER)):
            return fail(OnPurposeError)
        else:
            reply = dialect.frame(POOLED, value)
            if reply is None:
                return fail(ValueError)
            expected.replies += reply
    announced = dialect.announced(parsed.rest)
    known = announced is None or announced[0] in (0, POOLED, INLINE, SIZED)
    if not (known or parsed.refused):
        # Told from its header; and what has come of its value has been thrown away.
        expected.errors += (UndefinedMessageError,)
        expected.undecoded = 0
    if parsed.refused or (
        announced is not None and announced[0] == SIZED and announced[1] > MAX_SIZE
    ):
        return fail(FrameTooLargeError)
    return expected


class _Record:
    """What the server has told of one connection."""

    def __init__(self) -> None:
        self.errors: list[BaseException] = []
        self.reasons: list[CloseReason] = []


class Host:
    """A server with a peer that must not notice anything; runs as long as the block lasts."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._changed = threading.Condition()
        self._records: dict[Any, _Record] = {}
        self._stack = ExitStack()
        registry = MessageRegistry()
        registry.register(POOLED, self._deserialize, self._handle)
        registry.register(INLINE, self._deserialize, self._handle, inline=True)
        registry.register(SIZED, self._deserialize, self._handle, max_size=MAX_SIZE)
        self._server = Server(
            registry=registry,
            codec=dialect.codec(),
            on_connect=self._note_open,
            on_error=self._note_error,
            on_close=self._note_reason,
            buffer_size=4,  # so that reading pauses now and then
        )

    @staticmethod
    def _deserialize(value: bytes) -> bytes:
        if value.startswith(BAD_DECODER):
            raise OnPurposeError
        return value

    @staticmethod
    def _handle(context: Context[bytes], _conn: WriteCloser) -> Sample:
        if context.message.startswith(BAD_HANDLER):
            raise OnPurposeError
        return Sample(POOLED, context.message)

    def _note_open(self, conn: ServerConn) -> None:
        with self._changed:
            self._records[conn.remote_address] = _Record()
            self._changed.notify_all()

    def _note_error(self, conn: ServerConn, error: BaseException) -> None:
        with self._changed:
            self._records[conn.remote_address].errors.append(error)

    def _note_reason(self, conn: ServerConn, reason: CloseReason) -> None:
        with self._changed:
            self._records[conn.remote_address].reasons.append(reason)
            self._changed.notify_all()

    def __enter__(self) -> Host:
        self._address = self._stack.enter_context(self._server.running(LOCAL))
        self._other = self._stack.enter_context(Peer(self._address))
        self._own = self._other.sock.getsockname()
        self._wait_for(lambda: self._own in self._records, "the bystander is not in")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def check(self, example: ServerInput) -> None:
        """Raises AssertionError where an invariant does not hold."""
        stream = b"".join(
            part
            if isinstance(part, bytes)
            else self._dialect.frame(INLINE, b"x" * part * 1000) or b""
            for part in example.parts
        )
        expected = expect(self._dialect, stream)
        with Peer(self._address) as peer:
            own = peer.sock.getsockname()
            self._wait_for(lambda: own in self._records, "it has not opened")
            received = _talk(peer, cut(stream, example.cuts), expected, example.resets)
        record = self._wait_for_end(own)
        [reason] = record.reasons
        if example.resets:
            assert expected.replies.startswith(received)
            assert _is_typed(reason.error)
        else:
            assert received == expected.replies
            self._check_end(record, reason, expected)
        self._check_others()

    @staticmethod
    def _check_end(record: _Record, reason: CloseReason, expected: Expected) -> None:
        # What was read ahead of the end is reported too: of the errors, the first are certain.
        kinds = tuple(type(error) for error in record.errors)
        assert kinds[: len(expected.errors)] == expected.errors
        if expected.ends:
            assert reason.cause is CloseCause.FAILED
            assert type(reason.error) is expected.errors[-1]
        else:
            assert len(kinds) == len(expected.errors)
            assert (reason.cause, reason.error) == (CloseCause.PEER_CLOSED, None)
            assert reason.undecoded == expected.undecoded
            assert (reason.unhandled, reason.unsent) == (0, 0)

    def _wait_for(self, condition: Callable[[], object], otherwise: str) -> None:
        with self._changed:
            came = self._changed.wait_for(condition, DEADLINE)
        assert came, otherwise

    def _wait_for_end(self, address: Any) -> _Record:
        self._wait_for(lambda: self._records[address].reasons, "it has not ended")
        with self._changed:
            return self._records.pop(address)

    def _check_others(self) -> None:
        """The bystander is served, on the loop and by workers, and nothing was told of it or of others."""
        values = [b"still", b"served"]
        for number, value in zip([POOLED, INLINE], values, strict=True):
            frame = self._dialect.frame(number, value)
            assert frame is not None
            self._other.send(frame)
        expected = b"".join(self._dialect.frame(POOLED, value) or b"" for value in values)
        assert self._other.receive(len(expected)) == expected
        with self._changed:
            assert set(self._records) == {self._own}
            bystander = self._records[self._own]
            assert (bystander.errors, bystander.reasons) == ([], [])


def _talk(peer: Peer, chunks: list[bytes], expected: Expected, resets: bool) -> bytes:
    """Send them, end it, and return what came."""
    try:
        for chunk in chunks:
            peer.send(chunk)
        if resets:
            peer.reset()
            return b""
        if not expected.ends:
            peer.finish_sending()
    except ConnectionError:
        if not resets:
            raise
        return b""
    try:
        return peer.receive_to_end()
    except TimeoutError as error:
        raise AssertionError("it has neither answered all nor ended") from error


def _is_typed(error: BaseException | None) -> bool:
    """Whether it is one of those that a stream can bring about; None is the peer's own end."""
    return error is None or isinstance(
        error, (ConnectionError, FrameTooLargeError, OnPurposeError, ValueError)
    )
