"""What must come first on a connection: before it is open, and before TLS."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from reactor import (
    CloseCause,
    CloseReason,
    Connection,
    ConnectionOptions,
    ConnectionState,
    Environment,
    PrefaceError,
    Reactor,
    TlsStream,
    WriteResult,
)
from tests.reactor.support import ManualClock, reset, run_passes, run_until, tcp_pair
from tests.tls_support import Certificates, TlsPeer, peer_context

TIMEOUT = 7.0


class Greeting:
    """A preface: the word "hello" and a full stop."""

    what = "the greeting"

    def __init__(self) -> None:
        self.data = b""
        self.connection: Connection | None = None
        """To be closed when the greeting has come."""

    def feed(self, data: bytes) -> bytes | None:
        self.data += data
        if not b"hello.".startswith(self.data[:6]):
            raise PrefaceError("the peer did not say hello")
        if len(self.data) < 6:
            return None
        if self.connection is not None:
            self.connection.close(CloseCause.REFUSED)
        return self.data[6:]


class Faulty(Greeting):
    """One with a defect."""

    def feed(self, data: bytes) -> bytes | None:
        raise ZeroDivisionError("a defect")


class Side:
    """A connection that waits for a greeting, its handler, and the other end."""

    def __init__(
        self, reactor: Reactor, *, tls: TlsStream | None = None, preface: Greeting | None = None
    ) -> None:
        self.reactor = reactor
        self.preface = Greeting() if preface is None else preface
        self.opened = 0
        self.data = b""
        self.reasons: list[CloseReason] = []
        self.connection = Connection(
            Environment(reactor, ConnectionOptions(handshake_timeout=TIMEOUT)),
            self,
            preface=self.preface,
            tls=tls,
        )
        sock, self.peer = tcp_pair()
        self.connection.start(sock)

    def handle_open(self) -> None:
        self.opened += 1

    def handle_data(self, data: bytes) -> None:
        assert self.opened
        self.data += data

    def handle_draining(self) -> None: ...
    def handle_writable(self) -> None: ...

    def handle_closed(self, reason: CloseReason) -> None:
        self.reasons.append(reason)

    def is_idle(self) -> bool:
        return True

    def now(self) -> ConnectionState:
        return self.connection.state

    def send(self, data: bytes) -> None:
        """It has been read when this returns."""
        before = self.connection.bytes_received
        self.peer.sendall(data)
        run_until(
            self.reactor,
            lambda: self.connection.bytes_received == before + len(data) or self.reasons,
            "the bytes have come",
        )

    def closed(self) -> CloseReason:
        """How it ended; without ever having been open."""
        run_until(self.reactor, lambda: self.reasons, "its end")
        run_passes(self.reactor)
        assert not self.opened
        assert self.now() is ConnectionState.CLOSED
        assert self.reactor.statistics().timeouts_waiting == 0
        assert self.reactor.statistics().channels == 0
        (reason,) = self.reasons
        return reason

    def end(self) -> None:
        self.peer.close()
        self.connection.abort()
        run_until(self.reactor, lambda: self.reasons, "its end")


@pytest.fixture
def side(manual: Reactor) -> Iterator[Side]:
    made = Side(manual)
    yield made
    made.end()


def test_it_opens_when_the_preface_has_come(side: Side) -> None:
    run_passes(side.reactor)
    assert side.now() is ConnectionState.PREFACING
    side.send(b"hello.")
    assert side.now() is ConnectionState.OPEN
    assert (side.opened, side.data) == (1, b"")
    side.send(b"data")
    assert side.data == b"data"
    assert side.reactor.statistics().timeouts_waiting == 0


@pytest.mark.parametrize("split", range(1, 12))
def test_it_may_come_in_pieces_and_with_what_is_behind_it(side: Side, split: int) -> None:
    side.send(b"hello.hello."[:split])
    assert side.now() is (ConnectionState.PREFACING if split < 6 else ConnectionState.OPEN)
    side.send(b"hello.hello."[split:])
    assert (side.opened, side.data) == (1, b"hello.")


def test_nothing_can_be_written_before(side: Side) -> None:
    assert side.connection.write(b"x") is WriteResult.CLOSED


def test_what_is_wrong_ends_it(side: Side) -> None:
    side.send(b"help")
    reason = side.closed()
    assert reason.cause is CloseCause.FAILED
    assert isinstance(reason.error, PrefaceError)


def test_who_takes_too_long_is_not_waited_for(side: Side, clock: ManualClock) -> None:
    """However steadily it sends."""
    side.send(b"hel")
    clock.advance(TIMEOUT * 0.9)
    side.send(b"lo")
    assert side.now() is ConnectionState.PREFACING
    clock.advance(TIMEOUT * 0.2)
    reason = side.closed()
    assert reason.cause is CloseCause.EXPIRED
    assert isinstance(reason.error, TimeoutError)
    assert str(reason.error) == "the greeting took too long"


@pytest.mark.parametrize("with_reset", [False, True])
def test_who_only_looks_whether_somebody_is_there_is_no_error(side: Side, with_reset: bool) -> None:
    if with_reset:
        reset(side.peer)
    else:
        side.peer.shutdown(socket.SHUT_WR)
    reason = side.closed()
    assert (reason.cause, reason.error) == (CloseCause.PEER_CLOSED, None)


def test_who_leaves_in_the_middle_is(side: Side) -> None:
    side.send(b"hel")
    side.peer.shutdown(socket.SHUT_WR)
    reason = side.closed()
    assert reason.cause is CloseCause.PEER_CLOSED
    assert "the peer left before the end of the greeting" in str(reason.error)


def test_who_resets_it(side: Side) -> None:
    side.send(b"hel")
    reset(side.peer)
    reason = side.closed()
    assert reason.cause is CloseCause.FAILED
    assert isinstance(reason.error, ConnectionResetError)


@pytest.mark.parametrize("verb", ["close", "abort"])
def test_this_side_may_end_it(side: Side, verb: str) -> None:
    assert getattr(side.connection, verb)()
    assert side.closed().error is None


def test_what_reads_it_may_refuse_the_peer(side: Side) -> None:
    side.preface.connection = side.connection
    side.send(b"hello.data")
    reason = side.closed()
    assert (reason.cause, reason.error) == (CloseCause.REFUSED, None)
    assert not side.data


def test_a_defect_of_the_reader_costs_its_connection(
    reactor: Reactor, caplog: pytest.LogCaptureFixture
) -> None:
    side = Side(reactor, preface=Faulty())
    side.peer.sendall(b"x")
    assert isinstance(side.closed().error, ZeroDivisionError)
    side.peer.close()
    assert "a defect" in caplog.text


# -- and then TLS --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def secure(reactor: Reactor, certificates: Certificates) -> Iterator[Side]:
    context = peer_context(certificates, server_side=True)
    made = Side(reactor, tls=TlsStream(context, server_side=True))
    yield made
    made.end()


def _step(client: TlsPeer) -> bool:
    try:
        client.handshake()
    except BlockingIOError:
        return False
    return True


@pytest.mark.parametrize("split", [0, 3, 6, 7, 100, -1])
def test_the_handshake_begins_behind_it(
    secure: Side, certificates: Certificates, split: int
) -> None:
    """Whatever shares a segment with it."""
    client = TlsPeer(secure.peer, peer_context(certificates))
    client.begin()
    data = b"hello." + client.take()
    if split > 0:
        secure.send(data[:split])
        expected = ConnectionState.PREFACING if split < 6 else ConnectionState.HANDSHAKING
        assert secure.now() is expected
    secure.send(data[max(split, 0) :])
    assert secure.now() is ConnectionState.HANDSHAKING
    assert not secure.opened
    secure.peer.setblocking(False)
    run_until(secure.reactor, lambda: _step(client), "the handshake")
    client.send(b"data")
    run_until(secure.reactor, lambda: secure.data, "the data")
    assert (secure.opened, secure.data) == (1, b"data")
    assert secure.reactor.statistics().timeouts_waiting == 0


def test_the_handshake_has_a_deadline_of_its_own(
    manual: Reactor, clock: ManualClock, certificates: Certificates
) -> None:
    context = peer_context(certificates, server_side=True)
    side = Side(manual, tls=TlsStream(context, server_side=True))
    clock.advance(TIMEOUT * 0.9)
    side.send(b"hello.")
    clock.advance(TIMEOUT * 0.9)
    run_passes(manual)
    assert side.now() is ConnectionState.HANDSHAKING
    clock.advance(TIMEOUT * 0.2)
    assert str(side.closed().error) == "the TLS handshake took too long"
    side.peer.close()
