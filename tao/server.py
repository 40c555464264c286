"""The server.

Owns the connections, the loop and the worker pool of one service, and the order in which they begin and
end. Without a `reactor` it makes one of its own, and `serve_forever` is its thread.

What is done on its behalf is elsewhere: who is let in, and by which acceptors, in `tao.gate`; what is said
to many, groups and other servers, in `tao.delivery`; how connections end at a stop in `tao.stopping`; what
they may hold together in `tao.budget`.
"""

from __future__ import annotations

import contextvars
import itertools
import logging
import math
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from types import FrameType
from typing import Literal, TypeAlias, TypeVar, Unpack, cast, overload

from reactor import (
    Acceptor,
    CloseCause,
    CloseReason,
    ConnectionOptions,
    ConnectionState,
    OperatingSystem,
    Reactor,
    SocketAddress,
    System,
    TlsStream,
    WorkerPool,
)
from tao.address import format_address, format_peer, host_of, set_no_delay
from tao.address_limits import AddressLimits
from tao.backplane import Backplane
from tao.budget import MemoryBudget, check_memory_limit, default_memory_limit
from tao.codec import Codec, TypeLengthValueCodec
from tao.counts import check_count
from tao.data_source import DataSource
from tao.delivery import Delivery
from tao.errors import TaoError
from tao.gate import Gate, host_of_peer
from tao.group import BroadcastReport, Group, WhenFull
from tao.heartbeat import Heartbeat
from tao.listening import Listening, ListenOptions, open_listener
from tao.message import Message
from tao.metrics import Metrics, MetricsSnapshot
from tao.proxy_protocol import ProxyHeader, ProxyHeaderReader
from tao.rate import Rate
from tao.registry import MessageRegistry, default_registry
from tao.server_conn import ServerConn
from tao.service import Service
from tao.session import Session
from tao.session_options import FRAME_TIMEOUT, Callbacks, SessionOptions
from tao.stop_report import StopReport
from tao.stop_signals import stop_signals
from tao.stopping import STOP_MARGIN, Stopping

__all__ = ["Address", "Server"]

logger: logging.Logger = logging.getLogger("tao")

Address: TypeAlias = "tuple[str, int] | str | socket.socket"
"""Where to listen: `(host, port)`, the path of a Unix socket, or a socket that listens already. A path that
begins with a zero byte is one of Linux's abstract names."""

T = TypeVar("T")


class Server:
    """Accepts connections and hands their messages to the registered handlers.

    - `registry`: the messages and their handlers; `codec`: how they stand on the wire.
    - `on_connect(conn)`: a client has connected; returning False refuses it.
    - `on_message(message, conn)`: a message that is registered without a handler.
    - `on_close(conn, reason)`: exactly once for every connection; but for one whose handler has still
      not returned when `stop` gives it up, which is logged.
    - `on_error(conn, exception)`: a decoder or a handler raised, or a message was not understood.
    - `worker_size`: handlers that may run at once; `executor`: where, if not on threads of its own.
    - `buffer_size`: messages that may wait for a worker on one connection; at that, reading pauses.
    - `max_connections`: how many there may be; those beyond are closed at once ("refuse"), or wait in the
      system's backlog until there is room ("wait"), as `when_full` says.
    - `max_connections_per_address`: how many of them one peer's address may have; the rest is refused. Here
      and for the two rates an address of IPv6 is a network of 64 bits; peers on a Unix socket have none and
      no such limit; behind a proxy (`ListenOptions`) it is the client's.
    - `connection_rate`: how often one peer's address may connect; the rest is refused.
    - `frame_rate`: how many frames one peer's address may send, on all its connections together; one more
      closes the connection that it comes by.
    - `frame_timeout`: seconds from the first byte of a frame to its last, and `first_message_timeout`:
      from the opening of a connection to the end of its first frame; whoever takes longer is closed.
      Bytes that come do not put it off; time in which the server does not read is not counted. None:
      no such limit, which is the second's default: a client may be there only to listen.
    - `backlog`: connections that the system may keep waiting for each address that is listened on.
    - `memory_limit`: bytes that all connections may hold together, read and not handled or waiting to be
      sent; by default 256 MiB, or 64 KiB for each of `max_connections` if that is more.
    - `data_source`: closed when the server has stopped and all handlers have returned.
    - `tls`: an `ssl.SSLContext`, as `load_server_tls` makes it.
    - `heartbeat`: how often to give a sign of life, and when to give a silent peer up.
    - `close_on_error`: whether an exception in a handler costs its connection.
    - `options`: watermarks and deadlines of the connections.
    - `backplane`: what joins this server with others, as RedisBackplane does, so that `broadcast`,
      `unicast` and groups reach the connections of all; from the first `listen` until it has stopped.
    - `reactor`: the loop to run on, if somebody else drives it.

    All four callbacks run like handlers: on a worker, in their connection's order. Raises ValueError
    or TypeError for arguments that make no sense.
    """

    def __init__(
        self,
        *,
        registry: MessageRegistry = default_registry,
        codec: Codec | None = None,
        on_connect: Callable[[ServerConn], bool | None] | None = None,
        on_message: Callable[[object, ServerConn], object] | None = None,
        on_close: Callable[[ServerConn, CloseReason], object] | None = None,
        on_error: Callable[[ServerConn, BaseException], object] | None = None,
        worker_size: int = 20,
        buffer_size: int = 256,
        max_connections: int = 1000,
        max_connections_per_address: int | None = None,
        connection_rate: Rate | None = None,
        frame_rate: Rate | None = None,
        frame_timeout: float | None = FRAME_TIMEOUT,
        first_message_timeout: float | None = None,
        when_full: Literal["refuse", "wait"] = "refuse",
        backlog: int = 1024,
        memory_limit: int | None = None,
        data_source: DataSource[object] | None = None,
        tls: ssl.SSLContext | None = None,
        heartbeat: Heartbeat | None = None,
        executor: Executor | None = None,
        close_on_error: bool = True,
        options: ConnectionOptions | None = None,
        backplane: Backplane | None = None,
        reactor: Reactor | None = None,
    ) -> None:
        check_count("worker_size", worker_size, "handlers that may run at once")
        check_count("buffer_size", buffer_size, "messages that may wait on one connection")
        check_count("backlog", backlog, "connections that may wait to be accepted")
        system: System = OperatingSystem() if reactor is None else reactor.system
        self._system = system
        self._registry = registry
        self._codec: Codec = TypeLengthValueCodec() if codec is None else codec
        self._callbacks = Callbacks(on_connect, on_message, on_close, on_error)
        self._options = SessionOptions(
            buffer_size=buffer_size,
            close_on_error=close_on_error,
            heartbeat=heartbeat,
            frame_timeout=frame_timeout,
            first_message_timeout=first_message_timeout,
            connection=options or ConnectionOptions(),
        )
        self._worker_size = worker_size
        self._executor = executor
        self._max_connections = max_connections
        self._backlog = backlog
        self._data_source = data_source
        # The loop's thread.
        self._limits = AddressLimits(max_connections_per_address, connection_rate, frame_rate)
        self._metrics = Metrics()
        self._gate = Gate(max_connections, when_full, self._limits, self._metrics)
        if memory_limit is None:
            memory_limit = default_memory_limit(max_connections)
        check_memory_limit(memory_limit, max_connections)
        self._memory_limit = memory_limit
        self._tls = tls  # set by any thread, for the connections that are accepted after that
        # Held while a connection's traffic moves from itself to the sum of those that are gone, and while
        # both are added up: no counter ever goes back.
        self._counting = system.lock()
        self._made_at = time.monotonic()
        self._context = contextvars.copy_context()  # what every connection's handlers begin with
        self._given_reactor = reactor
        # Made by the first `listen`, so that a server which never listens holds nothing.
        self._reactor: Reactor | None = reactor
        self._pool: WorkerPool | None = None
        self._budget: MemoryBudget | None = None
        self._service: Service[ServerConn, Session[ServerConn]] | None = None
        self._net_ids = itertools.count(1)
        # Written by the loop's thread; looked up by any thread. Who goes through it takes a list of it,
        # which is one step. It is never replaced: others look into this one.
        self._sessions: dict[int, Session[ServerConn]] = {}
        self._delivery = Delivery(self._codec, self._sessions, backplane)
        # The loop's thread.
        self._schedules: list[tuple[float, Callable[[float, ServerConn], object]]] = []
        self._stopping: Stopping | None = None  # likewise; others only look
        # Orders "the loop begins to run" against "it does not run, so this thread may act for it". Re-
        # entrant, because a signal handler may call `stop` on top of either.
        self._lock = system.reentrant_lock()
        self._serving = False  # under the lock: our own reactor's `run` has begun, or is about to
        self._serving_thread = 0  # the number of the thread inside `serve_forever`, which writes it
        self._stop_asked = False  # any thread; only ever set
        self._finished = system.event()  # set when threads and descriptors are released as well

    # -- listening and serving -------------------------------------------------------------------

    @overload
    def listen(
        self, address: tuple[str, int], **options: Unpack[ListenOptions]
    ) -> tuple[str, int]: ...
    @overload
    def listen(self, address: str, **options: Unpack[ListenOptions]) -> str: ...
    @overload
    def listen(self, address: socket.socket, **options: Unpack[ListenOptions]) -> SocketAddress: ...
    def listen(self, address: Address, **options: Unpack[ListenOptions]) -> SocketAddress:
        """Listen on an address; returns it as the system gives it, with the port that was chosen.

        For `(host, port)` that is again `(host, port)`, which a ClientConn takes; for a path, the path.
        `options` are those of `ListenOptions`: a Unix socket's `mode`, `proxy_protocol`. An empty host, or
        "::", is every address of this machine, IPv6 and IPv4 both. The file of a Unix socket replaces one
        that nobody listens on, and is removed at the end; that of a socket which listened already is not.
        Accepting begins as soon as the loop runs. May be called again, for more addresses, while the
        server runs too. Any thread. Raises OSError when the address cannot be had, TaoError after `stop`,
        ValueError or TypeError for an address or an option that makes no sense.
        """
        return self._listen(address, options)

    def _listen(self, address: Address, options: ListenOptions) -> SocketAddress:
        if self._stop_asked:
            raise TaoError("this server has been stopped; make a new one")
        listening = open_listener(address, backlog=self._backlog, system=self._system, **options)
        sock = listening.sock
        sock.setblocking(False)
        set_no_delay(sock)  # what it accepts has that from it
        bound = cast(SocketAddress, sock.getsockname())
        try:
            reactor = self._ensure_reactor()
            self._run_on_loop(reactor, partial(self._add_acceptor, reactor, listening))
        except BaseException:
            if sock is not address:
                listening.close()
            raise
        logger.info("listening on %s", format_address(bound))
        if sock is address:
            return bound
        # What was asked for in two parts is told in two, and what was a text is one.
        if isinstance(bound, tuple):
            return host_of(bound), bound[1]
        return os.fsdecode(bound)

    def _ensure_reactor(self) -> Reactor:
        if self._reactor is None:
            self._reactor = Reactor()
        if self._pool is None:
            self._pool = WorkerPool(
                self._reactor, worker_size=self._worker_size, executor=self._executor
            )
            self._budget = MemoryBudget(
                self._reactor,
                self._memory_limit,
                self._max_connections,
                self._options.buffer_size,
                self._snapshot,
            )
            self._service = Service(
                reactor=self._reactor,
                pool=self._pool,
                registry=self._registry,
                callbacks=self._callbacks,
                options=self._options,
                ledger=self._budget.ledger,
                on_gone=self._handle_gone,
                on_open=self._handle_open,
                server=self,
                metrics=self._metrics,
                context=self._context,
            )
            self._delivery.start(self._reactor, self._pool, self._budget.ledger)
        self._delivery.join()
        return self._reactor

    def _add_acceptor(self, reactor: Reactor, listening: Listening) -> None:
        bound = listening.sock.getsockname()
        # Where all that comes by it has arrived, unless it listens everywhere.
        local = None if isinstance(bound, tuple) and bound[0] in ("0.0.0.0", "::") else bound
        accept = partial(self._handle_accepted, listening, local)
        acceptor = Acceptor(reactor, listening.sock, accept, file=listening.file, bare=True)
        self._gate.add(acceptor, len(self._sessions))

    def _run_on_loop(self, reactor: Reactor, function: Callable[[], T]) -> T:
        """Call it on the loop's thread and wait; here and now if the loop does not run."""
        with self._lock:
            serving = self._serving and not reactor.in_loop_thread()
            if not serving and not reactor.in_other_thread():
                return function()
        done = self._system.event()
        outcome: list[T] = []
        errors: list[BaseException] = []

        def call() -> None:
            try:
                outcome.append(function())
            except BaseException as error:
                errors.append(error)
            done.set()

        reactor.call_soon_threadsafe(call)
        while not done.wait(0.1):
            if self._finished.is_set():
                raise TaoError("this server has been stopped; make a new one")
        if errors:
            raise errors[0]
        return outcome[0]

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Have the loop call it, soon. Any thread, and signal handlers.

        It holds up every connection while it runs; if it raises, that is logged. Raises TaoError before
        `listen`, ReactorClosedError after the end.
        """
        if self._reactor is None:
            raise TaoError(
                "call_soon() needs the loop that listening makes: call listen(address) first"
            )
        self._reactor.call_soon_threadsafe(callback)

    def start(self, address: Address, **options: Unpack[ListenOptions]) -> None:
        """Listen on `address`, then serve until stopped. See `listen` and `serve_forever`."""
        with stop_signals(self._handle_signal):
            self._listen(address, options)
            self.serve_forever()

    def serve_forever(self) -> None:
        """Run the loop on this thread until the server has stopped.

        On the main thread SIGINT (Ctrl-C) and SIGTERM stop it in good order for that time, unless the
        program has handlers of its own for them; a second one stops it at once. Raises TaoError when
        nothing listens, or when it is being served already.
        """
        if self._reactor is None or (not self._gate.acceptors and not self._stop_asked):
            raise TaoError("nothing to serve: call listen(address) first, or start(address)")
        reactor = self._reactor
        with self._lock:
            if self._finished.is_set():
                return
            if self._serving and not reactor.forked:
                raise TaoError("this server is being served already; call stop() to end that")
            self._serving = True
        self._serving_thread = threading.get_ident()
        try:
            with stop_signals(self._handle_signal):
                reactor.run()
        finally:
            if not self._is_over():
                # Ended by an exception (KeyboardInterrupt, where the signals are not ours), or by
                # `Reactor.stop`: what can be finished is finished in the same order, but at once.
                self._stop_now(reactor)
            self._release()

    def _handle_signal(self, _number: int, _frame: FrameType | None) -> None:
        # On the thread that serves: `stop` would do as well, but this cannot even seem to wait.
        grace = 0.0 if self._stop_asked else 5.0
        self._stop_asked = True
        if self._reactor is not None:
            self._reactor.post(partial(self._begin_stop, grace))
            self._reactor.wake()

    def _stop_now(self, reactor: Reactor) -> None:
        self._begin_stop(0.0)
        while not self._is_over():
            reactor.run_once(0.1)

    @overload
    def running(
        self, address: tuple[str, int], *, grace: float = 5.0, **options: Unpack[ListenOptions]
    ) -> AbstractContextManager[tuple[str, int]]: ...
    @overload
    def running(
        self, address: str, *, grace: float = 5.0, **options: Unpack[ListenOptions]
    ) -> AbstractContextManager[str]: ...
    @overload
    def running(
        self, address: socket.socket, *, grace: float = 5.0, **options: Unpack[ListenOptions]
    ) -> AbstractContextManager[SocketAddress]: ...
    def running(
        self, address: Address, *, grace: float = 5.0, **options: Unpack[ListenOptions]
    ) -> AbstractContextManager[SocketAddress]:
        """Listen on `address` and serve on a thread of its own while the block runs; then stop, as
        `stop` does, with `grace` in seconds. `options` are those of `listen`.

        Gives the address that was bound, as `listen` does.
        """
        return self._run_beside(address, grace, options)

    @contextmanager
    def _run_beside(
        self, address: Address, grace: float, options: ListenOptions
    ) -> Iterator[SocketAddress]:
        bound = self._listen(address, options)
        thread = self._system.thread(self.serve_forever, name="tao-server")
        thread.start()
        try:
            yield bound
        finally:
            self.stop(grace)
            thread.join()

    # -- stopping --------------------------------------------------------------------------------

    def stop(self, grace: float = 5.0) -> StopReport:
        """Stop listening, let every connection finish, then end the loop and the workers.

        Messages that have come are handled, and replies sent; a connection that has not finished in
        `grace` seconds is cut off. One whose TLS handshake or proxy's header is still under way may finish
        that, within 1.5 seconds and half the grace, and is answered what it sends in the half second, or
        quarter of the grace, after that; and so is one that has connected in the last 0.2 seconds and not
        said anything yet, in the rest of these.

        Called from another thread, it returns when all is over, within the grace and a little. Called by
        a handler, by a signal handler or on the loop's thread, which with a `reactor` is that of its host,
        it sets things in motion and returns, since it would wait for itself. With a reactor that nobody
        drives it waits a second for somebody to begin. Again and again is once, but a shorter grace holds.
        May be called from any thread and from signal handlers.
        """
        if not (math.isfinite(grace) and grace >= 0.0):
            raise ValueError(f"grace must be a finite number of seconds, not {grace!r}")
        self._stop_asked = True
        reactor, pool = self._reactor, self._pool
        if reactor is None or pool is None:
            if self._data_source is not None:
                self._data_source.close_all()
            return StopReport(0, 0, True)  # it never listened
        if not self._finished.is_set():
            with self._lock:
                if self._given_reactor is None and not self._serving:
                    # It listens, but nobody has run the loop: nothing has been accepted yet.
                    self._serving = True
                    self._stop_now(reactor)
                    self._release()
            reactor.post(partial(self._begin_stop, grace))
            reactor.wake()
            # The loop's thread, in a pass or between two of them, and a handler would wait for
            # themselves.
            here = threading.get_ident()
            if here not in (reactor.thread, self._serving_thread) and not pool.on_worker():
                waited = self._finished.wait(STOP_MARGIN)
                # A reactor that nobody drives by now will not be driven by waiting.
                if not waited and (self._given_reactor is None or reactor.thread):
                    self._finished.wait(grace)
        if self._stopping is None:
            return StopReport(0, 0, False)  # the loop has still to hear of it
        return self._stopping.report(finished=self._finished.is_set())

    def _begin_stop(self, grace: float) -> None:
        """The loop's thread."""
        if self._stopping is None:
            assert self._reactor is not None
            self._stopping = Stopping(self._reactor, self._sessions, self._handle_all_gone)
            self._gate.close()
            self._stopping.begin(grace)
        self._stopping.hurry(grace)

    def _is_over(self) -> bool:
        return self._stopping is not None and self._stopping.over

    def _handle_all_gone(self) -> None:
        """It stops, and no connection is left. The loop's thread."""
        assert self._reactor is not None and self._budget is not None
        self._budget.end()
        if self._given_reactor is None:
            self._reactor.stop()
        else:
            self._system.thread(self._release, name="tao-release").start()

    def _release(self) -> None:
        """Give up what is ours. The thread that ran the loop, when it has ended; or one for it."""
        pool, reactor, stopping = self._pool, self._reactor, self._stopping
        assert pool is not None and reactor is not None and stopping is not None
        pool.shutdown(wait=not stopping.left_behind)
        # What is left of the grace, or a little: the other servers are owed what was said.
        self._delivery.leave(max(stopping.ends - reactor.time(), STOP_MARGIN / 2))
        if self._data_source is not None:
            if stopping.left_behind:
                logger.error("a handler has not returned: its data source is left open")
            else:
                self._data_source.close_all()
        if self._given_reactor is None:
            reactor.close()
        self._finished.set()

    # -- connections -----------------------------------------------------------------------------

    def _handle_accepted(
        self,
        listening: Listening,
        local: SocketAddress | None,
        sock: socket.socket,
        address: SocketAddress,
    ) -> None:
        """The loop's thread."""
        service = self._service
        assert service is not None
        now, proxies = service.reactor.pass_time, listening.proxies
        # Behind a proxy the client's, of whom nothing is known yet.
        host = host_of_peer(address) if proxies is None else ""
        why = self._gate.refusal(address, host, proxies, len(self._sessions), now)
        if why is not None:
            self._gate.refuse(sock, address, local, why, now)
            return
        self._metrics.connections_total += 1
        net_id = next(self._net_ids)
        conn = ServerConn()
        reader = None
        if proxies is not None:
            reader = ProxyHeaderReader(partial(self._handle_proxied, net_id))
        session: Session[ServerConn] = Session(
            conn,
            net_id,
            service,
            codec=self._codec,
            remote_address=address,
            local_address=local,
            preface=reader,
            tls=None if self._tls is None else TlsStream(self._tls, server_side=True),
            host=host,
            frame_bucket=self._limits.enter(host),
        )
        conn._session = session
        self._sessions[net_id] = session
        self._delivery.handle_come(net_id)
        session.connection.start(sock)
        self._gate.handle_come(len(self._sessions))

    def _handle_proxied(self, net_id: int, header: ProxyHeader) -> None:
        """A proxy has said for whom it connects. The loop's thread."""
        session = self._sessions[net_id]
        assert self._reactor is not None
        peer = session.remote_address if header.source is None else header.source
        host, now = host_of_peer(peer), self._reactor.pass_time
        why = self._limits.refusal(host, now)
        if why is not None:
            self._gate.note_refusal(format_peer(peer, session.local_address), why, now)
            session.close(CloseCause.REFUSED)
            return
        session.introduce(header.source, header.destination, host, self._limits.enter(host))

    def _handle_open(self, session: Session[ServerConn]) -> None:
        """The connection is OPEN. The loop's thread."""
        if self._stopping is not None:
            self._stopping.handle_open(session)
        for interval, callback in self._schedules:
            session.conn.run_every(interval, callback)

    def _handle_gone(self, session: Session[ServerConn], reason: CloseReason) -> None:
        """The connection is closed, and its on_close has returned. The loop's thread."""
        with self._counting:
            present = self._sessions.pop(session.net_id, None) is not None
            if present:
                self._metrics.add_traffic(session.traffic)
        if present:
            assert self._reactor is not None
            self._limits.leave(session.host, self._reactor.pass_time)
            self._gate.handle_gone(len(self._sessions))
            self._delivery.handle_gone(session.net_id)
        if self._stopping is not None:
            self._stopping.handle_gone(session, reason)

    def set_tls(self, context: ssl.SSLContext) -> None:
        """Use another context for the connections that come from now on: a renewed certificate, say.

        Those that there are keep theirs. Any thread. Raises TaoError on a server that listens without
        TLS.
        """
        if self._tls is None and self._gate.acceptors:
            raise TaoError(
                "this server listens without tls, and its clients would not understand; pass tls= when "
                "it is made, or call set_tls() before listen()"
            )
        self._tls = context

    @property
    def connection_count(self) -> int:
        """Connections that there are now. Any thread."""
        return len(self._sessions)

    def connection(self, net_id: int) -> ServerConn:
        """The connection with that id. Any thread. Raises NotRegisteredError when there is none."""
        return self._delivery.find(net_id).conn

    def connections(self) -> list[ServerConn]:
        """All connections that there are now. Any thread."""
        return [session.conn for session in list(self._sessions.values())]

    def unicast(self, net_id: int | str, message: Message) -> bool:
        """Write a message to one connection. Any thread. Raises as `connection` and `write` do.

        By its `net_id`, if it is this server's; by its `cluster_id`, whichever server's it is. For another
        server's it returns True when the message waits to be sent there, and raises WouldBlockError when
        too much waits; that the connection is gone is told to the backplane's `on_report`.
        """
        return self._delivery.unicast(net_id, message)

    @property
    def member_id(self) -> str:
        """This server's name among those of its backplane, which none of them has had; "local" without one,
        and before `listen`. Any thread."""
        return self._delivery.member_id

    def broadcast(self, message: Message, *, when_full: WhenFull = "refuse") -> BroadcastReport:
        """Write a message to all connections. Any thread. It is encoded once.

        With a backplane it is queued for the other servers too, which does not wait and is no part of the
        report's numbers: `others` says whether there was room.

        A slow receiver does not hold up the others; `when_full` says what becomes of one that has
        reached its limit. The report says how many there were of each. Raises ValueError for another
        policy, and what the codec raises for a message that it cannot encode.
        """
        return self._delivery.broadcast(message, when_full)

    def group(self, name: str) -> Group[ServerConn]:
        """The group of that name, made when it is first asked for. Any thread.

        It is the same one as long as it has members, or somebody holds it.
        """
        return self._delivery.group(name)

    def _snapshot(self) -> list[Session[ServerConn]]:
        return list(self._sessions.values())

    def metrics(self) -> MetricsSnapshot:
        """The server's numbers at this moment. Any thread; O(connections)."""
        reactor, pool = self._reactor, self._pool
        statistics = None if reactor is None else reactor.statistics()
        with self._counting:
            sessions = self._snapshot()
            return self._metrics.snapshot(
                uptime=time.monotonic() - self._made_at,
                open_traffic=[session.traffic for session in sessions],
                connections_open=len(sessions),
                bytes_held=0 if self._budget is None else self._budget.ledger.total,
                refused_by_system=sum(acceptor.refused for acceptor in list(self._gate.acceptors)),
                queue_depth=0 if pool is None else pool.waiting,
                loop_lag=0.0 if reactor is None else reactor.pass_seconds,
                timers=0 if statistics is None else statistics.timeouts_waiting,
                wakeups=0 if statistics is None else statistics.wakeups,
                passes=0 if statistics is None else statistics.passes,
                backplane=self._delivery.counters(),
            )

    def schedule(self, interval: float, callback: Callable[[float, ServerConn], object]) -> None:
        """Call `callback(now, conn)` on every connection, every `interval` seconds. Any thread.

        It runs like a timer of each connection: on a worker, in the connection's order; the first
        time `interval` seconds after this call, or after the connection was accepted. Raises
        ValueError for an interval that is not positive, TaoError before `listen`.
        """
        if not (math.isfinite(interval) and interval > 0):
            raise ValueError(f"an interval must be a positive number of seconds, not {interval!r}")
        if self._reactor is None:
            raise TaoError(
                "schedule() needs the loop that listening makes: call listen(address) first"
            )

        def add() -> None:
            self._schedules.append((interval, callback))
            for session in self._sessions.values():
                # One whose handshake is under way gets it when it is open.
                if session.connection.state is ConnectionState.OPEN:
                    session.conn.run_every(interval, callback)

        self._run_on_loop(self._reactor, add)

    def __repr__(self) -> str:
        where = ", ".join(format_address(acceptor.address) for acceptor in self._gate.acceptors)
        state = "stopped" if self._finished.is_set() else (where or "not listening")
        return f"<Server {state}, {len(self._sessions)} connections>"
