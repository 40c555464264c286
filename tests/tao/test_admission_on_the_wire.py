"""What a registration lets in, however TCP has cut the stream and whoever runs the handlers.

A reference says what must become of a stream; the server in the simulation, with its workers, must come to
the same.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tao import (
    AdmissionError,
    CloseReason,
    Context,
    FrameTooLargeError,
    MessageRegistry,
    Objection,
    Phase,
    Rate,
    Refusal,
    ServerConn,
    UndefinedMessageError,
    WriteCloser,
)
from tao.testing import Simulation
from tests.support import Sample, as_bytes, frame

LOGIN, LOGIN_INLINE, ORDER, ORDER_INLINE, STRICT, PLAIN, PLAIN_INLINE = range(1, 8)
SMALL, SIZED, RATED, RATED_STRICT, LEAVE, UNKNOWN = range(8, 14)

FOR_EVER = 1e9
"""Seconds: for rates whose tokens do not come back while a test runs."""


@dataclass(frozen=True)
class Terms:
    """How a number is registered."""

    inline: bool = False
    max_size: int | None = None
    phases: Phase = Phase.ANY
    rate: Rate | None = None
    refusal: Refusal = Refusal.SKIP


TERMS = {
    LOGIN: Terms(phases=Phase.BEFORE),
    LOGIN_INLINE: Terms(phases=Phase.BEFORE, inline=True, refusal=Refusal.CLOSE),
    ORDER: Terms(phases=Phase.AFTER),
    ORDER_INLINE: Terms(phases=Phase.AFTER, inline=True),
    STRICT: Terms(phases=Phase.AFTER, refusal=Refusal.CLOSE),
    PLAIN: Terms(),
    PLAIN_INLINE: Terms(inline=True),
    SMALL: Terms(max_size=4),
    SIZED: Terms(max_size=4, refusal=Refusal.CLOSE),
    RATED: Terms(rate=Rate(2, per=FOR_EVER), max_size=8),
    RATED_STRICT: Terms(rate=Rate(1, per=FOR_EVER), refusal=Refusal.CLOSE),
    LEAVE: Terms(),
}

WRONG = b"no"
"""A login with this does not authenticate."""

Report = tuple[str, int, Objection | None]


@dataclass
class Outcome:
    """What became of a stream."""

    handled: list[tuple[int, bytes]] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)
    replies: bytes = b""
    ended: bool = False
    """By something in the stream, and not by its end."""


def report(error: BaseException) -> Report:
    """What is compared of an error."""
    if isinstance(error, AdmissionError):
        return ("admission", error.number, error.objection)
    if isinstance(error, UndefinedMessageError):
        return ("undefined", error.number, None)
    assert isinstance(error, FrameTooLargeError), error
    return ("large", 0, None)


def expect(stream: bytes, frames_allowed: int | None = None) -> Outcome:
    """One frame after the other, each when all before it is done with."""
    outcome, authenticated, used = Outcome(), False, dict.fromkeys(TERMS, 0)
    at = count = 0
    while len(stream) - at >= 8 and not outcome.ended:
        number, size = struct.unpack_from("<iI", stream, at)
        value = stream[at + 8 : at + 8 + size]
        at += 8 + size
        whole = at <= len(stream)
        count += 1
        if frames_allowed is not None and count > frames_allowed:
            outcome.reports.append(("admission", number, Objection.ADDRESS_RATE))
            outcome.ended = True
            break
        terms = TERMS.get(number)
        if terms is None:
            outcome.reports.append(("undefined", number, None))
            continue
        closes = terms.refusal is Refusal.CLOSE
        refused: Report | None = None
        if not terms.phases & (Phase.AFTER if authenticated else Phase.BEFORE):
            refused = ("admission", number, Objection.PHASE)
        elif terms.max_size is not None and size > terms.max_size:
            refused = ("large", 0, None) if closes else ("admission", number, Objection.SIZE)
        elif terms.rate is not None and used[number] == terms.rate.count:
            refused = ("admission", number, Objection.RATE)
        if refused is not None:
            outcome.reports.append(refused)
            outcome.ended = closes
            continue
        if not whole:
            break
        used[number] += 1
        outcome.handled.append((number, value))
        if number in (LOGIN, LOGIN_INLINE):
            authenticated = authenticated or value != WRONG
        if number == LEAVE:
            outcome.ended = True
        else:
            outcome.replies += frame(number, value)
    return outcome


class Watched:
    """A registry of all those, and what is seen of its handlers and of on_error."""

    def __init__(self, simulation: Simulation | None = None) -> None:
        self.seen = Outcome()
        self.reasons: list[CloseReason] = []
        self._simulation = simulation
        self.registry = MessageRegistry()
        for number, terms in TERMS.items():
            self.registry.register(
                number,
                as_bytes,
                self._handler(number),
                inline=terms.inline,
                max_size=terms.max_size,
                phases=terms.phases,
                rate=terms.rate,
                refusal=terms.refusal,
            )

    def _handler(self, number: int) -> Any:
        def handle(context: Context[bytes], conn: WriteCloser) -> Sample | None:
            if self._simulation is not None and not TERMS[number].inline:
                self._simulation.sleep(0.001)  # so that more comes in the meantime, or does not
            self.seen.handled.append((number, context.message))
            if number in (LOGIN, LOGIN_INLINE) and context.message != WRONG:
                conn.authenticate(context.message)
            if number == LEAVE:
                conn.close()
                return None
            return Sample(number, context.message)

        return handle

    def on_error(self, _conn: ServerConn, error: BaseException) -> None:
        """Only what `report` knows may come."""
        self.seen.reports.append(report(error))

    def on_close(self, _conn: ServerConn, reason: CloseReason) -> None:
        """Once."""
        self.reasons.append(reason)


def run(stream: bytes, pieces: list[tuple[int, float]], seed: int, **arguments: Any) -> Outcome:
    """Send it to a server in pieces, (size, pause behind it), and see what becomes of it."""
    with Simulation(seed) as simulation:
        watched = Watched(simulation)
        server = simulation.server(
            registry=watched.registry,
            on_error=watched.on_error,
            on_close=watched.on_close,
            **arguments,
        )
        with simulation.peer(server) as peer:
            at = 0
            try:
                for size, pause in pieces:
                    peer.sendall(stream[at : at + size])
                    at += size
                    if pause:
                        simulation.sleep(pause)
                peer.sendall(stream[at:])
                simulation.sleep(1.0)  # the first cause of an end stands: it is not to be the FIN
                peer.shutdown(socket.SHUT_WR)
            except OSError:
                assert expect(stream).ended or arguments
            try:
                while chunk := peer.recv(65_536):
                    watched.seen.replies += chunk
            except ConnectionResetError:
                # It had closed, and more came. Replies that have not been read are lost by that.
                watched.seen.replies = b""
            simulation.wait(lambda: watched.reasons)
        watched.seen.ended = watched.reasons[0].cause.name != "PEER_CLOSED"
        return watched.seen


def check(seen: Outcome, expected: Outcome) -> None:
    """They are the same; but behind the end, what has been read ahead may have been reported."""
    assert seen.handled == expected.handled
    assert seen.ended == expected.ended
    assert seen.reports[: len(expected.reports)] == expected.reports
    ahead = seen.reports[len(expected.reports) :]
    if expected.ended:
        ahead = [each for each in ahead if each[0] == "admission"]
    assert ahead == []
    if seen.replies or not expected.ended:
        assert seen.replies == expected.replies


values = st.sampled_from([b"", b"ok", WRONG, b"five5", b"twelve bytes", b"x" * 40])
frames = st.builds(frame, st.sampled_from([*TERMS, LOGIN, ORDER, ORDER_INLINE, UNKNOWN]), values)
streams = st.builds(
    lambda parts, kept: b"".join(parts)[: None if kept is None else -kept],
    st.lists(frames, min_size=1, max_size=8),
    st.one_of(st.none(), st.integers(1, 12)),
)
cuts = st.lists(
    st.tuples(st.integers(1, 40), st.sampled_from([0.0, 0.0, 0.001, 0.05])), max_size=12
)


@settings(max_examples=200, deadline=None)
@given(streams, cuts, st.integers(0, 1 << 20))
def test_what_is_let_in_does_not_depend_on_how_it_comes(
    stream: bytes, pieces: list[tuple[int, float]], seed: int
) -> None:
    check(run(stream, pieces, seed), expect(stream))


@settings(max_examples=60, deadline=None)
@given(streams, cuts, st.integers(0, 1 << 20), st.integers(1, 6))
def test_nor_does_how_many_come_from_an_address(
    stream: bytes, pieces: list[tuple[int, float]], seed: int, allowed: int
) -> None:
    rate = Rate(allowed, per=FOR_EVER)
    check(run(stream, pieces, seed, frame_rate=rate), expect(stream, allowed))


@settings(max_examples=40, deadline=None)
@given(streams, cuts, st.integers(0, 1 << 20))
def test_nor_does_it_where_little_may_wait(
    stream: bytes, pieces: list[tuple[int, float]], seed: int
) -> None:
    check(run(stream, pieces, seed, buffer_size=1), expect(stream))


PIPELINED = b"".join(
    frame(number, value)
    for number, value in [
        (ORDER, b"early"),
        (LOGIN, WRONG),
        (ORDER_INLINE, b"still early"),
        (LOGIN, b"ok"),
        (ORDER, b"in time"),
        (LOGIN, b"again"),
        (SMALL, b"much too large"),
        (UNKNOWN, b"what?"),
        (RATED, b"1"),
        (ORDER_INLINE, b""),
        (RATED, b"2"),
        (RATED, b"3"),
        (PLAIN_INLINE, b"last"),
    ]
)


def test_the_reference_lets_in_what_it_should() -> None:
    expected = expect(PIPELINED)
    assert [number for number, _ in expected.handled] == [
        LOGIN, LOGIN, ORDER, RATED, ORDER_INLINE, RATED, PLAIN_INLINE,
    ]  # fmt: skip
    assert expected.reports == [
        ("admission", ORDER, Objection.PHASE),
        ("admission", ORDER_INLINE, Objection.PHASE),
        ("admission", LOGIN, Objection.PHASE),
        ("admission", SMALL, Objection.SIZE),
        ("undefined", UNKNOWN, None),
        ("admission", RATED, Objection.RATE),
    ]


@pytest.mark.parametrize("pause", [0.0, 0.05], ids=["at once", "in its own time"])
def test_split_at_every_byte(pause: float) -> None:
    expected = expect(PIPELINED)
    for split in range(1, len(PIPELINED)):
        check(run(PIPELINED, [(split, pause)], seed=split), expected)


@pytest.mark.parametrize("seed", range(10))
def test_byte_by_byte(seed: int) -> None:
    pieces = [(1, (0.0, 0.001, 0.02)[(index * 7 + seed) % 3]) for index in range(len(PIPELINED))]
    check(run(PIPELINED, pieces, seed), expect(PIPELINED))
