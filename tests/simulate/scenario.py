"""What happens in a run.

Contents: Run, run.

A seed decides about everything: how many clients there are, how the server is made, what is written, when
somebody closes, and, by the simulation, what the network and the machine do meanwhile.
"""

from __future__ import annotations

import itertools
import logging
import math
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import reactor.connection
import tao
from reactor import (
    WRITE,
    CloseReason,
    ConnectionOptions,
    Reactor,
    Timeout,
    Watermark,
)
from reactor.connection import GATHERED_SIZE
from reactor.testing import Entry, Faults, SimulatedSocket, Simulation, SimulationError
from tao import (
    Backoff,
    ClientConn,
    ConnectionClosedError,
    Context,
    Heartbeat,
    Message,
    MessageRegistry,
    NotRegisteredError,
    Server,
    ServerConn,
    TypeLengthValueCodec,
    WouldBlockError,
    WriteCloser,
)
from tao.budget import LEAST_SHARE
from tao.group import WhenFull
from tao.stopping import STOP_MARGIN
from tests.simulate.books import check_budget, check_pool, stuck_connector, stuck_pool
from tests.simulate.ledger import (
    BAD,
    HEADER,
    INLINE,
    LONGEST_FILLING,
    POOLED,
    UNHANDLED,
    UNKNOWN,
    Do,
    End,
    Ledger,
    Name,
    Note,
    Timer,
    note_of,
)

__all__ = ["Run", "run"]

ADDRESS = ("10.0.0.1", 4000)

LONGEST_SLEEP = 2.0
"""Seconds that a handler of a run sleeps at the most."""

LONGEST_READING = 30.0
"""Seconds that a bare peer reads for."""

LONGEST_SHORTAGE = 10.0
"""Seconds in which a server accepts who has connected, however often it is out of descriptors."""

LONGEST_END = 300.0
"""Seconds of simulated time in which a client must come to its end, once it is closed."""

EXPECTED = (ConnectionClosedError, WouldBlockError, NotRegisteredError)

# What a handler may do on the loop's thread.
_FOR_THE_LOOP = (
    Do.NOTHING,
    Do.REPLY,
    Do.RAISE,
    Do.CLOSE,
    Do.ABORT,
    Do.TIMER,
    Do.BROADCAST,
    Do.SET_CODEC,
    Do.CANCEL_TIMER,
    Do.TELL_ANOTHER,
)


_SLEEPING = (
    Do.SLEEP,
    Do.WRITE_SLEEP_WRITE,
    Do.WAIT_CANCELLED,
    Do.WRITE_TO_ANOTHER,
    Do.CLOSE_AND_SLEEP,
)

# Where threads are interrupted between any two lines: not in files with locks of the real kind.
_INTERRUPTIBLE = [
    str(Path(package.__file__ or "").parent / f"{name}.py")
    for package, names in (
        (
            reactor,
            [
                "acceptor",
                "connection",
                "connector",
                "loop",
                "opening",
                "socket_ending",
                "waker",
                "workers",
            ],
        ),
        (
            tao,
            [
                "client",
                "delivery",
                "expectations",
                "gate",
                "reports",
                "server",
                "session",
                "stopping",
                "timers",
            ],
        ),
    )
    for name in names
]


class _HandlerFailed(Exception):
    """What handlers of a run raise."""


class _Defects(logging.Handler):
    """What is logged that must never be: a callback of the loop that raised, a job, a connection."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def handle(self, record: logging.LogRecord) -> bool:
        """Without the handler's lock, which is a real one: one simulated thread at a time runs."""
        if record.name == "reactor" or record.levelno >= logging.CRITICAL:
            self.found.append(self.format(record))
        return True


@contextmanager
def _listening_for_defects() -> Iterator[_Defects]:
    defects = _Defects()
    loggers = [logging.getLogger(name) for name in ("reactor", "tao")]
    before = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.addHandler(defects)
        logger.setLevel(logging.ERROR)
        logger.propagate = False
    try:
        yield defects
    finally:
        for logger, (level, propagate) in zip(loggers, before, strict=True):
            logger.removeHandler(defects)
            logger.setLevel(level)
            logger.propagate = propagate


class Run:
    """One run: what the seed has chosen, and who takes part."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.dice = random.Random(f"scenario {seed}")
        # Of messages that make room for others there are few where the pipes are wide.
        self._broadcasts = self.dice.random() < 0.3
        # Many connections for few workers, who take their time and get in each other's way.
        self._crowded = self.dice.random() < 0.1
        # Threads that write all the time to the same connection, beside its handlers, who do that too.
        self._talkative = not self._crowded and self.dice.random() < 0.1
        # Few connections, with little memory and much to be handled slowly.
        self._flooded = not (self._crowded or self._talkative) and self.dice.random() < 0.1
        self.simulation = Simulation(seed, self._faults(), interruptible=_INTERRUPTIBLE)
        self.ledger = Ledger(self.simulation.note, lambda: self.simulation.time)
        self.final_reasons: dict[object, CloseReason] = {}
        self._sources = 0
        self._numbers = itertools.count()  # for messages to whomever; of each source they only grow
        self._clients: list[ClientConn] = []
        self._threads: list[threading.Thread] = []
        self._executors_of_clients = self.simulation.executor(4)
        self._shared_loop: Reactor | None = None
        self._sleeps = self._crowded or self._talkative or self._flooded or self.dice.random() < 0.7
        self._in_step = self._crowded or self.dice.random() < 0.5
        self._close_on_error = self.dice.random() < 0.5
        self.options = self._options()
        self.server = self._make_server()
        self._watch_pool(self.server)
        self.address: Any = None
        # Above this, what was read is handled at once, and the messages of a run are small.
        self._gathered_size = random.Random(f"gathered {seed}").choice([50, GATHERED_SIZE])

    def _chance(self, probability: float) -> bool:
        return self.dice.random() < probability

    # -- what is chosen --------------------------------------------------------------------------

    def _faults(self) -> Faults:
        dice = self.dice
        if dice.random() < 0.1:
            return Faults.none()

        def sometimes(most: float, how_often: float = 0.5) -> float:
            return dice.uniform(0.0, most) if dice.random() < how_often else 0.0

        return Faults(
            switch=0.1 if self._crowded else dice.choice([0.02, 0.1, 0.3]),
            interrupt=sometimes(0.05, 0.2),
            slowness=sometimes(0.05),
            longest_pause=dice.choice([0.0002, 0.002, 0.02]),
            longest_delay=dice.choice([0.0, 0.001, 0.02]),
            slow_connections=sometimes(0.5),
            partial_send=sometimes(0.9),
            full_send=sometimes(0.3),
            partial_receive=sometimes(0.9),
            spurious=sometimes(0.1),
            late_report=sometimes(0.5),
            buffer_size=dice.choice([16, 200] if self._broadcasts else [16, 200, 2000, 65_536]),
            full_pipe=sometimes(0.2, 0.2),
            aborted_accept=sometimes(0.3, 0.2),
            no_descriptor=sometimes(0.3, 0.2),
            reset=sometimes(0.02, 0.3),
            outage=sometimes(0.02, 0.2),
        )

    def _options(self) -> ConnectionOptions:
        dice = self.dice
        high = dice.choice([100, 200] if self._broadcasts else [100, 1000, 100_000])
        return ConnectionOptions(
            output=Watermark(dice.choice([0, high // 2, high]), high),
            output_limit=dice.choice([high, high, 5 * high, 1_000_000]),
            drain_timeout=dice.choice([0.05, 1.0, 10.0]),
            linger_timeout=dice.choice([0.0, 0.1, 2.0]),
        )

    def _heartbeat(self) -> Heartbeat | None:
        if not self._chance(0.2):
            return None
        return Heartbeat(
            interval=self.dice.choice([0.02, 0.5]), timeout=self.dice.choice([0.7, 3.0])
        )

    def _registry(self) -> MessageRegistry:
        registry = MessageRegistry()
        registry.register(POOLED, lambda data: note_of(POOLED, data), self._handle)
        registry.register(INLINE, lambda data: note_of(INLINE, data), self._handle, inline=True)
        registry.register(UNHANDLED, lambda data: note_of(UNHANDLED, data))
        registry.register(BAD, self._decode_badly)
        return registry

    @staticmethod
    def _decode_badly(data: bytes) -> Message:
        raise ValueError("this message is never understood")

    def _make_server(self) -> Server:
        dice = self.dice
        when_full: Literal["refuse", "wait"] = "wait" if self._chance(0.3) else "refuse"
        self.ledger.max_connections = 2 if self._flooded else dice.choice([1, 2, 1000, 1000])
        return Server(
            registry=self._registry(),
            on_connect=self._on_connect,
            on_message=self._on_message,
            on_close=self._on_close,
            on_error=self._on_error,
            worker_size=2 if self._crowded else dice.choice([1, 2, 4]),
            buffer_size=1 if self._crowded else 256 if self._flooded else dice.choice([1, 3, 256]),
            max_connections=self.ledger.max_connections,
            memory_limit=self._memory_limit(),
            when_full=when_full,
            backlog=dice.choice([1, 128]),
            close_on_error=self._close_on_error,
            heartbeat=self._heartbeat(),
            options=self.options,
            executor=self.simulation.executor(2 if self._crowded else dice.choice([1, 2, 4])),
            reactor=self.simulation.reactor(),
        )

    def _memory_limit(self) -> int | None:
        """For few connections as little as can be: it is short again and again."""
        few = self.ledger.max_connections
        return 4 * LEAST_SHARE * few if few <= 2 else None

    def new_client(self) -> ClientConn:
        """One that connects."""
        dice = self.dice
        if self._shared_loop is None or self._chance(0.5):
            self._shared_loop = self.simulation.reactor()
        reconnects = self._chance(0.3)
        client = ClientConn(
            self.address,
            registry=self._registry(),
            on_connect=self._on_connect,
            on_message=self._on_message,
            on_close=self._on_close,
            on_error=self._on_error,
            buffer_size=dice.choice([1, 256]),
            connect_timeout=dice.choice([0.05, 5.0]),
            close_on_error=self._close_on_error,
            reconnect=Backoff(first=0.05, maximum=1.0) if reconnects else None,
            offline_limit=dice.choice([0, 500]) if reconnects else 0,
            heartbeat=self._heartbeat(),
            options=self.options,
            executor=self._executors_of_clients,
            reactor=self._shared_loop,
        )
        self._clients.append(client)
        self._watch_pool(client)
        self._watch_connector(client)
        client.start()
        return client

    def _watch_pool(self, owner: Any) -> None:
        """The server's, or a client's. The server makes its own when it listens."""

        def look() -> str | None:
            pool = owner._pool
            if pool is None:
                return None
            wrong = check_pool(pool)
            if wrong is None and isinstance(owner, Server):
                wrong = check_budget(owner)
            if wrong is not None:
                self.ledger.broken(wrong)
            return stuck_pool(pool)

        self.simulation.scheduler.add_sleeper(look)

    def _watch_connector(self, client: ClientConn) -> None:
        def look() -> str | None:
            connector = client._connector
            return None if connector is None else stuck_connector(connector)

        self.simulation.scheduler.add_sleeper(look)

    def _note(self, source: int, number: int, *, towards_client: bool) -> Note:
        """A message. What a client gets asks for little: or the two would never come to an end."""
        dice = self.dice
        kind = dice.choices([POOLED, INLINE, UNHANDLED, BAD, UNKNOWN], [12, 6, 2, 1, 1])[0]
        if towards_client:
            do = dice.choice([Do.NOTHING, Do.NOTHING, Do.SLEEP, Do.TIMER])
        else:
            weights = {
                Do.NOTHING: 8,
                Do.REPLY: 8,
                Do.WRITE_SLEEP_WRITE: 60 if self._talkative else 4,
                Do.SLEEP: 100 if self._crowded else 2,
                Do.RAISE: 0.5,
                Do.CLOSE: 0.3,
                Do.ABORT: 0.2,
                Do.TIMER: 2,
                Do.WAIT_CANCELLED: 0.5,
                Do.BROADCAST: 8 if self._broadcasts else 0,
                Do.WRITE_TO_ANOTHER: 2,
                Do.CLOSE_AND_SLEEP: 0.3,
                Do.SET_CODEC: 1,
                Do.CANCEL_TIMER: 1,
                Do.TELL_ANOTHER: 4,
            }
            do = dice.choices(list(weights), list(weights.values()))[0]
        if do is Do.BROADCAST and self._chance(0.5):
            kind = INLINE
        if kind == INLINE and do not in _FOR_THE_LOOP:
            do = Do.REPLY if not towards_client else Do.NOTHING
        if do in _SLEEPING and not self._sleeps:
            do = Do.NOTHING
        return Note(kind, Name(source, number), do, dice.choice([0, 0, 5, 60, LONGEST_FILLING]))

    # -- what the application does ---------------------------------------------------------------

    def new_source(self) -> int:
        """A number for who writes messages."""
        self._sources += 1
        return self._sources

    def write(self, conn: Any, note: Note) -> bool:
        """Whether it was accepted. Raises what `write` raises."""
        self.ledger.writing(note)
        result = conn.write(note)
        self.ledger.written(note)
        self.ledger.accept(conn, note)
        return bool(result)

    def _sleep(self) -> None:
        short = () if self._crowded else (0.0005, 0.003)
        length = self.dice.choice([*short, 0.1, LONGEST_SLEEP])
        if self._in_step:  # those who sleep wake at the same moment, and get in each other's way
            length -= self.simulation.time % length
        self.simulation.sleep(length)

    def _on_connect(self, conn: Any) -> bool:
        with self.ledger.callback(conn, "on_connect") as end:
            end.connects += 1
            if end.connects > 1:
                end.broken("on_connect a second time")
            if self._sleeps and self._chance(0.1):
                self._sleep()
            return not self._chance(0.03)

    def _on_message(self, message: Any, conn: Any) -> None:
        with self.ledger.callback(conn, f"on_message {message.name}") as end:
            end.begun.append(message.name)

    def _on_error(self, conn: Any, error: BaseException) -> None:
        end = self.ledger.end_of(conn)
        if not end.opened and not end.reasons:
            return  # it could not be connected
        with self.ledger.callback(conn, f"on_error {type(error).__name__}"):
            end.errors += 1

    def _on_close(self, conn: Any, reason: CloseReason) -> None:
        with self.ledger.callback(conn, f"on_close {reason}") as end:
            end.reasons.append(reason)

    def _on_timer(self, conn: Any, timer: Timer | None = None) -> None:
        with self.ledger.callback(conn, "timer") as end:
            if timer is not None:
                self.ledger.run_timer(end, timer)
            if self._chance(0.3):
                self._write_from(end.number, conn)

    def _write_from(self, source: int, conn: Any) -> None:
        """One message, by a callback of that end's."""
        end = self.ledger.ends[source]
        note = Note(
            self.dice.choice([POOLED, INLINE]),
            Name(1000 + source, next(end.numbers)),
            size=self.dice.choice([0, 30, 300]),
        )
        try:
            self.write(conn, note)
        except EXPECTED:
            pass

    def _handle(self, context: Context[Note], conn: WriteCloser) -> Message | None:
        message = context.message
        with self.ledger.callback(conn, f"handler of {message.name} {message.do.name}") as end:
            end.begun.append(message.name)
            if message.message_number == INLINE and end.session._closed_with is not None:
                end.broken("the loop knows of the end, and begins a handler")
            reply = self._do(message.do, end.number, context, conn)
            if reply is not None:
                self.ledger.writing(reply)
                self.ledger.accept(conn, reply)
                end.reply = reply
            return reply

    def _do(self, do: Do, source: int, context: Context[Note], conn: WriteCloser) -> Note | None:
        end = self.ledger.ends[source]
        if do is Do.REPLY:
            return self._reply(end, context.message.size)
        if do is Do.WRITE_SLEEP_WRITE:
            self._write_from(source, conn)
            self._sleep()
            self._write_from(source, conn)
        elif do is Do.SLEEP:
            self._sleep()
        elif do is Do.RAISE:
            raise _HandlerFailed
        elif do is Do.CLOSE:
            conn.close()
        elif do is Do.ABORT:
            conn.abort()
        elif do is Do.TIMER:
            self.set_timer(conn)
        elif do is Do.WAIT_CANCELLED:
            context.wait_cancelled(self.dice.choice([0.01, 1.0]))
        elif do is Do.BROADCAST and end.client is None:
            if self._chance(0.5):
                self._write_to_another(20_000 + source)  # which the broadcast must not overtake
            self.broadcast(3000 + source)
        elif do is Do.WRITE_TO_ANOTHER and end.client is None:
            self._sleep()
            self._write_to_another(20_000 + source)
            self._sleep()
        elif do is Do.CLOSE_AND_SLEEP:
            self._sleep()
            conn.close()
            self._sleep()
        elif do is Do.SET_CODEC:
            conn.set_codec(TypeLengthValueCodec())
        elif do is Do.CANCEL_TIMER:
            self.cancel_timer(conn, in_order=True)
        elif do is Do.TELL_ANOTHER and end.client is None:
            other = self._write_to_another(
                20_000 + source
            )  # whose message may have been read beside this
            if other is not None and self._chance(0.2):
                other.close()
            return self._reply(end, context.message.size)
        return None

    @staticmethod
    def _reply(end: End, size: int) -> Note:
        return Note(POOLED, Name(1000 + end.number, next(end.numbers)), size=size)

    def set_timer(self, conn: Any) -> None:
        """Some timer or other on a connection."""
        delay = self.dice.choice([0.0, 0.001, 0.05, 1.0, 20.0])
        kind = self.dice.randrange(4)
        clock = self.simulation.clock
        if kind == 0:
            delay = max(delay, 0.01)
            timer = Timer(clock.monotonic() + delay, True)
            timer.id = conn.run_every(delay, lambda now, conn: self._on_timer(conn, timer))
        elif kind == 1:
            timer = Timer(-math.inf, False)  # the wall clock may be put forward
            when = clock.unix() + delay
            timer.id = conn.run_at(when, lambda now, conn: self._on_timer(conn, timer))
        else:
            timer = Timer(clock.monotonic() + delay, False)
            timer.id = conn.run_after(delay, lambda now, conn: self._on_timer(conn, timer))
        self.ledger.end_of(conn).timers.append(timer)
        if kind == 3:
            self.cancel_timer(conn, in_order=False)

    def cancel_timer(self, conn: Any, *, in_order: bool) -> None:
        """One of those that were set on a connection; `in_order` if one of its own callbacks does."""
        timers = self.ledger.end_of(conn).timers
        if timers:
            timer = self.dice.choice(timers)
            still_to_run = conn.cancel_timer(timer.id)
            timer.cancelled(still_to_run=still_to_run, in_order=in_order)

    def _write_to_another(self, source: int) -> ServerConn | None:
        """By a handler, to whichever connection the dice choose; which that is."""
        conns = self.server.connections()
        if not conns:
            return None
        conn = self.dice.choice(conns)
        name = Name(source, next(self._numbers))
        try:
            self.write(conn, Note(POOLED, name, size=30))
        except EXPECTED:
            pass
        return conn

    def broadcast(self, source: int) -> None:
        """A message to all, or to some."""
        name = Name(source, next(self._numbers))
        note = Note(POOLED, name, size=self.dice.choice([0, 50]))
        self.ledger.maybe[note.name] = note.frame_size
        self.ledger.writing(note)
        receivers = self.server.connections()
        policies: list[WhenFull] = ["refuse", "drop_oldest", "close"]
        when_full = self.dice.choice(policies)
        if self._chance(0.5):
            self.server.broadcast(note, when_full=when_full)
        else:
            group = self.server.group("some")
            for conn in receivers[::2]:
                group.join(conn)
            group.broadcast(note, when_full=when_full)
        self.ledger.written(note)

    # -- who takes part --------------------------------------------------------------------------

    def _client(self) -> None:
        """A thread that uses a client."""
        client = self.new_client()
        source = self.new_source()
        if self._chance(0.7):
            try:
                client.wait_connected(self.dice.choice([0.01, 10.0]))
            except ConnectionClosedError:
                pass
        for number in range(self.dice.randrange(25)):
            self._act(client, source, number)
        self.simulation.sleep(self.dice.choice([0.0, 0.01, 1.0]))
        if self._chance(0.8):
            client.close()

    def _act(self, client: ClientConn, source: int, number: int) -> None:
        """One thing that an application may do with a client."""
        what = self.dice.choices(
            [
                *("write", "sleep", "close", "abort", "pause", "resume"),
                *("timer", "cancel", "codec", "server", "clock"),
            ],
            [30, 8, 0.3, 0.2, 1, 2, 2, 3, 1.5, 2, 0.5],
        )[0]
        try:
            if what == "write":
                self.write(client, self._note(source, number, towards_client=False))
            elif what == "sleep":
                self._sleep()
            elif what == "close":
                client.close()
            elif what == "abort":
                client.abort()
            elif what == "pause":
                client.pause_reading()
                self._sleep()
                client.resume_reading()
            elif what == "resume":
                client.resume_reading()
            elif what == "timer":
                self.set_timer(client)
            elif what == "cancel":
                self.cancel_timer(client, in_order=False)
            elif what == "codec":
                client.set_codec(TypeLengthValueCodec())
            elif what == "clock":
                self.simulation.step_wall_clock(self.dice.choice([-3600.0, 0.5, 86_400.0]))
            else:
                self._act_at_server(source, number)
        except EXPECTED:
            pass

    def _act_at_server(self, source: int, number: int) -> None:
        """One thing that an application may do with a server."""
        conns = self.server.connections()
        if self._broadcasts and self._chance(0.5):
            for _ in range(self.dice.choice([1, 3, 20])):
                if self._chance(0.5):
                    self._write_to_another(6000 + source)  # which may have to make room
                self.broadcast(2000 + source)
        elif conns:
            conn = self.dice.choice(conns)
            what = self.dice.randrange(10)
            if what == 0:
                conn.close()
            elif what == 1:
                conn.abort()
            elif what == 2:
                conn.pause_reading()
                self._sleep()
                conn.resume_reading()
            elif what == 3:
                self.set_timer(conn)
            elif what == 4:
                conn.set_codec(TypeLengthValueCodec())
            else:
                self.write(conn, self._note(source + 5000, number, towards_client=True))

    def _talk(self) -> None:
        """A thread that writes to one of the server's connections again and again."""
        source = self.new_source() + 30_000
        for number in range(self.dice.randrange(200)):
            conns = self.server.connections()
            if conns:
                try:
                    self.write(conns[0], Note(POOLED, Name(source, number), size=5))
                except EXPECTED:
                    pass
            if not conns or self._chance(0.3):
                self.simulation.sleep(self.dice.choice([0.0, 0.001, 0.01]))

    def _bare_peer(self) -> None:
        """A thread with a socket of its own, who need not be polite."""
        dice = self.dice
        try:
            for _ in range(4 if self._chance(0.2) else 0):
                self.simulation.connect(
                    self.address, timeout=5.0
                ).reset()  # gone before it is greeted
            sock = self.simulation.connect(self.address, timeout=5.0)
        except OSError:
            return
        source = self.new_source()
        try:
            self._speak(sock, source)
            how = dice.randrange(4)
            if how == 0:
                self.simulation.sleep(dice.choice([0.0, 0.001, 0.05]))  # some of it has been read
                sock.reset()
            elif how == 1:
                sock.shutdown(socket.SHUT_WR)
                # Not for ever: heartbeats may come faster than the network takes them.
                until = self.simulation.time + LONGEST_READING
                while sock.recv(100) and self.simulation.time < until:
                    pass
            elif how == 2:
                self.simulation.sleep(20.0)  # it reads nothing
        except OSError:
            pass
        finally:
            sock.close()

    def _speak(self, sock: socket.socket, source: int) -> None:
        dice = self.dice
        count = dice.randrange(20, 40) if self._flooded else dice.randrange(12)
        notes = [self._note(source, number, towards_client=False) for number in range(count)]
        # It asks for more than it reads.
        if self._flooded or (not self._crowded and self._chance(0.3)):
            kinds = dice.choice([(POOLED,), (INLINE,), (POOLED, INLINE)])
            notes = [
                Note(dice.choice(kinds), note.name, Do.REPLY, LONGEST_FILLING) for note in notes
            ]
            if (
                notes and self._sleeps and (self._flooded or self._chance(0.5))
            ):  # for the others to wait
                notes[0] = Note(POOLED, notes[0].name, Do.SLEEP)
        stream = b"".join(note.frame() for note in notes)
        if self._chance(0.2):
            stream += HEADER.pack(-1, 0xFFFF_FFFF)  # no frame can be so long
        elif self._chance(0.3):
            stream = stream[: dice.randrange(len(stream) + 1)]
        step = dice.choice([1, 7, 10_000])
        if len(stream) > 300:
            step = max(step, 50)
        for start in range(0, len(stream), step):
            sock.sendall(stream[start : start + step])
            if self._chance(0.1):
                self._sleep()

    def _use_loop(self) -> None:
        """A thread that uses the server's loop as any program may, beside the server."""
        (loop, *_) = self.simulation.reactors
        sockets: list[SimulatedSocket] = []
        silenced: list[SimulatedSocket] = []
        timeouts: list[Timeout] = []

        def connect() -> None:
            sock = self.simulation.network.socket()
            sock.setblocking(False)
            sock.connect_ex(self.address)
            loop.register(sock, WRITE, lambda ready: handle_ready(sock))
            sockets.append(sock)

        def handle_ready(sock: SimulatedSocket) -> None:
            if not sock.ready() & WRITE:
                self.ledger.broken(f"{sock!r} is said to be ready, and is not")
            if sock in silenced:
                self.ledger.broken(f"{sock!r} is ready for what nobody waits for any more")
            silence(sock)
            if len(silenced) == 1:
                one, another = (other for other in sockets if other is not sock)
                silence(one)
                close([another])
                connect()  # with the number of the one that has just been closed

        def silence(sock: SimulatedSocket) -> None:
            loop.modify(sock, 0)
            silenced.append(sock)

        def close(chosen: list[SimulatedSocket]) -> None:
            for sock in list(chosen):
                sockets.remove(sock)
                loop.unregister(sock)
                sock.close()

        def fire(me: int) -> None:
            if not timeouts[1 - me].cancel():
                self.ledger.broken("of two time-outs that cancel each other, both fire")

        def begin() -> None:
            for _ in range(3):
                connect()
            timeouts.extend(loop.call_later(0.002, fire, me) for me in (0, 1))

        loop.call_soon_threadsafe(begin)
        self.simulation.sleep(1.0)
        ended = self.simulation.event()
        loop.call_soon_threadsafe(close, sockets)
        loop.call_soon_threadsafe(ended.set)
        ended.wait()

    # -- from the beginning to the end -----------------------------------------------------------

    @contextmanager
    def playing(self) -> Iterator[None]:
        """The server listens, and the block happens; then all is brought to its end, and checked.

        Raises what is wrong; SimulationError if it is a rule of the ledger's.
        """
        simulation = self.simulation
        watching = self.ledger.watching(simulation)
        small = mock.patch.object(reactor.connection, "GATHERED_SIZE", self._gathered_size)
        with _listening_for_defects() as defects, watching, small, simulation:
            self.address = self.server.listen(ADDRESS)
            yield
            self._stop_server()
            for thread in self._threads:
                thread.join()
            self._end_clients()
            self._check_timers()
            simulation.sleep(60.0)  # for what is still under way
            self._check(defects)

    def play(self) -> None:
        """What the seed has chosen. Raises as `playing` does."""
        with self.playing():
            if self._chance(0.2):
                interval = self.dice.choice([0.02, 1.0])
                self.server.schedule(interval, lambda now, conn: self._on_timer(conn))
            if self._chance(0.3):
                self._threads.append(self.simulation.spawn(self._use_loop, name="user"))
            for _ in range(3 if self._talkative else 0):
                self._threads.append(self.simulation.spawn(self._talk, name="talker"))
            for _ in range(10 if self._crowded else self.dice.randint(1, 4)):
                who = (
                    self._client if self._chance(0.2 if self._flooded else 0.7) else self._bare_peer
                )
                self._threads.append(self.simulation.spawn(who, name="peer"))
            if self._chance(0.3):
                self._sleep()
            else:
                for thread in self._threads:
                    thread.join()
            self._check_accepting()

    def _check_accepting(self) -> None:
        """Who has connected does not wait to be accepted for ever, where there is room for him."""
        (listener,) = self.simulation.network.listening()
        most = self.ledger.max_connections

        def done() -> bool:
            return not listener.waiting or self.server.connection_count >= most

        try:
            self.simulation.wait(done, LONGEST_SHORTAGE)
        except SimulationError:
            self.ledger.broken(f"{listener.waiting} connections wait, and nobody accepts them")

    def _stop_server(self) -> None:
        simulation = self.simulation
        grace = self.dice.choice([0.0, 0.5, 5.0])
        begun = simulation.time
        report = self.server.stop(grace)
        took = simulation.time - begun
        if took > grace + STOP_MARGIN + 0.001:
            self.ledger.broken(f"stop({grace}) has taken {took:.3f} s")
        if not report.finished:
            # Or did, when it was given up: to return in that very moment is too late.
            latest = begun + grace + STOP_MARGIN / 2
            if not any(
                end.running or end.ran_until >= latest
                for end in self.ledger.ends
                if end.client is None
            ):
                self.ledger.broken(f"{report}, and no handler runs")
            self.ledger.left_behind = True
        else:
            self.ledger.check_told()

    def _end_clients(self) -> None:
        for client in self._clients:
            if self._chance(0.5):
                client.close()
            else:
                client.abort()
        for client in self._clients:
            reason = client.wait_closed(LONGEST_END)
            if reason is None:
                raise SimulationError(f"{client!r} does not end")
            self.final_reasons[client] = reason

    def _check_timers(self) -> None:
        """All connections are gone: none of them has left a timer, harmless as it may be."""
        loops = self.simulation.reactors

        def left() -> int:
            return sum(loop.statistics().timeouts_waiting for loop in loops)

        if not self.ledger.left_behind:
            try:
                self.simulation.wait(
                    lambda: not left(), 0.1
                )  # the worker pools' own come once more
            except SimulationError:
                self.ledger.broken(f"{left()} timers are left, and no connection is")

    def _check(self, defects: _Defects) -> None:
        if self.ledger.broken_rules:
            raise SimulationError("; ".join(self.ledger.broken_rules))
        if defects.found:
            raise SimulationError(f"logged as a defect: {'; '.join(defects.found)}")
        self.ledger.check(self.final_reasons)


def run(seed: int) -> list[Entry]:
    """Play a seed; its trace. Raises what has gone wrong."""
    played = Run(seed)
    played.play()
    return played.simulation.trace
