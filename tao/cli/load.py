"""Load on a server, and what became of it.

Contents: Plan, Result, Load.

Owns the connections of one process, when messages are sent, and the comparison of replies. Plain sockets
and a selector, for less of the processor's time is spent on a message here than a client of the
framework's would, and that time is what limits how much load there can be. One thread.
"""

from __future__ import annotations

import select
import selectors
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tao.address import set_no_delay
from tao.cli.histogram import Histogram
from tao.cli.server_options import CODECS
from tao.codec import Codec
from tao.message import HEARTBEAT
from tao.tls import load_client_tls

__all__ = ["Load", "Plan", "Progress", "Result"]

NANOSECONDS = 1_000_000_000

CHUNK = 65_536
"""Bytes that are read at once: half of the size from which malloc maps and unmaps memory for each read."""

PROGRESS_INTERVAL = NANOSECONDS // 4
"""Between two reports of progress, in nanoseconds."""

BATCH = 4096
"""Latencies that are kept before they are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a process is to do. Times are in seconds, sizes in bytes."""

    address: tuple[str, int] | str
    codec: str = "tlv"
    connections: int = 1
    in_flight: int = 1
    """Messages on each connection that no reply has come to, at the most."""
    number: int = 1
    size: int = 64
    value: str | None = None
    """The text that every message has; None: `size` digits, other ones in each."""
    duration: float | None = None
    """Until no more are sent; None: until `messages` have been."""
    messages: int | None = None
    rate: float | None = None
    """Messages per second; None: one more for each reply."""
    phase: float = 0.0
    """When the first message is due, from the start on, where there is a rate."""
    timeout: float = 5.0
    """For a connect, and for the replies that are out when no more is sent."""
    compare: bool = True
    tls: bool = False
    tls_ca: str | None = None
    tls_name: str | None = None
    insecure: bool = False

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> Plan:
        """What `dataclasses.asdict` has made of one, by way of JSON, which knows no tuples."""
        address = data["address"]
        known = {**data, "address": tuple(address) if isinstance(address, list) else address}
        return cls(**known)  # type: ignore[arg-type]

    def make_tls(self) -> ssl.SSLContext | None:
        """As `load_client_tls`; None for plain TCP."""
        return load_client_tls(self.tls_ca, verify=not self.insecure) if self.tls else None


@dataclass(slots=True)
class Result:
    """What has come of it. Times are in nanoseconds, sizes in bytes."""

    connected: int = 0
    sent: int = 0
    received: int = 0
    """Replies, the wrong ones too."""
    wrong: int = 0
    """Replies that were not what was sent."""
    example: str = ""
    """The first of them."""
    unanswered: int = 0
    """Messages that no reply has come to, in time or because the connection was lost."""
    unsent: int = 0
    """Messages that were due, by the rate, and for which there was no room until the end."""
    errors: dict[str, int] = field(default_factory=dict)
    """Connects that failed and connections that were lost, by the reason."""
    bytes_sent: int = 0
    bytes_received: int = 0
    elapsed: int = 0
    """From the start to the last reply, or, if that is later, to when there was nothing more to send."""
    processor: int = 0
    """The processor's time that the generators took for that."""
    processes: int = 1
    latency: Histogram = field(default_factory=Histogram)
    """From when each message was due, by the rate, or else sent, to its reply."""
    lateness: Histogram = field(default_factory=Histogram)
    """From when it was due to when it was sent; of a rate only."""

    @property
    def failed(self) -> bool:
        """Whether anything was not as it should be."""
        return bool(
            self.errors or self.wrong or self.unanswered or self.unsent or not self.received
        )

    def merge(self, other: Result) -> None:
        """Add that of another process, which ran at the same time."""
        for name in ("connected", "sent", "received", "wrong", "unanswered", "unsent"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("bytes_sent", "bytes_received", "processor", "processes"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for reason, count in other.errors.items():
            self.errors[reason] = self.errors.get(reason, 0) + count
        self.example = self.example or other.example
        self.elapsed = max(self.elapsed, other.elapsed)
        self.latency.merge(other.latency)
        self.lateness.merge(other.lateness)

    def as_json(self) -> dict[str, object]:
        """For `from_json`, in another process."""
        plain = {name: getattr(self, name) for name in self.__slots__}
        return {
            **plain,
            "latency": self.latency.as_json(),
            "lateness": self.lateness.as_json(),
        }

    @classmethod
    def from_json(cls, data: dict[str, object]) -> Result:
        """What `as_json` has made."""
        known = dict(data)
        for name in ("latency", "lateness"):
            counts = known[name]
            assert isinstance(counts, dict)
            known[name] = Histogram.from_json(counts)
        return cls(**known)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it has come: nanoseconds since the start, replies, and what has gone wrong."""

    elapsed: int
    received: int
    failures: int


class _Peer:
    """One connection."""

    __slots__ = ("expected", "missing", "out", "pieces", "sock", "waiting")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.pieces: list[bytes] = []
        """What was received and is no whole frame yet."""
        self.missing = 0
        """How many bytes that frame needs, as far as that is known."""
        self.out = b""
        """What the system has not taken yet."""
        self.expected: deque[tuple[int, bytes]] = deque()
        """Of every message without a reply: from when its latency counts, and its value."""
        self.waiting: deque[int] = deque()
        """When the messages were due for which there was no room."""


class _Outgoing:
    """The message that is encoded next: one object for all of them."""

    __slots__ = ("message_number", "value")

    def __init__(self, number: int) -> None:
        self.message_number = number
        self.value = b""

    def serialize(self) -> bytes:
        return self.value


class Load:
    """`connect`, then `run`, then `close`. One thread; `stop` may be called from any."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._codec: Codec = CODECS[plan.codec]()
        self._typed = plan.codec == "tlv"
        # The first descriptor: `select.select`, see `_wait`, takes low numbers only.
        self._selector = selectors.DefaultSelector()
        self._peers: list[_Peer] = []
        self._result = Result()
        self._latencies: list[int] = []
        self._latenesses: list[int] = []
        self._message = _Outgoing(plan.number)
        self._text = None if plan.value is None else plan.value.encode(errors="surrogateescape")
        self._stopping = False
        self._start = 0
        self._last_sign = 0  # when something was last sent, or a reply came
        self._last_reply = 0
        self._sent_all = 0  # when nothing was left to be sent; 0: not yet
        self._due = 0  # messages whose time has come, by the rate
        self._orphans: deque[int] = deque()  # when those were due whose connection was lost before
        self._turn = 0  # which connection is given the next of those

    def _value(self, number: int) -> bytes:
        """A value that no other message has, as far as its size allows."""
        size = self._plan.size
        digits = b"%016x" % number
        return digits.ljust(size, b".") if size >= 16 else digits[16 - size :]

    # -- before ----------------------------------------------------------------------------------

    def connect(self) -> int:
        """Connect, one after the other; returns how many there are. What fails is in the result.

        Raises OSError for a certificate file that cannot be used, and what the codec raises for a
        message that it cannot send.
        """
        tls = self._plan.make_tls()
        for _ in range(self._plan.connections):
            if self._stopping:
                break
            try:
                sock = self._open(tls)
            except OSError as error:
                self._count_error("not connected", error)
                continue
            peer = _Peer(sock)
            self._peers.append(peer)
            self._selector.register(sock, selectors.EVENT_READ, peer)
        self._result.connected = len(self._peers)
        return len(self._peers)

    def _open(self, tls: ssl.SSLContext | None) -> socket.socket:
        address, timeout = self._plan.address, self._plan.timeout
        if isinstance(address, str):
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        else:
            sock = socket.create_connection(address, timeout)
        try:
            if isinstance(address, str):
                sock.settimeout(timeout)
                sock.connect(address)
            set_no_delay(sock)
            if tls is not None:
                name = self._plan.tls_name
                if name is None and not isinstance(address, str):
                    name = address[0]
                sock = tls.wrap_socket(sock, server_hostname=name)
            sock.setblocking(False)
        except BaseException:
            sock.close()
            raise
        return sock

    # -- the run ---------------------------------------------------------------------------------

    def stop(self) -> None:
        """Send no more, and do not wait for replies. Any thread."""
        self._stopping = True

    def run(self, on_progress: Callable[[Progress], object]) -> Result:
        """Until all that is asked for has been done, or `stop` was called. Calls back now and then."""
        processor = time.process_time_ns()
        self._start = now = self._last_sign = self._last_reply = time.perf_counter_ns()
        next_progress = now + PROGRESS_INTERVAL
        if self._plan.rate is None:
            for peer in list(self._peers):
                self._fill(peer, now)
        while self._peers and not self._stopping:
            wake = min(next_progress, self._make_due(now))
            if self._is_over(now):
                break
            for key, events in self._wait(wake - now):
                self._serve(key.data, events)
            now = time.perf_counter_ns()
            if now >= next_progress:
                on_progress(self._progress(now))
                next_progress = now + PROGRESS_INTERVAL
        self._finish(time.process_time_ns() - processor)
        return self._result

    def _serve(self, peer: _Peer, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self._flush(peer)
        if events & selectors.EVENT_READ and peer.sock.fileno() >= 0:  # it may just have been lost
            self._receive(peer)

    def _wait(self, nanoseconds: int) -> list[tuple[selectors.SelectorKey, int]]:
        """Until something comes, or the time is over."""
        timeout = max(0, nanoseconds) / NANOSECONDS
        if self._plan.rate is not None and isinstance(self._selector, selectors.EpollSelector):
            # epoll counts in milliseconds: a message would be late by half of one on the average.
            # `select` counts in microseconds, and an epoll is a descriptor like another.
            select.select([self._selector.fileno()], [], [], timeout)
            timeout = 0.0
        return self._selector.select(timeout)

    def _make_due(self, now: int) -> int:
        """Hand out the messages whose time has come; returns when the next one's does."""
        plan = self._plan
        if plan.rate is None:
            return now + PROGRESS_INTERVAL
        interval = NANOSECONDS / plan.rate
        first = self._start + plan.phase * NANOSECONDS
        touched: dict[_Peer, None] = {}
        while True:
            due = int(first + self._due * interval)
            if not self._orphans:
                if due > now or self._all_are_due(due):
                    break
                self._due += 1
            peer = self._peers[self._turn % len(self._peers)]
            self._turn += 1
            peer.waiting.append(self._orphans.popleft() if self._orphans else due)
            touched[peer] = None
        for peer in touched:
            self._fill(peer, now)
        return now + PROGRESS_INTERVAL if self._all_are_due(due) else due

    def _all_are_due(self, when: int) -> bool:
        """Whether there is none whose time comes at `when`, or later."""
        plan = self._plan
        if plan.messages is not None and self._due >= plan.messages:
            return True
        return plan.duration is not None and when >= self._start + plan.duration * NANOSECONDS

    def _is_over(self, now: int) -> bool:
        """Whether all has been sent, and replied to or given up."""
        plan, result = self._plan, self._result
        if plan.rate is not None:
            sending = not self._all_are_due(now)
        else:
            sending = plan.messages is None or result.sent < plan.messages
            if plan.duration is not None:
                sending = sending and now < self._start + plan.duration * NANOSECONDS
        timeout = plan.timeout * NANOSECONDS
        begun = result.sent if plan.rate is None else self._due
        out = begun - result.received - result.unanswered
        if not sending:
            self._sent_all = self._sent_all or now
            return not out or now - self._sent_all >= timeout
        # Where nothing else bounds it, silence does.
        return plan.duration is None and out > 0 and now - self._last_sign >= timeout

    def _fill(self, peer: _Peer, now: int) -> None:
        """Send as many messages as there is room for."""
        plan = self._plan
        room = plan.in_flight - len(peer.expected)
        if plan.rate is not None:
            room = min(room, len(peer.waiting))
        elif plan.duration is not None and now >= self._start + plan.duration * NANOSECONDS:
            return
        if plan.rate is None and plan.messages is not None:
            room = min(room, plan.messages - self._result.sent)
        if room <= 0:
            return
        frames = []
        for number in range(self._result.sent, self._result.sent + room):
            since = now
            if plan.rate is not None:
                # From when it was to be sent: what a slow server makes us send late counts as its own
                # slowness (Gil Tene's "coordinated omission").
                since = peer.waiting.popleft()
                self._latenesses.append(now - since)
            value = self._value(number) if self._text is None else self._text
            peer.expected.append((since, value))
            self._message.value = value
            frames.append(self._codec.encode(self._message))
        self._result.sent += room
        self._last_sign = now
        data = b"".join(frames)
        self._result.bytes_sent += len(data)
        if peer.out:
            peer.out += data  # and `_flush` goes on with it
        else:
            peer.out = data
            self._flush(peer)

    def _flush(self, peer: _Peer) -> None:
        watched = self._selector.get_key(peer.sock).events
        try:
            peer.out = peer.out[peer.sock.send(peer.out) :]
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except OSError as error:
            self._lose(peer, error)
            return
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if peer.out else 0)
        if wanted != watched:
            self._selector.modify(peer.sock, wanted, peer)

    def _receive(self, peer: _Peer) -> None:
        try:
            data = peer.sock.recv(CHUNK)
            if isinstance(peer.sock, ssl.SSLSocket):
                # What TLS holds back no selector tells of.
                while more := peer.sock.pending():
                    data += peer.sock.recv(more)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError as error:
            self._lose(peer, error)
            return
        if not data:
            self._lose(peer, None)
            return
        now = time.perf_counter_ns()
        self._result.bytes_received += len(data)
        peer.pieces.append(data)
        peer.missing -= len(data)
        if peer.missing > 0:
            return  # a long frame is joined once, and not for every piece of it
        data = peer.pieces[0] if len(peer.pieces) == 1 else b"".join(peer.pieces)
        stop = 0
        try:
            for number, value, end in self._codec.decode(data):
                stop = end
                if not (self._typed and number == HEARTBEAT):
                    self._take(peer, number, value, now)
        except Exception as error:  # whatever a codec raises, nothing behind it can be understood
            self._lose(peer, error)
            return
        rest = data[stop:]
        peer.pieces = [rest] if rest else []
        header = self._codec.header(rest)
        peer.missing = 0 if header is None else header[1] + header[2] - len(rest)
        if len(self._latencies) >= BATCH:
            self._count_latencies()
        self._fill(peer, now)

    def _take(self, peer: _Peer, number: int, value: bytes, now: int) -> None:
        """A reply."""
        result = self._result
        if not peer.expected:
            result.wrong += 1
            result.example = result.example or f"{value[:40]!r} came, and nothing was out"
            return
        since, expected = peer.expected.popleft()
        result.received += 1
        self._last_reply = self._last_sign = now
        self._latencies.append(now - since)
        if self._plan.compare and (
            value != expected or (self._typed and number != self._plan.number)
        ):
            result.wrong += 1
            result.example = result.example or (
                f"message {self._plan.number} {expected[:40]!r} was sent, and {number} "
                f"{value[:40]!r} came"
            )

    # -- ends ------------------------------------------------------------------------------------

    def _lose(self, peer: _Peer, error: BaseException | None) -> None:
        """A connection has ended before its time."""
        self._count_error("connection lost", error)
        self._peers.remove(peer)
        self._result.unanswered += len(peer.expected)
        self._selector.unregister(peer.sock)
        peer.sock.close()
        self._orphans += peer.waiting  # what was due on it is due all the same

    def _count_error(self, what: str, error: BaseException | None) -> None:
        if error is None:
            reason = f"{what}: closed by the server"
        elif isinstance(error, OSError) and error.strerror and not isinstance(error, ssl.SSLError):
            reason = f"{what}: {error.strerror}"
        else:
            reason = f"{what}: {type(error).__name__}: {error}"
        self._result.errors[reason] = self._result.errors.get(reason, 0) + 1

    def _progress(self, now: int) -> Progress:
        result = self._result
        failures = sum(result.errors.values()) + result.wrong
        return Progress(now - self._start, result.received, failures)

    def _count_latencies(self) -> None:
        self._result.latency.add_all(self._latencies)
        self._result.lateness.add_all(self._latenesses)
        self._latencies.clear()
        self._latenesses.clear()

    def _finish(self, processor: int) -> None:
        result = self._result
        self._count_latencies()
        result.processor = processor
        result.elapsed = max(self._last_reply, self._sent_all, self._start + 1) - self._start
        if self._stopping:
            return  # nobody knows what would have become of what was out
        result.unanswered += sum(len(peer.expected) for peer in self._peers)
        result.unsent += len(self._orphans) + sum(len(peer.waiting) for peer in self._peers)

    def close(self) -> None:
        """Close all connections. Twice is once."""
        for peer in self._peers:
            peer.sock.close()
        self._peers.clear()
        self._selector.close()

    def __repr__(self) -> str:
        return f"<Load of {len(self._peers)} connections, {self._result.received} replies>"
