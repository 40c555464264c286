"""tao.tls, and TLS in servers and clients; their peers are the standard library's and OpenSSL's."""

from __future__ import annotations

import logging
import os
import selectors
import shutil
import socket
import ssl
import subprocess
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from reactor import Reactor, TlsTruncationError
from tao import (
    ClientConn,
    CloseCause,
    CloseReason,
    ConnectionClosedError,
    ConnectionOptions,
    ConnectionState,
    MessageRegistry,
    Server,
    ServerConn,
    TaoError,
    load_client_tls,
    load_server_tls,
)
from tao.line_codec import LineCodec
from tests.support import (
    DEADLINE,
    LOCAL,
    Calls,
    Peer,
    Sample,
    as_bytes,
    frame,
    wait_until,
)
from tests.tls_support import VERSIONS, Certificates, TlsPeer, peer_context, shake_hands

ECHO = 1
REPLY = 2

OPENSSL = shutil.which("openssl")

needs_openssl = pytest.mark.skipif(
    OPENSSL is None, reason="there is no openssl program: THE PEERS OF OPENSSL ARE NOT TESTED"
)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Those of an authority that nobody has been told to trust."""
    return Certificates(tmp_path_factory.mktemp("strangers"))


@pytest.fixture(params=VERSIONS, ids=lambda version: version.name)
def version(request: pytest.FixtureRequest) -> ssl.TLSVersion:
    found: ssl.TLSVersion = request.param
    return found


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A server that knows nothing of the project."""
    with socket.create_server(LOCAL) as sock:
        yield sock


def echo_registry(*, inline: bool = False) -> MessageRegistry:
    """Message 1 comes back as message 2."""
    registry = MessageRegistry()
    registry.register(
        ECHO, as_bytes, lambda context, conn: Sample(REPLY, context.message), inline=inline
    )
    return registry


def collecting_registry(seen: Calls[bytes]) -> MessageRegistry:
    """Keeps the values of replies."""
    registry = MessageRegistry()
    registry.register(REPLY, as_bytes, lambda context, conn: seen.add(context.message))
    return registry


class Observed:
    """A server over TLS that echoes, and all that its callbacks were told."""

    def __init__(self, certificates: Certificates, **arguments: Any) -> None:
        self.connected: Calls[ServerConn] = Calls()
        self.closed: Calls[CloseReason] = Calls()
        self.errors: Calls[BaseException] = Calls()
        arguments.setdefault("registry", echo_registry())
        arguments.setdefault("tls", load_server_tls(certificates.server_file))
        arguments.setdefault("on_connect", self.connected.add)
        self.server = Server(
            on_close=lambda conn, reason: self.closed.add(reason),
            on_error=lambda conn, error: self.errors.add(error),
            **arguments,
        )

    def running(self, grace: float = 5.0) -> Any:
        return self.server.running(LOCAL, grace=grace)

    def state_of_the_only_one(self) -> ConnectionState | None:
        conns = self.server.connections()
        return conns[0].state if len(conns) == 1 else None


def check_echo(peer: Peer | TlsPeer, value: bytes = b"hello") -> None:
    """A message there and back."""
    peer.send(frame(ECHO, value))
    expected = frame(REPLY, value)
    assert peer.receive(len(expected)) == expected


# -- the contexts --------------------------------------------------------------------------------


def both_contexts(certificates: Certificates) -> list[ssl.SSLContext]:
    return [load_server_tls(certificates.server_file), load_client_tls(certificates.ca_file)]


def test_what_the_contexts_allow(certificates: Certificates) -> None:
    """RFC 9325, 3.1.1, 3.3 and 3.5."""
    for context in both_contexts(certificates):
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2
        assert context.maximum_version is ssl.TLSVersion.MAXIMUM_SUPPORTED
        assert context.options & ssl.OP_NO_COMPRESSION
        assert context.options & ssl.OP_NO_RENEGOTIATION
        names = " ".join(str(cipher["name"]) for cipher in context.get_ciphers())
        for weak in ("RC4", "3DES", "NULL", "EXPORT", "MD5"):
            assert weak not in names


def test_a_client_verifies_and_a_server_does_not_ask(certificates: Certificates) -> None:
    server, client = both_contexts(certificates)
    assert server.verify_mode is ssl.CERT_NONE
    assert client.verify_mode is ssl.CERT_REQUIRED
    assert client.check_hostname


def test_without_a_file_the_systems_authorities_count(
    monkeypatch: pytest.MonkeyPatch, certificates: Certificates
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca_file))
    context = load_client_tls()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.cert_store_stats()["x509_ca"] >= 1


def test_the_key_may_stand_in_a_file_of_its_own(certificates: Certificates) -> None:
    key, certificate = certificates.key_and_certificate("apart.test")
    load_server_tls(certificate, key)
    with pytest.raises(ssl.SSLError):
        load_server_tls(certificate)
    with pytest.raises(ssl.SSLError):
        load_server_tls(certificate, certificates.server_file)  # somebody else's key


def test_a_key_under_a_password(certificates: Certificates, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    key, certificate = certificates.key_and_certificate("locked.test")
    locked = tmp_path / "locked.key"
    locked.write_bytes(
        serialization.load_pem_private_key(key.read_bytes(), None).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"open sesame"),
        )
    )
    load_server_tls(certificate, locked, password="open sesame")
    load_client_tls(certificate_file=certificate, key_file=locked, password="open sesame")
    with pytest.raises(ssl.SSLError):
        load_server_tls(certificate, locked, password="open barley")


def test_files_that_are_not_there_or_not_what_they_should_be(
    certificates: Certificates, tmp_path: Path
) -> None:
    missing = tmp_path / "missing.pem"
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("no certificate\n")
    with pytest.raises(FileNotFoundError):
        load_server_tls(missing)
    with pytest.raises(FileNotFoundError):
        load_client_tls(missing)
    with pytest.raises(FileNotFoundError):
        load_server_tls(certificates.server_file, client_ca_file=missing)
    with pytest.raises(ssl.SSLError):
        load_server_tls(nonsense)
    with pytest.raises(ssl.SSLError):
        load_client_tls(nonsense)


# -- an echo, with several kinds of peers --------------------------------------------------------


@pytest.mark.parametrize("inline", [False, True], ids=["pooled", "inline"])
def test_the_standard_librarys_client(
    certificates: Certificates, version: ssl.TLSVersion, inline: bool
) -> None:
    observed = Observed(certificates, registry=echo_registry(inline=inline))
    with (
        observed.running() as address,
        shake_hands(address, peer_context(certificates, version=version)) as peer,
    ):
        assert isinstance(peer.sock, ssl.SSLSocket)
        assert peer.sock.version() == version.name.replace("_", ".")
        assert peer.sock.compression() is None
        for index in range(100):
            check_echo(peer, b"%d" % index)
        assert observed.connected.wait()[0].state is ConnectionState.OPEN


def test_tls_1_3_is_taken_where_both_can(certificates: Certificates) -> None:
    with (
        Observed(certificates).running() as address,
        shake_hands(address, peer_context(certificates)) as peer,
    ):
        assert isinstance(peer.sock, ssl.SSLSocket)
        assert peer.sock.version() == "TLSv1.3"


class Program:
    """`openssl s_client`, and a thread's worth of patience with it."""

    def __init__(self, address: tuple[str, int], *arguments: str) -> None:
        assert OPENSSL is not None
        # The name as a word of the command, since the system's configuration may say more.
        command = [OPENSSL, "s_client", "-connect", f"127.0.0.1:{address[1]}"]
        self._process = subprocess.Popen(
            [*command, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
        )
        self.output = b""

    def send(self, data: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(data)

    def finish_sending(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()

    def wait_for(self, text: bytes) -> None:
        """Read until `text` has come, and forget what was read."""
        end = time.monotonic() + DEADLINE
        while text not in self.output:
            data = self._read(end)
            assert data, f"it ended: {self.output!r}"
            self.output += data
        self.output = self.output.partition(text)[2]

    def read_to_end(self) -> bytes:
        end = time.monotonic() + DEADLINE
        while data := self._read(end):
            self.output += data
        return self.output

    def _read(self, end: float) -> bytes:
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            ready = selector.select(end - time.monotonic())
        assert ready, f"it says nothing; so far: {self.output!r}"
        return os.read(self._process.stdout.fileno(), 65_536)

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()


def line_registry() -> MessageRegistry:
    registry = MessageRegistry()
    registry.register(1, as_bytes, lambda context, conn: Sample(1, b"you said " + context.message))
    return registry


@needs_openssl
@pytest.mark.parametrize("flag", ["-tls1_2", "-tls1_3"])
def test_openssls_client(certificates: Certificates, flag: str) -> None:
    observed = Observed(certificates, registry=line_registry(), codec=LineCodec())
    verify = ["-CAfile", str(certificates.ca_file), "-verify_return_error"]
    verify += ["-verify_hostname", "localhost", "-servername", "localhost"]
    with observed.running() as address, Program(address, flag, *verify, "-quiet") as program:
        program.send(b"hello\n")
        program.wait_for(b"you said hello\n")
        program.send(b"x" * 60_000 + b"\n")
        program.wait_for(b"you said " + b"x" * 60_000 + b"\n")
    assert observed.errors.items == []


@needs_openssl
def test_openssls_client_changes_its_keys(certificates: Certificates) -> None:
    """RFC 8446, 4.6.3: at "K" it sends a KeyUpdate and asks for ours."""
    observed = Observed(certificates, registry=line_registry(), codec=LineCodec())
    with observed.running() as address, Program(address, "-tls1_3") as program:
        program.wait_for(b"---")
        program.send(b"before\n")
        program.wait_for(b"you said before\n")
        for index in range(3):
            program.send(b"K\n")
            program.wait_for(b"KEYUPDATE")
            program.send(b"after %d\n" % index)
            program.wait_for(b"you said after %d\n" % index)
    assert observed.errors.items == []


@needs_openssl
def test_openssls_client_may_not_renegotiate(certificates: Certificates) -> None:
    """At "R" it asks for a handshake in the middle; RFC 9325, 3.5. Others notice nothing."""
    observed = Observed(certificates, registry=line_registry(), codec=LineCodec())
    with (
        observed.running() as address,
        shake_hands(address, peer_context(certificates)) as other,
        Program(address, "-tls1_2") as program,
    ):
        program.wait_for(b"---")
        program.send(b"before\n")
        program.wait_for(b"you said before\n")
        program.send(b"R\n")
        program.wait_for(b"RENEGOTIATING")
        assert b"no renegotiation" in program.read_to_end()
        other.send(b"still here\n")
        expected = b"you said still here\n"
        assert other.receive(len(expected)) == expected


@needs_openssl
def test_openssls_client_ends_in_good_order(certificates: Certificates) -> None:
    observed = Observed(certificates, registry=line_registry(), codec=LineCodec())
    with observed.running() as address, Program(address) as program:
        program.wait_for(b"---")
        program.send(b"hello\n")
        program.wait_for(b"you said hello\n")
        program.send(b"Q\n")
        program.read_to_end()
        reason = observed.closed.wait()[0]
    assert (reason.cause, reason.clean) == (CloseCause.PEER_CLOSED, True)


def test_clientconn_and_server(certificates: Certificates) -> None:
    seen: Calls[bytes] = Calls()
    tls = load_client_tls(certificates.ca_file)
    with (
        Observed(certificates).running() as address,
        ClientConn(address, registry=collecting_registry(seen), tls=tls) as client,
    ):
        for index in range(1000):
            client.write(Sample(ECHO, b"%d" % index))
        assert seen.wait(1000) == [b"%d" % index for index in range(1000)]
        client.close()
        reason = client.wait_closed(DEADLINE)
    assert reason is not None
    assert (reason.cause, reason.clean) == (CloseCause.CLOSED, True)


def test_clientconn_with_another_server(
    listener: socket.socket, certificates: Certificates, version: ssl.TLSVersion
) -> None:
    """The server's first message goes out with the last of its handshake."""
    seen: Calls[bytes] = Calls()
    client = ClientConn(
        listener.getsockname(),
        registry=collecting_registry(seen),
        tls=load_client_tls(certificates.ca_file),
    )
    client.start()
    context = peer_context(certificates, server_side=True, version=version)
    with TlsPeer.accept(listener, context) as peer:
        peer.handshake(push_last=False)
        peer.put(frame(REPLY, b"welcome"))
        peer.push()
        assert client.wait_connected(DEADLINE)
        assert seen.wait() == [b"welcome"]
        client.write(Sample(ECHO, b"hello"))
        assert peer.receive(13) == frame(ECHO, b"hello")
        client.close()
        assert peer.receive_to_end() == b"", "a closing alert"
    reason = client.wait_closed(DEADLINE)
    assert reason is not None
    assert reason.clean


def test_values_of_several_megabytes_both_ways(
    certificates: Certificates, version: ssl.TLSVersion
) -> None:
    value = os.urandom(1_000_000) * 5
    seen: Calls[bytes] = Calls()
    tls = load_server_tls(certificates.server_file)
    tls.minimum_version = tls.maximum_version = version
    with (
        Observed(certificates, tls=tls).running() as address,
        ClientConn(
            address, registry=collecting_registry(seen), tls=load_client_tls(certificates.ca_file)
        ) as client,
    ):
        client.write(Sample(ECHO, value))
        assert seen.wait(1) == [value]
        client.write(Sample(ECHO, value[::-1]))
        assert seen.wait(2)[1] == value[::-1]


@pytest.mark.parametrize("over_tls", [False, True], ids=["plain", "TLS"])
def test_requests_that_are_sent_before_the_replies_are_read(
    certificates: Certificates, over_tls: bool
) -> None:
    """One of the two ends has to go on reading, or each waits for the other to read, for ever."""
    count, value = 3, bytes(5_000_000)
    seen: Calls[bytes] = Calls()
    observed = Observed(
        certificates, tls=load_server_tls(certificates.server_file) if over_tls else None
    )
    tls = load_client_tls(certificates.ca_file) if over_tls else None
    listener = socket.create_server(LOCAL)
    # A system with large buffers takes it all, and hides what becomes of it otherwise.
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        listener.setsockopt(socket.SOL_SOCKET, option, 65_536)
    with (
        observed.server.running(listener) as address,
        connecting(address, registry=collecting_registry(seen), tls=tls) as (client, _),
    ):
        assert client.wait_connected(DEADLINE)
        try:
            for _ in range(count):
                client.write(Sample(ECHO, value))
            assert seen.wait(count) == [value] * count
        finally:
            client.abort()  # what hangs is not to be waited for


def test_many_clients_at_once(certificates: Certificates) -> None:
    context = peer_context(certificates)
    failures: Calls[BaseException] = Calls()

    def talk(number: int) -> None:
        try:
            with shake_hands(address, context) as peer:
                for index in range(20):
                    check_echo(peer, b"%d of %d" % (index, number))
        except BaseException as error:
            failures.add(error)

    with Observed(certificates).running() as address:
        threads = [threading.Thread(target=talk, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures.items == []


# -- versions and protocols ----------------------------------------------------------------------


def test_a_peer_that_knows_nothing_newer_than_1_1_is_refused(certificates: Certificates) -> None:
    context = peer_context(certificates)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            context.set_ciphers("DEFAULT:@SECLEVEL=0")
            context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
        except (ValueError, ssl.SSLError) as error:
            pytest.skip(f"this OpenSSL cannot even play a peer with TLS 1.1: {error}")
    observed = Observed(certificates)
    with observed.running() as address:
        with pytest.raises(ssl.SSLError) as caught:
            shake_hands(address, context)
        if "NO_PROTOCOLS_AVAILABLE" in str(caught.value):
            pytest.skip("this OpenSSL cannot even play a peer with TLS 1.1")
        assert "ALERT" in str(caught.value).upper(), "refused by the server"
        assert isinstance(observed.errors.wait()[0], ssl.SSLError)
    assert len(observed.connected) == len(observed.closed) == 0


def test_a_server_that_knows_nothing_newer_than_1_1_is_refused(
    listener: socket.socket, certificates: Certificates
) -> None:
    """By its first words; a ServerHello is easily written."""
    client = ClientConn(listener.getsockname(), tls=load_client_tls(certificates.ca_file))
    client.start()
    with Peer.accept(listener) as peer:
        assert peer.sock.recv(65_536)[0] == 0x16  # a handshake record
        hello = b"\x03\x02" + bytes(32) + b"\x00" + b"\xc0\x13" + b"\x00"
        message = b"\x02" + len(hello).to_bytes(3) + hello
        peer.send(b"\x16\x03\x02" + len(message).to_bytes(2) + message)
        with pytest.raises(ConnectionClosedError) as caught:
            client.wait_connected(DEADLINE)
        assert isinstance(caught.value.__cause__, ssl.SSLError)
        assert peer.receive_to_end()[:1] == b"\x15", "an alert says why"
    client.wait_closed(DEADLINE)


def test_alpn(certificates: Certificates) -> None:
    tls = load_server_tls(certificates.server_file, alpn=["chat/2", "chat/1"])
    with Observed(certificates, tls=tls).running() as address:
        for offered, agreed in [
            (["chat/1"], "chat/1"),
            (["chat/1", "chat/2"], "chat/2"),  # the server's preference counts
            ([], None),
            (["other"], None),
        ]:
            context = peer_context(certificates)
            if offered:
                context.set_alpn_protocols(offered)
            with shake_hands(address, context) as peer:
                assert isinstance(peer.sock, ssl.SSLSocket)
                assert peer.sock.selected_alpn_protocol() == agreed
                check_echo(peer)


def test_a_client_offers_alpn(listener: socket.socket, certificates: Certificates) -> None:
    tls = load_client_tls(certificates.ca_file, alpn=["chat/1"])
    client = ClientConn(listener.getsockname(), tls=tls)
    client.start()
    context = peer_context(certificates, server_side=True)
    context.set_alpn_protocols(["chat/1", "chat/2"])
    with TlsPeer.accept(listener, context) as peer:
        peer.handshake()
        assert peer.object.selected_alpn_protocol() == "chat/1"
        assert client.wait_connected(DEADLINE)
        client.close()
        peer.receive_to_end()
    client.wait_closed(DEADLINE)


# -- certificates --------------------------------------------------------------------------------


@contextmanager
def connecting(address: Any, **arguments: Any) -> Iterator[tuple[ClientConn, Calls[BaseException]]]:
    """A client that is started and, in the end, closed; and what its on_error is told."""
    errors: Calls[BaseException] = Calls()
    client = ClientConn(address, on_error=lambda conn, error: errors.add(error), **arguments)
    client.start()
    try:
        yield client, errors
    finally:
        client.close()
        assert client.wait_closed(DEADLINE) is not None


def check_refusal(client: ClientConn, errors: Calls[BaseException], text: str) -> None:
    """It does not connect, on_error has heard of it, and on_close of nothing."""
    with pytest.raises(ConnectionClosedError) as caught:
        client.wait_connected(DEADLINE)
    assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)
    assert text in str(caught.value.__cause__)
    assert errors.wait() == [caught.value.__cause__]


def test_another_name_is_refused(certificates: Certificates) -> None:
    observed = Observed(certificates, tls=load_server_tls(certificates.issue("elsewhere.test")))
    tls = load_client_tls(certificates.ca_file)
    with observed.running() as address:
        with connecting(address, tls=tls) as (client, errors):
            check_refusal(client, errors, "127.0.0.1")
        # The server is told by an alert.
        assert isinstance(observed.errors.wait()[0], ssl.SSLError)
        with connecting(address, tls=tls, server_hostname="elsewhere.test") as (client, errors):
            assert client.wait_connected(DEADLINE)
            assert errors.items == []
    assert len(observed.connected) == len(observed.closed) == 1


def test_the_name_is_the_addresss_host_unless_it_is_given(certificates: Certificates) -> None:
    observed = Observed(certificates, tls=load_server_tls(certificates.issue("localhost")))
    tls = load_client_tls(certificates.ca_file)
    with observed.running() as address:
        with connecting(("localhost", address[1]), tls=tls) as (client, _):
            assert client.wait_connected(DEADLINE)
        with connecting(address, tls=tls) as (client, errors):  # 127.0.0.1 is not in it
            check_refusal(client, errors, "127.0.0.1")


def test_a_strangers_certificate_is_refused(
    certificates: Certificates, strangers: Certificates
) -> None:
    tls = load_client_tls(certificates.ca_file)
    with (
        Observed(strangers).running() as address,
        connecting(address, tls=tls) as (client, errors),
    ):
        check_refusal(client, errors, "certificate")


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if (record.name, record.levelno) == ("tao", logging.WARNING)
    ]


def test_any_name_is_accepted_if_that_is_wished(
    certificates: Certificates, strangers: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    tls = load_client_tls(certificates.ca_file, check_hostname=False)
    assert len(warnings_of(caplog)) == 1
    assert "name will not be checked" in warnings_of(caplog)[0]
    elsewhere = load_server_tls(certificates.issue("elsewhere.test"))
    with (
        Observed(certificates, tls=elsewhere).running() as address,
        connecting(address, tls=tls) as (client, errors),
    ):
        assert client.wait_connected(DEADLINE)
        assert errors.items == []
    with (
        Observed(strangers).running() as address,
        connecting(address, tls=tls) as (client, errors),
    ):
        check_refusal(client, errors, "certificate")


def test_any_certificate_is_accepted_if_that_is_wished(
    strangers: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    tls = load_client_tls(verify=False)
    assert len(warnings_of(caplog)) == 1
    assert "will not be verified" in warnings_of(caplog)[0]
    with (
        Observed(strangers, tls=load_server_tls(strangers.issue("x.test"))).running() as address,
        connecting(address, tls=tls) as (client, errors),
    ):
        assert client.wait_connected(DEADLINE)
        assert errors.items == []


def test_the_defaults_warn_of_nothing(
    certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    both_contexts(certificates)
    assert warnings_of(caplog) == []


def test_a_clients_certificate_is_required(
    certificates: Certificates, strangers: Certificates, version: ssl.TLSVersion
) -> None:
    tls = load_server_tls(certificates.server_file, client_ca_file=certificates.ca_file)
    tls.maximum_version = version
    observed = Observed(certificates, tls=tls)
    with observed.running() as address:
        own = peer_context(certificates, certificate_file=certificates.issue("client.test"))
        with shake_hands(address, own) as peer:
            check_echo(peer)
        for wrong in (None, strangers.issue("client.test")):
            context = peer_context(certificates, certificate_file=wrong)
            # In TLS 1.3 a client is done before the server has looked at its certificate.
            with (
                pytest.raises(ssl.SSLError, match=r"(?i)alert"),
                shake_hands(address, context) as p,
            ):
                p.receive(1)
        assert len(observed.errors.wait(2)) == 2
    assert all(isinstance(error, ssl.SSLError) for error in observed.errors.items)
    assert len(observed.connected) == len(observed.closed) == 1


def test_a_clients_certificate_may_be_optional(
    certificates: Certificates, strangers: Certificates
) -> None:
    tls = load_server_tls(
        certificates.server_file,
        client_ca_file=certificates.ca_file,
        require_client_certificate=False,
    )
    observed = Observed(certificates, tls=tls)
    with observed.running() as address:
        for right in (None, certificates.issue("client.test")):
            context = peer_context(certificates, certificate_file=right)
            with shake_hands(address, context) as peer:
                check_echo(peer)
        context = peer_context(certificates, certificate_file=strangers.issue("client.test"))
        with pytest.raises(ssl.SSLError, match=r"(?i)alert"), shake_hands(address, context) as peer:
            peer.receive(1)


def test_a_clientconn_shows_its_certificate(
    certificates: Certificates, strangers: Certificates
) -> None:
    seen: Calls[bytes] = Calls()
    key, certificate = certificates.key_and_certificate("client.test")
    tls = load_server_tls(certificates.server_file, client_ca_file=certificates.ca_file)
    with Observed(certificates, tls=tls).running() as address:
        own = load_client_tls(certificates.ca_file, certificate_file=certificate, key_file=key)
        with connecting(address, registry=collecting_registry(seen), tls=own) as (client, _):
            assert client.wait_connected(DEADLINE)
            client.write(Sample(ECHO, b"it is me"))
            assert seen.wait() == [b"it is me"]
        closed: Calls[CloseReason] = Calls()
        wrong = load_client_tls(
            certificates.ca_file, certificate_file=strangers.issue("client.test")
        )
        with connecting(address, tls=wrong, on_close=lambda conn, reason: closed.add(reason)) as (
            client,
            errors,
        ):
            reason = client.wait_closed(DEADLINE)
            assert reason is not None
            assert isinstance(reason.error, (ssl.SSLError, ConnectionResetError))
            # Which of the two is told depends on whether it had been open, in its own eyes.
            assert len(closed) + len(errors) == 1


# -- before it is open ---------------------------------------------------------------------------


def test_a_handshake_under_way_is_visible_and_counted(certificates: Certificates) -> None:
    observed = Observed(certificates, max_connections=1)
    server = observed.server
    with (
        observed.running() as address,
        TlsPeer.connect(address, peer_context(certificates)) as peer,
    ):
        assert wait_until(lambda: server.connection_count == 1)
        assert observed.state_of_the_only_one() is ConnectionState.HANDSHAKING
        assert observed.connected.items == []
        with Peer(address) as second:
            assert second.is_cut_off(), "there is room for one only"
        assert server.metrics().connections_refused == 1
        conn = server.connections()[0]
        assert conn.remote_address == peer.sock.getsockname()
        with pytest.raises(ConnectionClosedError):
            conn.write(Sample(REPLY))
        assert server.broadcast(Sample(REPLY)).sent == 0
        peer.handshake()
        check_echo(peer)
        assert observed.connected.wait() == [conn]
        assert conn.state is ConnectionState.OPEN


def test_a_client_shows_its_handshake_too(
    listener: socket.socket, certificates: Certificates
) -> None:
    tls = load_client_tls(certificates.ca_file)
    with connecting(listener.getsockname(), tls=tls) as (client, _):
        assert wait_until(lambda: client.state is ConnectionState.HANDSHAKING)
        with TlsPeer.accept(listener, peer_context(certificates, server_side=True)) as peer:
            peer.handshake()
            assert wait_until(lambda: client.state is ConnectionState.OPEN)
            client.close()
            peer.receive_to_end()


def test_waiting_for_a_client_that_is_in_the_middle_of_its_handshake(
    listener: socket.socket, certificates: Certificates
) -> None:
    """It is neither connected nor lost: there is something to wait for."""
    tls = load_client_tls(certificates.ca_file)
    with connecting(listener.getsockname(), tls=tls) as (client, _):
        assert wait_until(lambda: client.state is ConnectionState.HANDSHAKING)
        assert client.wait_connected(0.01) is False
        with TlsPeer.accept(listener, peer_context(certificates, server_side=True)) as peer:
            outcome: Calls[bool] = Calls()
            waiter = threading.Thread(target=lambda: outcome.add(client.wait_connected(DEADLINE)))
            waiter.start()
            peer.handshake()
            assert outcome.wait() == [True]
            waiter.join()
            client.close()
            peer.receive_to_end()


def test_a_handshake_that_stalls_is_ended(certificates: Certificates) -> None:
    observed = Observed(certificates, options=ConnectionOptions(handshake_timeout=0.1))
    with observed.running() as address:
        with Peer(address) as silent, TlsPeer.connect(address, peer_context(certificates)) as half:
            half.begin()
            half.push()
            assert silent.is_cut_off()
            errors = observed.errors.wait(2)
            assert wait_until(lambda: observed.server.connection_count == 0)
        assert all(isinstance(error, TimeoutError) for error in errors)
        assert "TLS handshake" in str(errors[0])
        assert len(observed.connected) == len(observed.closed) == 0
        assert observed.server.metrics().errors == {"TimeoutError": 2}
        # Those that are quick enough are not ended later.
        with shake_hands(address, peer_context(certificates)) as peer:
            time.sleep(0.15)  # longer than the deadline that is not there any more
            check_echo(peer)


def test_a_servers_handshake_that_stalls_ends_the_client(
    listener: socket.socket, certificates: Certificates
) -> None:
    with connecting(
        listener.getsockname(),
        tls=load_client_tls(certificates.ca_file),
        options=ConnectionOptions(handshake_timeout=0.1),
    ) as (client, errors):
        reason = client.wait_closed(DEADLINE)
        assert reason is not None
        assert reason.cause is CloseCause.EXPIRED
        assert isinstance(errors.wait()[0], TimeoutError)


def test_a_client_may_be_closed_in_its_handshake(
    listener: socket.socket, certificates: Certificates
) -> None:
    closed: Calls[CloseReason] = Calls()
    with connecting(
        listener.getsockname(),
        tls=load_client_tls(certificates.ca_file),
        on_close=lambda conn, reason: closed.add(reason),
    ) as (client, errors):
        assert wait_until(lambda: client.state is ConnectionState.HANDSHAKING)
        client.close()
        reason = client.wait_closed(DEADLINE)
        assert reason is not None
        assert (reason.cause, reason.error) == (CloseCause.CLOSED, None)
    assert closed.items == [], "it was never connected"
    assert errors.items == []


def test_the_handshake_byte_by_byte(certificates: Certificates, version: ssl.TLSVersion) -> None:
    context = peer_context(certificates, version=version)
    observed = Observed(certificates)
    with observed.running() as address, TlsPeer.connect(address, context) as peer:
        peer.handshake(size=1)
        check_echo(peer)
        peer.put(frame(ECHO, b"byte by byte"))
        peer.push(size=1)
        assert peer.receive(20) == frame(REPLY, b"byte by byte")


def test_the_first_message_may_share_a_segment_with_the_end_of_the_handshake(
    certificates: Certificates,
) -> None:
    context = peer_context(certificates, version=ssl.TLSVersion.TLSv1_3)
    observed = Observed(certificates)
    with observed.running() as address, TlsPeer.connect(address, context) as peer:
        peer.handshake(push_last=False)
        peer.put(frame(ECHO, b"in a hurry"))
        peer.push()
        assert peer.receive(18) == frame(REPLY, b"in a hurry")


def test_and_so_may_the_last(certificates: Certificates) -> None:
    """The end of the handshake, the only request, the closing alert: one segment, and then FIN."""
    context = peer_context(certificates, version=ssl.TLSVersion.TLSv1_3)
    observed = Observed(certificates)
    with observed.running() as address, TlsPeer.connect(address, context) as peer:
        peer.handshake(push_last=False)
        peer.put(frame(ECHO, b"in a hurry"))
        peer.put_close()
        peer.push()
        peer.sock.shutdown(socket.SHUT_WR)
        assert peer.receive_to_end() == frame(REPLY, b"in a hurry")
        reason = observed.closed.wait()[0]
    assert (reason.cause, reason.clean) == (CloseCause.PEER_CLOSED, True)
    assert len(observed.connected) == 1


def test_nothing_runs_on_a_connection_before_it_is_open(certificates: Certificates) -> None:
    """What is scheduled for every connection has to wait for the handshake, as messages do."""
    order: Calls[str] = Calls()
    ticks = threading.Event()

    def tick(_now: float, conn: ServerConn) -> None:
        order.add("tick")
        conn.write(Sample(REPLY, b"tick"))
        ticks.set()

    observed = Observed(certificates, on_connect=lambda conn: order.add("connect"))
    with observed.running() as address:
        observed.server.schedule(0.01, tick)
        with (
            TlsPeer.connect(address, peer_context(certificates)) as slow,
            shake_hands(address, peer_context(certificates)) as quick,
        ):
            quick.receive(len(frame(REPLY, b"tick")) * 3)  # so it has ticked by now
            assert ticks.is_set()
            assert observed.server.connection_count == 2, "the slow one is still there"
            slow.handshake()
            assert slow.receive(12) == frame(REPLY, b"tick")
    assert order.items[0] == "connect"
    assert observed.errors.items == []


# -- what is wrong on the wire -------------------------------------------------------------------


@contextmanager
def undisturbed(address: tuple[str, int], certificates: Certificates) -> Iterator[None]:
    """A connection that goes on echoing, whatever happens to the others meanwhile."""
    stop = threading.Event()
    failures: Calls[BaseException] = Calls()
    echoed: Calls[int] = Calls()

    def talk() -> None:
        try:
            with shake_hands(address, peer_context(certificates)) as peer:
                count = 0
                while not stop.wait(0.002):
                    count += 1
                    check_echo(peer, b"%d" % count)
                    echoed.add(count)
        except BaseException as error:
            failures.add(error)

    thread = threading.Thread(target=talk)
    thread.start()
    try:
        echoed.wait()
        yield
        echoed.wait(len(echoed) + 5)
    finally:
        stop.set()
        thread.join()
    assert failures.items == []


@pytest.mark.parametrize(
    "garbage",
    [b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", frame(ECHO, b"hello"), bytes(1000), b"\xff" * 7],
    ids=["HTTP", "a frame", "zeros", "ones"],
)
def test_plain_bytes_to_a_tls_port(certificates: Certificates, garbage: bytes) -> None:
    observed = Observed(certificates)
    with observed.running() as address, undisturbed(address, certificates), Peer(address) as peer:
        peer.send(garbage)
        answer = peer.receive_to_end()
        assert answer == b"" or answer[0] == 0x15, "nothing, or an alert"
        assert isinstance(observed.errors.wait()[0], ssl.SSLError)
    assert len(observed.connected) == len(observed.closed) == 1  # the undisturbed one's


def test_a_tls_client_at_a_plain_port(certificates: Certificates) -> None:
    registry = echo_registry()
    tls = load_client_tls(certificates.ca_file)
    with (
        Server(registry=registry).running(LOCAL) as address,
        connecting(address, tls=tls, options=ConnectionOptions(handshake_timeout=DEADLINE)) as (
            client,
            errors,
        ),
    ):
        # A ClientHello begins a frame that is far too long, which ends the connection.
        with pytest.raises(ConnectionClosedError):
            client.wait_connected(DEADLINE)
        assert isinstance(errors.wait()[0], OSError)


def test_garbage_in_the_middle(certificates: Certificates, version: ssl.TLSVersion) -> None:
    observed = Observed(certificates)
    context = peer_context(certificates, version=version)
    with (
        observed.running() as address,
        undisturbed(address, certificates),
        TlsPeer.connect(address, context) as peer,
    ):
        peer.handshake()
        check_echo(peer)
        peer.sock.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
        with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
            peer.receive_to_end()
        reason = observed.closed.wait()[0]
    assert reason.cause is CloseCause.FAILED
    assert isinstance(reason.error, ssl.SSLError)
    assert not isinstance(reason.error, TlsTruncationError)


def test_a_record_of_another_session(certificates: Certificates) -> None:
    """What one connection encrypted is garbage to another."""
    observed = Observed(certificates)
    context = peer_context(certificates)
    with (
        observed.running() as address,
        TlsPeer.connect(address, context) as one,
        TlsPeer.connect(address, context) as other,
    ):
        one.handshake()
        other.handshake()
        check_echo(one)
        check_echo(other)
        one.put(frame(ECHO, b"replayed"))
        other.sock.sendall(one.take())
        with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
            other.receive_to_end()
        assert isinstance(observed.closed.wait()[0].error, ssl.SSLError)


@pytest.mark.parametrize("inside", [False, True], ids=["between records", "inside one"])
def test_a_truncated_stream(
    certificates: Certificates, version: ssl.TLSVersion, inside: bool
) -> None:
    observed = Observed(certificates)
    context = peer_context(certificates, version=version)
    with (
        observed.running() as address,
        undisturbed(address, certificates),
        TlsPeer.connect(address, context) as peer,
    ):
        peer.handshake()
        check_echo(peer)
        if inside:
            peer.put(frame(ECHO, b"cut off"))
            peer.sock.sendall(peer.take()[:-1])
        peer.sock.shutdown(socket.SHUT_WR)
        peer.receive_to_end()
        peer.close()
        reason = observed.closed.wait()[0]
    assert reason.cause is CloseCause.PEER_CLOSED
    assert isinstance(reason.error, TlsTruncationError)
    assert not reason.clean


def test_what_came_before_a_truncation_is_answered(certificates: Certificates) -> None:
    with (
        Observed(certificates).running() as address,
        TlsPeer.connect(address, peer_context(certificates)) as peer,
    ):
        peer.handshake()
        peer.put(b"".join(frame(ECHO, b"%03d" % index) for index in range(100)))
        peer.push()
        peer.sock.shutdown(socket.SHUT_WR)
        assert peer.receive_to_end() == b"".join(
            frame(REPLY, b"%03d" % index) for index in range(100)
        )


def test_a_truncation_by_the_server(listener: socket.socket, certificates: Certificates) -> None:
    tls = load_client_tls(certificates.ca_file)
    with connecting(listener.getsockname(), tls=tls) as (client, _):
        with TlsPeer.accept(listener, peer_context(certificates, server_side=True)) as peer:
            peer.handshake()
            assert client.wait_connected(DEADLINE)
        reason = client.wait_closed(DEADLINE)
        assert reason is not None
        assert reason.cause is CloseCause.PEER_CLOSED
        assert isinstance(reason.error, TlsTruncationError)


def test_a_reset(certificates: Certificates) -> None:
    observed = Observed(certificates)
    with observed.running() as address, undisturbed(address, certificates):
        peer = shake_hands(address, peer_context(certificates))
        check_echo(peer)
        peer.reset()
        reason = observed.closed.wait()[0]
    assert reason.cause is CloseCause.FAILED
    assert isinstance(reason.error, ConnectionResetError)


# -- the end -------------------------------------------------------------------------------------


def test_unwrap_is_a_clean_end(certificates: Certificates, version: ssl.TLSVersion) -> None:
    observed = Observed(certificates)
    context = peer_context(certificates, version=version)
    with observed.running() as address, shake_hands(address, context) as peer:
        check_echo(peer)
        assert isinstance(peer.sock, ssl.SSLSocket)
        peer.sock.unwrap().close()  # returns when the server's alert has come
        reason = observed.closed.wait()[0]
    assert (reason.cause, reason.error, reason.clean) == (CloseCause.PEER_CLOSED, None, True)


@pytest.mark.parametrize("inline", [False, True], ids=["pooled", "inline"])
def test_a_peer_that_closes_its_half_gets_every_reply(
    certificates: Certificates, version: ssl.TLSVersion, inline: bool
) -> None:
    """RFC 8446, 6.1: the alert ends one direction only."""
    observed = Observed(certificates, registry=echo_registry(inline=inline))
    context = peer_context(certificates, version=version)
    value = os.urandom(500)
    count = 2000
    with observed.running() as address, TlsPeer.connect(address, context) as peer:
        peer.handshake()
        peer.put(frame(ECHO, value) * count)
        peer.put_close()
        sender = threading.Thread(target=peer.push)  # a million bytes may fill the buffers
        sender.start()
        received = peer.receive(len(frame(REPLY, value)) * count)
        sender.join()
        assert received == frame(REPLY, value) * count
        assert peer.receive_to_end() == b""
        peer.close()
        reason = observed.closed.wait()[0]
    assert (reason.cause, reason.error) == (CloseCause.PEER_CLOSED, None)
    assert reason.unhandled == reason.unsent == reason.undecoded == 0


def test_close_loses_nothing_and_says_goodbye(
    certificates: Certificates, version: ssl.TLSVersion
) -> None:
    observed = Observed(certificates)
    value = os.urandom(1_000_000)
    context = peer_context(certificates, version=version)
    with observed.running() as address, shake_hands(address, context) as peer:
        conn = observed.connected.wait()[0]
        for _ in range(5):
            conn.write(Sample(REPLY, value))
        conn.close()
        with pytest.raises(ConnectionClosedError):
            conn.write(Sample(REPLY, b"too late"))
        # An end without the alert would raise here: see `shake_hands`.
        assert peer.receive_to_end() == frame(REPLY, value) * 5
        peer.close()
        reason = observed.closed.wait()[0]
    assert (reason.cause, reason.clean) == (CloseCause.CLOSED, True)


def test_abort_says_nothing(certificates: Certificates) -> None:
    observed = Observed(certificates)
    with (
        observed.running() as address,
        TlsPeer.connect(address, peer_context(certificates)) as peer,
    ):
        peer.handshake()
        check_echo(peer)
        observed.connected.wait()[0].abort()
        with pytest.raises(ConnectionResetError):
            peer.receive(1)
        assert observed.closed.wait()[0].cause is CloseCause.ABORTED


def test_a_client_closes_in_good_order(listener: socket.socket, certificates: Certificates) -> None:
    client = ClientConn(listener.getsockname(), tls=load_client_tls(certificates.ca_file))
    client.start()
    with TlsPeer.accept(listener, peer_context(certificates, server_side=True)) as peer:
        peer.handshake()
        assert client.wait_connected(DEADLINE)
        value = os.urandom(1_000_000)
        for _ in range(5):
            client.write(Sample(ECHO, value))
        client.close()
        assert peer.receive_to_end() == frame(ECHO, value) * 5
    reason = client.wait_closed(DEADLINE)
    assert reason is not None
    assert (reason.cause, reason.clean) == (CloseCause.CLOSED, True)


def test_stop_says_goodbye_to_all(certificates: Certificates) -> None:
    observed = Observed(certificates)
    with observed.running() as address:
        context = peer_context(certificates)
        peers = [shake_hands(address, context) for _ in range(5)]
        try:
            for peer in peers:
                check_echo(peer)
            stopper = threading.Thread(target=observed.server.stop)
            stopper.start()
            for peer in peers:
                assert peer.receive_to_end() == b""
                peer.close()
            stopper.join()
        finally:
            for peer in peers:
                peer.close()
    reasons = observed.closed.items
    assert [(reason.cause, reason.clean) for reason in reasons] == [(CloseCause.STOPPED, True)] * 5


def test_stop_does_not_wait_long_for_handshakes(certificates: Certificates) -> None:
    grace = DEADLINE * 2
    observed = Observed(
        certificates, options=ConnectionOptions(handshake_timeout=grace, linger_timeout=grace)
    )
    begun: list[TlsPeer] = []
    with observed.running(grace) as address:
        for index in range(6):
            begun.append(TlsPeer.connect(address, peer_context(certificates)))
            if index % 2:
                begun[-1].begin()
                begun[-1].push()
        assert wait_until(lambda: observed.server.connection_count == 6)
        before = time.monotonic()
        report = observed.server.stop(grace)
        assert time.monotonic() - before < grace / 2
        assert report.finished
        assert report.aborted == 0
        for peer in begun:
            with peer, pytest.raises((EOFError, ConnectionError)):
                peer.receive_to_end()
    assert len(observed.connected) == len(observed.closed) == 0


# A reset in the middle of it makes `wrap_socket` of the standard library lose the client's socket.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_stop_while_many_shake_hands(certificates: Certificates) -> None:
    """Whatever each of them had reached, all are ended, and each that connected is closed once."""
    observed = Observed(certificates)
    context = peer_context(certificates)

    def knock() -> None:
        while True:
            try:
                with shake_hands(address, context) as peer:
                    check_echo(peer)
                    knocked.add(True)
            except (OSError, EOFError):  # ssl.SSLError is an OSError
                return

    knocked: Calls[bool] = Calls()
    with observed.running() as address:
        threads = [threading.Thread(target=knock) for _ in range(8)]
        for thread in threads:
            thread.start()
        knocked.wait(16)
        report = observed.server.stop()
        for thread in threads:
            thread.join()
    assert report.finished
    assert observed.server.connection_count == 0
    assert len(observed.connected) == len(observed.closed)


# -- another certificate -------------------------------------------------------------------------


def serial(peer: Peer) -> str:
    assert isinstance(peer.sock, ssl.SSLSocket)
    certificate = peer.sock.getpeercert()
    assert certificate is not None
    number = certificate["serialNumber"]
    assert isinstance(number, str)
    return number


def test_a_new_certificate_is_for_new_connections(certificates: Certificates) -> None:
    observed = Observed(certificates)
    context = peer_context(certificates)
    with observed.running() as address, shake_hands(address, context) as old:
        check_echo(old)
        observed.server.set_tls(load_server_tls(certificates.issue("localhost")))
        with shake_hands(address, context) as new:
            assert serial(new) != serial(old)
            check_echo(new)
            check_echo(old, b"still here")
        with TlsPeer.connect(address, context) as begun:
            begun.begin()
            begun.push()
            assert wait_until(
                lambda: (
                    ConnectionState.HANDSHAKING
                    in [conn.state for conn in observed.server.connections()]
                )
            )
            observed.server.set_tls(load_server_tls(certificates.issue("localhost")))
            begun.handshake()  # one that was under way goes on with what it began with
            check_echo(begun)


def test_a_server_that_listens_without_tls_cannot_be_given_it(certificates: Certificates) -> None:
    server = Server(registry=MessageRegistry())
    with server.running(LOCAL), pytest.raises(TaoError, match="without tls"):
        server.set_tls(load_server_tls(certificates.server_file))


def test_a_server_can_be_given_tls_before_it_listens(certificates: Certificates) -> None:
    registry = MessageRegistry()
    registry.register(1, as_bytes, lambda ctx, conn: Sample(1, ctx.message))
    server = Server(registry=registry)
    server.set_tls(load_server_tls(certificates.server_file))
    with (
        server.running(LOCAL) as address,
        socket.create_connection(address, DEADLINE) as plain,
        peer_context(certificates).wrap_socket(plain, server_hostname="localhost") as peer,
    ):
        peer.sendall(frame(1, b"secret"))
        assert peer.recv(14) == frame(1, b"secret")


# -- together with the rest ----------------------------------------------------------------------


def test_the_metrics_count_ciphertext(certificates: Certificates) -> None:
    """As it came from the sockets, that of the handshake too; so the two directions compare."""
    observed = Observed(certificates)
    with (
        observed.running() as address,
        TlsPeer.connect(address, peer_context(certificates)) as peer,
    ):
        peer.handshake()
        check_echo(peer)
        metrics = observed.server.metrics()
        assert metrics.bytes_out > len(frame(REPLY, b"hello"))
        assert metrics.bytes_in == peer.sent


def test_servers_and_clients_on_one_loop(certificates: Certificates) -> None:
    reactor = Reactor()
    thread = threading.Thread(target=reactor.run)
    thread.start()
    try:
        observed = Observed(certificates, reactor=reactor)
        address = observed.server.listen(LOCAL)
        seen: Calls[bytes] = Calls()
        tls = load_client_tls(certificates.ca_file)
        registry = collecting_registry(seen)
        clients = [ClientConn(address, registry=registry, tls=tls, reactor=reactor) for _ in "1234"]
        for client in clients:
            client.start()
        assert all(client.wait_connected(DEADLINE) for client in clients)
        for index, client in enumerate(clients):
            client.write(Sample(ECHO, b"%d" % index * 100_000))
        assert sorted(seen.wait(4)) == [b"%d" % index * 100_000 for index in range(4)]
        for client in clients:
            client.close()
        for client in clients:
            reason = client.wait_closed(DEADLINE)
            assert reason is not None
            assert reason.clean
        assert observed.server.stop().finished
        assert [reason.clean for reason in observed.closed.wait(4)] == [True] * 4
        assert reactor.statistics().channels == 0
    finally:
        reactor.stop()
        thread.join()
        reactor.close()


def test_a_slow_reader_over_tls_costs_nobody_else(certificates: Certificates) -> None:
    observed = Observed(certificates)
    with observed.running() as address, undisturbed(address, certificates):
        first = len(observed.connected)
        slow = Peer(address, receive_buffer=4096)
        slow.sock = peer_context(certificates).wrap_socket(
            slow.sock, server_hostname="localhost", suppress_ragged_eofs=False
        )
        with slow:
            conn = observed.connected.wait(first + 1)[-1]
            value = os.urandom(100_000)
            count = 0
            while conn.write(Sample(REPLY, value)):
                count += 1
            conn.close()
            assert slow.receive_to_end() == frame(REPLY, value) * (count + 1)


def test_reading_pauses_and_goes_on(certificates: Certificates) -> None:
    """Messages that were decrypted with others are not forgotten while reading is paused."""
    handled: Calls[bytes] = Calls()
    go_on = threading.Event()

    def handle(context: Any, _conn: Any) -> None:
        handled.add(context.message)
        assert go_on.wait(DEADLINE)

    registry = MessageRegistry()
    registry.register(ECHO, as_bytes, handle)
    observed = Observed(certificates, registry=registry, buffer_size=2)
    with (
        observed.running() as address,
        shake_hands(address, peer_context(certificates)) as peer,
    ):
        values = [b"%03d" % index for index in range(50)]
        peer.send(b"".join(frame(ECHO, value) for value in values))
        handled.wait()
        go_on.set()
        assert handled.wait(50) == values
