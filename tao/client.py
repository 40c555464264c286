"""The client.

Owns one connection to a server, and the loop and worker that drive it unless it is given others.
"""

from __future__ import annotations

import itertools
import logging
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from types import TracebackType
from typing import Any

from reactor import (
    CloseReason,
    ConnectionOptions,
    ConnectionState,
    Connector,
    Reactor,
    WorkerPool,
)
from tao.address import check_address, format_address
from tao.codec import Codec, TypeLengthValueCodec
from tao.conn import Conn
from tao.errors import ConnectionClosedError, TaoError
from tao.registry import MessageRegistry, default_registry
from tao.session import Callbacks, Session, SessionOptions

__all__ = ["ClientConn"]

logger = logging.getLogger("tao")

# One counter for all clients of a program: an id names one in a log. `next` on it is one step.
_net_ids = itertools.count(1)


class ClientConn(Conn["ClientConn"]):
    """A connection to a server.

    - `address`: `(host, port)`, or the path of a Unix socket.
    - `registry`, `codec`, `on_connect`, `on_message`, `on_close`, `on_error`, `buffer_size`,
      `close_on_error`, `options`: as for a Server. `on_error` is also told of a connect that failed.
    - `connect_timeout`: seconds that each of the name's addresses is given.
    - `executor`: where handlers run, if not on a thread of this client's own.
    - `reactor`: the loop to run on, if somebody else drives it.

    Use it as `with ClientConn(...) as client:`, or call `start`, and `close` in the end.
    """

    __slots__ = (
        "_address",
        "_callbacks",
        "_connect_timeout",
        "_connector",
        "_given_reactor",
        "_over",
        "_pool",
        "_reactor",
        "_reason",
        "_settled",
        "_started",
    )

    def __init__(
        self,
        address: tuple[str, int] | str,
        *,
        registry: MessageRegistry = default_registry,
        codec: Codec | None = None,
        on_connect: Callable[[ClientConn], bool | None] | None = None,
        on_message: Callable[[Any, ClientConn], object] | None = None,
        on_close: Callable[[ClientConn, CloseReason], object] | None = None,
        on_error: Callable[[ClientConn, BaseException], object] | None = None,
        buffer_size: int = 256,
        close_on_error: bool = True,
        connect_timeout: float = 10.0,
        options: ConnectionOptions | None = None,
        executor: Executor | None = None,
        reactor: Reactor | None = None,
    ) -> None:
        super().__init__()
        check_address(address, first_port=1)
        if not connect_timeout > 0:
            raise ValueError(f"connect_timeout must be positive seconds, not {connect_timeout!r}")
        self._address = address
        self._connect_timeout = connect_timeout
        self._given_reactor = reactor
        self._reactor = Reactor() if reactor is None else reactor
        self._pool = WorkerPool(self._reactor, worker_size=1, executor=executor)
        self._callbacks = Callbacks(on_connect, on_message, on_close, on_error)
        self._connector: Connector | None = None  # the loop's thread
        # Guards the three below; tells who waits that one of them, or the state, has changed.
        self._settled = threading.Condition()
        self._started = False
        self._over = False  # closed, on_close has returned, and what was ours is released
        self._reason: CloseReason | None = None
        self._session = Session(
            self,
            next(_net_ids),
            reactor=self._reactor,
            pool=self._pool,
            registry=registry,
            codec=TypeLengthValueCodec() if codec is None else codec,
            callbacks=self._callbacks,
            options=SessionOptions(buffer_size, close_on_error, options or ConnectionOptions()),
            on_gone=self._handle_gone,
            on_open=self._handle_open,
        )

    @property
    def name(self) -> str:
        """For people: the server's address."""
        return format_address(self._address)

    def start(self) -> None:
        """Begin to connect; does not wait. Any thread. Raises TaoError the second time."""
        with self._settled:
            if self._started:
                raise TaoError("this client has been started already; make a new one")
            self._started = True
        if self._given_reactor is None:
            # A daemon: a client that nobody closes must not keep the program from ending.
            threading.Thread(target=self._run, name="tao-client", daemon=True).start()
        self._reactor.call_soon_threadsafe(self._connect)

    def _run(self) -> None:
        try:
            self._reactor.run()
        finally:
            self._pool.shutdown()
            self._reactor.close()
            self._settle()

    def _connect(self) -> None:
        """The loop's thread."""
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
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._session.connection.start(sock)

    def _handle_failed(self, error: OSError) -> None:
        logger.warning("%s: cannot connect: %s", self, error)
        self._session.fail_to_open(error)

    def _handle_open(self) -> None:
        """The loop's thread."""
        with self._settled:
            self._settled.notify_all()

    def _handle_gone(self, reason: CloseReason) -> None:
        """The connection is closed, and on_close has returned. The loop's thread."""
        if self._connector is not None:
            self._connector.cancel()
        with self._settled:
            self._reason = reason
        if self._given_reactor is None:
            self._reactor.stop()
        else:
            self._pool.shutdown(wait=False)
            self._settle()

    def _settle(self) -> None:
        """All is over, and what was ours is released."""
        with self._settled:
            if self._reason is None:  # the loop was ended from outside
                self._reason = CloseReason(self._session.connection.cause)
            self._over = True
            self._settled.notify_all()

    # -- waiting ---------------------------------------------------------------------------------

    def wait_connected(self, timeout: float | None = None) -> bool:
        """Wait until the connection is open, for `timeout` seconds at the most.

        Returns False when the time is over. Raises ConnectionClosedError when the connection has
        failed or been closed; its cause is the error, if there was one. Not for handlers, nor for the
        loop's thread: they would wait for themselves.
        """
        self._check_may_wait()
        with self._settled:
            self._settled.wait_for(
                lambda: self._over or self.state is not ConnectionState.CONNECTING, timeout
            )
            if self.state is ConnectionState.CONNECTING and not self._over:
                return False
            if self.state is ConnectionState.OPEN:
                return True
        reason = self.wait_closed(timeout)
        error = None if reason is None else reason.error
        raise ConnectionClosedError(f"not connected to {self.name}: {reason}") from error

    def wait_closed(self, timeout: float | None = None) -> CloseReason | None:
        """Wait until all is over, on_close included; None when `timeout` seconds were not enough.

        Not for handlers, nor for the loop's thread: they would wait for themselves.
        """
        self._check_may_wait()
        with self._settled:
            self._settled.wait_for(lambda: self._over, timeout)
            return self._reason if self._over else None

    def _check_may_wait(self) -> None:
        if not self._started:
            raise TaoError("call start() first")
        if self._reactor.in_loop_thread() or self._pool.on_worker():
            raise TaoError("this would wait for itself: it is not for handlers and callbacks")

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
