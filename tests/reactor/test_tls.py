"""reactor.tls: two sessions wired in memory; and TLS in a Connection, over real sockets."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator

import pytest

from reactor import (
    CloseCause,
    CloseReason,
    Connection,
    ConnectionOptions,
    ConnectionState,
    Environment,
    Reactor,
    TlsStream,
    TlsTruncationError,
    WriteResult,
)
from tests.reactor.support import ManualClock, run_passes, run_until, tcp_pair
from tests.tls_support import VERSIONS, Certificates, TlsPeer, peer_context


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(params=VERSIONS, ids=lambda version: version.name)
def version(request: pytest.FixtureRequest) -> ssl.TLSVersion:
    found: ssl.TLSVersion = request.param
    return found


# -- two streams in memory -----------------------------------------------------------------------


class Wire:
    """Two sessions, and the ciphertext between them, which goes over when it is told to."""

    def __init__(
        self,
        certificates: Certificates,
        version: ssl.TLSVersion | None = None,
        *,
        server_hostname: str = "localhost",
    ) -> None:
        self.server = TlsStream(
            peer_context(certificates, server_side=True, version=version), server_side=True
        )
        self.client = TlsStream(
            peer_context(certificates, version=version),
            server_side=False,
            server_hostname=server_hostname,
        )

    def handshake(self, *, byte_by_byte: bool = False) -> None:
        """Until both are done, and nothing is under way."""
        client_done = server_done = False
        for _ in range(10):
            client_done = client_done or self._step(self.client, self.server, byte_by_byte)
            server_done = server_done or self._step(self.server, self.client, byte_by_byte)
        assert client_done
        assert server_done
        # What TLS 1.3 sends after the handshake, tickets for the next one, is no plaintext.
        self.client.feed(self.server.take_ciphertext())
        assert self.client.decrypt() == b""

    @staticmethod
    def _step(stream: TlsStream, other: TlsStream, byte_by_byte: bool) -> bool:
        done = stream.handshake()
        data = stream.take_ciphertext()
        if byte_by_byte and not done:
            for index in range(len(data) - 1):
                other.feed(data[index : index + 1])
                assert other.handshake() is False
            data = data[-1:]
        other.feed(data)
        return done


@pytest.fixture
def wire(certificates: Certificates, version: ssl.TLSVersion) -> Wire:
    made = Wire(certificates, version)
    made.handshake()
    return made


def test_both_ways(wire: Wire) -> None:
    wire.server.feed(wire.client.encrypt(b"from the client"))
    wire.client.feed(wire.server.encrypt(b"from the server"))
    assert wire.server.decrypt() == b"from the client"
    assert wire.client.decrypt() == b"from the server"
    assert wire.server.decrypt() == b""
    assert not wire.server.ended
    assert not wire.client.ended


def test_what_is_on_the_wire_is_not_what_was_written(wire: Wire) -> None:
    ciphertext = wire.client.encrypt(b"a secret, word by word")
    assert b"secret" not in ciphertext
    assert len(ciphertext) > len(b"a secret, word by word")


def test_the_handshake_byte_by_byte(certificates: Certificates, version: ssl.TLSVersion) -> None:
    wire = Wire(certificates, version)
    wire.handshake(byte_by_byte=True)
    wire.server.feed(wire.client.encrypt(b"x"))
    assert wire.server.decrypt() == b"x"


def test_a_record_byte_by_byte(wire: Wire) -> None:
    plaintext = bytearray()
    for byte in wire.client.encrypt(b"first") + wire.client.encrypt(b"second"):
        wire.server.feed(bytes([byte]))
        plaintext += wire.server.decrypt()
    assert plaintext == b"firstsecond"


def test_many_records_at_once(wire: Wire) -> None:
    data = bytes(range(256)) * 12_000  # more than one read, and far more than one record
    wire.server.feed(wire.client.encrypt(data))
    assert wire.server.decrypt() == data


def test_the_library_s_object_tells_the_version_and_the_certificate(
    wire: Wire, version: ssl.TLSVersion
) -> None:
    assert wire.client.object.version() == version.name.replace("_", ".")
    certificate = wire.client.object.getpeercert()
    assert certificate is not None
    assert ("DNS", "localhost") in certificate["subjectAltName"]
    assert version.name.replace("_", ".") in repr(wire.client)


def test_before_the_handshake(certificates: Certificates) -> None:
    stream = Wire(certificates).client
    assert "in handshake" in repr(stream)
    assert stream.take_ciphertext() == b""
    assert stream.handshake() is False
    assert stream.take_ciphertext() != b""
    assert stream.take_ciphertext() == b"", "it is handed out once"


def test_the_first_message_may_come_with_the_last_of_the_handshake(
    certificates: Certificates,
) -> None:
    wire = Wire(certificates, ssl.TLSVersion.TLSv1_3)
    assert wire.client.handshake() is False
    wire.server.feed(wire.client.take_ciphertext())
    assert wire.server.handshake() is False
    wire.client.feed(wire.server.take_ciphertext())
    assert wire.client.handshake() is True
    wire.server.feed(wire.client.encrypt(b"hello"))  # the client's Finished is in front of it
    assert wire.server.handshake() is True
    assert wire.server.decrypt() == b"hello"


def test_the_closing_alert(wire: Wire) -> None:
    last_words = wire.client.encrypt(b"last words")
    before = wire.client.closing
    wire.client.close()
    assert (before, wire.client.closing) == (False, True)
    wire.server.feed(last_words + wire.client.take_ciphertext())
    assert wire.server.decrypt() == b"last words"
    assert wire.server.ended
    wire.server.feed_eof()  # TCP may end now


def test_closing_twice_is_once(wire: Wire) -> None:
    wire.client.close()
    assert wire.client.take_ciphertext() != b""
    wire.client.close()
    assert wire.client.take_ciphertext() == b""


def test_who_has_closed_still_receives(wire: Wire) -> None:
    wire.client.close()
    wire.server.feed(wire.client.take_ciphertext())
    assert wire.server.decrypt() == b""
    wire.client.feed(wire.server.encrypt(b"an answer"))
    assert wire.client.decrypt() == b"an answer"
    assert not wire.client.ended
    wire.server.close()
    wire.client.feed(wire.server.take_ciphertext())
    assert wire.client.decrypt() == b""
    assert wire.client.ended


def test_closing_with_bytes_unread(wire: Wire) -> None:
    wire.server.feed(wire.client.encrypt(b"never read"))
    wire.server.close()
    wire.client.feed(wire.server.take_ciphertext())
    assert wire.client.decrypt() == b""
    assert wire.client.ended


def test_nothing_can_be_sent_after_the_closing_alert(wire: Wire) -> None:
    wire.client.close()
    wire.client.take_ciphertext()
    with pytest.raises(ssl.SSLError):
        wire.client.encrypt(b"too late")


def test_an_end_without_the_alert_is_a_truncation(wire: Wire) -> None:
    wire.server.feed(wire.client.encrypt(b"and the"))
    assert wire.server.decrypt() == b"and the"
    with pytest.raises(TlsTruncationError) as caught:
        wire.server.feed_eof()
    assert isinstance(caught.value, ssl.SSLError)
    assert caught.value.errno == ssl.SSLErrorNumber.SSL_ERROR_EOF


def test_an_end_inside_a_record_is_a_truncation(wire: Wire) -> None:
    wire.server.feed(wire.client.encrypt(b"cut off")[:-1])
    assert wire.server.decrypt() == b""
    with pytest.raises(TlsTruncationError):
        wire.server.feed_eof()


def test_a_forged_record(wire: Wire) -> None:
    """One bit is enough; the other side is told by an alert."""
    ciphertext = bytearray(wire.client.encrypt(b"pay 1 coin"))
    ciphertext[-1] ^= 1
    wire.server.feed(bytes(ciphertext))
    with pytest.raises(ssl.SSLError):
        wire.server.decrypt()
    wire.client.feed(wire.server.take_ciphertext())
    with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
        wire.client.decrypt()
    assert not wire.server.ended


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", bytes(64), b"\x16\x03\x01\xff\xff"])
def test_what_is_no_handshake(certificates: Certificates, garbage: bytes) -> None:
    server = Wire(certificates).server
    server.feed(garbage)
    with pytest.raises(ssl.SSLError):
        server.handshake()


def test_no_version_in_common(certificates: Certificates) -> None:
    old, new = VERSIONS
    client = Wire(certificates, old).client
    server = Wire(certificates, new).server
    assert client.handshake() is False
    server.feed(client.take_ciphertext())
    with pytest.raises(ssl.SSLError):
        server.handshake()
    client.feed(server.take_ciphertext())
    with pytest.raises(ssl.SSLError, match=r"(?i)alert protocol version"):
        client.handshake()


def test_another_name_than_the_certificates(
    certificates: Certificates, version: ssl.TLSVersion
) -> None:
    wire = Wire(certificates, version, server_hostname="elsewhere.test")
    with pytest.raises(ssl.SSLCertVerificationError, match=r"elsewhere\.test"):
        wire.handshake()
    wire.server.feed(wire.client.take_ciphertext())
    with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
        wire.server.handshake()


# -- in a Connection -----------------------------------------------------------------------------


class Recorder:
    """A handler that keeps what it is told, and echoes if it is asked to."""

    def __init__(self, *, echo: bool = False) -> None:
        self.connection: Connection | None = None
        self.received = bytearray()
        self.states: list[ConnectionState] = []
        self.reason: CloseReason | None = None
        self._echo = echo

    def handle_open(self) -> None:
        assert self.connection is not None
        self.states.append(self.connection.state)

    def handle_data(self, data: bytes) -> None:
        self.received += data
        if self._echo:
            assert self.connection is not None
            self.connection.send(data)

    def handle_draining(self) -> None:
        self.states.append(ConnectionState.DRAINING)

    def handle_writable(self) -> None:
        pass

    def handle_closed(self, reason: CloseReason) -> None:
        assert self.reason is None, "closed twice"
        self.reason = reason

    def is_idle(self) -> bool:
        return True


class Served:
    """A server's Connection over TLS, and the peer's end of its socket."""

    def __init__(
        self,
        reactor: Reactor,
        certificates: Certificates,
        *,
        version: ssl.TLSVersion | None = None,
        echo: bool = False,
        options: ConnectionOptions | None = None,
        buffer_size: int | None = None,
    ) -> None:
        self.reactor = reactor
        self.handler = Recorder(echo=echo)
        stream = TlsStream(peer_context(certificates, server_side=True), server_side=True)
        self.connection = Connection(Environment(reactor, options), self.handler, tls=stream)
        self.handler.connection = self.connection
        ours, theirs = tcp_pair(buffer_size=buffer_size)
        self.peer = TlsPeer(theirs, peer_context(certificates, version=version))
        self.connection.start(ours)

    def handshake(self) -> None:
        """With the peer's bytes read and written on this very thread."""
        self.peer.sock.setblocking(False)
        self._drive(lambda: self._is_done(self.peer.handshake))
        run_until(self.reactor, lambda: self.connection.state is ConnectionState.OPEN, "OPEN")

    def receive(self, size: int) -> bytes:
        """Exactly so much plaintext, at the peer's end."""
        data = bytearray()

        def look() -> bool:
            try:
                data.extend(self.peer.receive(min(size - len(data), 16_384)))
            except BlockingIOError:
                pass
            return len(data) == size

        self._drive(look)
        return bytes(data)

    def receive_end(self) -> bytes:
        """What comes before the closing alert, which must come."""
        found: list[bytes] = []
        self._drive(lambda: self._is_done(lambda: found.append(self.peer.receive_to_end())))
        return found[0]

    def is_finished(self) -> bool:
        """Whether the next thing at the peer's end of TCP is a FIN."""
        found: list[bytes] = []
        self._drive(lambda: self._is_done(lambda: found.append(self.peer.sock.recv(1))))
        return found == [b""]

    def closed(self) -> CloseReason:
        """The reason, once there is one."""
        run_until(self.reactor, lambda: self.handler.reason, "the close")
        assert self.handler.reason is not None
        return self.handler.reason

    def _drive(self, look: Callable[[], bool]) -> None:
        run_until(self.reactor, look, "the peer's turn")

    @staticmethod
    def _is_done(step: Callable[[], object]) -> bool:
        try:
            step()
        except BlockingIOError:
            return False
        return True


Serve = Callable[..., Served]


@pytest.fixture
def serve(certificates: Certificates) -> Iterator[Serve]:
    """Makes a Served; its peer is closed in the end, and it with it."""
    made: list[Served] = []

    def make(reactor: Reactor, **arguments: object) -> Served:
        served = Served(reactor, certificates, **arguments)  # type: ignore[arg-type]
        made.append(served)
        return served

    yield make
    for served in made:
        served.peer.close()
        served.connection.abort()
        run_passes(served.reactor)


def test_it_is_handshaking_before_it_is_open(
    reactor: Reactor, serve: Serve, version: ssl.TLSVersion
) -> None:
    served = serve(reactor, version=version)
    assert served.connection.state is ConnectionState.HANDSHAKING
    served.peer.begin()
    served.peer.push()
    run_passes(reactor)
    assert served.connection.state is ConnectionState.HANDSHAKING
    assert served.handler.states == []
    served.handshake()
    assert served.handler.states == [ConnectionState.OPEN]


def test_before_it_is_open_nothing_can_be_written(reactor: Reactor, serve: Serve) -> None:
    served = serve(reactor)
    assert served.connection.write(b"early") is WriteResult.CLOSED
    assert served.connection.pending == 0


def test_an_echo_of_a_large_value_through_small_buffers(
    reactor: Reactor, serve: Serve, version: ssl.TLSVersion
) -> None:
    served = serve(reactor, version=version, echo=True, buffer_size=4096)
    served.handshake()
    data = bytes(range(256)) * 4096
    served.peer.put(data)
    outgoing = memoryview(served.peer.take())
    received = bytearray()

    def exchange() -> bool:
        nonlocal outgoing
        try:
            if outgoing:
                outgoing = outgoing[served.peer.sock.send(outgoing) :]
        except BlockingIOError:
            pass
        try:
            received.extend(served.peer.receive(16_384))
        except BlockingIOError:
            pass
        return len(received) == len(data)

    run_until(reactor, exchange, "the echo")
    assert received == data


def test_close_sends_everything_then_the_alert_then_fin(
    reactor: Reactor, serve: Serve, version: ssl.TLSVersion
) -> None:
    served = serve(reactor, version=version, buffer_size=4096)
    served.handshake()
    data = bytes(range(256)) * 2000
    assert served.connection.write(data) is not WriteResult.CLOSED
    assert served.connection.close()
    assert served.receive(len(data)) == data
    assert served.receive_end() == b""
    assert served.is_finished(), "FIN"
    served.peer.close()
    reason = served.closed()
    assert (reason.cause, reason.clean) == (CloseCause.CLOSED, True)


def test_the_peers_closing_alert_ends_it_in_good_order(
    reactor: Reactor, serve: Serve, version: ssl.TLSVersion
) -> None:
    served = serve(reactor, version=version, echo=True)
    served.handshake()
    served.peer.put(b"question")
    served.peer.put_close()
    served.peer.push()
    assert served.receive(8) == b"question"
    assert served.receive_end() == b""
    served.peer.close()
    reason = served.closed()
    assert (reason.cause, reason.error) == (CloseCause.PEER_CLOSED, None)


def test_a_fin_without_the_alert_is_reported(
    reactor: Reactor, serve: Serve, version: ssl.TLSVersion
) -> None:
    served = serve(reactor, version=version)
    served.handshake()
    served.peer.send(b"half of")
    run_until(reactor, lambda: served.handler.received == b"half of")
    served.peer.sock.shutdown(socket.SHUT_WR)
    assert served.receive_end() == b""
    served.peer.close()
    reason = served.closed()
    assert reason.cause is CloseCause.PEER_CLOSED
    assert isinstance(reason.error, TlsTruncationError)
    assert not reason.clean


def test_a_forged_record_costs_the_connection(reactor: Reactor, serve: Serve) -> None:
    served = serve(reactor)
    served.handshake()
    served.peer.put(b"pay 1 coin")
    ciphertext = bytearray(served.peer.take())
    ciphertext[-1] ^= 1
    served.peer.sock.sendall(ciphertext)
    reason = served.closed()
    assert reason.cause is CloseCause.FAILED
    assert isinstance(reason.error, ssl.SSLError)
    assert served.handler.received == b""
    with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
        served.receive(1)


def test_the_handshake_has_a_deadline(manual: Reactor, clock: ManualClock, serve: Serve) -> None:
    served = serve(manual, options=ConnectionOptions(handshake_timeout=10.0))
    served.peer.begin()
    served.peer.push()  # a sign of life does not put it off
    clock.advance(9.9)
    run_passes(manual)
    assert served.connection.state is ConnectionState.HANDSHAKING
    clock.advance(0.2)
    reason = served.closed()
    assert reason.cause is CloseCause.EXPIRED
    assert isinstance(reason.error, TimeoutError)
    assert "TLS handshake" in str(reason.error)
    assert manual.statistics().timeouts_waiting == 0


def test_that_deadline_ends_with_the_handshake(
    manual: Reactor, clock: ManualClock, serve: Serve
) -> None:
    served = serve(manual, options=ConnectionOptions(handshake_timeout=10.0))
    served.handshake()
    assert manual.statistics().timeouts_waiting == 0
    clock.advance(100.0)
    run_passes(manual)
    assert served.connection.state is ConnectionState.OPEN


@pytest.mark.parametrize("verb", ["close", "abort"])
def test_ended_while_it_shakes_hands(reactor: Reactor, serve: Serve, verb: str) -> None:
    served = serve(reactor)
    assert getattr(served.connection, verb)()
    assert served.connection.state is ConnectionState.CLOSED
    reason = served.closed()
    assert reason.cause is (CloseCause.CLOSED if verb == "close" else CloseCause.ABORTED)
    assert reason.error is None
    assert served.handler.states == []
    assert reactor.statistics().timeouts_waiting == 0
    assert reactor.statistics().channels == 0


@pytest.mark.parametrize("begun", [False, True], ids=["at once", "after its first message"])
def test_a_peer_that_leaves_while_it_shakes_hands(
    reactor: Reactor, serve: Serve, begun: bool
) -> None:
    served = serve(reactor)
    if begun:
        served.peer.begin()
        served.peer.push()
        run_passes(reactor)
    served.peer.sock.shutdown(socket.SHUT_WR)
    reason = served.closed()
    assert reason.cause is CloseCause.PEER_CLOSED
    assert isinstance(reason.error, ConnectionResetError)
    assert served.handler.states == []


def test_a_peer_that_does_not_take_the_closing_alert_is_given_a_limited_time(
    manual: Reactor, clock: ManualClock, serve: Serve
) -> None:
    served = serve(manual, buffer_size=4096, options=ConnectionOptions(drain_timeout=30.0))
    served.handshake()
    served.connection.write(bytes(4_000_000))
    served.connection.close()
    run_passes(manual)
    assert served.connection.state is ConnectionState.DRAINING
    clock.advance(30.1)
    reason = served.closed()
    assert isinstance(reason.error, TimeoutError)
    assert reason.unsent > 0


def test_ciphertext_is_what_is_counted(
    reactor: Reactor, serve: Serve, version: ssl.TLSVersion
) -> None:
    """As the socket moved it, in both directions: the handshake's bytes are bytes too."""
    served = serve(reactor, version=version)
    served.handshake()
    served.peer.send(b"hello")
    run_until(reactor, lambda: served.handler.received == b"hello")
    assert served.connection.bytes_received == served.peer.sent
