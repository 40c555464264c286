"""What was written, handled and told in a run, and whether it adds up.

Contents: Note, frames_of, Timer, End, Ledger.

Owns the invariants. An End is one connection as one side sees it. What was really sent and received is
taken from the simulated sockets, what the application was told from its callbacks; the framework stands
between the two, and must not have lost, doubled or reordered anything without saying so.
"""

from __future__ import annotations

import enum
import itertools
import math
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn
from unittest import mock

from reactor import (
    TRANSITIONS,
    CloseCause,
    CloseReason,
    Connection,
    ConnectionEvent,
    ConnectionState,
)
from reactor.testing import SimulatedSocket, Simulation, SimulationError
from reactor.testing.network import SimulatedPipe
from tao.session import Session
from tests.simulate.books import check_counts, stuck

__all__ = [
    "BAD",
    "HEADER",
    "INLINE",
    "POOLED",
    "UNHANDLED",
    "UNKNOWN",
    "Do",
    "End",
    "Ledger",
    "Note",
    "Timer",
    "frames_of",
]

POOLED, INLINE, UNHANDLED, BAD, UNKNOWN = 1, 2, 3, 4, 99
"""Message numbers: handled by a worker, by the loop, by on_message; not decoded; not registered."""

HEADER = struct.Struct("<iI")
_VALUE = struct.Struct("<BHI")

HEARTBEAT_SIZE = 16
LONGEST_FILLING = 400
LONGEST_FRAME = HEADER.size + _VALUE.size + LONGEST_FILLING
"""Bytes; none of a run is longer."""

MOST_HEARTBEATS = 100_000
"""That may wait on one connection; nobody counts them."""


class Do(enum.IntEnum):
    """What the handler of a message does."""

    NOTHING = 0
    REPLY = enum.auto()
    WRITE_SLEEP_WRITE = enum.auto()
    SLEEP = enum.auto()
    RAISE = enum.auto()
    CLOSE = enum.auto()
    ABORT = enum.auto()
    TIMER = enum.auto()
    WAIT_CANCELLED = enum.auto()
    BROADCAST = enum.auto()
    WRITE_TO_ANOTHER = enum.auto()
    CLOSE_AND_SLEEP = enum.auto()
    SET_CODEC = enum.auto()
    CANCEL_TIMER = enum.auto()
    TELL_ANOTHER = enum.auto()


class Name(NamedTuple):
    """Which message it is: who wrote it, and his how manieth it was."""

    source: int
    number: int


@dataclass(frozen=True, slots=True)
class Note:
    """A message: its name, what is to be done about it, and something to fill it up."""

    message_number: int
    name: Name
    do: Do = Do.NOTHING
    size: int = 0

    def serialize(self) -> bytes:
        """A value that can be seen to be whole."""
        return _VALUE.pack(self.do, *self.name) + bytes([self.name.number & 0xFF]) * self.size

    @property
    def frame_size(self) -> int:
        """On the wire."""
        return HEADER.size + _VALUE.size + self.size

    def frame(self) -> bytes:
        """On the wire."""
        value = self.serialize()
        return HEADER.pack(self.message_number, len(value)) + value


def note_of(number: int, value: bytes) -> Note:
    """Raises ValueError unless it is whole."""
    do, source, count = _VALUE.unpack_from(value)
    filling = value[_VALUE.size :]
    if filling != bytes([count & 0xFF]) * len(filling):
        raise ValueError(f"message {source}/{count} is not what was sent: {value!r}")
    return Note(number, Name(source, count), Do(do), len(filling))


def _understood(number: int, value: bytes) -> Note | None:
    """As a message that has a handler; None for what is none."""
    try:
        return note_of(number, value) if number in (POOLED, INLINE, UNHANDLED) else None
    except (ValueError, struct.error):
        return None


def frames_of(stream: bytes) -> tuple[list[tuple[int, bytes]], int]:
    """The whole frames at its beginning, and where they end."""
    frames = []
    start = 0
    while len(stream) - start >= HEADER.size:
        number, size = HEADER.unpack_from(stream, start)
        if len(stream) - start - HEADER.size < size:
            break
        frames.append((number, stream[start + HEADER.size : start + HEADER.size + size]))
        start += HEADER.size + size
    return frames, start


def _is_refused(rest: bytes) -> bool:
    """Whether what has come of the last frame says that nobody wants it."""
    return len(rest) >= HEADER.size and HEADER.unpack_from(rest)[0] == UNKNOWN


@dataclass(slots=True)
class Timer:
    """One of a connection's: when it may run, and how often, once it was called off."""

    due: float
    """Monotonic seconds before which it must not run."""
    repeats: bool
    id: int = 0
    runs_left: float = math.inf

    def cancelled(self, *, still_to_run: bool, in_order: bool) -> None:
        """`cancel_timer` has returned `still_to_run`; `in_order` if one of the connection's callbacks
        called it, for then no other was about to begin."""
        about_to_run = not in_order and (self.repeats or not still_to_run)
        self.runs_left = min(self.runs_left, 1 if about_to_run else 0)


class End:
    """One connection, as one side sees it."""

    def __init__(self, ledger: Ledger, session: Session[Any], connection: Connection) -> None:
        self.ledger = ledger
        self.session = session
        self.connection = connection
        self.number = len(ledger.ends)
        side = "server" if session.server is not None else "client"
        self.name = f"{side}'s end {self.number}"
        self.client: object = None if session.server is not None else session.conn
        self.socket: SimulatedSocket | None = None
        self.states: list[ConnectionState] = []
        self.reasons: list[CloseReason] = []
        self.begun: list[Name] = []
        self.errors = 0
        self.connects = 0
        self.running = False
        self.ran_until = 0.0  # when its last callback returned
        self.timers: list[Timer] = []
        self.timers_over = False  # they had been called off when its last callback returned
        self.reply: Note | None = None  # what its last handler has returned
        self.numbers = itertools.count()

    @property
    def opened(self) -> bool:
        """Whether it has ever been OPEN."""
        return ConnectionState.OPEN in self.states

    def broken(self, what: str) -> NoReturn:
        """Something that must not happen."""
        self.ledger.broken(f"{self.name}: {what}")

    def check_drained(self) -> None:
        """It sends FIN: nothing comes behind that."""
        if self.connection.pending:
            self.broken(f"{self.connection.pending} bytes are to be sent behind its FIN")
        if not self.session.is_idle():
            self.broken("it sends FIN, and a handler may still write")

    def look(self) -> str | None:
        """While nobody can run: what waits in vain."""
        if self.reasons:
            return None
        wrong = check_counts(self.session, LONGEST_FRAME)
        if wrong is not None:
            self.broken(wrong)
        waits = stuck(self.session)
        return None if waits is None else f"{self.name}: {waits}"

    def __repr__(self) -> str:
        return f"<{self.name} {self.connection!r}>"


class Ledger:
    """Every end of a run, and all that was written."""

    def __init__(self, note: Callable[[str], object], time: Callable[[], float]) -> None:
        self.note = note
        self._time = time
        self.ends: list[End] = []
        self.broken_rules: list[str] = []
        self.left_behind = False  # the server has given up handlers that did not return
        self.max_connections = 0  # of the server; 0: any number
        self._by_session: dict[int, End] = {}
        # By who has written: the client object, or the server's end. `maybe` is what may have been
        # accepted by a broadcast, which does not say by whom.
        self.accepted: dict[object, dict[Name, int]] = {}
        self.maybe: dict[Name, int] = {}
        # When its writing began, and when that was over: what begins after that comes after it.
        self._written: dict[Name, tuple[int, float]] = {}
        self._moments = itertools.count()

    def broken(self, what: str) -> NoReturn:
        """Note it, and raise; whoever catches it cannot make it undone."""
        self.broken_rules.append(what)
        self.note(f"BROKEN {what}")
        raise SimulationError(what)

    # -- what happens ----------------------------------------------------------------------------

    @contextmanager
    def watching(self, simulation: Simulation) -> Iterator[None]:
        """Note every connection that is made while the block runs, and look at it again and again; and at
        who wakes a loop."""
        ledger = self

        class Audited(Connection):
            """Whoever writes the state is looked at: it may only move along the table."""

            __slots__ = ("_audited", "_side")

            def __init__(self, environment: Any, handler: Any, **arguments: Any) -> None:
                self._side = end = End(ledger, handler, self)
                super().__init__(environment, handler, **arguments)
                ledger.ends.append(end)
                ledger._by_session[id(handler)] = end
                simulation.scheduler.add_sleeper(end.look)

            @property
            def state(self) -> ConnectionState:
                return self._audited

            @state.setter
            def state(self, state: ConnectionState) -> None:
                if not hasattr(self, "_audited"):
                    self._audited = state  # the first
                    return
                end = self._side
                if state not in TRANSITIONS[self._audited].values():
                    end.broken(f"the state moves from {self._audited} to {state}")
                self._audited = state
                end.states.append(state)
                if state is ConnectionState.OPEN:
                    end.ledger.check_room()
                end.ledger.note(f"{end.name} is {state}")
                if state is ConnectionState.LINGERING:
                    end.check_drained()

            def change_state(self, event: ConnectionEvent) -> ConnectionState:
                sock = self._side.socket
                if event is ConnectionEvent.PEER_FIN and sock is not None and not sock.ended:
                    self._side.broken("it has seen the peer's FIN before that has come")
                return super().change_state(event)

            def start(self, sock: Any) -> None:
                self._side.socket = sock
                super().start(sock)

            def _drop_oldest(self, size: int) -> int:
                frames = len(self._outbox) + self.frames_dropped
                freed = super()._drop_oldest(size)
                if len(self._outbox) + self.frames_dropped != frames:
                    # The ledger cannot tell: it does not know whom a broadcast has reached.
                    self._side.broken("frames have made room, and are not counted")
                return freed

        send = SimulatedPipe.send

        def audited_send(pipe: SimulatedPipe, data: bytes) -> int:
            for loop in simulation.reactors:
                if loop._waker_fd == pipe.fileno() and loop.in_loop_thread():
                    ledger.broken("a loop wakes itself, in the midst of a pass")
            return send(pipe, data)

        with (
            mock.patch("tao.session.Connection", Audited),
            mock.patch.object(SimulatedPipe, "send", audited_send),
        ):
            yield

    def end_of(self, conn: Any) -> End:
        """The one that a callback is about."""
        return self._by_session[id(conn._session)]

    @contextmanager
    def callback(self, conn: Any, what: str) -> Iterator[End]:
        """A callback runs: one at a time, and none after on_close."""
        end = self.end_of(conn)
        self.note(f"{end.name}: {what}")
        if end.reasons:
            end.broken(f"{what} after on_close")
        if what not in ("on_connect", "timer") and not end.connects:
            end.broken(f"{what} before on_connect")
        if end.running:
            end.broken(f"{what} while another callback runs")
        if what == "timer" and end.timers_over:
            end.broken("a timer runs, and the connection's have been called off")
        # On the loop, the reply of the one before is not yet counted when it is asked who may begin.
        most = end.session._service.options.connection.output.high + LONGEST_FRAME
        unread = end.session._uncollected
        if unread > most and not what.startswith(("on_error", "on_close")):
            end.broken(f"{what} while {unread} bytes of those before it wait for the peer")
        if end.reply is not None:
            self.written(end.reply)
            end.reply = None
        end.running = True
        try:
            yield end
        finally:
            end.running = False
            end.ran_until = self._time()
            extras = end.session._extras
            end.timers_over = (
                extras is not None and extras.timers is not None and extras.timers._ended
            )

    def writing(self, note: Note) -> None:
        """Somebody is about to write it."""
        self._written[note.name] = (next(self._moments), math.inf)

    def written(self, note: Note) -> None:
        """It is in line: what is written from here on, by whomever, comes behind it."""
        begun, _ = self._written[note.name]
        self._written[note.name] = (begun, next(self._moments))

    def accept(self, conn: Any, note: Note) -> None:
        """`write` has taken it, or will take it as a reply."""
        end = self.end_of(conn)
        writer = end if end.client is None else end.client
        names = self.accepted.setdefault(writer, {})
        assert note.name not in names
        names[note.name] = note.frame_size

    def run_timer(self, end: End, timer: Timer) -> None:
        """Its callback runs."""
        if self._time() < timer.due:
            end.broken(f"a timer runs {timer.due - self._time():g} s too early")
        if timer.runs_left <= 0:
            end.broken("a timer runs that was cancelled")
        timer.runs_left -= 1

    def check_room(self) -> None:
        """A connection is open."""
        open_ends = sum(
            end.client is None and end.opened and end.states[-1] is not ConnectionState.CLOSED
            for end in self.ends
        )
        if self.max_connections and open_ends > self.max_connections:
            self.broken(f"{open_ends} connections, and {self.max_connections} are allowed")

    def check_told(self) -> None:
        """The server has stopped, and says that it has finished: all its connections were told of."""
        for end in self.ends:
            if end.client is None and end.opened and not end.reasons:
                end.broken("the server has stopped, and there was no on_close")

    # -- whether it adds up ----------------------------------------------------------------------

    def check(self, final_reasons: dict[object, CloseReason]) -> None:
        """All is over: does it add up? `final_reasons` is what each client's `wait_closed` has said."""
        for end in self.ends:
            self._check_end(end)
        clients = {id(end.client): end.client for end in self.ends if end.client is not None}
        for client in clients.values():
            ends = [end for end in self.ends if end.client is client]
            final = final_reasons[client]
            offline = final.unsent - (ends[-1].reasons[-1].unsent if ends[-1].reasons else 0)
            if offline < 0:
                self.broken(f"a client's last word has {-offline} bytes less unsent than on_close")
            self._check_sent(client, ends, offline)
        for end in self.ends:
            if end.client is None:
                self._check_sent(end, [end], 0)
            self._check_received(end)
        self._check_between()

    def _check_end(self, end: End) -> None:
        if end.states and end.states[-1] is not ConnectionState.CLOSED:
            end.broken(f"it was left {end.states[-1]}")
        if end.opened and len(end.reasons) != 1 and not (self.left_behind and not end.reasons):
            end.broken(f"{len(end.reasons)} calls of on_close for one connection")
        if not end.opened and end.reasons:
            end.broken("on_close, and it was never open")
        if end.connection.pending:
            end.broken(f"{end.connection.pending} bytes are still pending when it is over")
        if len(end.session.timers):
            end.broken(f"{len(end.session.timers)} timers are left")
        aborted = any(reason.cause is CloseCause.ABORTED for reason in end.reasons)
        if aborted and end.socket is not None and end.socket._lingers:
            end.broken("it was aborted, and its socket was closed as if in good order")

    def _check_sent(self, writer: object, ends: list[End], offline: int) -> None:
        """What `write` took, the kernel has got, once and in order; or the reasons speak of it."""
        accepted = self.accepted.get(writer, {})
        seen: dict[Name, End] = {}
        unsent, dropped, partial = offline, 0, 0
        for end in ends:
            stream = b"" if end.socket is None else bytes(end.socket.taken)
            frames, whole = frames_of(stream)
            partial += len(stream) - whole
            for number, value in frames:
                if number == 0:
                    continue  # a heartbeat
                name = note_of(number, value).name
                if name in seen:
                    end.broken(f"{name} was sent twice")
                if name not in accepted and name not in self.maybe:
                    end.broken(f"{name} was sent, and no write has said that it would be")
                seen[name] = end
            for reason in end.reasons:
                unsent += reason.unsent
                dropped += reason.dropped
        self._check_order(seen)
        if self.left_behind and not all(end.reasons for end in ends if end.opened):
            return  # nobody was told
        missing = [size for name, size in accepted.items() if name not in seen]
        perhaps = [size for name, size in self.maybe.items() if name not in seen]
        # Of what is missing, so many were dropped; which of them, nobody says.
        candidates = sorted([*missing, *perhaps])
        most_dropped = sum(candidates[-dropped:]) if dropped else 0
        least_dropped = sum(candidates[:dropped])
        heartbeats = (
            MOST_HEARTBEATS * HEARTBEAT_SIZE if ends[0].session._service.options.heartbeat else 0
        )
        lowest = sum(missing) - partial - most_dropped
        highest = sum(missing) - partial + sum(perhaps) - least_dropped + heartbeats
        if not lowest <= unsent <= max(highest, lowest):
            self.broken(
                f"{ends[-1].name}: {len(missing)} messages of {sum(missing)} bytes that write has taken "
                f"were never sent, but for {partial} bytes; told were {unsent} bytes unsent, {dropped} "
                f"messages dropped"
            )

    def _check_order(self, sent: dict[Name, End]) -> None:
        """What was in line before somebody began to write something else was sent before that."""
        first: tuple[float, Name | None] = (
            math.inf,
            None,
        )  # of what was sent later, the first in line
        for name, end in reversed(sent.items()):
            begun, over = self._written[name]
            if first[0] < begun:
                end.broken(f"{name} was sent before {first[1]}, which was in line before it")
            first = min(first, (over, name), key=lambda item: item[0])

    def _check_received(self, end: End) -> None:
        """What was received was handled, once and in order; or the reason speaks of it."""
        received = b"" if end.socket is None else bytes(end.socket.given)
        received = received[: end.connection.bytes_received]
        if not end.reasons:
            return
        (reason,) = end.reasons
        if reason.cause is CloseCause.PEER_CLOSED and end.socket is not None:
            unread = len(end.socket.given) - len(received)
            if unread:
                end.broken(f"{unread} bytes that the peer sent before its FIN were thrown away")
        frames, whole = frames_of(received)
        if not reason.undecoded and _is_refused(received[whole:]):
            frames.append(
                (UNKNOWN, received[whole + HEADER.size :])
            )  # what has come was thrown away
        boundaries = list(
            itertools.accumulate((HEADER.size + len(value) for _, value in frames), initial=0)
        )
        decoded_bytes = len(received) - reason.undecoded
        if decoded_bytes not in boundaries:
            end.broken(
                f"{reason.undecoded} bytes undecoded of {len(received)}: that is inside a frame"
            )
        decoded = frames[: boundaries.index(decoded_bytes)]
        understood = [note for frame in decoded if (note := _understood(*frame)) is not None]
        names = [note.name for note in understood]
        if end.begun != names[: len(end.begun)]:
            end.broken(f"received were {names}, and handled {end.begun}")
        heartbeats = sum(number == 0 for number, _ in decoded)
        errors = len(decoded) - len(names) - heartbeats
        rest = len(names) - len(end.begun)
        owed = reason.cause in (CloseCause.PEER_CLOSED, CloseCause.STOPPED)
        if rest and owed and ConnectionState.LINGERING in end.states:
            end.broken(f"{rest} messages came before the end, and were not handled")
        if not rest <= reason.unhandled <= rest + heartbeats:
            end.broken(
                f"{len(names)} messages came, {len(end.begun)} were begun, {reason.unhandled} told of"
            )
        if end.errors < errors:
            end.broken(f"{errors} messages were not understood, and {end.errors} errors told")

    def _check_between(self) -> None:
        """What one end's kernel took, the other's has handed up, where nothing was reset."""
        for one in self.ends:
            sock = one.socket
            peer = None if sock is None else sock._peer
            if sock is None or peer is None or sock._dead or peer._dead:
                continue
            if any(reason.cause is CloseCause.ABORTED for reason in one.reasons):
                continue
            if peer.taken != sock.given and one.opened and not self.left_behind:
                one.broken(f"{len(peer.taken)} bytes were sent to it, {len(sock.given)} received")
