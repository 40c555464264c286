"""What Tao 1.6 has and this has, and what it does not have of it: one short check each.

The first half goes with the design's table "Every feature of Tao 1.6, and what it is here", row by row;
the second with its list of defects that must not come along. Each docstring has the words of its row. The
features themselves are tested where they live; this shows that none of them is missing.
"""

from __future__ import annotations

import inspect
import json
import logging
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from reactor import Reactor, Timeout, TimingWheel
from tao import (
    AtomicBoolean,
    AtomicInt32,
    AtomicInt64,
    Backoff,
    ClientConn,
    CloseCause,
    CloseReason,
    ConnectionClosedError,
    ConnectionMap,
    ConnectionOptions,
    Context,
    ContextKey,
    DataSource,
    Heartbeat,
    HeartBeatMessage,
    LengthPrefixedCodec,
    LineCodec,
    Message,
    MessageRegistry,
    Server,
    ServerConn,
    UndefinedMessageError,
    Watermark,
    WriteCloser,
    default_registry,
    load_client_tls,
    load_server_tls,
    monitor_on,
    register,
)
from tao.codec import Frame, Header
from tests.support import (
    DEADLINE,
    LOCAL,
    Calls,
    ManualClock,
    Peer,
    Sample,
    as_bytes,
    frame,
    wait_until,
)
from tests.tao.conftest import ends_and_leaves_nothing, real_stderr  # noqa: F401 - fixtures
from tests.tao.crowd import crowd, fill
from tests.tls_support import Certificates

ROOT = Path(__file__).resolve().parents[1]

ROWS, DEFECTS = 19, 12


@dataclass(frozen=True)
class Chat:
    """A message as an application writes it: no base class."""

    text: str
    message_number: ClassVar[int] = 1

    def serialize(self) -> bytes:
        """UTF-8."""
        return self.text.encode()

    @classmethod
    def deserialize(cls, data: bytes) -> Chat:
        """UTF-8."""
        return cls(data.decode())


def echo_registry() -> MessageRegistry:
    """Message 1 echoes."""
    registry = MessageRegistry()
    registry.register(1, as_bytes, lambda context, conn: Sample(1, context.message))
    return registry


def listens(address: Any) -> bool:
    """Whether somebody does."""
    try:
        Peer(address).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


def test_every_row_and_every_defect_has_its_check() -> None:
    names = " ".join(globals())
    for kind, count in (("row", ROWS), ("defect", DEFECTS)):
        numbers = {int(number) for number in re.findall(rf"\btest_{kind}_(\d\d)_", names)}
        assert numbers == set(range(1, count + 1))


# -- the table -----------------------------------------------------------------------------------


def test_row_01_server_and_connections() -> None:
    """Server, ServerConn, ClientConn, WriteCloser: the same names."""
    kinds: Calls[str] = Calls()
    registry = MessageRegistry()

    def handle(context: Context[Chat], conn: WriteCloser) -> Chat | None:
        kinds.add(type(conn).__name__)
        return context.message if isinstance(conn, ServerConn) else None

    registry.register(1, Chat.deserialize, handle)
    server = Server(registry=registry)
    with server.running(LOCAL) as address, ClientConn(address, registry=registry) as client:
        client.write(Chat("hello"))
        assert kinds.wait(2) == ["ServerConn", "ClientConn"]


def test_row_02_reading_writing_and_handling_are_asynchronous() -> None:
    """Asynchronous reading, writing, handling; worker pool; WorkerSizeOption, BufferSizeOption: loop and
    pool; `worker_size`, `buffer_size`."""
    together = threading.Barrier(3)
    release = threading.Event()
    handled: Calls[bytes] = Calls()
    registry = MessageRegistry()

    def block(context: Context[bytes], _conn: WriteCloser) -> None:
        if not context.message:
            together.wait(DEADLINE)
            assert release.wait(DEADLINE)
        handled.add(context.message)

    registry.register(1, as_bytes, block)
    registry.register(2, as_bytes, lambda context, conn: Sample(2), inline=True)
    server = Server(registry=registry, worker_size=2, buffer_size=4)
    with server.running(LOCAL) as address, ExitStack() as stack:
        first, second, third = (stack.enter_context(Peer(address)) for _ in range(3))
        first.send_frame(1)
        second.send_frame(1)
        together.wait(DEADLINE)  # both workers are inside a handler
        first.send(b"".join(frame(1, b"%d" % number) for number in range(100)))
        third.send_frame(2)
        assert third.receive_frame() == (2, b"")  # and the loop is not
        release.set()
        assert sorted(handled.wait(102))[2:] == sorted(b"%d" % number for number in range(100))


def test_row_03_messages_are_registered_with_a_handler() -> None:
    """Register, HandlerFunc, Message, Serialize: MessageRegistry, `register`, Message."""
    registry = MessageRegistry()

    @registry.handler(Chat)
    def on_chat(context: Context[Chat], _conn: WriteCloser) -> Message | None:
        return Chat(context.message.text.upper())

    assert isinstance(Chat("x"), Message)
    with Server(registry=registry).running(LOCAL) as address, Peer(address) as peer:
        peer.send_frame(1, b"hello")
        assert peer.receive_frame() == (1, b"HELLO")

    register(4711, Chat.deserialize, on_chat)
    try:
        with Server().running(LOCAL) as address, Peer(address) as peer:
            peer.send_frame(4711, b"hello")
            assert peer.receive_frame() == (1, b"HELLO")
    finally:
        default_registry.unregister(4711)


def test_row_04_the_context_of_a_message() -> None:
    """Context: NewContextWithMessage, MessageFromContext, NetIDFromContext, ServerFromContext;
    cancellation: Context."""
    seen: Calls[tuple[bytes, int, object, object, bool]] = Calls()
    cancelled: Calls[bool] = Calls()
    registry = MessageRegistry()

    def handle(context: Context[bytes], _conn: WriteCloser) -> None:
        inner = context.with_value("user", "Ann")
        seen.add(
            (inner.message, inner.net_id, inner.server, inner.value("user"), context.cancelled)
        )
        cancelled.add(inner.wait_cancelled(DEADLINE))

    registry.register(1, as_bytes, handle)
    server = Server(registry=registry)
    with server.running(LOCAL) as address, Peer(address) as peer:
        peer.send_frame(1, b"hello")
        [(message, net_id, its_server, user, before)] = seen.wait()
        assert (message, its_server, user, before) == (b"hello", server, "Ann", False)
        server.connection(net_id).abort()
        assert cancelled.wait() == [True]


class ZeroCodec:
    """An application's own: a value ends with a zero byte; all are message 1."""

    def encode(self, message: Message) -> bytes:
        """The value must have no zero byte in it."""
        return message.serialize() + b"\0"

    def decode(self, data: bytes) -> Iterator[Frame]:
        """Up to the last zero byte."""
        start = 0
        while (stop := data.find(b"\0", start)) >= 0:
            yield 1, data[start:stop], stop + 1
            start = stop + 1

    def header(self, _data: bytes) -> Header | None:
        """It has none."""
        return None


def test_row_05_codecs() -> None:
    """TypeLengthValueCodec, CustomCodecOption, SetCodec: Codec, `codec=`, `set_codec`."""
    with Server(registry=echo_registry()).running(LOCAL) as address, Peer(address) as peer:
        peer.send(b"\x01\0\0\0\x02\0\0\0hi")  # the bytes of the default, by hand
        assert peer.receive(10) == b"\x01\0\0\0\x02\0\0\0hi"

    registry = MessageRegistry()

    def change(context: Context[bytes], conn: WriteCloser) -> Sample:
        if context.message == b"prefix":
            conn.set_codec(LengthPrefixedCodec(size=2))
        elif context.message == b"lines":
            conn.set_codec(LineCodec())
        return Sample(1, context.message)

    registry.register(1, as_bytes, change)
    server = Server(registry=registry, codec=ZeroCodec())
    with server.running(LOCAL) as address, Peer(address) as peer:
        peer.send(b"hello\0prefix\0\0\x05lines" + b"bye\n")
        assert peer.receive(24) == b"hello\0prefix\0\0\x05linesbye\n"


def test_row_06_callbacks() -> None:
    """OnConnect, OnMessage, OnClose, OnError options: `on_*`."""
    called: Calls[tuple[str, object]] = Calls()
    registry = MessageRegistry()
    registry.register(1, as_bytes)
    server = Server(
        registry=registry,
        on_connect=lambda conn: called.add(("connect", conn.net_id)),
        on_message=lambda message, conn: called.add(("message", message)),
        on_error=lambda conn, error: called.add(("error", type(error))),
        on_close=lambda conn, reason: called.add(("close", reason.cause)),
    )
    with server.running(LOCAL) as address:
        with Peer(address) as peer:
            peer.send(frame(1, b"hello") + frame(2))
            called.wait(3)
        assert called.wait(4) == [
            ("connect", 1),
            ("message", b"hello"),
            ("error", UndefinedMessageError),
            ("close", CloseCause.PEER_CLOSED),
        ]


def test_row_07_tls(certificates: Certificates) -> None:
    """TLSCredsOption, LoadTLSConfig: `tls=`, `load_server_tls`, `load_client_tls`; modern defaults
    only."""
    seen: Calls[bytes] = Calls()
    registry = MessageRegistry()
    registry.register(1, as_bytes, lambda context, conn: seen.add(context.message))
    server_tls = load_server_tls(certificates.server_file)
    client_tls = load_client_tls(certificates.ca_file)
    for context in (server_tls, client_tls):
        assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    server = Server(registry=echo_registry(), tls=server_tls)
    with server.running(LOCAL) as address:
        with ClientConn(address, registry=registry, tls=client_tls) as client:
            client.write(Sample(1, b"secret"))
            assert seen.wait() == [b"secret"]
        with Peer(address) as peer:
            peer.send_frame(1, b"in the clear")
            assert peer.is_cut_off() or peer.receive_to_end() != frame(1, b"in the clear")
        untrusting = ClientConn(address, registry=registry, tls=load_client_tls())
        untrusting.start()
        with pytest.raises(ConnectionClosedError) as caught:
            untrusting.wait_connected(DEADLINE)
        assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)


@pytest.mark.parametrize("with_tls", [False, True], ids=["plain", "TLS"])
def test_row_08_reconnecting(with_tls: bool, certificates: Certificates) -> None:
    """ReconnectOption, TLS too: `reconnect=Backoff(...)`."""
    opened: Calls[ClientConn] = Calls()
    seen: Calls[bytes] = Calls()
    registry = MessageRegistry()
    registry.register(1, as_bytes, lambda context, conn: seen.add(context.message))
    server = Server(
        registry=echo_registry(),
        tls=load_server_tls(certificates.server_file) if with_tls else None,
    )
    with server.running(LOCAL) as address:
        client = ClientConn(
            address,
            registry=registry,
            tls=load_client_tls(certificates.ca_file) if with_tls else None,
            reconnect=Backoff(first=0.01, jitter=0.0),
            on_connect=opened.add,
        )
        with client:
            for count in (1, 2, 3):
                opened.wait(count)
                client.write(Sample(1, b"%d" % count))
                seen.wait(count)
                if count < 3:
                    for conn in server.connections():
                        conn.abort()
        assert seen.items == [b"1", b"2", b"3"]


def test_row_09_heartbeat() -> None:
    """Application-level heartbeat: HeartBeatMessage, `heartbeat=`."""
    reasons: Calls[CloseReason] = Calls()
    server = Server(
        registry=MessageRegistry(),
        heartbeat=Heartbeat(interval=0.02, timeout=0.1),
        on_close=lambda conn, reason: reasons.add(reason),
    )
    with server.running(LOCAL) as address, Peer(address) as peer:
        number, value = peer.receive_frame()
        assert number == 0
        beat = HeartBeatMessage.deserialize(value)
        assert abs(beat.timestamp - time.time_ns()) < 60 * 10**9
        assert wait_until(lambda: len(reasons))  # it has said nothing itself
        assert reasons.items[0].cause is CloseCause.EXPIRED


def test_row_10_timers() -> None:
    """TimingWheel; RunAt, RunAfter, RunEvery, CancelTimer; Sched: TimingWheel; `run_*`; `schedule`."""
    fired: Calls[str] = Calls()
    wheel = TimingWheel()
    wheel.add(Timeout(lambda: fired.add("wheel")), 5)
    assert wheel.advance(4) == []
    for timeout in wheel.advance(5):
        timeout.fire()

    with crowd() as these:
        _, conn = these.join()
        called_off = conn.run_after(0.05, lambda now, conn: fired.add("called off"))
        assert conn.cancel_timer(called_off) is True
        conn.run_at(time.time() + 0.01, lambda now, conn: fired.add("at"))
        conn.run_after(0.01, lambda now, conn: fired.add("after"))
        repeated = conn.run_every(0.01, lambda now, conn: fired.add("every"))
        these.server.schedule(0.01, lambda now, conn: fired.add("scheduled"))
        wanted = ["wheel", "at", "after", "every", "every", "scheduled", "scheduled"]
        assert wait_until(
            lambda: all(fired.items.count(name) >= wanted.count(name) for name in wanted)
        )
        assert conn.cancel_timer(repeated) is True
        assert "called off" not in fired.items


def test_row_11_to_all_and_to_one() -> None:
    """Broadcast, Unicast, Conn, ConnsSize: the same, in snake case."""
    with crowd() as these:
        server = these.server
        (first, first_conn), (second, _) = these.join(), these.join()
        assert server.connection_count == 2
        assert server.connection(first_conn.net_id) is first_conn
        server.broadcast(Sample(1, b"all"))
        server.unicast(first_conn.net_id, Sample(1, b"one"))
        assert first.receive_frames(2) == [(1, b"all"), (1, b"one")]
        assert second.receive_frame() == (1, b"all")


def test_row_12_maximum_of_connections() -> None:
    """Maximum connections (1000): `max_connections`."""
    assert inspect.signature(Server).parameters["max_connections"].default == 1000
    server = Server(registry=echo_registry(), max_connections=1)
    with server.running(LOCAL) as address, Peer(address) as first:
        first.send_frame(1)
        assert first.receive_frame() == (1, b"")
        with Peer(address) as second:
            assert second.is_cut_off()


def test_row_13_data_of_ones_own() -> None:
    """Custom data on a connection; SetDBInitializer: `set_context_value`; `data_source`."""
    closed: Calls[list[str]] = Calls()

    def open_database() -> list[str]:
        return [threading.current_thread().name]

    database = DataSource(open_database, closed.add)
    registry = MessageRegistry()
    key = ContextKey[int]("count")

    def handle(_context: Context[bytes], conn: WriteCloser) -> Sample:
        count = (conn.context_value(key) or 0) + 1
        conn.set_context_value(key, count)
        assert database.get() == [threading.current_thread().name]
        return Sample(1, b"%d" % count)

    registry.register(1, as_bytes, handle)
    server = Server(registry=registry, data_source=database)
    with server.running(LOCAL) as address, Peer(address) as peer, Peer(address) as other:
        for count in (b"1", b"2", b"3"):
            peer.send_frame(1)
            assert peer.receive_frame() == (1, count)
        other.send_frame(1)
        assert other.receive_frame() == (1, b"1")
        assert len(closed) == 0
    assert len(closed) >= 1


def test_row_14_atomic_types_and_a_map() -> None:
    """Atomic types, concurrent map: AtomicInt32, AtomicInt64, AtomicBoolean, ConnectionMap."""
    count32, count64, flag = AtomicInt32(2**31 - 1), AtomicInt64(2**40), AtomicBoolean()
    names: ConnectionMap[str, int] = ConnectionMap()
    firsts: Calls[int] = Calls()

    def work(thread: int) -> None:
        for number in range(500):
            count32.increment_and_get()
            count64.add_and_get(2)
            names.put(f"{thread} {number}", number)
        if flag.compare_and_set(False, True):
            firsts.add(thread)
        names.put_if_absent("first", thread)

    with ThreadPoolExecutor(4) as executor:
        list(executor.map(work, range(4)))
    assert count32.get() == -(2**31) + 1999  # it wraps around, as an int32 does
    assert count64.get() == 2**40 + 4000
    assert flag.get()
    assert len(firsts) == 1
    assert len(names) == 2001


def test_row_15_metrics() -> None:
    """Metrics by expvar: TotalConn, TotalHandle, TotalTime, QPS; MonitorOn: `server.metrics`,
    `monitor_on`."""
    registry = MessageRegistry()

    def work(_context: Context[bytes], _conn: WriteCloser) -> None:
        time.sleep(0.01)

    registry.register(1, as_bytes, work)
    server = Server(registry=registry)
    with server.running(LOCAL) as address, Peer(address) as peer, monitor_on(0) as monitor:
        monitor.add("chat", server.metrics)
        peer.send_frame(1)
        assert wait_until(lambda: server.metrics().handled == 1)
        host, port = monitor.address[:2]
        with urllib.request.urlopen(f"http://{host}:{port}/debug/vars", timeout=DEADLINE) as reply:
            variables = json.load(reply)
        assert (variables["TotalConn"], variables["TotalHandle"]) == (1, 1)
        assert variables["TotalTime"] == server.metrics().handler_seconds >= 0.0099
        assert variables["QPS"] == pytest.approx(1 / variables["TotalTime"])


def test_row_16_logging(caplog: pytest.LogCaptureFixture) -> None:
    """Levelled logging: `logging`, loggers `tao` and `reactor`."""

    def serve_one() -> None:
        server = Server(registry=echo_registry())
        with server.running(LOCAL) as address, Peer(address) as peer:
            peer.send(frame(1) + frame(2))  # nobody knows the second
            peer.receive_frame()
            assert wait_until(lambda: server.metrics().errors)

    caplog.set_level(logging.INFO)
    serve_one()
    levels = {record.levelno for record in caplog.records}
    assert {logging.INFO, logging.WARNING} <= levels
    assert {record.name for record in caplog.records} <= {"tao", "reactor"}
    caplog.clear()
    caplog.set_level(logging.WARNING, "tao")
    serve_one()
    assert {record.levelno for record in caplog.records if record.name == "tao"} == {
        logging.WARNING
    }


def test_row_17_a_write_after_close_is_an_error() -> None:
    """Write error after close: ConnectionClosedError."""
    with crowd() as these:
        _, conn = these.join()
        conn.close()
        with pytest.raises(ConnectionClosedError):
            conn.write(Sample(1))


def test_row_17_a_connection_is_drained_before_its_end() -> None:
    """Drain before exit: DRAINING."""
    with crowd(registry=echo_registry()) as these:
        peer, conn = these.join()
        for _ in range(100):
            conn.write(Sample(1, b"x" * 10_000))
        conn.close()
        assert len(peer.receive_to_end()) == 100 * 10_008


def test_row_17_a_graceful_stop() -> None:
    """Graceful stop: `stop(grace)`."""
    begun, release = threading.Event(), threading.Event()
    registry = MessageRegistry()

    def answer(_context: Context[bytes], _conn: WriteCloser) -> Sample:
        begun.set()
        assert release.wait(DEADLINE)
        return Sample(2, b"answer")

    registry.register(1, as_bytes, answer)
    server = Server(registry=registry)
    with server.running(LOCAL) as address, Peer(address) as peer:
        peer.send_frame(1)
        assert begun.wait(DEADLINE)
        with ThreadPoolExecutor(1) as executor:
            stopping = executor.submit(server.stop, grace=DEADLINE)
            assert wait_until(lambda: not listens(address))
            release.set()
            assert peer.receive_to_end() == frame(2, b"answer")
            peer.close()
            report = stopping.result(DEADLINE)
        # One, or two: the last to find it listening may have been taken in.
        assert report.drained >= 1
        assert (report.aborted, report.finished) == (0, True)


def test_row_18_a_message_that_is_not_registered() -> None:
    """Unregistered message does not close the connection: UndefinedMessageError to `on_error`, connection
    stays."""
    errors: Calls[BaseException] = Calls()
    server = Server(registry=echo_registry(), on_error=lambda conn, error: errors.add(error))
    with server.running(LOCAL) as address, Peer(address) as peer:
        peer.send(frame(77, b"what?") + frame(1, b"still there?"))
        assert peer.receive_frame() == (1, b"still there?")
        [error] = errors.wait()
        assert isinstance(error, UndefinedMessageError)
        assert error.number == 77


@pytest.mark.parametrize("name", ["echo", "chat", "pingpong", "timer"])
def test_row_19_examples(name: str) -> None:
    """Examples: echo, chat, pingpong, timer: `python -m tao.examples.echo` ..."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-m", f"tao.examples.{name}", "demo"],
        cwd=ROOT,
        capture_output=True,
        timeout=60.0,
        check=False,
    )
    assert result.returncode == 0, result.stderr.decode()
    assert result.stdout


# -- the defects ---------------------------------------------------------------------------------


def test_defect_01_the_wheel_is_no_heap_with_a_coarse_tick() -> None:
    """A "wheel" that is a heap with a 500 ms tick."""
    wheel = TimingWheel()
    timeouts = [Timeout(lambda: None) for _ in range(1000)]
    for tick, timeout in enumerate(timeouts, 1):
        wheel.add(timeout, tick)
    for timeout in timeouts[:-1]:
        timeout.cancel()
    assert len(wheel) == 1  # what is cancelled is gone, and does not wait in a heap to be popped
    assert wheel.advance(999) == []
    assert wheel.advance(1000) == timeouts[-1:]

    clock = ManualClock()
    reactor = Reactor(clock=clock)
    try:
        fired: list[int] = []
        # Half-way between two ticks, where the rounding of what is written in decimals does not matter.
        for tick in (7, 3, 5):
            reactor.call_later((tick - 0.5) / 1000, fired.append, tick)
        clock.advance(0.0005)
        for expected in ([], [], [], [3], [3], [3, 5], [3, 5], [3, 5, 7]):
            reactor.run_once(0)
            assert fired == expected
            clock.advance(0.001)
    finally:
        reactor.close()


def test_defect_02_reconnecting_goes_on_and_the_process_too() -> None:
    """One-attempt reconnect that ends the process."""
    errors: Calls[BaseException] = Calls()
    opened: Calls[ClientConn] = Calls()
    with socket.socket() as sock:
        sock.bind(LOCAL)  # nobody listens there yet
        client = ClientConn(
            sock.getsockname(),
            registry=MessageRegistry(),
            reconnect=Backoff(first=0.01, jitter=0.0),
            on_connect=opened.add,
            on_error=lambda conn, error: errors.add(error),
        )
        client.start()
        try:
            errors.wait(4)
            assert all(isinstance(error, ConnectionRefusedError) for error in errors.items)
            sock.listen()
            opened.wait()
            assert client.wait_connected(DEADLINE) is True
        finally:
            client.close()
            sock.settimeout(DEADLINE)
            sock.accept()[0].close()
            assert client.wait_closed(DEADLINE) is not None


def test_defect_02_who_waits_for_the_connection_waits_for_the_next_attempt() -> None:
    """The same, from the side of who waits: one attempt has failed, and another will be made, so nothing
    has been decided yet."""
    failed, release = threading.Event(), threading.Event()

    def on_error(_conn: ClientConn, _error: BaseException) -> None:
        failed.set()
        assert release.wait(DEADLINE)

    with socket.socket() as sock:
        sock.bind(LOCAL)
        client = ClientConn(
            sock.getsockname(),
            registry=MessageRegistry(),
            reconnect=Backoff(first=0.01, jitter=0.0),
            on_error=on_error,
        )
        client.start()
        try:
            assert failed.wait(DEADLINE)
            assert client.wait_connected(0.05) is False
        finally:
            release.set()
            client.close()
            assert client.wait_closed(DEADLINE) is not None


def test_defect_03_every_worker_is_reached() -> None:
    """A hash that reaches 8 of 20 workers."""
    workers = 20
    together = threading.Barrier(workers)
    registry = MessageRegistry()

    def meet(_context: Context[bytes], _conn: WriteCloser) -> Sample:
        together.wait(DEADLINE)  # returns only when twenty are in here at once
        return Sample(1)

    registry.register(1, as_bytes, meet)
    server = Server(registry=registry, worker_size=workers)
    with server.running(LOCAL) as address, ExitStack() as stack:
        peers = [stack.enter_context(Peer(address)) for _ in range(workers)]
        for peer in peers:
            peer.send_frame(1)
        for peer in peers:
            assert peer.receive_frame() == (1, b"")


def test_defect_04_a_full_queue_drops_nothing() -> None:
    """A full worker queue that drops messages."""
    release = threading.Event()
    handled: Calls[int] = Calls()
    registry = MessageRegistry()

    def handle(context: Context[bytes], _conn: WriteCloser) -> None:
        assert release.wait(DEADLINE)
        handled.add(int(context.message))

    registry.register(1, as_bytes, handle)
    server = Server(registry=registry, worker_size=1, buffer_size=1)
    with server.running(LOCAL) as address, Peer(address) as peer:
        peer.send(b"".join(frame(1, b"%d" % number) for number in range(1000)))
        assert wait_until(lambda: server.metrics().messages_in >= 1)
        release.set()
        assert handled.wait(1000) == list(range(1000))


def test_defect_05_a_broadcast_goes_past_a_full_client() -> None:
    """A broadcast that stops at the first full client."""
    options = ConnectionOptions(output=Watermark(1000, 2000), output_limit=20_000)
    with crowd(options=options) as these:
        _, full = these.join(slow=True)
        peers = these.join_many(3)
        fill(these, full)
        report = these.server.broadcast(Sample(1, b"y" * 1000))
        assert (report.sent, report.refused, report.closed) == (3, 1, 0)
        for peer in peers:
            assert peer.receive_frame() == (1, b"y" * 1000)


def test_defect_06_on_connects_answer_counts() -> None:
    """`on_connect`'s answer ignored ..."""
    server = Server(registry=echo_registry(), on_connect=lambda conn: conn.net_id != 1)
    with server.running(LOCAL) as address:
        with Peer(address) as peer:
            peer.send_frame(1)
            assert peer.receive_to_end() == b""
        with Peer(address) as peer:
            peer.send_frame(1)
            assert peer.receive_frame() == (1, b"")


def test_defect_06_on_error_is_called() -> None:
    """... and `on_error` never called."""
    errors: Calls[BaseException] = Calls()
    registry = echo_registry()

    def fail(_context: Context[bytes], _conn: WriteCloser) -> None:
        raise ZeroDivisionError

    registry.register(2, as_bytes, fail)
    server = Server(registry=registry, on_error=lambda conn, error: errors.add(error))
    with server.running(LOCAL) as address, Peer(address) as peer:
        peer.send_frame(2)
        assert peer.is_cut_off()
        assert [type(error) for error in errors.wait()] == [ZeroDivisionError]


@pytest.mark.parametrize("ending", ["close", "stop", "FIN"])
def test_defect_07_what_was_accepted_is_sent_before_the_socket_is_closed(ending: str) -> None:
    """A drain after the socket is closed."""
    size = 300_000  # more than the system takes at once
    registry = MessageRegistry()

    def answer(_context: Context[bytes], conn: WriteCloser) -> Sample:
        for _ in range(9):
            conn.write(Sample(2, b"x" * size))
        if ending == "close":
            conn.close()
        elif ending == "stop":
            these.server.stop()
        return Sample(2, b"x" * size)

    registry.register(1, as_bytes, answer)
    with crowd(registry=registry) as these:
        peer, _ = these.join(slow=True)
        peer.send_frame(1)
        if ending == "FIN":
            peer.finish_sending()
        received = peer.receive_to_end()
        assert len(received) == (size + 8) * 10


@pytest.mark.parametrize("inline", [False, True], ids=["pooled", "inline"])
def test_defect_08_a_stop_ends_the_server_and_not_the_process(inline: bool) -> None:
    """A stop that exits the process."""
    registry = MessageRegistry()

    def stop(context: Context[bytes], _conn: WriteCloser) -> Sample:
        context.server.stop()
        return Sample(2, b"bye")

    registry.register(1, as_bytes, stop, inline=inline)
    for _ in range(2):  # another one, in the same process
        server = Server(registry=registry)
        address = server.listen(LOCAL)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with Peer(address) as peer:
            peer.send_frame(1)
            assert peer.receive_to_end() == frame(2, b"bye")
        thread.join(DEADLINE)
        assert not thread.is_alive()
        assert server.stop().finished


@pytest.mark.parametrize("claimed", [0, 1, 2**63 - 1, -(2**63)])
def test_defect_09_what_a_peer_says_of_the_time_is_not_believed(claimed: int) -> None:
    """A heartbeat that trusts the peer's clock."""
    reasons: Calls[CloseReason] = Calls()
    server = Server(
        registry=echo_registry(),
        heartbeat=Heartbeat(interval=DEADLINE, timeout=0.1),
        on_close=lambda conn, reason: reasons.add(reason),
    )
    with server.running(LOCAL) as address, Peer(address) as peer:
        peer.send_frame(0, HeartBeatMessage(claimed).serialize())
        peer.send_frame(1)
        assert peer.receive_frame() == (1, b"")
        for conn in server.connections():
            assert abs(conn.heart_beat - time.time()) < 60.0
        # A heartbeat from the future buys no time: it is given up as soon as any silent peer.
        assert peer.is_cut_off()
        assert reasons.wait()[0].cause is CloseCause.EXPIRED


def test_defect_10_no_weak_ciphers(certificates: Certificates) -> None:
    """RC4 in the TLS list."""
    for context in (load_server_tls(certificates.server_file), load_client_tls()):
        names = [cipher["name"] for cipher in context.get_ciphers()]
        assert names
        for weak in ("RC4", "DES", "NULL", "MD5", "EXP", "ADH", "AECDH"):
            assert not [name for name in names if weak in name]
        assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("inline", [False, True], ids=["pooled", "inline"])
@pytest.mark.parametrize("verb", ["close", "abort"])
def test_defect_11_a_handler_may_close_its_own_client(verb: str, inline: bool) -> None:
    """A handler that deadlocks when it closes its own client connection."""
    registry = MessageRegistry()
    closed: Calls[CloseReason] = Calls()

    def end(_context: Context[bytes], conn: WriteCloser) -> None:
        getattr(conn, verb)()

    registry.register(1, as_bytes, end, inline=inline)
    server = Server(registry=MessageRegistry(), on_connect=lambda conn: conn.write(Sample(1)))
    with server.running(LOCAL) as address:
        client = ClientConn(
            address, registry=registry, on_close=lambda conn, reason: closed.add(reason)
        )
        client.start()
        reason = client.wait_closed(DEADLINE)
        assert reason is not None
        expected = CloseCause.CLOSED if verb == "close" else CloseCause.ABORTED
        assert reason.cause is expected
        assert [one.cause for one in closed.items] == [expected]


def test_defect_12_no_buffer_is_shared_by_threads() -> None:
    """Global buffers shared by threads."""

    def talk(address: Any, mark: int) -> None:
        with Peer(address) as peer:
            for number in range(30):
                value = bytes([mark, number]) * 3000
                data = frame(1, value)
                peer.send(data[:4000])  # the loop keeps the half, and reads others meanwhile
                peer.send(data[4000:])
                assert peer.receive_frame() == (1, value)

    servers = [Server(registry=echo_registry()) for _ in range(2)]
    with ExitStack() as stack:
        addresses = [stack.enter_context(server.running(LOCAL)) for server in servers]
        with ThreadPoolExecutor(6) as executor:
            talks = [executor.submit(talk, addresses[mark % 2], mark) for mark in range(6)]
            for one in talks:
                one.result(DEADLINE)
