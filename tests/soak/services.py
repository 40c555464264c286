"""The servers under load.

Contents: the message numbers, Watch, make_server, Services.
"""

from __future__ import annotations

import errno
import logging
import struct
import threading
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from reactor import TlsTruncationError
from tao import (
    CloseReason,
    Codec,
    ConnectionClosedError,
    Context,
    FrameTooLargeError,
    LineCodec,
    MessageRegistry,
    Server,
    ServerConn,
    TypeLengthValueCodec,
    WriteCloser,
    load_server_tls,
)
from tests.soak.tally import Tally
from tests.support import LOCAL, Sample, as_bytes, wait_until
from tests.tao.crowd import narrow_listener
from tests.tls_support import Certificates

__all__ = [
    "BULK",
    "INLINE",
    "KICK",
    "MAX_LENGTH",
    "NEWS",
    "POOLED",
    "RAISE",
    "SUBSCRIBE",
    "TICKS",
    "WORKERS",
    "OnPurposeError",
    "Services",
    "Watch",
    "make_server",
]

POOLED, INLINE = 1, 2
"""Echoed as POOLED: by a worker; by the loop."""
SUBSCRIBE, NEWS = 3, 4
"""Answered by the same; from then on NEWS come, numbered."""
BULK = 5
"""Says how many; answered by so many numbered BULKs of BULK_SIZE bytes."""
KICK = 6
"""The server aborts the connection."""
TICKS = 7
"""Says how many; a timer writes so many numbered TICKS."""
RAISE = 8
"""Its handler raises."""

BULK_SIZE = 4000
MAX_LENGTH = 1 << 20
WORKERS = 4


class OnPurposeError(Exception):
    """What the handler of RAISE raises."""


class Watch(logging.Handler):
    """What servers and clients tell of themselves, and what is wrong with that."""

    def __init__(self, tally: Tally) -> None:
        super().__init__(logging.ERROR)
        self._tally = tally
        self._lock_of_open = threading.Lock()
        self._open: set[tuple[int, int]] = set()  # the server and the connection's id
        self.closed = 0
        """Connections that have had their on_close."""

    def emit(self, record: logging.LogRecord) -> None:
        """Nothing is logged as an error but what was meant to be."""
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, OnPurposeError):
            self._tally.find(f"logged: {record.getMessage()}: {error!r}")

    def opened(self, server: Server, conn: ServerConn) -> None:
        """On_connect was called."""
        with self._lock_of_open:
            self._open.add((id(server), conn.net_id))

    def ended(self, server: Server, conn: ServerConn, reason: CloseReason) -> None:
        """On_close was called: once, after on_connect, and with a reason that there can be."""
        with self._lock_of_open:
            key = (id(server), conn.net_id)
            if key not in self._open:
                self._tally.find(f"{conn}: on_close without on_connect, or twice: {reason}")
            self._open.discard(key)
            self.closed += 1
        if not _can_be(reason.error):
            self._tally.find(f"{conn}: ended with {reason}")

    @property
    def open_count(self) -> int:
        """Connections that have been opened and not ended."""
        with self._lock_of_open:
            return len(self._open)


def _can_be(error: BaseException | None) -> bool:
    """Whether a connection may end with it, given what the actors do."""
    if isinstance(error, OSError) and error.errno == errno.ENOTCONN:
        return True  # reset by the peer when our FIN was about to be sent
    expected = (ConnectionError, FrameTooLargeError, TlsTruncationError, OnPurposeError)
    return error is None or isinstance(error, expected)


def _echo(context: Context[bytes], _conn: WriteCloser) -> Sample:
    return Sample(POOLED, context.message)


def _bulk(context: Context[bytes], conn: WriteCloser) -> None:
    (count,) = struct.unpack("<I", context.message)
    for number in range(count):
        conn.write(Sample(BULK, struct.pack("<I", number) + bytes([number & 0xFF]) * BULK_SIZE))


def _kick(_context: Context[bytes], conn: WriteCloser) -> None:
    conn.abort()


def _raise(_context: Context[bytes], _conn: WriteCloser) -> None:
    raise OnPurposeError


class _Ticker:
    """Writes so many numbered messages, one for each time its timer fires, and ends it."""

    def __init__(self, conn: WriteCloser, count: int) -> None:
        self._count = count
        self._next = 0
        self._timer = conn.run_every(0.002, self._tick)

    def _tick(self, _now: float, conn: WriteCloser) -> None:
        if self._next < self._count:
            try:
                conn.write(Sample(TICKS, struct.pack("<I", self._next)))
            except ConnectionClosedError:
                return
            self._next += 1
        else:
            conn.cancel_timer(self._timer)


def _ticks(context: Context[bytes], conn: WriteCloser) -> None:
    _Ticker(conn, *struct.unpack("<I", context.message))


def make_server(watch: Watch, codec: Codec | None = None, **arguments: Any) -> Server:
    """A server of all these messages."""
    registry = MessageRegistry()
    server = Server(
        registry=registry,
        codec=codec or TypeLengthValueCodec(max_length=MAX_LENGTH),
        worker_size=WORKERS,
        on_connect=lambda conn: watch.opened(server, conn),
        on_close=lambda conn, reason: watch.ended(server, conn, reason),
        **arguments,
    )

    def subscribe(_context: Context[bytes], conn: WriteCloser) -> Sample:
        server.group("news").join(server.connection(conn.net_id))
        return Sample(SUBSCRIBE)

    registry.register(POOLED, as_bytes, _echo)
    registry.register(INLINE, as_bytes, _echo, inline=True)
    registry.register(SUBSCRIBE, as_bytes, subscribe)
    registry.register(BULK, as_bytes, _bulk)
    registry.register(KICK, as_bytes, _kick)
    registry.register(TICKS, as_bytes, _ticks)
    registry.register(RAISE, as_bytes, _raise)
    return server


class Services:
    """Those servers that run all the time: one as it is, one with TLS, one that speaks in lines."""

    def __init__(self, watch: Watch, certificates: Certificates) -> None:
        self.watch = watch
        self.certificates = certificates
        self._stack = ExitStack()
        self.plain = make_server(watch)
        self.secure = make_server(watch, tls=load_server_tls(certificates.server_file))
        self.lines = make_server(watch, LineCodec())
        self.all = [self.plain, self.secure, self.lines]

    def __enter__(self) -> Services:
        run = self._stack.enter_context
        # The system takes little for a peer that does not read: the rest waits with the connection.
        listener = narrow_listener()
        self.plain_address: tuple[str, int] = listener.getsockname()
        run(self.plain.running(listener))
        self.secure_address: tuple[str, int] = run(self.secure.running(LOCAL))
        self.lines_address: tuple[str, int] = run(self.lines.running(LOCAL))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    @property
    def connection_count(self) -> int:
        """Of all of them."""
        return sum(server.connection_count for server in self.all)

    @property
    def pending(self) -> int:
        """Bytes that wait to be sent, on all connections."""
        return sum(conn.pending for server in self.all for conn in server.connections())

    @property
    def timers(self) -> int:
        """That are set, on all of their loops."""
        return sum(server.metrics().timers for server in self.all)

    def settle(self) -> list[str]:
        """Wait until nobody is connected any more, and nothing waits; what is left if that fails."""
        left: list[str] = []
        if not wait_until(lambda: self.connection_count == 0 and self.watch.open_count == 0):
            left.append(
                f"{self.connection_count} connections are left, "
                f"and {self.watch.open_count} without an on_close"
            )
        if not wait_until(lambda: self.pending == 0):
            left.append(f"{self.pending} bytes still wait to be sent")
        if not wait_until(lambda: self.timers == 0):
            left.append(f"{self.timers} timers are still set")
        members = sum(len(server.group("news")) for server in self.all)
        if members:
            left.append(f"{members} connections that have ended are still in a group")
        waiting = sum(server.metrics().queue_depth for server in self.all)
        if waiting:
            left.append(f"{waiting} jobs still wait for a worker")
        return left
