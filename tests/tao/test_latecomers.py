"""tao.latecomers: connections that are not open yet when their server is stopped.

Sockets and certificates are real, the time is not: what takes how long is said by the tests.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tao import (
    CloseCause,
    CloseReason,
    ConnectionOptions,
    ConnectionState,
    MessageRegistry,
    Server,
    ServerConn,
    StopReport,
    load_server_tls,
)
from tao.latecomers import FIRST_TIME, OPENING_TIME, YOUNG_TIME
from tests.support import LOCAL, Calls, Peer, Sample, as_bytes, frame
from tests.tao.manual import ManualLoop
from tests.tao.proxied import proxied
from tests.tls_support import VERSIONS, Certificates, TlsPeer, peer_context

GRACE = 8.0
"""Long enough for the bounds to be those of `tao.latecomers`."""

MOMENT = 0.01


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(params=VERSIONS, ids=lambda version: version.name)
def version(request: pytest.FixtureRequest) -> ssl.TLSVersion:
    found: ssl.TLSVersion = request.param
    return found


class Stage:
    """A server that echoes message 1, the loop it runs on, and what its callbacks were told."""

    def __init__(self, loop: ManualLoop, **arguments: Any) -> None:
        self.loop = loop
        self.opened: Calls[ServerConn] = Calls()
        self.closed: Calls[CloseReason] = Calls()
        self.errors: Calls[BaseException] = Calls()
        registry = MessageRegistry()
        registry.register(1, as_bytes, lambda context, conn: Sample(1, context.message))
        self.server = Server(
            registry=registry,
            on_connect=self.opened.add,
            on_close=lambda conn, reason: self.closed.add(reason),
            on_error=lambda conn, error: self.errors.add(error),
            options=ConnectionOptions(handshake_timeout=60.0, linger_timeout=GRACE),
            reactor=loop.reactor,
            **arguments,
        )
        loop.add(self.server)

    def states(self) -> list[ConnectionState]:
        return [conn.state for conn in self.server.connections()]

    def accept(self, *states: ConnectionState) -> None:
        """Let the connections come to where they are to be."""
        self.loop.until(lambda: self.states() == list(states))

    def stop(self, grace: float = GRACE) -> None:
        """Begin to. From the loop's thread it does not wait."""
        self.server.stop(grace)
        self.loop.settle()

    def finished(self) -> StopReport:
        """The report, with no need for time to pass; and no deadline is left."""
        self.loop.until(lambda: self.server.stop(GRACE).finished)
        self.loop.advance(MOMENT)  # for the pool, which looks after its workers once more
        assert self.loop.reactor.statistics().timeouts_waiting == 0
        return self.server.stop(GRACE)

    def drive(self, step: Callable[[], object]) -> None:
        """Something that a peer does and that takes several turns of both ends."""

        def done() -> bool:
            try:
                step()
            except BlockingIOError:
                return False
            return True

        self.loop.until(done)

    def is_answered(self, peer: TlsPeer, value: bytes = b"x") -> bool:
        """Whether a message comes back that was sent before."""
        expected, data = frame(1, value), bytearray()

        def receive() -> None:
            data.extend(peer.receive(len(expected) - len(data)))

        self.drive(receive)
        return bytes(data) == expected

    def is_ended_in_good_order(self, peer: TlsPeer) -> bool:
        """Whether nothing comes any more, but the closing alert."""
        data: list[bytes] = []
        self.drive(lambda: data.append(peer.receive_to_end()))
        peer.close()
        return data == [b""]

    def is_cut_off(self, peer: Peer | TlsPeer) -> bool:
        """Whether FIN or RST comes, whatever may come before."""

        def receive() -> None:
            try:
                while peer.sock.recv(65_536):
                    pass
            except ConnectionError:
                pass

        self.drive(receive)
        return True

    @property
    def ends(self) -> list[tuple[CloseCause, bool]]:
        """How the connections have ended that were open."""
        return [(reason.cause, reason.clean) for reason in self.closed.items]


@pytest.fixture
def loop() -> Iterator[ManualLoop]:
    with ManualLoop() as made:
        made.reactor.run_once(0)  # from here on it is known whose thread this is
        yield made


class Secure(Stage):
    """A server over TLS, and a client that has not begun its handshake."""

    def __init__(
        self, loop: ManualLoop, certificates: Certificates, version: ssl.TLSVersion | None = None
    ) -> None:
        super().__init__(loop, tls=load_server_tls(certificates.server_file))
        self._context = peer_context(certificates, version=version)
        self._address = self.server.listen(LOCAL)
        self.peer = self.connect()
        self.accept(ConnectionState.HANDSHAKING)

    def connect(self) -> TlsPeer:
        peer = TlsPeer.connect(self._address, self._context)
        peer.sock.setblocking(False)
        return peer

    def begin(self) -> None:
        """The client has sent its first message, and the server has it."""
        self.peer.begin()
        self.peer.push()
        self.loop.until(lambda: self.server.metrics().bytes_in == self.peer.sent)

    def handshake(self) -> None:
        """Up to its last message, which stays for the next `push`."""
        self.drive(lambda: self.peer.handshake(push_last=False))


@pytest.fixture
def secure(
    loop: ManualLoop, certificates: Certificates, version: ssl.TLSVersion
) -> Iterator[Secure]:
    made = Secure(loop, certificates, version)
    with made.peer:
        yield made


# -- what is promised ----------------------------------------------------------------------------


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("together", [False, True])
def test_a_handshake_goes_on_and_what_comes_behind_it_is_answered(
    secure: Secure, begun: bool, together: bool
) -> None:
    """Whether the client's first message shares a segment with the end of its handshake or not."""
    peer = secure.peer
    if begun:
        secure.begin()
    secure.stop()
    secure.handshake()
    if not together:
        peer.push()
        secure.accept(ConnectionState.OPEN)
    peer.send(frame(1, b"x"))
    assert secure.is_answered(peer)
    secure.loop.advance(FIRST_TIME + MOMENT)
    assert secure.is_ended_in_good_order(peer)
    assert secure.finished() == StopReport(drained=1, aborted=0, finished=True)
    assert secure.ends == [(CloseCause.STOPPED, True)]
    assert not secure.errors.items


def test_what_comes_a_round_trip_later_is_answered(secure: Secure) -> None:
    secure.begin()
    secure.stop()
    secure.loop.advance(OPENING_TIME - MOMENT)
    secure.drive(secure.peer.handshake)
    secure.accept(ConnectionState.OPEN)
    secure.loop.advance(FIRST_TIME - MOMENT)
    secure.peer.send(frame(1, b"x"))
    assert secure.is_answered(secure.peer)
    secure.loop.advance(2 * MOMENT)
    assert secure.is_ended_in_good_order(secure.peer)
    assert secure.finished().drained == 1


def test_a_client_that_leaves_when_it_is_answered_is_not_waited_for(secure: Secure) -> None:
    secure.begin()
    secure.stop()
    secure.drive(secure.peer.handshake)
    secure.peer.send(frame(1, b"x"))
    assert secure.is_answered(secure.peer)
    secure.peer.put_close()
    secure.peer.push()
    assert secure.is_ended_in_good_order(secure.peer)
    assert secure.finished().finished
    assert secure.ends == [(CloseCause.PEER_CLOSED, True)]


def test_a_header_of_a_proxy_may_come_whole(loop: ManualLoop) -> None:
    stage = Stage(loop)
    address = stage.server.listen(LOCAL, proxy_protocol=True)
    header = proxied(1, "203.0.113.7", 4711)
    with Peer(address) as peer:
        peer.sock.setblocking(False)
        peer.send(header[:7])
        stage.accept(ConnectionState.PREFACING)
        stage.stop()
        peer.send(header[7:] + frame(1, b"x"))
        stage.accept(ConnectionState.OPEN)
        data: list[bytes] = []
        stage.drive(lambda: data.append(peer.sock.recv(100)))
        assert data == [frame(1, b"x")]
        assert stage.opened.items[0].name == "203.0.113.7:4711"
        loop.advance(FIRST_TIME + MOMENT)
        assert stage.is_cut_off(peer)
        peer.close()
        assert stage.finished() == StopReport(drained=1, aborted=0, finished=True)
    assert stage.ends == [(CloseCause.STOPPED, True)]


def test_a_handshake_behind_a_header_shares_its_time(
    loop: ManualLoop, certificates: Certificates
) -> None:
    stage = Stage(loop, tls=load_server_tls(certificates.server_file))
    address = stage.server.listen(LOCAL, proxy_protocol=True)
    with Peer(address) as raw:
        raw.sock.setblocking(False)
        peer = TlsPeer(raw.sock, peer_context(certificates))
        stage.accept(ConnectionState.PREFACING)
        stage.stop()
        loop.advance(OPENING_TIME - MOMENT)
        raw.send(proxied(2, "203.0.113.7", 4711))
        stage.accept(ConnectionState.HANDSHAKING)
        stage.drive(peer.handshake)
        peer.send(frame(1, b"x"))
        assert stage.is_answered(peer)
        loop.advance(FIRST_TIME + MOMENT)
        assert stage.is_ended_in_good_order(peer)
        assert stage.finished().drained == 1


# -- and how long it may take --------------------------------------------------------------------


def test_who_stalls_is_not_waited_for_and_holds_up_nobody(
    loop: ManualLoop, certificates: Certificates
) -> None:
    secure = Secure(loop, certificates)
    secure.drive(secure.peer.handshake)
    with secure.peer as idle, secure.connect() as stalls, secure.connect() as trickles:
        stalls.begin()
        stalls.push()
        trickles.begin()
        hello = trickles.take()
        secure.accept(ConnectionState.OPEN, *[ConnectionState.HANDSHAKING] * 2)
        secure.loop.until(lambda: secure.opened.items)
        loop.advance(YOUNG_TIME)
        secure.stop()
        assert secure.is_ended_in_good_order(idle)  # and no time has passed
        secure.accept(*[ConnectionState.HANDSHAKING] * 2)
        for at in range(3):
            loop.advance((OPENING_TIME - MOMENT) / 3)
            trickles.sock.sendall(hello[at : at + 1])
        loop.settle()
        assert secure.states() == [ConnectionState.HANDSHAKING] * 2
        loop.advance(2 * MOMENT)
        assert secure.finished().aborted == 0
        assert secure.is_cut_off(trickles)
    assert secure.ends == [(CloseCause.STOPPED, True)]  # of the one that was open
    assert len(secure.opened) == 1


def test_a_header_that_does_not_come_is_not_waited_for(loop: ManualLoop) -> None:
    stage = Stage(loop)
    with Peer(stage.server.listen(LOCAL, proxy_protocol=True)) as peer:
        peer.sock.setblocking(False)
        peer.send(b"PROXY ")
        stage.accept(ConnectionState.PREFACING)
        stage.stop()
        loop.advance(OPENING_TIME - MOMENT)
        assert stage.states() == [ConnectionState.PREFACING]
        loop.advance(2 * MOMENT)
        assert stage.is_cut_off(peer)
        assert stage.finished().aborted == 0
    assert not stage.closed.items


def test_who_says_nothing_is_drained(secure: Secure) -> None:
    secure.stop()
    secure.drive(secure.peer.handshake)
    secure.accept(ConnectionState.OPEN)
    secure.loop.advance(FIRST_TIME - MOMENT)
    assert secure.states() == [ConnectionState.OPEN]
    secure.loop.advance(2 * MOMENT)
    assert secure.is_ended_in_good_order(secure.peer)
    assert secure.finished() == StopReport(drained=1, aborted=0, finished=True)


def test_who_leaves_in_its_handshake_ends_the_wait(secure: Secure) -> None:
    secure.begin()
    secure.stop()
    secure.peer.close()
    assert secure.finished().aborted == 0
    assert not secure.closed.items


def test_in_a_short_grace_each_part_is_short(secure: Secure) -> None:
    """A quarter of it is left for what is to be drained."""
    grace = 0.4
    secure.begin()
    secure.stop(grace)
    secure.loop.advance(grace / 2 - MOMENT)
    secure.drive(secure.peer.handshake)
    secure.accept(ConnectionState.OPEN)
    secure.loop.advance(grace / 4 - MOMENT)
    assert secure.states() == [ConnectionState.OPEN]
    secure.loop.advance(2 * MOMENT)
    assert secure.is_ended_in_good_order(secure.peer)
    assert secure.finished() == StopReport(drained=1, aborted=0, finished=True)


def test_in_a_short_grace_who_stalls_gets_half_of_it(secure: Secure) -> None:
    secure.stop(0.4)
    secure.loop.advance(0.2 - MOMENT)
    assert secure.states() == [ConnectionState.HANDSHAKING]
    secure.loop.advance(2 * MOMENT)
    assert secure.finished().aborted == 0


def test_a_shorter_grace_shortens_what_is_left(secure: Secure) -> None:
    secure.begin()
    secure.stop()
    secure.loop.advance(0.5)
    secure.stop(0.4)
    secure.loop.advance(0.2 - MOMENT)
    secure.drive(secure.peer.handshake)
    secure.accept(ConnectionState.OPEN)
    secure.loop.advance(0.1 + MOMENT)
    assert secure.is_ended_in_good_order(secure.peer)
    assert secure.finished() == StopReport(drained=1, aborted=0, finished=True)


def test_a_shorter_grace_shortens_the_time_of_those_that_are_open(secure: Secure) -> None:
    secure.stop()
    secure.drive(secure.peer.handshake)
    secure.accept(ConnectionState.OPEN)
    secure.stop(0.4)
    secure.loop.advance(0.2 + MOMENT)
    assert secure.is_ended_in_good_order(secure.peer)
    assert secure.finished() == StopReport(drained=1, aborted=0, finished=True)


def test_a_grace_that_is_not_over_sooner_gives_no_more_time(secure: Secure) -> None:
    secure.stop()
    secure.loop.advance(OPENING_TIME - MOMENT)
    secure.stop()
    secure.loop.advance(2 * MOMENT)
    assert secure.finished().aborted == 0


@pytest.mark.parametrize("second", [False, True])
def test_without_a_grace_it_ends_at_once(secure: Secure, second: bool) -> None:
    secure.begin()
    if second:
        secure.stop()
        assert secure.states() == [ConnectionState.HANDSHAKING]
    secure.stop(0.0)
    # A timer is due in the tick after the present one.
    secure.loop.advance(0.001)
    assert secure.finished().finished
    assert secure.is_cut_off(secure.peer)


# -- on a thread of its own ----------------------------------------------------------------------


def test_a_stop_waits_for_a_handshake_on_its_own_loop(tmp_path: Path) -> None:
    """As the tests above, in real time."""
    certificates = Certificates(tmp_path)
    registry = MessageRegistry()
    registry.register(1, as_bytes, lambda context, conn: Sample(1, context.message))
    reports: Calls[StopReport] = Calls()
    server = Server(registry=registry, tls=load_server_tls(certificates.server_file))
    with (
        server.running(LOCAL) as address,
        TlsPeer.connect(address, peer_context(certificates)) as peer,
    ):
        peer.begin()
        peer.push()
        peer.sock.recv(1, 2)  # MSG_PEEK
        server.call_soon(lambda: reports.add(server.stop()))  # as a worker's control thread does
        reports.wait()
        peer.handshake()
        peer.send(frame(1, b"x"))
        assert peer.receive(9) == frame(1, b"x")
        assert peer.receive_to_end() == b""
    assert server.stop().finished


# -- who is open, and young ----------------------------------------------------------------------


class Plain(Stage):
    """A server without TLS, and a client that is connected to it."""

    def __init__(self, loop: ManualLoop) -> None:
        super().__init__(loop)
        self._address = self.server.listen(LOCAL)
        self.peer = Peer(self._address)
        self.accept(ConnectionState.OPEN)
        loop.until(lambda: self.opened.items)

    def is_answered_by(self, value: bytes) -> bool:
        self.peer.send_frame(1, value)
        expected, data = frame(1, value), bytearray()
        self.peer.sock.setblocking(False)
        self.drive(lambda: data.extend(self.peer.sock.recv(len(expected))))
        return bytes(data) == expected

    def is_ended(self) -> bool:
        """Whether FIN comes, and nothing before it."""
        data: list[bytes] = []
        self.peer.sock.setblocking(False)
        self.drive(lambda: data.append(self.peer.sock.recv(1)))
        self.peer.close()
        return data == [b""]


@pytest.fixture
def plain(loop: ManualLoop) -> Iterator[Plain]:
    made = Plain(loop)
    with made.peer:
        yield made


@pytest.mark.parametrize("piece", [b"", frame(1, b"x")[:5]], ids=["nothing", "a piece"])
def test_the_first_message_of_who_has_just_connected_is_answered(
    plain: Plain, piece: bytes
) -> None:
    plain.loop.advance(YOUNG_TIME - MOMENT)
    if piece:
        plain.peer.send(piece)
        plain.loop.until(lambda: plain.server.metrics().bytes_in == len(piece))
        plain.loop.advance(YOUNG_TIME - MOMENT)
    plain.stop()
    assert plain.states() == [ConnectionState.OPEN]
    plain.peer.send(frame(1, b"x")[len(piece) :])
    plain.peer.sock.setblocking(False)
    answer: list[bytes] = []
    plain.drive(lambda: answer.append(plain.peer.sock.recv(100)))
    assert answer == [frame(1, b"x")]
    plain.loop.advance(2 * MOMENT)
    assert plain.is_ended()
    assert plain.finished() == StopReport(drained=1, aborted=0, finished=True)


def test_who_says_nothing_is_young_for_no_longer_than_that(plain: Plain) -> None:
    plain.loop.advance(YOUNG_TIME / 2)
    plain.stop()
    plain.loop.advance(YOUNG_TIME / 2 - MOMENT)
    assert plain.states() == [ConnectionState.OPEN]
    plain.loop.advance(2 * MOMENT)
    assert plain.is_ended()
    assert plain.finished().drained == 1


@pytest.mark.parametrize("how", ["old", "has spoken"])
def test_who_is_not_young_is_drained_at_once(plain: Plain, how: str) -> None:
    if how == "old":
        plain.loop.advance(YOUNG_TIME)
    else:
        assert plain.is_answered_by(b"x")
    plain.stop()
    assert plain.is_ended()  # and no time has passed
    assert plain.finished().drained == 1


def test_in_a_short_grace_nobody_is_young_for_long(plain: Plain) -> None:
    plain.stop(0.4)
    plain.loop.advance(0.1 - MOMENT)
    assert plain.states() == [ConnectionState.OPEN]
    plain.loop.advance(2 * MOMENT)
    assert plain.is_ended()
    assert plain.finished().drained == 1


def test_without_a_grace_nobody_is_young(plain: Plain) -> None:
    plain.stop(0.0)
    assert plain.is_cut_off(plain.peer)
    assert plain.finished().aborted == 1
