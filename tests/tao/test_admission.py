"""tao.admission: what is decided of a message, and what comes of it on real sockets."""

from __future__ import annotations

import logging
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tao import (
    AdmissionError,
    ClientConn,
    CloseCause,
    CloseReason,
    Codec,
    Context,
    FrameTooLargeError,
    LengthPrefixedCodec,
    LineCodec,
    MessageRegistry,
    Objection,
    Phase,
    Rate,
    Refusal,
    Server,
    ServerConn,
    TaoError,
    UndefinedMessageError,
    WriteCloser,
)
from tao.admission import Admission, ends_stream
from tao.rate import TokenBucket
from tao.testing import Simulation
from tests.support import LOCAL, Calls, Peer, Sample, as_bytes, frame, wait_until

LOGIN, ORDER, PLAIN, RATED, SMALL = 1, 2, 3, 4, 5


# -- the decision, without a connection ----------------------------------------------------------


def decided(admission: Admission, number: int, size: int = 0, **more: Any) -> int | None:
    """The number that has been let in; None: not before its turn."""
    arguments = {"authenticated": False, "waits": False, "now": 5.0} | more
    entry = admission.decide(number, size, **arguments)
    return None if entry is None else entry.number


def front(admission: Admission, number: int, size: int = 0, **more: Any) -> int | None:
    """The same of a frame that is still coming."""
    arguments = {"authenticated": False, "waits": False, "now": 5.0} | more
    entry = admission.decide_front(number, size, **arguments)
    return None if entry is None else entry.number


def guarded() -> MessageRegistry:
    """One number for each condition."""
    registry = MessageRegistry()
    registry.register(LOGIN, as_bytes, phases=Phase.BEFORE)
    registry.register(ORDER, as_bytes, phases=Phase.AFTER, refusal=Refusal.SKIP)
    registry.register(PLAIN, as_bytes)
    registry.register(RATED, as_bytes, rate=Rate(2), refusal=Refusal.SKIP)
    registry.register(SMALL, as_bytes, max_size=4, refusal=Refusal.SKIP)
    return registry


def test_phases() -> None:
    admission = Admission(guarded(), None)
    assert decided(admission, LOGIN) == LOGIN
    with pytest.raises(AdmissionError) as refused:
        decided(admission, ORDER)
    error = refused.value
    assert (error.number, error.objection, error.refusal) == (ORDER, Objection.PHASE, Refusal.SKIP)
    assert isinstance(error, TaoError)
    assert str(error) == (
        "message number 2 is not allowed in this phase of a connection; it was skipped"
    )
    assert decided(admission, ORDER, authenticated=True) == ORDER
    with pytest.raises(AdmissionError, match=r"number 1 .*; the connection is closed"):
        decided(admission, LOGIN, authenticated=True)


@pytest.mark.parametrize("ask", [decided, front])
def test_what_a_message_before_it_may_change_waits(ask: Any) -> None:
    admission = Admission(guarded(), TokenBucket(Rate(3, per=1e9)))
    for _ in range(5):  # and takes no token of the address
        assert ask(admission, ORDER, waits=True) is None
        assert ask(admission, LOGIN, waits=True) is None
    assert ask(admission, PLAIN, waits=True) == PLAIN
    admission.forget_front()
    assert ask(admission, ORDER, waits=True, authenticated=True) == ORDER
    admission.forget_front()
    with pytest.raises(AdmissionError):
        ask(admission, LOGIN, waits=True, authenticated=True)
    with pytest.raises(AdmissionError, match="one too many from this address"):
        ask(admission, PLAIN)


def test_of_a_coming_frame_nothing_is_thrown_away_before_its_turn() -> None:
    admission = Admission(guarded(), None)
    assert front(admission, SMALL, 5, waits=True) is None
    assert front(admission, 99, waits=True) is None
    with pytest.raises(AdmissionError):
        front(admission, SMALL, 5)
    with pytest.raises(UndefinedMessageError):
        front(admission, 99)


def test_one_decision_for_each_frame() -> None:
    admission = Admission(guarded(), None)
    assert front(admission, RATED) == RATED
    assert front(admission, RATED) == RATED
    assert decided(admission, RATED) == RATED  # it is whole
    assert decided(admission, RATED) == RATED
    with pytest.raises(AdmissionError):
        decided(admission, RATED)
    assert decided(admission, RATED, now=5.5) == RATED


def test_what_was_said_of_another_frame_does_not_count() -> None:
    admission = Admission(guarded(), None)
    assert front(admission, RATED) == RATED
    with pytest.raises(AdmissionError):
        front(admission, ORDER)
    assert front(admission, RATED) == RATED
    admission.forget_front()
    with pytest.raises(AdmissionError):
        decided(admission, RATED)


def test_another_rate_is_another_bucket() -> None:
    registry = MessageRegistry()
    admission = Admission(registry, None)
    for rate in (Rate(1), Rate(3)):
        registry.register(RATED, as_bytes, rate=rate)
        assert [decided(admission, RATED) for _ in range(rate.count)] == [RATED] * rate.count
        with pytest.raises(AdmissionError):
            decided(admission, RATED)
        registry.unregister(RATED)


def test_what_ends_the_stream() -> None:
    assert ends_stream(FrameTooLargeError(5, 4))
    assert ends_stream(AdmissionError(5, Objection.RATE, Refusal.CLOSE))
    assert not ends_stream(AdmissionError(5, Objection.RATE, Refusal.SKIP))
    assert not ends_stream(UndefinedMessageError(5))


# -- on real sockets -----------------------------------------------------------------------------


class Watched:
    """A server, and what is seen of it."""

    def __init__(self, registry: MessageRegistry, **arguments: Any) -> None:
        self.errors: Calls[BaseException] = Calls()
        self.reasons: Calls[CloseReason] = Calls()
        self.server = Server(
            registry=registry,
            on_error=lambda _conn, error: self.errors.add(error),
            on_close=lambda _conn, reason: self.reasons.add(reason),
            **arguments,
        )

    @contextmanager
    def peer(self) -> Iterator[Peer]:
        """Connected to it, while it runs."""
        with self.server.running(LOCAL) as address, Peer(address) as peer:
            yield peer


def login(context: Context[bytes], conn: WriteCloser) -> Sample:
    """Anybody may."""
    conn.authenticate(context.message.decode())
    assert isinstance(conn.principal, str)
    return Sample(LOGIN, conn.principal.encode())


def echo(context: Context[bytes], conn: WriteCloser) -> Sample:
    """With whom it is for."""
    return Sample(ORDER, f"{conn.principal}: ".encode() + context.message)


@pytest.mark.parametrize("login_inline", [False, True])
@pytest.mark.parametrize("order_inline", [False, True])
def test_a_pipelined_login_and_order(login_inline: bool, order_inline: bool) -> None:
    registry = MessageRegistry()
    registry.register(LOGIN, as_bytes, login, inline=login_inline, phases=Phase.BEFORE)
    registry.register(
        ORDER, as_bytes, echo, inline=order_inline, phases=Phase.AFTER, refusal=Refusal.SKIP
    )
    watched = Watched(registry)
    with watched.peer() as peer:
        peer.send(frame(ORDER, b"early") + frame(LOGIN, b"Ann") + frame(ORDER, b"tea") * 300)
        assert peer.receive_frame() == (LOGIN, b"Ann")
        assert peer.receive_frames(300) == [(ORDER, b"Ann: tea")] * 300
        [error] = watched.errors.wait()
        assert str(error).startswith("message number 2 is not allowed")
        assert wait_until(lambda: watched.server.metrics().errors == {"AdmissionError": 1})
        assert wait_until(lambda: watched.server.metrics().messages_in == 302)
        peer.send_frame(LOGIN, b"Bob")
        assert peer.is_cut_off()
    [reason] = watched.reasons.wait()
    assert reason.cause is CloseCause.FAILED
    assert isinstance(reason.error, AdmissionError)


def test_a_refused_value_is_thrown_away_as_it_comes() -> None:
    registry = MessageRegistry()
    registry.register(ORDER, as_bytes, echo, phases=Phase.AFTER, refusal=Refusal.SKIP)
    registry.register(PLAIN, as_bytes, echo)
    watched = Watched(registry)
    with watched.peer() as peer:
        for size in (1 << 20, 1 << 23):
            peer.send(struct.pack("<iI", ORDER, size) + bytes(size))
            peer.send_frame(PLAIN, b"next")
            assert peer.receive_frame() == (ORDER, b"None: next")
        peer.send(struct.pack("<iI", ORDER, 1 << 23) + bytes(1 << 20))
        watched.errors.wait(3)
        assert wait_until(lambda: watched.server.metrics().bytes_in > (1 << 23) + (1 << 21))
    [reason] = watched.reasons.wait()
    assert reason.undecoded == 0  # as what is kept would be


def test_the_value_of_an_unregistered_message_is_not_kept_either() -> None:
    registry = MessageRegistry()
    registry.register(PLAIN, as_bytes, echo)
    watched = Watched(registry)
    with watched.peer() as peer:
        peer.send(struct.pack("<iI", 99, 1 << 20))
        [error] = watched.errors.wait()  # told from the header
        assert isinstance(error, UndefinedMessageError)
        peer.send(bytes((1 << 20) - 1))
        assert wait_until(lambda: watched.server.metrics().bytes_in == (1 << 20) + 7)
        peer.send(b"\0" + frame(PLAIN, b"next"))
        assert peer.receive_frame() == (ORDER, b"None: next")
        peer.send(struct.pack("<iI", 99, 1 << 20) + bytes(1000))
        watched.errors.wait(2)
    [reason] = watched.reasons.wait()
    assert reason.undecoded == 0


def test_who_is_refused_and_closed_is_so_from_the_header() -> None:
    registry = MessageRegistry()
    registry.register(ORDER, as_bytes, echo, phases=Phase.AFTER)
    watched = Watched(registry)
    with watched.peer() as peer:
        peer.send(struct.pack("<iI", ORDER, 1 << 23))
        assert peer.is_cut_off()
    [reason] = watched.reasons.wait()
    assert isinstance(reason.error, AdmissionError)
    assert (reason.error.objection, reason.undecoded) == (Objection.PHASE, 8)
    assert [type(error) for error in watched.errors.items] == [AdmissionError]


def test_refused_and_closed_behind_what_was_asked_before() -> None:
    registry = MessageRegistry()
    registry.register(PLAIN, as_bytes, echo)
    registry.register(ORDER, as_bytes, echo, phases=Phase.AFTER)
    watched = Watched(registry)
    with watched.peer() as peer:
        peer.send(frame(PLAIN, b"1") + frame(PLAIN, b"2") + frame(ORDER) + frame(PLAIN, b"3"))
        assert peer.receive_to_end() == frame(ORDER, b"None: 1") + frame(ORDER, b"None: 2")
    [reason] = watched.reasons.wait()
    assert (reason.unhandled, reason.undecoded) == (0, 17)
    assert watched.server.metrics().messages_in == 2


def test_a_flood_of_refusals_is_none_of_lines(caplog: pytest.LogCaptureFixture) -> None:
    registry = MessageRegistry()
    registry.register(RATED, as_bytes, echo, rate=Rate(1, per=1e9), refusal=Refusal.SKIP)
    registry.register(PLAIN, as_bytes, echo)
    watched = Watched(registry, buffer_size=4)
    with caplog.at_level(logging.WARNING, "tao"), watched.peer() as peer:
        peer.send(frame(RATED) * 1001 + frame(PLAIN))
        assert peer.receive_frames(2) == [(ORDER, b"None: ")] * 2
        assert len(watched.errors) == 1000
        assert wait_until(lambda: watched.server.metrics().errors == {"AdmissionError": 1000})
    lines = [record.getMessage() for record in caplog.records if "refused" in record.getMessage()]
    assert [line.rpartition("(")[2] for line in lines] == [
        "1 refused so far)",
        "10 refused so far)",
        "100 refused so far)",
        "1000 refused so far)",
    ]


def test_it_says_who_it_is_in_on_connect() -> None:
    registry = MessageRegistry()
    registry.register(ORDER, as_bytes, echo, inline=True, phases=Phase.AFTER)
    release = threading.Event()

    def on_connect(conn: ServerConn) -> None:
        assert conn.principal is None
        release.wait(10.0)
        conn.authenticate("its address")

    watched = Watched(registry, on_connect=on_connect)
    with watched.peer() as peer:
        peer.send_frame(ORDER, b"x")  # waits for its turn, behind on_connect
        assert wait_until(lambda: watched.server.metrics().bytes_in == 9)
        release.set()
        assert peer.receive_frame() == (ORDER, b"its address: x")


def test_another_thread_may_say_it() -> None:
    registry = MessageRegistry()
    registry.register(ORDER, as_bytes, echo, phases=Phase.AFTER, refusal=Refusal.SKIP)
    watched = Watched(registry)
    with watched.peer() as peer:
        peer.send_frame(ORDER, b"early")
        watched.errors.wait()
        [conn] = watched.server.connections()
        conn.authenticate("Ann")
        peer.send_frame(ORDER, b"x")
        assert peer.receive_frame() == (ORDER, b"Ann: x")
        conn.authenticate("Bob")
        assert conn.principal == "Bob"
        with pytest.raises(ValueError, match="None"):
            conn.authenticate(None)
        peer.send_frame(ORDER, b"x")
        assert peer.receive_frame() == (ORDER, b"Bob: x")


def test_a_registration_may_come_late() -> None:
    registry = MessageRegistry()
    registry.register(PLAIN, as_bytes, echo)
    watched = Watched(registry)
    with watched.peer() as peer:
        peer.send_frame(PLAIN, b"x")
        assert peer.receive_frame() == (ORDER, b"None: x")
        registry.unregister(PLAIN)
        registry.register(PLAIN, as_bytes, echo, phases=Phase.AFTER)
        peer.send_frame(PLAIN, b"x")
        assert peer.is_cut_off()


@pytest.mark.parametrize(
    ("codec", "wire"),
    [(LineCodec(), b"much too long\n"), (LengthPrefixedCodec(1), b"\x0dmuch too long")],
)
def test_codecs_without_numbers(codec: Codec, wire: bytes) -> None:
    registry = MessageRegistry()
    registry.register(1, as_bytes, echo, max_size=5, refusal=Refusal.SKIP, rate=Rate(2, per=1e9))
    watched = Watched(registry, codec=codec)
    with watched.peer() as peer:
        for index in range(len(wire)):
            peer.send(wire[index : index + 1])
        short = wire.replace(b"much too long", b"short").replace(b"\x0d", b"\x05")
        peer.send(wire + short * 3)
        answer = codec.encode(Sample(1, b"None: short"))
        assert peer.receive(2 * len(answer)) == answer * 2
        objections = [
            error.objection for error in watched.errors.wait(3) if isinstance(error, AdmissionError)
        ]
        assert objections == [Objection.SIZE, Objection.SIZE, Objection.RATE]


def test_a_client_lets_in_what_its_registry_says() -> None:
    ours, theirs = MessageRegistry(), MessageRegistry()
    seen: Calls[bytes] = Calls()
    errors: Calls[BaseException] = Calls()
    ours.register(
        ORDER,
        as_bytes,
        lambda context, conn: seen.add(context.message),
        phases=Phase.AFTER,
        refusal=Refusal.SKIP,
    )
    theirs.register(PLAIN, as_bytes, lambda context, conn: Sample(ORDER, context.message))
    with (
        Server(registry=theirs).running(LOCAL) as address,
        ClientConn(address, registry=ours, on_error=lambda _conn, error: errors.add(error)) as conn,
    ):
        conn.write(Sample(PLAIN, b"early"))
        errors.wait()
        conn.authenticate("the server")
        conn.write(Sample(PLAIN, b"now"))
        assert seen.wait() == [b"now"]


# -- codecs that change --------------------------------------------------------------------------


def test_what_is_being_skipped_is_the_old_codecs() -> None:
    """on_error changes the codec while the value of the refused frame is still coming."""
    registry = MessageRegistry()
    registry.register(1, as_bytes, echo)
    registry.register(ORDER, as_bytes, echo, phases=Phase.AFTER, refusal=Refusal.SKIP)
    changed, more = threading.Event(), threading.Event()

    def on_error(conn: ServerConn, _error: BaseException) -> None:
        conn.set_codec(LineCodec())
        changed.set()
        more.wait(10.0)

    server = Server(registry=registry, on_error=on_error)
    with server.running(LOCAL) as address, Peer(address) as peer:
        peer.send(frame(ORDER, b"a\nb\nc\n" * 1000)[:-3000])
        assert changed.wait(10.0)
        peer.send(b"d\n" * 1000)
        assert wait_until(lambda: server.metrics().bytes_in == 6008 - 1000)
        more.set()
        peer.send(b"d\n" * 500 + b"line\n")
        assert peer.receive(11) == b"None: line\n"


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("number", [ORDER, SMALL, 99])
def test_nothing_is_thrown_away_before_a_handler_has_changed_the_codec(
    seed: int, number: int
) -> None:
    """Behind its message stands what would be, to the old codec, the beginning of a refused frame."""
    lines, cut = struct.pack("<iI", number, 1000) + b"what is meant is this\n", 12
    with Simulation(seed) as simulation:
        seen: list[bytes] = []
        errors: list[BaseException] = []

        def change(_context: Context[bytes], conn: WriteCloser) -> None:
            simulation.sleep(0.05)
            conn.set_codec(LineCodec(message_number=PLAIN))

        registry = MessageRegistry()
        registry.register(LOGIN, as_bytes, change)
        registry.register(ORDER, as_bytes, echo, phases=Phase.AFTER, refusal=Refusal.SKIP)
        registry.register(SMALL, as_bytes, echo, max_size=4, refusal=Refusal.SKIP)
        registry.register(PLAIN, as_bytes, lambda context, conn: seen.append(context.message))
        server = simulation.server(
            registry=registry, on_error=lambda _conn, error: errors.append(error)
        )
        with simulation.peer(server) as peer:
            peer.sendall(frame(LOGIN) + lines[:cut])
            peer.sendall(lines[cut:])
            simulation.wait(lambda: seen)
            assert seen == [lines[:-1]]
        assert errors == []


# -- what is read ahead --------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("lets_in", [True, False])
def test_the_value_of_what_cannot_be_decided_yet_is_not_read(seed: int, lets_in: bool) -> None:
    """It waits where it costs us nothing: at the peer, and in between."""
    size = 1 << 20
    with Simulation(seed) as simulation:
        orders: list[int] = []
        errors: list[BaseException] = []

        def slow_login(context: Context[bytes], conn: WriteCloser) -> None:
            simulation.sleep(30.0)
            if lets_in:
                conn.authenticate(context.message)

        registry = MessageRegistry()
        registry.register(LOGIN, as_bytes, slow_login, phases=Phase.BEFORE)
        registry.register(
            ORDER,
            as_bytes,
            lambda context, conn: orders.append(len(context.message)),
            phases=Phase.AFTER,
            refusal=Refusal.SKIP,
        )
        registry.register(PLAIN, as_bytes, lambda context, conn: orders.append(0))
        server = simulation.server(
            registry=registry, on_error=lambda _conn, error: errors.append(error), frame_timeout=5.0
        )
        with simulation.peer(server) as peer:
            stream = frame(LOGIN, b"Ann") + frame(ORDER, bytes(size)) + frame(PLAIN)
            sender = simulation.spawn(lambda: peer.sendall(stream))
            simulation.sleep(20.0)
            assert server.metrics().bytes_in <= 262_144  # one read
            assert orders == []
            assert errors == []
            simulation.wait(lambda: 0 in orders, timeout=120.0)
            sender.join()
            assert orders == ([size, 0] if lets_in else [0])
            assert len(errors) == (not lets_in)
