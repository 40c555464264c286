"""tao.heartbeat: signs of life, and what becomes of a peer that gives none.

Most of it in a time that stands still until it is moved; the last part in real time.
"""

from __future__ import annotations

import logging
import math
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tao import (
    ClientConn,
    CloseCause,
    CloseReason,
    ConnectionOptions,
    ConnectionState,
    Heartbeat,
    HeartBeatMessage,
    MessageRegistry,
    Server,
    ServerConn,
    Watermark,
    WouldBlockError,
)
from tao.line_codec import LineCodec
from tests.support import DEADLINE, LOCAL, Calls, Peer, Sample, as_bytes, frame, wait_until
from tests.tao.manual import ManualLoop

INTERVAL = 10.0
TIMEOUT = 35.0
"""Seconds of the manual clock."""

HEARTBEAT = Heartbeat(interval=INTERVAL, timeout=TIMEOUT)


@pytest.fixture
def loop() -> Iterator[ManualLoop]:
    with ManualLoop() as made:
        yield made


class End:
    """One end with a heartbeat, server's or client's, on a manual loop; and the peer, by hand."""

    def __init__(
        self,
        loop: ManualLoop,
        kind: str,
        *,
        buffer_size_of_the_kernel: int | None = None,
        **arguments: Any,
    ) -> None:
        self.loop = loop
        self.closed: Calls[CloseReason] = Calls()
        self.handled: Calls[bytes] = Calls()
        registry = arguments.setdefault("registry", MessageRegistry())
        registry.register(1, as_bytes, lambda context, conn: self.handled.add(context.message))
        arguments.setdefault("heartbeat", HEARTBEAT)
        arguments["frame_timeout"] = None  # a deadline of its own, which is not what is tested here
        arguments["reactor"] = loop.reactor
        arguments["on_close"] = lambda conn, reason: self.closed.add(reason)
        self.conn: ServerConn | ClientConn
        if kind == "server":
            server = Server(**arguments)
            loop.add(server)
            listener = socket.create_server(LOCAL)
            if buffer_size_of_the_kernel is not None:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_size_of_the_kernel)
            address = server.listen(listener)
            self.peer = Peer(address, receive_buffer=buffer_size_of_the_kernel)
            loop.until(server.connections)
            self.conn = server.connections()[0]
        else:
            with socket.create_server(LOCAL) as listener:
                client = ClientConn(listener.getsockname(), **arguments)
                loop.add(client)
                client.start()
                loop.until(lambda: client.state is ConnectionState.OPEN)
                self.peer = Peer.accept(listener)
            self.conn = client
        loop.settle()

    def sent(self) -> list[tuple[int, bytes]]:
        """The messages that have come to the peer so far and were not asked for before."""
        return self.sent_while(lambda: False)

    def sent_while(self, condition: Callable[[], bool]) -> list[tuple[int, bytes]]:
        """As `sent`, and all that come as long as a condition holds."""
        data = bytearray()
        self.peer.sock.setblocking(False)
        waiting = True
        while waiting:
            waiting = condition()
            self.loop.settle()
            try:
                while chunk := self.peer.sock.recv(65_536):
                    data += chunk
            except (BlockingIOError, ConnectionResetError):
                pass
        self.peer.sock.settimeout(DEADLINE)
        messages = []
        while data:
            number, size = struct.unpack_from("<iI", data)
            messages.append((number, bytes(data[8 : 8 + size])))
            assert len(messages[-1][1]) == size, "in the middle of a frame"
            del data[: 8 + size]
        return messages

    def send(self, number: int, value: bytes = b"") -> None:
        """From the peer, and read at this end."""
        self.peer.send_frame(number, value)
        self.loop.settle()

    def reason(self) -> CloseReason:
        self.loop.until(lambda: len(self.closed))
        return self.closed.items[0]


@pytest.fixture(params=["server", "client"])
def kind(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def ends() -> Iterator[list[End]]:
    made: list[End] = []
    yield made
    for end in made:
        end.peer.close()


@pytest.fixture
def end(loop: ManualLoop, kind: str, ends: list[End]) -> End:
    ends.append(End(loop, kind))
    return ends[0]


# -- what is asked for ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["interval", "timeout"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_a_time_must_be_one(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a positive number of seconds"):
        Heartbeat(**{name: value})


def test_it_is_a_value() -> None:
    assert Heartbeat(interval=1.0) == Heartbeat(interval=1.0) != Heartbeat()
    assert Heartbeat().interval < Heartbeat().timeout


# -- sending -------------------------------------------------------------------------------------


def test_a_quiet_connection_sends_at_the_interval(end: End) -> None:
    heard = []
    for second in range(1, 46):
        end.loop.advance(1.0)
        for number, value in end.sent():
            assert (number, len(value)) == (0, 8)
            heard.append(second)
            end.send(0, value)  # or else it is us who are given up
    assert heard == [10, 20, 30, 40]


def test_a_heartbeat_tells_the_time_of_the_loops_clock(end: End) -> None:
    end.loop.advance(INTERVAL)
    ((_, value),) = end.sent()
    told = int(end.loop.clock.unix() * 1e9)
    assert struct.unpack("<q", value)[0] == told
    assert HeartBeatMessage.deserialize(value).timestamp == told


def test_a_busy_connection_sends_none(end: End) -> None:
    for index in range(20):
        end.loop.advance(INTERVAL / 2)
        end.conn.write(Sample(5, b"%d" % index))
        end.send(1, b"%d" % index)
        assert end.sent() == [(5, b"%d" % index)]
    assert len(end.handled) == 20


def test_what_was_sent_puts_the_next_one_off(end: End) -> None:
    end.loop.advance(INTERVAL - 1)
    end.conn.write(Sample(5))
    assert end.sent() == [(5, b"")]
    end.loop.advance(INTERVAL - 1)
    assert end.sent() == []
    end.loop.advance(1.1)
    assert [number for number, _ in end.sent()] == [0]


def test_what_comes_in_does_not_put_it_off(end: End) -> None:
    """The peer wants to hear of us, however much it says itself."""
    heard = []
    for _ in range(30):
        end.loop.advance(INTERVAL / 10)
        end.send(1)
        heard += end.sent()
    assert [number for number, _ in heard] == [0, 0, 0]


@pytest.mark.parametrize("verb", ["close", "abort"])
def test_it_stops_with_the_connection(end: End, verb: str) -> None:
    end.loop.advance(INTERVAL)
    assert len(end.sent()) == 1
    getattr(end.conn, verb)()
    end.loop.settle()
    end.peer.close()
    end.reason()
    end.loop.advance(1.0)  # for the pool's own time-out, which no heartbeat needs
    assert end.loop.reactor.statistics().timeouts_waiting == 0


def test_the_metrics_show_no_timer_that_is_left(loop: ManualLoop, ends: list[End]) -> None:
    server = Server(heartbeat=HEARTBEAT, registry=MessageRegistry(), reactor=loop.reactor)
    loop.add(server)
    address = server.listen(LOCAL)
    peers = [Peer(address) for _ in range(3)]
    loop.until(lambda: server.connection_count == 3)
    loop.settle()
    assert server.metrics().timers == 3, "one each, however long it lives"
    loop.advance(INTERVAL)
    assert server.metrics().timers == 3
    for peer in peers:
        peer.close()
    loop.until(lambda: server.connection_count == 0)
    loop.advance(1.0)
    assert server.metrics().timers == 0


def test_a_full_queue_needs_no_heartbeat(loop: ManualLoop, ends: list[End]) -> None:
    """Over the limit a heartbeat is passed over; it costs the connection nothing."""
    end = End(
        loop,
        "server",
        options=ConnectionOptions(output=Watermark(1000, 2000), output_limit=200_000),
        heartbeat=Heartbeat(interval=1.0, timeout=1000.0),
        buffer_size_of_the_kernel=4096,
    )
    ends.append(end)
    while (room := 200_000 - end.conn.pending) >= 1008:
        end.conn.write(Sample(5, bytes(1000)))
        loop.reactor.run_once(0)
    if room >= 8:
        end.conn.write(Sample(5, bytes(room - 8)))
    with pytest.raises(WouldBlockError):
        end.conn.write(HeartBeatMessage())
    for _ in range(5):
        loop.advance(1.0)
    assert end.conn.state is ConnectionState.OPEN
    assert end.closed.items == []
    before = end.sent_while(lambda: bool(end.conn.pending))
    assert {number for number, _ in before} == {5}
    loop.advance(1.0)
    assert [number for number, _ in end.sent()] == [0]


def test_a_codec_that_cannot_send_heartbeats_still_gives_a_silent_peer_up(
    loop: ManualLoop, ends: list[End]
) -> None:
    end = End(loop, "server", codec=LineCodec())
    ends.append(end)
    loop.advance(INTERVAL)
    assert end.conn.state is ConnectionState.OPEN
    loop.advance(TIMEOUT - INTERVAL + 0.1)
    assert end.reason().cause is CloseCause.EXPIRED


def test_a_close_at_the_moment_of_a_heartbeat_is_no_error(
    end: End, caplog: pytest.LogCaptureFixture
) -> None:
    """Of the two, the heartbeat comes to its turn first, and finds that nothing may be written."""
    end.loop.clock.advance(INTERVAL + 0.1)
    end.conn.close()
    end.loop.settle()
    end.peer.close()
    assert end.reason().cause is CloseCause.CLOSED
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


# -- a silent peer -------------------------------------------------------------------------------


def test_a_silent_peer_is_given_up_at_the_timeout(end: End) -> None:
    passed = 0.0
    while passed < TIMEOUT - 1.0:
        end.loop.advance(1.0)
        passed += 1.0
    assert end.conn.state is ConnectionState.OPEN
    assert end.closed.items == []
    end.loop.advance(1.1)
    reason = end.reason()
    assert reason.cause is CloseCause.EXPIRED
    assert isinstance(reason.error, TimeoutError)
    assert "35 s" in str(reason.error)
    assert not reason.clean
    while not end.peer.is_cut_off():
        pass  # the heartbeats that it had been sent


def test_a_message_puts_that_off(end: End) -> None:
    for _ in range(5):
        end.loop.advance(TIMEOUT - 1.0)
        end.send(1, b"still here")
    end.loop.advance(TIMEOUT - 1.0)
    assert end.conn.state is ConnectionState.OPEN
    end.loop.advance(1.1)
    assert end.reason().cause is CloseCause.EXPIRED


def test_and_so_does_one_byte_of_a_message(end: End) -> None:
    for byte in frame(1, b"slowly"):
        end.loop.advance(TIMEOUT - 1.0)
        end.peer.send(bytes([byte]))
        end.loop.settle()
    end.loop.until(lambda: end.handled.items == [b"slowly"])
    assert end.conn.state is ConnectionState.OPEN


def test_a_peer_that_sends_only_heartbeats_stays(end: End) -> None:
    for _ in range(20):
        end.loop.advance(TIMEOUT - 1.0)
        end.send(0, struct.pack("<q", time.time_ns()))
    assert end.conn.state is ConnectionState.OPEN
    assert end.handled.items == []


@pytest.mark.parametrize(
    "timestamp", [0, 1, -1, 2**63 - 1, -(2**63), time.time_ns() + 10**18], ids=hex
)
def test_what_the_peer_says_the_time_is_changes_nothing(end: End, timestamp: int) -> None:
    """`heart_beat` is by our own clock: to one peer's word nobody's time-out may be left."""
    clock = end.loop.clock
    end.loop.advance(20.0)
    end.send(0, struct.pack("<q", timestamp))
    heard_at = clock.unix()
    assert end.conn.heart_beat == pytest.approx(heard_at, abs=0.001)
    end.loop.advance(TIMEOUT - 1.0)
    assert end.conn.heart_beat == pytest.approx(heard_at, abs=0.001)
    assert end.conn.state is ConnectionState.OPEN
    end.loop.advance(1.1)
    assert end.reason().cause is CloseCause.EXPIRED


def test_a_step_of_the_wall_clock_gives_nobody_up(end: End) -> None:
    end.loop.clock.set_unix(4_000_000_000.0)
    end.loop.advance(1.0)
    assert end.conn.state is ConnectionState.OPEN
    assert end.sent() == []
    end.loop.clock.set_unix(0.0)
    end.loop.advance(INTERVAL)
    assert end.conn.state is ConnectionState.OPEN
    assert len(end.sent()) == 1


def test_each_has_its_own_time(loop: ManualLoop, ends: list[End]) -> None:
    server = Server(heartbeat=HEARTBEAT, registry=MessageRegistry(), reactor=loop.reactor)
    loop.add(server)
    address = server.listen(LOCAL)
    with Peer(address) as silent, Peer(address) as alive:
        loop.until(lambda: server.connection_count == 2)
        loop.settle()
        for _ in range(4):
            loop.advance(TIMEOUT / 4)
            alive.send_frame(0, bytes(8))
            loop.settle()
        loop.until(lambda: server.connection_count == 1)
        (left,) = server.connections()
        assert left.remote_address == alive.sock.getsockname()
        while not silent.is_cut_off():
            pass  # the heartbeats that it had been sent


@pytest.mark.parametrize(("interval", "timeout"), [(100.0, 30.0), (30.0, 30.0), (1.0, 30.0)])
def test_the_timeout_does_not_depend_on_the_interval(
    loop: ManualLoop, ends: list[End], interval: float, timeout: float
) -> None:
    end = End(loop, "server", heartbeat=Heartbeat(interval=interval, timeout=timeout))
    ends.append(end)
    loop.advance(timeout - 0.5)
    assert end.conn.state is ConnectionState.OPEN
    loop.advance(0.6)
    assert end.reason().cause is CloseCause.EXPIRED


def test_two_that_keep_each_other_alive(loop: ManualLoop) -> None:
    closed: Calls[CloseReason] = Calls()
    server = Server(
        registry=MessageRegistry(),
        heartbeat=HEARTBEAT,
        reactor=loop.reactor,
        on_close=lambda conn, reason: closed.add(reason),
    )
    address = server.listen(LOCAL)
    client = ClientConn(
        address, registry=MessageRegistry(), heartbeat=HEARTBEAT, reactor=loop.reactor
    )
    loop.add(server, client)
    client.start()
    loop.until(lambda: client.state is ConnectionState.OPEN)
    for _ in range(100):
        loop.advance(INTERVAL / 2)
    assert client.state is ConnectionState.OPEN
    assert closed.items == []
    metrics = server.metrics()
    assert metrics.messages_in >= 40, "and they were heartbeats that did it"
    assert metrics.bytes_in == metrics.messages_in * 16


# -- while reading is paused ---------------------------------------------------------------------


def test_a_peer_that_is_not_read_is_not_given_up(end: End) -> None:
    end.conn.pause_reading()
    end.loop.settle()
    for _ in range(20):
        end.loop.advance(INTERVAL)
        end.peer.send_frame(1)
    assert end.conn.state is ConnectionState.OPEN
    assert end.handled.items == []
    assert {number for number, _ in end.sent()} == {0}, "we still say that we are there"
    end.conn.resume_reading()
    end.loop.until(lambda: len(end.handled) == 20)
    end.loop.advance(TIMEOUT + INTERVAL)
    assert end.reason().cause is CloseCause.EXPIRED


def test_the_silence_is_counted_from_when_we_read_again(
    loop: ManualLoop, kind: str, ends: list[End]
) -> None:
    """However the pause and the keeper's own looks fall together."""
    end = End(loop, kind, heartbeat=Heartbeat(interval=1000.0, timeout=30.0))
    ends.append(end)
    loop.advance(1.0)
    end.conn.pause_reading()
    loop.advance(28.0)
    end.conn.resume_reading()
    loop.settle()
    loop.advance(29.0)
    assert end.conn.state is ConnectionState.OPEN
    loop.advance(1.1)
    assert end.reason().cause is CloseCause.EXPIRED


def test_a_pause_is_no_sign_of_life(end: End) -> None:
    """`heart_beat` is when the last byte came, whether we wanted to know or not."""
    heard_at = end.conn.heart_beat
    end.conn.pause_reading()
    end.loop.settle()
    for _ in range(5):
        end.loop.advance(INTERVAL)
    assert end.conn.heart_beat == pytest.approx(heard_at, abs=0.001)


def test_messages_that_wait_for_a_worker_do_not_cost_their_peer_the_connection(
    loop: ManualLoop, kind: str, ends: list[End]
) -> None:
    """It may well have sent its heartbeats, behind them."""
    begun, go_on = threading.Event(), threading.Event()
    registry = MessageRegistry()

    def block(_context: Any, _conn: Any) -> None:
        begun.set()
        assert go_on.wait(DEADLINE)

    registry.register(2, as_bytes, block)
    end = End(loop, kind, registry=registry, buffer_size=1)
    ends.append(end)
    end.send(2)
    loop.until(begun.is_set)
    for _ in range(3):
        end.send(1)
    for _ in range(10):
        loop.advance(INTERVAL)
    assert end.conn.state is ConnectionState.OPEN
    go_on.set()
    loop.until(lambda: len(end.handled) == 3)


# -- in real time --------------------------------------------------------------------------------


def test_a_server_in_real_time() -> None:
    closed: Calls[CloseReason] = Calls()
    server = Server(
        registry=MessageRegistry(),
        heartbeat=Heartbeat(interval=0.05, timeout=0.5),
        on_close=lambda conn, reason: closed.add(reason),
    )
    with server.running(LOCAL) as address, Peer(address) as peer:
        before = time.monotonic()
        for _ in range(3):
            number, value = peer.receive_frame()
            assert (number, len(value)) == (0, 8)
        assert time.monotonic() - before >= 0.1, "three, two intervals apart from first to last"
        reason = closed.wait()[0]
        assert time.monotonic() - before >= 0.4
        assert reason.cause is CloseCause.EXPIRED
        assert isinstance(reason.error, TimeoutError)
        assert wait_until(lambda: server.metrics().timers == 0)


def test_a_server_that_never_answers_is_given_up_by_its_client() -> None:
    """TCP alone would not notice: the connection is up, and will be for hours."""
    with socket.create_server(LOCAL) as listener:
        client = ClientConn(
            listener.getsockname(),
            registry=MessageRegistry(),
            heartbeat=Heartbeat(interval=0.05, timeout=0.2),
        )
        client.start()
        with Peer.accept(listener):
            reason = client.wait_closed(DEADLINE)
        assert reason is not None
        assert reason.cause is CloseCause.EXPIRED
        assert isinstance(reason.error, TimeoutError)


def test_a_peer_that_answers_is_not() -> None:
    closed: Calls[CloseReason] = Calls()
    server = Server(
        registry=MessageRegistry(),
        heartbeat=Heartbeat(interval=0.05, timeout=1.0),
        on_close=lambda conn, reason: closed.add(reason),
    )
    with server.running(LOCAL) as address, Peer(address) as peer:
        begun = time.monotonic()
        while time.monotonic() - begun < 1.2:  # longer than a silent one would be suffered
            number, value = peer.receive_frame()
            peer.send_frame(number, value)
        assert closed.items == []
