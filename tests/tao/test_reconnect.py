"""tao.client with `reconnect`: one connection after another, until it is closed."""

from __future__ import annotations

import logging
import socket
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

from reactor import Reactor, SystemClock, TlsTruncationError
from tao import (
    Backoff,
    ClientConn,
    CloseCause,
    CloseReason,
    ConnectionClosedError,
    ConnectionState,
    Context,
    ContextKey,
    MessageRegistry,
    Server,
    WouldBlockError,
    WriteCloser,
    load_client_tls,
    load_server_tls,
)
from tao.line_codec import LineCodec
from tests.support import (
    DEADLINE,
    LOCAL,
    Calls,
    Peer,
    Sample,
    as_bytes,
    descriptors,
    frame,
    wait_until,
)
from tests.tao.manual import ManualLoop
from tests.tls_support import Certificates, TlsPeer, peer_context

ECHO = 1
REPLY = 2

QUICK = Backoff(first=0.02, maximum=0.1)

NEVER = Backoff(first=3600.0, maximum=3600.0)
"""The next attempt is one that no test sees."""


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A server that knows nothing of the project."""
    with socket.create_server(LOCAL) as sock:
        yield sock


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


def closed_port() -> tuple[str, int]:
    """An address on which nobody listens."""
    with socket.create_server(LOCAL) as sock:
        address: tuple[str, int] = sock.getsockname()
    return address


def listen_again(address: tuple[str, int]) -> socket.socket:
    """Listen on a port that was free. It may be another connection's for a moment: of all ports."""
    listeners: list[socket.socket] = []

    def attempt() -> bool:
        try:
            listeners.append(socket.create_server(address))
        except OSError:
            return False
        return True

    assert wait_until(attempt), f"cannot listen on {address} any more"
    return listeners[0]


def echo_server(**arguments: Any) -> Server:
    registry = MessageRegistry()
    registry.register(ECHO, as_bytes, lambda context, conn: Sample(REPLY, context.message))
    return Server(registry=registry, **arguments)


def has(calls: Calls[Any], count: int) -> bool:
    """Whether there are so many."""
    return len(calls) == count


class Client:
    """A reconnecting client, and what it was told."""

    def __init__(self, address: Any, **arguments: Any) -> None:
        self.connected: Calls[int] = Calls()
        self.closed: Calls[CloseReason] = Calls()
        self.errors: Calls[BaseException] = Calls()
        self.replies: Calls[bytes] = Calls()
        registry = MessageRegistry()
        registry.register(
            REPLY, as_bytes, lambda context, conn: self.replies.add(context.message), inline=True
        )
        arguments.setdefault("registry", registry)
        arguments.setdefault("reconnect", QUICK)
        arguments.setdefault("on_close", lambda conn, reason: self.closed.add(reason))
        arguments.setdefault("on_connect", lambda conn: self.connected.add(conn.net_id))
        self.conn = ClientConn(
            address, on_error=lambda conn, error: self.errors.add(error), **arguments
        )

    def __enter__(self) -> Client:
        self.conn.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.conn.abort()
        assert self.conn.wait_closed(DEADLINE) is not None

    def waits(self, attempts: int = 1) -> None:
        """Until so many attempts have failed, and the next one is waited for."""
        self.errors.wait(attempts)
        assert wait_until(lambda: self.conn.state is ConnectionState.CONNECTING)

    def ended(self) -> CloseReason:
        reason = self.conn.wait_closed(DEADLINE)
        assert reason is not None
        return reason


# -- the server goes, and comes back -------------------------------------------------------------


def test_a_server_that_is_down_at_first() -> None:
    address = closed_port()
    with Client(address) as client:
        client.waits(3)
        assert client.conn.wait_connected(0.01) is False
        assert client.conn.state is ConnectionState.CONNECTING
        with echo_server().running(listen_again(address)):
            assert client.conn.wait_connected(DEADLINE) is True
            client.conn.write(Sample(ECHO, b"at last"))
            assert client.replies.wait() == [b"at last"]
    assert all(isinstance(error, OSError) for error in client.errors.items)
    assert len(client.connected) == len(client.closed) == 1, "for what was open, and for no attempt"


def test_a_server_that_is_started_again_and_again() -> None:
    address = closed_port()
    with Client(address) as client:
        for round_number in range(1, 6):
            with echo_server().running(listen_again(address)):
                client.connected.wait(round_number)
                client.conn.write(Sample(ECHO, b"%d" % round_number))
                assert client.replies.wait(round_number)[-1] == b"%d" % round_number
            client.closed.wait(round_number)
        assert len(client.connected) == len(client.closed) == 5
        assert {reason.cause for reason in client.closed.items} == {CloseCause.PEER_CLOSED}
        assert len(set(client.connected.items)) == 1, "one client, one id"


@pytest.mark.parametrize("ending", ["fin", "reset"])
def test_a_server_that_cuts_it_off(listener: socket.socket, ending: str) -> None:
    with Client(listener.getsockname()) as client:
        for round_number in range(1, 6):
            with Peer.accept(listener) as peer:
                client.connected.wait(round_number)
                client.conn.write(Sample(5, b"%d" % round_number))
                assert peer.receive_frame() == (5, b"%d" % round_number)
                if ending == "reset":
                    peer.reset()
            client.closed.wait(round_number)
    causes = {reason.cause for reason in client.closed.items[:5]}
    assert causes == {CloseCause.PEER_CLOSED if ending == "fin" else CloseCause.FAILED}
    assert client.errors.items == [], "on_close says it"


def test_the_callbacks_take_turns(listener: socket.socket) -> None:
    order: Calls[str] = Calls()
    with Client(
        listener.getsockname(),
        on_connect=lambda conn: order.add("connect"),
        on_close=lambda conn, reason: order.add("close"),
    ):
        for round_number in range(5):
            peer = Peer.accept(listener)
            order.wait(2 * round_number + 1)
            peer.close()
        order.wait(10)
    assert order.items[:10] == ["connect", "close"] * 5


@pytest.mark.parametrize("ending", ["fin", "reset", "close", "abort"])
def test_there_is_no_on_close_without_an_on_connect(listener: socket.socket, ending: str) -> None:
    """Although the connection has ended before its on_connect had its turn on a worker."""
    order: Calls[str] = Calls()
    busy, go_on = threading.Event(), threading.Event()

    def block() -> None:
        busy.set()
        assert go_on.wait(DEADLINE)

    with ThreadPoolExecutor(1) as executor:
        executor.submit(block)
        assert busy.wait(DEADLINE)
        try:
            client = ClientConn(
                listener.getsockname(),
                registry=MessageRegistry(),
                executor=executor,
                on_connect=lambda conn: order.add("connect"),
                on_close=lambda conn, reason: order.add("close"),
            )
            client.start()
            with Peer.accept(listener) as peer:
                assert client.wait_connected(DEADLINE)
                if ending == "reset":
                    peer.reset()
                elif ending != "fin":
                    getattr(client, ending)()
            assert wait_until(lambda: client.state is not ConnectionState.OPEN)
        finally:
            go_on.set()
        assert client.wait_closed(DEADLINE) is not None
    assert order.items == ["connect", "close"]


class InterruptingClock(SystemClock):
    """The system's, and something that happens when it is next looked at: between any two lines."""

    def __init__(self) -> None:
        self.interrupt: Callable[[], object] | None = None

    def monotonic(self) -> float:
        if self.interrupt is not None:
            self.interrupt()
        return super().monotonic()


@pytest.mark.parametrize("verb", ["close", "abort"])
def test_nor_is_there_if_it_is_closed_in_the_moment_in_which_it_opens(
    listener: socket.socket, verb: str
) -> None:
    order: Calls[str] = Calls()
    clock = InterruptingClock()
    reactor = Reactor(clock=clock)
    client = ClientConn(
        listener.getsockname(),
        registry=MessageRegistry(),
        reactor=reactor,
        on_connect=lambda conn: order.add("connect"),
        on_close=lambda conn, reason: order.add("close"),
    )

    def interrupt() -> None:
        if client.state is ConnectionState.OPEN:
            clock.interrupt = None
            getattr(client, verb)()
            interrupted.set()

    interrupted = threading.Event()
    clock.interrupt = interrupt
    thread = threading.Thread(target=reactor.run)
    thread.start()
    try:
        client.start()
        with Peer.accept(listener) as peer:
            assert peer.is_cut_off()
        assert client.wait_closed(DEADLINE) is not None
    finally:
        reactor.stop()
        thread.join()
        reactor.close()
    assert interrupted.is_set(), "it has been open"
    assert order.items in ([], ["connect", "close"])


def test_a_handler_that_raises_costs_one_connection(listener: socket.socket) -> None:
    registry = MessageRegistry()

    def fail(_context: Context[bytes], _conn: WriteCloser) -> None:
        raise RuntimeError("boom")

    registry.register(7, as_bytes, fail)
    with Client(listener.getsockname(), registry=registry) as client:
        for round_number in range(1, 4):
            with Peer.accept(listener) as peer:
                peer.send_frame(7)
                assert peer.receive_to_end() == b""
            client.closed.wait(round_number)
        assert {str(error) for error in client.errors.items} == {"boom"}


def test_without_backoff_there_is_one_attempt(listener: socket.socket) -> None:
    with Client(listener.getsockname(), reconnect=None) as client:
        Peer.accept(listener).close()
        assert client.ended().cause is CloseCause.PEER_CLOSED
    with Client(closed_port(), reconnect=None) as client:
        assert isinstance(client.ended().error, ConnectionRefusedError)
        assert len(client.errors) == 1


# -- the end ------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["close", "abort"])
def test_closing_it_between_two_attempts_is_final(verb: str) -> None:
    with Client(closed_port(), reconnect=NEVER) as client:
        client.waits()
        before = time.monotonic()
        getattr(client.conn, verb)()
        reason = client.ended()
        assert time.monotonic() - before < DEADLINE / 2
        assert reason.cause is (CloseCause.CLOSED if verb == "close" else CloseCause.ABORTED)
        assert reason.error is None
        assert client.conn.state is ConnectionState.CLOSED
        with pytest.raises(ConnectionClosedError):
            client.conn.wait_connected(DEADLINE)
        with pytest.raises(ConnectionClosedError):
            client.conn.write(Sample(5))
        assert len(client.errors) == 1
    assert len(client.connected) == len(client.closed) == 0


def test_closing_it_while_it_connects_is_final() -> None:
    """A backlog that is full leaves the SYN without an answer; on systems that do so."""
    with ExitStack() as stack:
        sock = stack.enter_context(socket.socket())
        sock.bind(LOCAL)
        sock.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(sock.getsockname())
        client = stack.enter_context(Client(sock.getsockname()))
        if client.conn.wait_connected(0.05):
            pytest.skip("this system accepts more than it was asked to")
        client.conn.close()
        assert client.ended().cause is CloseCause.CLOSED
        assert len(client.errors) == len(client.connected) == len(client.closed) == 0


def test_closing_it_while_a_name_is_looked_up_is_final(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, answer = threading.Event(), threading.Event()

    def resolve() -> list[tuple[str, int]]:
        asked.set()
        assert answer.wait(DEADLINE)
        return [address]

    address = closed_port()
    with resolver(monkeypatch, resolve), Client(NAME) as client:
        assert asked.wait(DEADLINE)
        client.conn.close()
        assert client.ended().cause is CloseCause.CLOSED
        answer.set()
    assert len(client.connected) == len(client.errors) == 0


@pytest.mark.parametrize("callback", ["on_connect", "on_close", "on_error", "handler"])
def test_a_callback_may_close_it_for_good(listener: socket.socket, callback: str) -> None:
    registry = MessageRegistry()
    ended: Calls[CloseReason] = Calls()

    def handle(_context: Context[bytes], conn: WriteCloser) -> None:
        if callback == "handler":
            conn.close()
        raise RuntimeError("boom")

    def on_close(conn: ClientConn, reason: CloseReason) -> None:
        ended.add(reason)
        if callback == "on_close":
            conn.close()

    registry.register(7, as_bytes, handle)
    conn = ClientConn(
        listener.getsockname(),
        registry=registry,
        reconnect=QUICK,
        on_connect=lambda conn: conn.close() if callback == "on_connect" else None,
        on_close=on_close,
        on_error=lambda conn, error: conn.close() if callback == "on_error" else None,
    )
    conn.start()
    with Peer.accept(listener) as peer:
        peer.send_frame(7)
        assert peer.receive_to_end() == b""
        peer.close()
        assert conn.wait_closed(DEADLINE) == ended.wait()[0]
    assert len(ended) == 1
    listener.settimeout(0.05)
    with pytest.raises(TimeoutError):
        listener.accept()


def test_closing_it_at_any_moment_ends_it(listener: socket.socket) -> None:
    """Whatever it is about: connecting, connected, on its way out, waiting for the next attempt."""
    stop = threading.Event()

    def serve() -> None:
        listener.settimeout(0.05)
        while not stop.is_set():
            try:
                listener.accept()[0].close()
            except TimeoutError:
                pass

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        for index in range(50):
            with Client(
                listener.getsockname(), reconnect=Backoff(first=0.001, maximum=0.002, stable=0.0)
            ) as client:
                time.sleep(index * 0.0002)  # another moment each time; any will do
                client.conn.close()
                client.ended()
                count = len(client.connected)
                assert len(client.closed) == count
    finally:
        stop.set()
        thread.join()


def test_waiting_for_a_connection_while_the_last_one_ends(listener: socket.socket) -> None:
    """It is on its way out, and the next one will come: nothing has been lost for good."""
    let_go = threading.Event()
    closing: Calls[int] = Calls()

    def on_close(conn: ClientConn, _reason: CloseReason) -> None:
        closing.add(conn.net_id)
        assert let_go.wait(DEADLINE)

    with Client(listener.getsockname(), on_close=on_close) as client:
        Peer.accept(listener).close()
        closing.wait()
        try:
            assert client.conn.state is ConnectionState.CLOSED
            assert client.conn.wait_connected(0.01) is False
        finally:
            let_go.set()
        with Peer.accept(listener):
            assert client.conn.wait_connected(DEADLINE) is True


# -- what stays and what does not ----------------------------------------------------------------


def test_what_belongs_to_the_client_stays(listener: socket.socket) -> None:
    with Client(listener.getsockname()) as client:
        client.conn.set_context_value("user", "ada")
        with Peer.accept(listener) as peer:
            assert client.conn.wait_connected(DEADLINE)
            client.conn.set_context_value("room", 7)
            client.conn.set_codec(LineCodec())
            client.conn.write(Sample(5, b"as a line"))
            assert peer.receive(10) == b"as a line\n"
        with Peer.accept(listener) as peer:
            client.connected.wait(2)
            assert client.conn.context_value("user") == "ada"
            assert client.conn.context_value("room") == 7
            client.conn.write(Sample(5, b"still one"))
            assert peer.receive(10) == b"still one\n"
            assert client.conn.remote_address == listener.getsockname()
            assert client.conn.local_address == peer.sock.getpeername()


def test_kept_timers_stay_and_the_others_go(listener: socket.socket) -> None:
    kept: Calls[float] = Calls()
    single: Calls[float] = Calls()
    other: Calls[float] = Calls()
    with Client(listener.getsockname()) as client:
        with Peer.accept(listener):
            assert client.conn.wait_connected(DEADLINE)
            timer_id = client.conn.run_every(0.01, lambda now, conn: kept.add(now), keep=True)
            client.conn.run_every(0.01, lambda now, conn: other.add(now))
            client.conn.run_after(3600.0, lambda now, conn: other.add(now))
            other.wait(2)
            kept.wait(2)
        client.closed.wait()
        gone = len(other)
        client.conn.run_after(0.01, lambda now, conn: single.add(now), keep=True)
        with Peer.accept(listener):
            client.connected.wait(2)
            kept.wait(len(kept) + 3)
            single.wait()
            assert len(other) == gone
            assert client.conn.cancel_timer(timer_id)
            assert not client.conn.cancel_timer(timer_id)
    assert len(single) == 1


def test_kept_timers_run_without_a_connection() -> None:
    kept: Calls[ClientConn] = Calls()
    with Client(closed_port(), reconnect=NEVER) as client:
        client.waits()
        client.conn.run_every(0.005, lambda now, conn: kept.add(conn), keep=True)
        assert kept.wait(3)[0] is client.conn
        client.conn.close()
        client.ended()
    count = len(kept)
    assert client.conn.run_after(0.0, lambda now, conn: kept.add(conn), keep=True)
    assert len(kept) == count


def test_kept_timers_survive_an_end_that_takes_its_time(listener: socket.socket) -> None:
    """They expire while on_close runs, too: that turn may be late, but not the last."""
    kept: Calls[float] = Calls()
    single: Calls[float] = Calls()
    closing: Calls[int] = Calls()

    def on_close(conn: ClientConn, _reason: CloseReason) -> None:
        if not len(closing):
            conn.run_after(0.001, lambda now, conn: single.add(now), keep=True)
            time.sleep(0.1)  # much longer than either timer takes to expire
        closing.add(1)

    with Client(listener.getsockname(), on_close=on_close) as client:
        with Peer.accept(listener):
            assert client.conn.wait_connected(DEADLINE)
            client.conn.run_every(0.01, lambda now, conn: kept.add(now), keep=True)
            kept.wait(2)
        closing.wait()
        with Peer.accept(listener):
            client.connected.wait(2)
            kept.wait(len(kept) + 3)
            assert len(single.wait()) == 1


def test_a_kept_timer_that_raises_without_a_connection_does_not_disturb_the_attempts(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The error policy closes a connection; where there is none, the next attempt stays due."""
    with ManualLoop() as loop:
        client = Client(
            closed_port(), reactor=loop.reactor, reconnect=Backoff(first=10.0, jitter=0)
        )
        loop.add(client.conn)
        ran: Calls[int] = Calls()

        def write(_now: float, conn: ClientConn) -> None:
            ran.add(1)
            conn.write(Sample(5))  # which raises ConnectionClosedError

        client.conn.run_every(1.0, write, keep=True)
        with caplog.at_level(logging.INFO, "tao"):
            client.conn.start()
            loop.until(lambda: delays_of(caplog.records))
            for count in range(1, 6):
                loop.advance(1.0)
                loop.until(partial(has, ran, count))
            loop.settle()
            assert delays_of(caplog.records) == [10.0]
            loop.advance(5.1)
            loop.until(lambda: len(delays_of(caplog.records)) >= 2)
            assert delays_of(caplog.records) == [10.0, 16.0]
        client.conn.close()
        loop.until(lambda: client.conn.wait_closed(0.0))
        loop.advance(1.0)
        assert loop.reactor.statistics().timeouts_waiting == 0


# -- what is written while there is no connection ------------------------------------------------


def test_what_is_written_meanwhile_arrives_in_order() -> None:
    address = closed_port()
    with Client(address, offline_limit=1_000_000) as client:
        client.waits()
        for index in range(1000):
            assert client.conn.write(Sample(5, b"%d" % index)) is True
        with listen_again(address) as listener, Peer.accept(listener) as peer:
            client.connected.wait()
            for index in range(1000, 2000):
                client.conn.write(Sample(5, b"%d" % index))
            assert peer.receive_frames(2000) == [(5, b"%d" % index) for index in range(2000)]


def test_and_so_it_does_while_another_thread_goes_on_writing(listener: socket.socket) -> None:
    """Through several connections; what is lost with one of them leaves a gap, and no disorder."""
    stop = threading.Event()

    def write() -> None:
        index = 0
        while not stop.is_set():
            try:
                client.conn.write(Sample(5, b"%d" % index))
            except WouldBlockError:
                time.sleep(0.001)
            else:
                index += 1
                if index % 50 == 0:
                    time.sleep(0.001)  # the other threads are to have their share

    received: list[int] = []
    with Client(listener.getsockname(), offline_limit=100_000) as client:
        writer = threading.Thread(target=write)
        writer.start()
        try:
            for _ in range(5):
                with Peer.accept(listener) as peer:
                    received += [int(value) for _, value in peer.receive_frames(500)]
                    peer.reset()
        finally:
            stop.set()
            writer.join()
    assert received == sorted(set(received))
    assert len(received) == 2500


class Slow:
    """A message, and what happens to its connection while it is being encoded."""

    message_number = 5

    def __init__(self, meanwhile: Callable[[], object]) -> None:
        self._meanwhile = meanwhile

    def serialize(self) -> bytes:
        self._meanwhile()
        return b"in between"


def test_a_connection_that_is_lost_in_the_middle_of_a_write_is_none(
    listener: socket.socket,
) -> None:
    """It was open when `write` looked: the message is kept for the next one all the same."""
    with Client(listener.getsockname(), offline_limit=1000) as client:
        peer = Peer.accept(listener)
        client.connected.wait()

        def lose() -> None:
            if peer.sock.fileno() >= 0:  # it may be encoded again, for the next connection
                peer.reset()
            assert wait_until(lambda: client.conn.state is not ConnectionState.OPEN)

        assert client.conn.write(Slow(lose)) is True
        with Peer.accept(listener) as again:
            assert again.receive_frame() == (5, b"in between")


def test_over_the_limit_nothing_is_queued() -> None:
    address = closed_port()
    with Client(address, offline_limit=100) as client:
        client.waits()
        for index in range(10):  # of 8 + 2 bytes each
            client.conn.write(Sample(5, b"%02d" % index))
        with pytest.raises(WouldBlockError, match="limit is 100"):
            client.conn.write(Sample(5))
        listener = listen_again(address)
        with listener, Peer.accept(listener) as peer:
            listener.close()
            assert peer.receive_frames(10) == [(5, b"%02d" % index) for index in range(10)]
            client.connected.wait()
            client.conn.write(Sample(5, bytes(1000)))  # the limit is for what waits offline
            assert peer.receive_frame() == (5, bytes(1000))
        client.closed.wait()
        client.conn.write(Sample(5, bytes(92)))  # there is room for another hundred bytes
        with pytest.raises(WouldBlockError):
            client.conn.write(Sample(5))
        listener = listen_again(address)
        with listener, Peer.accept(listener) as peer:
            assert peer.receive_frame() == (5, bytes(92))


@pytest.mark.parametrize("reconnect", [NEVER, None])
def test_without_a_limit_there_is_no_writing_without_a_connection(
    reconnect: Backoff | None,
) -> None:
    client = Client(closed_port(), reconnect=reconnect)
    with pytest.raises(ConnectionClosedError):
        client.conn.write(Sample(5))
    with client:
        client.errors.wait()
        with pytest.raises(ConnectionClosedError):
            client.conn.write(Sample(5))


def test_what_waited_and_was_never_sent_is_counted() -> None:
    with Client(closed_port(), offline_limit=1000, reconnect=NEVER) as client:
        client.waits()
        client.conn.write(Sample(5, b"never sent"))
        client.conn.close()
        with pytest.raises(ConnectionClosedError):
            client.conn.write(Sample(5))
        reason = client.ended()
    assert reason.unsent == len(frame(5, b"never sent"))
    assert not reason.clean


def test_a_limit_that_makes_no_sense() -> None:
    with pytest.raises(ValueError, match="offline_limit"):
        ClientConn(("127.0.0.1", 1), offline_limit=-1)


# -- how long it waits ---------------------------------------------------------------------------


def delays_of(records: list[logging.LogRecord]) -> list[float]:
    """The waits that were logged, in seconds."""
    return [
        record.args[1]
        for record in records
        if isinstance(record.args, tuple)
        and len(record.args) == 2
        and isinstance(record.args[1], float)
        and "trying again" in record.msg
    ]


class Attempts:
    """A client whose attempts are accepted by a listening socket, on a manual loop's time."""

    def __init__(self, backoff: Backoff) -> None:
        self.loop = ManualLoop()
        self.listener = socket.create_server(LOCAL)
        self.listener.setblocking(False)
        self.client = Client(
            self.listener.getsockname(), reactor=self.loop.reactor, reconnect=backoff
        )
        self.loop.add(self.client.conn)
        self._accepted: list[socket.socket] = []

    def _look(self) -> bool:
        try:
            self._accepted.append(self.listener.accept()[0])
        except BlockingIOError:
            pass
        return bool(self._accepted)

    def accept(self, *, stay: float) -> None:
        """Accept the attempt that is due, and end the connection when it is `stay` seconds old."""
        closed = len(self.client.closed)
        self.loop.until(self._look)
        with self._accepted.pop():
            self.loop.until(lambda: self.client.conn.state is ConnectionState.OPEN)
            self.loop.settle()
            self.loop.advance(stay)
        self.loop.until(lambda: len(self.client.closed) > closed)
        self.loop.until(lambda: self.client.conn.state is ConnectionState.CONNECTING)

    def check_delay(self, seconds: float) -> None:
        """The next attempt comes after so long, and not before."""
        self.loop.advance(seconds - 0.01)
        assert not self._look(), f"before {seconds} seconds have passed"
        self.loop.advance(0.02)

    def __enter__(self) -> Attempts:
        self.loop.__enter__()
        self.client.conn.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        try:
            self.loop.__exit__(*exception)
        finally:
            self.listener.close()


def test_the_waits_grow_although_the_server_accepts() -> None:
    """One that accepts and closes at once is not well: only `stable` seconds start the count again."""
    backoff = Backoff(first=1.0, factor=2.0, maximum=6.0, jitter=0.0, stable=5.0)
    with Attempts(backoff) as attempts:
        attempts.accept(stay=0.0)
        for delay in (1.0, 2.0, 4.0, 6.0, 6.0):
            attempts.check_delay(delay)
            attempts.accept(stay=4.9)
        attempts.check_delay(6.0)
        attempts.accept(stay=5.0)
        for delay in (1.0, 2.0):
            attempts.check_delay(delay)
            attempts.accept(stay=0.0)


def test_a_stable_time_of_nothing_counts_every_connection() -> None:
    backoff = Backoff(first=1.0, factor=2.0, jitter=0.0, stable=0.0)
    with Attempts(backoff) as attempts:
        attempts.accept(stay=0.0)
        for _ in range(3):
            attempts.check_delay(1.0)
            attempts.accept(stay=0.0)


def test_attempts_that_are_refused_wait_longer_and_longer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    backoff = Backoff(first=0.001, factor=2.0, maximum=0.005, jitter=0.0)
    with caplog.at_level(logging.INFO, "tao"), Client(closed_port(), reconnect=backoff) as client:
        client.waits(6)
        assert wait_until(lambda: len(delays_of(caplog.records)) >= 5)
        assert delays_of(caplog.records)[:5] == [0.001, 0.002, 0.004, 0.005, 0.005]


def test_between_two_attempts_one_timer_is_all_there_is() -> None:
    with ManualLoop() as loop:
        client = Client(
            closed_port(),
            reactor=loop.reactor,
            reconnect=Backoff(first=1.0, factor=1.0, jitter=0.0),
        )
        loop.add(client.conn)
        client.conn.start()
        loop.until(lambda: len(client.errors))
        for round_number in range(1, 20):
            loop.until(partial(has, client.errors, round_number))
            loop.settle()
            loop.clock.advance(0.9)  # for the worker's own time-outs to be over
            loop.settle()
            assert loop.reactor.statistics().timeouts_waiting == 1
            assert loop.reactor.statistics().channels == 0
            loop.advance(0.2)


# -- names ---------------------------------------------------------------------------------------

NAME = ("service.test", 4)


@contextmanager
def resolver(
    monkeypatch: pytest.MonkeyPatch, resolve: Callable[[], list[tuple[str, int]]]
) -> Iterator[None]:
    """Have NAME looked up by `resolve`: no test can ask the world's name servers."""
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
        if host != NAME[0]:
            return real(host, port, *arguments, **options)
        if options.get("flags", 0) & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "a name is no number")
        return [
            (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", address)
            for address in resolve()
        ]

    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", getaddrinfo)
        yield


def test_a_name_is_looked_up_for_every_attempt(
    monkeypatch: pytest.MonkeyPatch, listener: socket.socket
) -> None:
    """The service has moved: a client that remembers where it was would never find it again."""
    addresses: list[tuple[str, int]] = [listener.getsockname()]
    asked: Calls[int] = Calls()

    def resolve() -> list[tuple[str, int]]:
        asked.add(1)
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "it is gone")
        return list(addresses)

    with resolver(monkeypatch, resolve), Client(NAME) as client:
        with Peer.accept(listener):
            client.connected.wait(1)
            addresses.clear()
        client.waits(2)
        assert all(isinstance(error, socket.gaierror) for error in client.errors.items)
        with socket.create_server(LOCAL) as elsewhere:
            addresses.append(elsewhere.getsockname())
            with Peer.accept(elsewhere) as peer:
                client.connected.wait(2)
                client.conn.write(Sample(5, b"found you"))
                assert peer.receive_frame() == (5, b"found you")
        assert len(asked) >= 4


def test_all_addresses_of_a_name_are_tried_each_time(
    monkeypatch: pytest.MonkeyPatch, listener: socket.socket
) -> None:
    addresses = [closed_port(), closed_port(), listener.getsockname()]
    with resolver(monkeypatch, lambda: addresses), Client(NAME) as client:
        for round_number in range(1, 4):
            with Peer.accept(listener):
                client.connected.wait(round_number)
        assert client.errors.items == [], "it is an error only when none of them answers"


# -- TLS -----------------------------------------------------------------------------------------


def test_over_tls_too(certificates: Certificates) -> None:
    address = closed_port()
    tls = load_server_tls(certificates.server_file)
    with Client(address, tls=load_client_tls(certificates.ca_file)) as client:
        client.waits()
        for round_number in range(1, 4):
            with echo_server(tls=tls).running(listen_again(address)):
                client.connected.wait(round_number)
                client.conn.write(Sample(ECHO, b"%d" % round_number))
                assert client.replies.wait(round_number)[-1] == b"%d" % round_number
            assert client.closed.wait(round_number)[-1].error is None


def test_after_a_handshake_that_failed(listener: socket.socket, certificates: Certificates) -> None:
    tls = load_client_tls(certificates.ca_file)
    context = peer_context(certificates, server_side=True)
    with Client(listener.getsockname(), tls=tls, offline_limit=1000) as client:
        client.conn.write(Sample(5, b"patience"))
        with Peer.accept(listener) as peer:
            peer.send(b"this is no handshake\n")
            client.waits(1)
        Peer.accept(listener).close()
        client.waits(2)
        with TlsPeer.accept(listener, context) as secure:
            secure.handshake()
            assert client.connected.wait() == [client.conn.net_id]
            assert secure.receive(16) == frame(5, b"patience")
        reason = client.closed.wait()[0]
        assert isinstance(reason.error, TlsTruncationError)
        with TlsPeer.accept(listener, context) as secure:
            secure.handshake()
            client.connected.wait(2)


def test_what_is_written_during_the_handshake_waits(
    listener: socket.socket, certificates: Certificates
) -> None:
    tls = load_client_tls(certificates.ca_file)
    with Client(listener.getsockname(), tls=tls, offline_limit=1000) as client:
        assert wait_until(lambda: client.conn.state is ConnectionState.HANDSHAKING)
        client.conn.write(Sample(5, b"early"))
        with TlsPeer.accept(listener, peer_context(certificates, server_side=True)) as peer:
            peer.handshake()
            assert peer.receive(13) == frame(5, b"early")


# -- many ----------------------------------------------------------------------------------------


@contextmanager
def loop_thread() -> Iterator[Reactor]:
    """A reactor on a thread of its own."""
    reactor = Reactor()
    thread = threading.Thread(target=reactor.run, name="test-loop")
    thread.start()
    try:
        yield reactor
    finally:
        reactor.stop()
        thread.join()
        reactor.close()


def test_on_a_loop_that_they_share(listener: socket.socket) -> None:
    with loop_thread() as reactor:
        threads, open_before = set(threading.enumerate()), descriptors()
        address = listener.getsockname()
        with Client(address, reactor=reactor) as first, Client(address, reactor=reactor) as second:
            for round_number in range(1, 6):
                with Peer.accept(listener), Peer.accept(listener):
                    first.connected.wait(round_number)
                    second.connected.wait(round_number)
            first.conn.close()
            first.ended()
            count = len(second.connected)
            Peer.accept(listener).close()
            second.connected.wait(count + 1)
        assert reactor.running
        assert wait_until(lambda: set(threading.enumerate()) == threads)
        assert wait_until(lambda: reactor.statistics().timeouts_waiting == 0)
        assert reactor.statistics().channels == 0
        assert descriptors() == open_before


def test_nothing_gathers_over_many_connections(listener: socket.socket) -> None:
    backoff = Backoff(first=0.001, maximum=0.002)
    with Client(listener.getsockname(), reconnect=backoff) as client:
        held: list[tuple[int, int]] = []
        for round_number in range(1, 31):
            with Peer.accept(listener):
                client.connected.wait(round_number)
                held.append((len(descriptors()), threading.active_count()))
        # The first workers that park make what they are called by: two descriptors, once.
        assert max(held[10:]) == min(held[10:])


def test_clients_that_share_one_thread_do_not_wait_for_each_others_pools() -> None:
    """A pool may keep a thread of its own for its next job, but not one that others wait for."""
    count, rounds = 40, 5
    closed: Calls[CloseReason] = Calls()
    seen: Calls[bytes] = Calls()
    registry = MessageRegistry()
    registry.register(REPLY, as_bytes, lambda context, conn: seen.add(context.message))
    with (
        echo_server().running(LOCAL) as address,
        ThreadPoolExecutor(1) as executor,
        loop_thread() as reactor,
    ):
        clients = [
            ClientConn(
                address,
                registry=registry,
                reactor=reactor,
                executor=executor,
                on_close=lambda conn, reason: closed.add(reason),
            )
            for _ in range(count)
        ]
        for client in clients:
            client.start()
        for client in clients:
            assert client.wait_connected(DEADLINE)
        before = time.monotonic()
        for round_number in range(1, rounds + 1):
            for client in clients:
                client.write(Sample(ECHO))
            seen.wait(count * round_number, timeout=2 * DEADLINE)
        took = time.monotonic() - before
        for client in clients:
            client.close()
        closed.wait(count)
        for client in clients:
            client.wait_closed(DEADLINE)
    # 200 replies; a twentieth of a second for each of them would be ten seconds.
    assert took < 3.0


class Counter:
    """A client that sends the numbers from 0, each when the one before has been acknowledged.

    What has not been acknowledged when a connection ends is sent again on the next.
    """

    def __init__(self, number: int, address: Any, **arguments: Any) -> None:
        self.number = number
        self.acknowledged = 0
        registry = MessageRegistry()
        registry.register(REPLY, as_bytes, self._handle_reply)
        self.conn = ClientConn(address, registry=registry, **arguments)

    def send(self) -> None:
        try:
            self.conn.write(Sample(ECHO, b"%d %d" % (self.number, self.acknowledged)))
        except ConnectionClosedError:
            pass  # then it is on_connect that sends it again

    def _handle_reply(self, context: Context[bytes], _conn: WriteCloser) -> None:
        assert context.message == b"%d %d" % (self.number, self.acknowledged)
        self.acknowledged += 1
        self.conn.run_after(0.05, lambda now, conn: self.send())


COUNTER = ContextKey[Counter]("counter")


def all_have_counted_on(counters: list[Counter], before: list[int]) -> bool:
    return all(
        counter.acknowledged > count for counter, count in zip(counters, before, strict=True)
    )


COUNTERS = 100
WAVES = 10


def test_a_hundred_clients_find_their_server_again_and_again(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was acknowledged was delivered, once; and they do not come back all at the same moment."""
    delivered: defaultdict[int, list[int]] = defaultdict(list)

    def deliver(context: Context[bytes], _conn: WriteCloser) -> Sample:
        client, count = map(int, context.message.split())
        delivered[client].append(count)
        return Sample(REPLY, context.message)

    registry = MessageRegistry()
    registry.register(ECHO, as_bytes, deliver)
    connected: Calls[float] = Calls()
    closed: Calls[float] = Calls()
    failures: Calls[BaseException] = Calls()

    def on_connect(conn: ClientConn) -> None:
        connected.add(time.monotonic())
        counter = conn.context_value(COUNTER)
        assert counter is not None
        counter.send()

    def on_error(_conn: ClientConn, error: BaseException) -> None:
        if not isinstance(error, OSError):
            failures.add(error)

    address = closed_port()
    stopped_at: list[float] = []
    with caplog.at_level(logging.INFO, "tao"), loop_thread() as reactor:
        counters = [
            Counter(
                number,
                address,
                reactor=reactor,
                # Every connection starts the count again, so that each wave begins alike.
                reconnect=Backoff(first=0.05, maximum=0.2, stable=0.0),
                on_connect=on_connect,
                on_close=lambda conn, reason: closed.add(time.monotonic()),
                on_error=on_error,
            )
            for number in range(COUNTERS)
        ]
        try:
            for wave in range(1, WAVES + 1):
                with Server(registry=registry).running(listen_again(address)):
                    if wave == 1:
                        for counter in counters:
                            counter.conn.set_context_value(COUNTER, counter)
                            counter.conn.start()
                    connected.wait(wave * COUNTERS)
                    before = [counter.acknowledged for counter in counters]
                    assert wait_until(partial(all_have_counted_on, counters, before))
                    stopped_at.append(time.monotonic())
                closed.wait(wave * COUNTERS)
        finally:
            for counter in counters:
                counter.conn.close()
            for counter in counters:
                counter.conn.wait_closed(DEADLINE)
    assert failures.items == []
    assert len(connected) == len(closed) == WAVES * COUNTERS
    for counter in counters:
        assert counter.acknowledged >= WAVES
        assert delivered[counter.number] == list(range(counter.acknowledged))

    firsts = first_delays(caplog.records)
    with capsys.disabled():
        report(stopped_at, connected.items, firsts)
    for delays in firsts:
        assert min(delays) >= 0.04
        assert max(delays) <= 0.06
        assert statistics.pstdev(delays) > 0.002, "evenly spread it would be 0.0058"
    for one, other in pairwise(firsts):
        assert abs(statistics.correlation(one, other)) < 0.6, "each wave's chances are its own"


def first_delays(records: list[logging.LogRecord]) -> list[list[float]]:
    """Of each wave, what each client waited before its first attempt, in the order of the clients."""
    by_client: defaultdict[int, list[float]] = defaultdict(list)
    for record in records:
        if delays := delays_of([record]):
            assert isinstance(record.args, tuple)
            client = record.args[0]
            assert isinstance(client, ClientConn)
            if delays[0] < 0.062:  # the second is from 0.064 on
                by_client[client.net_id] += delays
    assert len(by_client) == COUNTERS
    # After the last stop some have been closed before they came to wait.
    assert all(len(waits) in (WAVES - 1, WAVES) for waits in by_client.values())
    return [[waits[wave] for waits in by_client.values()] for wave in range(WAVES - 1)]


def report(stopped_at: list[float], connected_at: list[float], firsts: list[list[float]]) -> None:
    """How long each wave took to come back, for who runs the tests by hand."""
    print("\n  seconds from a stop to the return of each of 100 clients; first waits")
    for wave, stopped in enumerate(stopped_at[:-1], 1):
        times = [at - stopped for at in connected_at[wave * COUNTERS : (wave + 1) * COUNTERS]]
        waits = firsts[wave - 1]
        print(
            f"  {min(times):.3f} to {max(times):.3f}, median {statistics.median(times):.3f}, "
            f"deviation {statistics.pstdev(times):.3f}; "
            f"waits {min(waits):.3f} to {max(waits):.3f}, deviation {statistics.pstdev(waits):.4f}"
        )
