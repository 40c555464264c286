"""The client.

Owns one connection to a server, and the loop and worker that drive it unless it is given others.
"""

from __future__ import annotations

import itertools
import logging
import math
import socket
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import replace
from types import TracebackType
from typing import TypeVar, overload

from reactor import (
    CloseReason,
    ConnectionOptions,
    ConnectionState,
    Connector,
    Ledger,
    Reactor,
    Timeout,
    TlsStream,
    WorkerPool,
)
from tao.address import check_address, format_address, set_no_delay
from tao.backoff import Backoff
from tao.codec import Codec, TypeLengthValueCodec
from tao.conn import Conn, bound
from tao.errors import ConnectionClosedError, TaoError, WouldBlockError
from tao.heartbeat import Heartbeat
from tao.message import Message
from tao.registry import MessageRegistry, default_registry
from tao.service import Service
from tao.session import Session
from tao.session_options import FRAME_TIMEOUT, Callbacks, SessionOptions
from tao.timers import ConnectionTimers

__all__ = ["ClientConn"]

logger: logging.Logger = logging.getLogger("tao")

R = TypeVar("R")

SIGNAL_PATIENCE = 1.0
"""Seconds after which the main thread, if it waits, looks for signals: one that has come in the moment
before it fell asleep does not wake it, and Ctrl-C would do nothing."""

# One counter for all clients of a program: an id names one in a log. `next` on it is one step.
_net_ids = itertools.count(1)


class ClientConn(Conn["ClientConn"]):
    """A connection to a server.

    - `address`: `(host, port)`, or the path of a Unix socket. An empty host is this machine; a link-local
      one of IPv6 names its interface, `fe80::1%eth0`; a path that begins with a zero byte is abstract.
    - `registry`, `codec`, `on_connect`, `on_message`, `on_close`, `on_error`, `buffer_size`,
      `close_on_error`, `frame_timeout`, `options`: as for a Server. `on_error` is also told of a
      connect that failed.
    - `connect_timeout`: seconds that each of the name's addresses is given.
    - `tls`: an `ssl.SSLContext`, as `load_client_tls` makes it; `server_hostname`: the name that the
      server's certificate must be made out to, if it is not the address's host.
    - `reconnect`: how long to wait before each new attempt when the connection fails or ends, until
      `close` is called; None: one attempt. `on_connect` and `on_close` are called for each connection;
      registry, callbacks, codec, context values and kept timers stay.
    - `offline_limit`: bytes that may be written while there is no connection; they are sent on the
      next. Over it `write` raises WouldBlockError; with 0, ConnectionClosedError.
    - `heartbeat`: as for a Server.
    - `executor`: where handlers run, if not on a thread of this client's own.
    - `reactor`: the loop to run on, if somebody else drives it.

    Use it as `with ClientConn(...) as client:`, or call `start`, and `close` in the end. Raises ValueError
    or TypeError for arguments that make no sense.
    """

    __slots__ = (
        "_address",
        "_attempts",
        "_closing",
        "_codec",
        "_connect_timeout",
        "_connector",
        "_given_reactor",
        "_kept_timers",
        "_lock",
        "_net_id",
        "_offline",
        "_offline_limit",
        "_offline_size",
        "_opened_at",
        "_over",
        "_pool",
        "_reactor",
        "_reason",
        "_reconnect",
        "_retry",
        "_server_hostname",
        "_service",
        "_settled",
        "_started",
        "_tls",
    )

    def __init__(
        self,
        address: tuple[str, int] | str,
        *,
        registry: MessageRegistry = default_registry,
        codec: Codec | None = None,
        on_connect: Callable[[ClientConn], bool | None] | None = None,
        on_message: Callable[[object, ClientConn], object] | None = None,
        on_close: Callable[[ClientConn, CloseReason], object] | None = None,
        on_error: Callable[[ClientConn, BaseException], object] | None = None,
        buffer_size: int = 256,
        close_on_error: bool = True,
        frame_timeout: float | None = FRAME_TIMEOUT,
        connect_timeout: float = 10.0,
        tls: ssl.SSLContext | None = None,
        server_hostname: str | None = None,
        reconnect: Backoff | None = None,
        offline_limit: int = 0,
        heartbeat: Heartbeat | None = None,
        options: ConnectionOptions | None = None,
        executor: Executor | None = None,
        reactor: Reactor | None = None,
    ) -> None:
        super().__init__()
        check_address(address, first_port=1)
        if not connect_timeout > 0:
            raise ValueError(
                f"connect_timeout must be a positive number of seconds, not {connect_timeout!r}"
            )
        if offline_limit < 0:
            raise ValueError(f"offline_limit is a number of bytes, not {offline_limit!r}")
        self._address = address
        self._connect_timeout = connect_timeout
        self._tls = tls
        self._server_hostname = server_hostname
        if server_hostname is None and not isinstance(address, str):
            # A scope is this machine's own: no certificate has it.
            self._server_hostname = address[0].partition("%")[0]
        self._reconnect = reconnect
        session_options = SessionOptions(
            buffer_size=buffer_size,
            close_on_error=close_on_error,
            heartbeat=heartbeat,
            frame_timeout=frame_timeout,
            connection=options or ConnectionOptions(),
        )
        self._given_reactor = reactor
        self._reactor = Reactor() if reactor is None else reactor
        self._pool = WorkerPool(self._reactor, worker_size=1, executor=executor)
        # The loop's thread.
        self._connector: Connector | None = None
        self._retry: Timeout | None = None
        self._attempts = 0  # since a connection was last stable
        self._opened_at: float | None = (
            None  # monotonic seconds; None: this connection never opened
        )
        # Guards what follows and the change of `_session` from one connection to the next; tells who
        # waits that one of them, or the state, has changed.
        # Taken by itself where nobody waits: to enter a Condition is to call a function in Python, at whose
        # end Ctrl-C finds the lock taken, and nobody to release it.
        self._lock = self._reactor.system.reentrant_lock()
        self._settled = self._reactor.system.condition(self._lock)
        self._closing = False  # the user's close: there will be no other connection
        self._codec: Codec = TypeLengthValueCodec() if codec is None else codec
        self._offline: list[bytes] = []
        self._offline_size = 0
        self._offline_limit = offline_limit
        self._started = False
        self._over = False  # closed, on_close has returned, and what was ours is released
        self._reason: CloseReason | None = None
        self._service: Service[ClientConn, Session[ClientConn]] = Service(
            reactor=self._reactor,
            pool=self._pool,
            registry=registry,
            callbacks=Callbacks(on_connect, on_message, on_close, on_error),
            options=session_options,
            ledger=Ledger(self._reactor, room=buffer_size),
            on_gone=self._handle_gone,
            on_open=self._handle_open,
            pause_on_output=False,
        )
        self._net_id = next(_net_ids)
        self._session = self._make_session()
        self._kept_timers = ConnectionTimers(self._reactor, self._enqueue)

    def _enqueue(self, function: Callable[[], object]) -> None:
        """Into the order of whichever connection there is when a kept timer expires."""
        self._session.enqueue(function, owed=True)

    def _make_session(self) -> Session[ClientConn]:
        """For the next connection. What belongs to the client, and not to one connection, is here."""
        tls = None
        if self._tls is not None:
            tls = TlsStream(self._tls, server_side=False, server_hostname=self._server_hostname)
        return Session(
            self,
            self._net_id,
            self._service,
            codec=self._codec,
            tls=tls,
        )

    @property
    def name(self) -> str:
        """For people: the server's address."""
        return format_address(self._address)

    def start(self) -> None:
        """Begin to connect; does not wait. Any thread. Raises TaoError the second time."""
        with self._lock:
            if self._started:
                raise TaoError("this client has been started already; make a new one")
            self._started = True
        # Posted first: the thread may find that `close` has come before it, and end the loop at once.
        self._reactor.call_soon_threadsafe(self._connect)
        if self._given_reactor is None:
            # A daemon: a client that nobody closes must not keep the program from ending.
            self._reactor.system.thread(self._run, name="tao-client", daemon=True).start()

    def _run(self) -> None:
        try:
            self._reactor.run()
        finally:
            self._pool.shutdown()
            self._reactor.close()
            self._settle()

    # -- one connection after another; the loop's thread -----------------------------------------

    def _connect(self) -> None:
        self._retry = None
        if self.state is not ConnectionState.CONNECTING:
            return  # closed before it began
        self._connector = Connector(
            self._reactor,
            self._address,
            timeout=self._connect_timeout,
            on_connected=self._handle_connected,
            on_failed=self._handle_failed,
        )

    def _handle_connected(self, sock: socket.socket) -> None:
        set_no_delay(sock)
        session = self._session
        try:
            # Before the state says OPEN: who has waited for that asks for them.
            session.remote_address = sock.getpeername()
            session.local_address = sock.getsockname()
        except OSError:
            pass  # it has been reset already, as the first read will say
        session.connection.start(sock)

    def _handle_failed(self, error: OSError) -> None:
        extra = {"net_id": self.net_id, "peer": self.name}
        logger.warning("%s: cannot connect: %s", self, error, extra=extra)
        self._session.fail_to_open(error)

    def _handle_open(self, _session: Session[ClientConn]) -> None:
        self._opened_at = self._reactor.time()
        with self._lock:
            # Before anything that is written from now on: `write` takes this lock too, as long as
            # something stands in here.
            frames, self._offline = self._offline, []
            self._offline_size = 0
            if frames:
                self._session.connection.send_all(frames)
            self._settled.notify_all()

    def _handle_gone(self, _session: Session[ClientConn], reason: CloseReason) -> None:
        """The connection is closed, and on_close has returned."""
        if self._connector is not None:
            self._connector.cancel()
        backoff = self._reconnect
        with self._lock:
            self._reason = reason
            former = self._session
            if backoff is not None and not self._closing:
                self._session = self._make_session()
            else:
                backoff = None
                self._closing = True
                # What was written for a connection that will never be.
                self._reason = replace(reason, unsent=reason.unsent + self._offline_size)
        if backoff is not None:
            self._session.adopt(former)
            opened_at, self._opened_at = self._opened_at, None
            if opened_at is not None and self._reactor.time() - opened_at >= backoff.stable:
                self._attempts = 0
            delay = backoff.delay(self._attempts, self._reactor.system.uniform)
            self._attempts += 1
            extra = {"net_id": self.net_id, "peer": self.name}
            logger.info("%s: trying again in %.3g s", self, delay, extra=extra)
            self._retry = self._reactor.call_later(delay, self._connect)
            return
        if self._retry is not None:
            self._retry.cancel()
        self._kept_timers.end()
        if self._given_reactor is None:
            self._reactor.stop()
        else:
            self._pool.shutdown(wait=False)
            self._settle()

    def _settle(self) -> None:
        """All is over, and what was ours is released."""
        with self._lock:
            if self._reason is None:  # the loop was ended from outside
                self._reason = CloseReason(self._session.connection.cause)
            self._over = True
            self._settled.notify_all()
            calls, reason = self._session.pending_calls, self._reason
        if calls is not None:
            calls.end(self.name, reason)

    # -- what is different from a server's connection --------------------------------------------

    def write(self, message: Message) -> bool:
        """As `Conn.write`; with `offline_limit`, what is written in between connections is kept."""
        if not self._offline_limit:
            return self._session.write(message)
        with self._lock:
            session = self._session
            if session.connection.state is ConnectionState.OPEN and not self._offline:
                try:
                    return session.write(message)
                except ConnectionClosedError:
                    pass  # it has been lost this very moment
            if self._closing or self._over:
                raise ConnectionClosedError(
                    f"{self} has been closed: nothing was queued; make a new client to connect again"
                )
            frame = self._codec.encode(message)
            if self._offline_size + len(frame) > self._offline_limit:
                raise WouldBlockError(
                    f"{self._offline_size} bytes wait for {self} to be connected, and the limit is "
                    f"{self._offline_limit}: nothing was queued; wait, or raise offline_limit"
                )
            self._offline.append(frame)
            self._offline_size += len(frame)
            return True

    @overload
    def call(self, message: Message, timeout: float | None = None) -> Future[object]: ...
    @overload
    def call(
        self, message: Message, timeout: float | None = None, *, reply: type[R]
    ) -> Future[R]: ...
    def call(
        self,
        message: Message,
        timeout: float | None = None,
        *,
        reply: type[R] | type[object] = object,
    ) -> Future[R] | Future[object]:
        """Send a message and return the future of the reply to it. Any thread; does not wait.

        What may be a reply is a message that is registered without a handler; one with a handler goes to
        that, as ever. Of those the next one that comes answers the oldest call; with a codec that has
        `correlation` (see `CorrelatingCodec`), the one with the same key answers. What answers no call
        goes to `on_message`.

        `reply` is the type that it must have: the future fails with TypeError if it has another. The
        future fails with TimeoutError when `timeout` seconds are over, and with ConnectionClosedError
        when the connection ends before the reply, whether or not the client connects again. A call that
        timed out or was cancelled keeps its place in the order: its reply is dropped when it comes.

        The future's callbacks run on the client's worker, in its order, or on the thread that ended the
        call; in asyncio, `await asyncio.wrap_future(client.call(message))`. Do not wait for the future
        in a handler or callback of this client: the reply would be handled after that.

        Raises as `Conn.write` does, with nothing queued, also while there is no connection and whatever
        `offline_limit` says; and ValueError for a time-out that makes no sense, a message without
        correlation, or one whose key is that of a call under way. Where replies come in order, Ctrl-C in
        here ends the connection if nobody knows whether the message was sent.
        """
        return self._session.call(message, timeout, reply)

    def close(self) -> None:
        """End in good order and for good: there will be no other connection. See `Conn.close`."""
        self._last_session().close()

    def abort(self) -> None:
        """End at once and for good. See `Conn.abort`."""
        self._last_session().abort()

    def _last_session(self) -> Session[ClientConn]:
        with self._lock:
            self._closing = True
            return self._session

    def set_codec(self, codec: Codec) -> None:
        """As `Conn.set_codec`; it also is the one that the next connection begins with."""
        with self._lock:
            self._codec = codec
            session = self._session
        session.set_codec(codec)

    def run_at(
        self, when: float, callback: Callable[[float, ClientConn], object], *, keep: bool = False
    ) -> int:
        """As `Conn.run_at`. With `keep` it outlives the connection, and ends with the client."""
        return self._timers(keep).run_at(when, bound(callback, self))

    def run_after(
        self, delay: float, callback: Callable[[float, ClientConn], object], *, keep: bool = False
    ) -> int:
        """As `Conn.run_after`; for `keep` see `run_at`."""
        return self._timers(keep).run_after(delay, bound(callback, self))

    def run_every(
        self,
        interval: float,
        callback: Callable[[float, ClientConn], object],
        *,
        keep: bool = False,
    ) -> int:
        """As `Conn.run_every`. With `keep` it runs while there is no connection, too."""
        return self._timers(keep).run_every(interval, bound(callback, self))

    def cancel_timer(self, timer_id: int) -> bool:
        """As `Conn.cancel_timer`, for kept timers as well."""
        return self._session.timers.cancel(timer_id) or self._kept_timers.cancel(timer_id)

    def _timers(self, keep: bool) -> ConnectionTimers:
        return self._kept_timers if keep else self._session.timers

    # -- waiting ---------------------------------------------------------------------------------

    def wait_connected(self, timeout: float | None = None) -> bool:
        """Wait until the connection is open, for `timeout` seconds at the most.

        Returns False when the time is over. Raises ConnectionClosedError when the connection has
        failed or been closed; its cause is the error, if there was one. Not for handlers, nor for the
        loop's thread: they would wait for themselves.
        """
        self._check_may_wait()
        with self._lock:
            self._wait_for(self._is_settled, timeout)
            if self.state is ConnectionState.OPEN:
                return True
            if not self._is_settled():
                return False
        reason = self.wait_closed(timeout)
        error = None if reason is None else reason.error
        hint = "; does a server listen there?" if isinstance(error, ConnectionRefusedError) else ""
        raise ConnectionClosedError(f"not connected to {self.name}: {reason}{hint}") from error

    def _is_settled(self) -> bool:
        """Whether there is no use in waiting: it is connected, or will never be. Under the lock."""
        if self._over or self.state is ConnectionState.OPEN:
            return True
        # Between two attempts of a client that tries again nothing is settled.
        final = self._reconnect is None or self._closing
        return final and self.state not in (
            ConnectionState.CONNECTING,
            ConnectionState.HANDSHAKING,
        )

    @overload
    def wait_closed(self, timeout: None = None) -> CloseReason: ...
    @overload
    def wait_closed(self, timeout: float) -> CloseReason | None: ...
    def wait_closed(self, timeout: float | None = None) -> CloseReason | None:
        """Wait until all is over, on_close included; None when `timeout` seconds were not enough.

        Not for handlers, nor for the loop's thread: they would wait for themselves.
        """
        self._check_may_wait()
        with self._lock:
            self._wait_for(lambda: self._over, timeout)
            return self._reason if self._over else None

    def _check_may_wait(self) -> None:
        if not self._started:
            raise TaoError(
                "this client has not been started: call start() first, or use it in a with statement"
            )
        if self._reactor.in_loop_thread() or self._pool.on_worker():
            raise TaoError(
                "a handler or callback would wait for itself here: return, and go on in on_connect or "
                "on_close"
            )

    def _wait_for(self, condition: Callable[[], bool], timeout: float | None) -> bool:
        """Under the lock."""
        if condition() or timeout == 0.0:
            return condition()
        if self._reactor.thread == threading.get_ident():
            # Between two passes: while the thread that makes them waits, it makes none.
            raise TaoError("this would wait for itself: it is not for the reactor's own thread")
        if threading.current_thread() is not threading.main_thread():
            return self._settled.wait_for(condition, timeout)
        left = math.inf if timeout is None else timeout
        while not self._settled.wait_for(condition, min(left, SIGNAL_PATIENCE)):
            left -= SIGNAL_PATIENCE
            if left <= 0.0:
                return False
        return True

    def __enter__(self) -> ClientConn:
        """Start, and wait until the connection is open. Raises ConnectionClosedError if it fails."""
        self.start()
        try:
            self.wait_connected()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close, and wait until what was written has been sent."""
        self.close()
        self.wait_closed()
