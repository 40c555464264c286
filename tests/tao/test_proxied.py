"""Servers behind proxies: who the peer is, what it may, and what is refused. Real sockets; no proxy."""

from __future__ import annotations

import logging
import os
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

import tao
from tao import (
    CloseReason,
    ConnectionOptions,
    ConnectionState,
    FrameTooLargeError,
    LengthPrefixedCodec,
    MessageRegistry,
    ProxyProtocolError,
    Rate,
    Server,
    ServerConn,
    WriteCloser,
)
from tests.support import LOCAL, Calls, Peer, Sample, as_bytes, frame, wait_until
from tests.tao.manual import ManualLoop
from tests.tao.proxied import SIGNATURE, line, proxied, tlv, v2
from tests.tls_support import Certificates, TlsPeer, peer_context

CLIENT = ("203.0.113.7", 56324)


class Watched:
    """A server that echoes message 1, and what its callbacks were told."""

    def __init__(self, **arguments: Any) -> None:
        self.opened: Calls[ServerConn] = Calls()
        self.closed: Calls[tuple[ServerConn, CloseReason]] = Calls()
        self.errors: Calls[tuple[ServerConn, BaseException]] = Calls()
        registry = MessageRegistry()
        registry.register(
            1, as_bytes, lambda context, conn: Sample(1, context.message), inline=True
        )
        self.server = Server(
            registry=registry,
            on_connect=self.opened.add,
            on_close=lambda conn, reason: self.closed.add((conn, reason)),
            on_error=lambda conn, error: self.errors.add((conn, error)),
            **arguments,
        )

    def running(self, address: Any = LOCAL, **options: Any) -> Any:
        return self.server.running(address, proxy_protocol=True, **options)


def is_served(peer: Peer) -> bool:
    """Whether it is answered, and not cut off."""
    try:
        peer.send_frame(1, b"x")
        return peer.receive_frame() == (1, b"x")
    except (EOFError, ConnectionError):
        return False


VERSIONS = pytest.mark.parametrize("version", [1, 2])


@VERSIONS
def test_the_peer_is_the_one_that_the_proxy_names(
    version: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tao")
    watched = Watched()
    with watched.running() as address:
        with Peer(address) as peer:
            peer.send(proxied(version, *CLIENT, "192.0.2.1", 443) + frame(1, b"first"))
            assert peer.receive_frame() == (1, b"first")
            (conn,) = watched.opened.wait()
            assert conn.remote_address == CLIENT
            assert conn.local_address == ("192.0.2.1", 443)
            assert conn.name == "203.0.113.7:56324"
            assert conn.name in repr(conn)
            assert conn.state is ConnectionState.OPEN
        ((_, reason),) = watched.closed.wait()
        assert reason.clean
    (record,) = [each for each in caplog.records if each.__dict__.get("net_id") == conn.net_id]
    assert record.__dict__["peer"] == "203.0.113.7:56324"
    assert not watched.errors.items


@VERSIONS
def test_ipv6(version: int) -> None:
    watched = Watched()
    with watched.running() as address, Peer(address) as peer:
        peer.send(proxied(version, "2001:db8::7", 56324))
        assert is_served(peer)
        (conn,) = watched.opened.wait()
        assert conn.remote_address == ("2001:db8::7", 56324, 0, 0)
        assert conn.name == "[2001:db8::7]:56324"


@pytest.mark.parametrize(
    "header",
    [line("UNKNOWN"), v2(0x20, 0x00), v2(0x20, 0x11, bytes(12)), v2(0x21, 0x00)],
    ids=["UNKNOWN", "LOCAL", "LOCAL with an address", "UNSPEC"],
)
def test_a_proxy_that_speaks_for_itself_is_the_peer(header: bytes) -> None:
    watched = Watched()
    with watched.running() as address, Peer(address) as peer:
        own = peer.sock.getsockname()
        peer.send(header)
        assert is_served(peer)
        (conn,) = watched.opened.wait()
        assert (conn.remote_address, conn.local_address) == (own, address)


def test_the_header_byte_by_byte() -> None:
    watched = Watched()
    with watched.running() as address, Peer(address) as peer:
        header = proxied(2, *CLIENT)
        for at in range(len(header)):
            peer.send(header[at : at + 1])
        assert is_served(peer)
        assert watched.opened.wait()[0].remote_address == CLIENT


def test_before_the_header_it_is_there_and_not_open() -> None:
    watched = Watched()
    with watched.running() as address, Peer(address) as peer:
        peer.send(proxied(1, *CLIENT)[:-1])
        assert wait_until(lambda: watched.server.connection_count == 1)
        (conn,) = watched.server.connections()
        assert conn.state is ConnectionState.PREFACING
        assert conn.remote_address == peer.sock.getsockname()
        with pytest.raises(tao.ConnectionClosedError, match="not connected yet"):
            conn.write(Sample(1))
        assert not watched.opened.items
        peer.send(b"\n")
        assert is_served(peer)


# -- what is no header ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [frame(1, b"x"), b"GET / HTTP/1.1\r\n\r\n", line("TCP4 1 2 3 4"), v2(0x21, 0x11, bytes(11))],
    ids=["a frame", "HTTP", "a wrong line", "too short"],
)
def test_what_is_no_header_ends_that_connection_only(data: bytes) -> None:
    watched = Watched()
    with watched.running() as address, Peer(address) as good:
        good.send(proxied(1, *CLIENT))
        assert is_served(good)
        with Peer(address) as peer:
            peer.send(data)
            assert peer.is_cut_off()
            ((conn, error),) = watched.errors.wait()
            assert isinstance(error, ProxyProtocolError)
            assert isinstance(error, tao.TaoError)
            assert conn.remote_address == peer.sock.getsockname()
        assert is_served(good)
        assert watched.server.metrics().errors == {"ProxyProtocolError": 1}
        assert wait_until(lambda: watched.server.connection_count == 1)
    assert len(watched.opened) == len(watched.closed) == 1


def test_a_header_without_end_is_given_no_more_room() -> None:
    watched = Watched()
    with watched.running() as address, Peer(address) as peer:
        peer.send(v2(0x21, 0x11, length=65_535))
        assert peer.is_cut_off()
        assert "4096 are taken" in str(watched.errors.wait()[0][1])


def test_a_wrong_checksum() -> None:
    watched = Watched()
    with watched.running() as address, Peer(address) as peer:
        block = bytes(12) + tlv(3, b"abcd")
        peer.send(v2(0x21, 0x11, block))
        assert peer.is_cut_off()
        assert "checksum" in str(watched.errors.wait()[0][1])


def test_a_check_whether_the_server_lives_is_no_error() -> None:
    """A load balancer's, which connects and leaves."""
    watched = Watched()
    with watched.running() as address:
        for _ in range(3):
            Peer(address).close()
        assert wait_until(lambda: watched.server.metrics().connections_total == 3)
        assert wait_until(lambda: watched.server.connection_count == 0)
        assert not watched.errors.items
        assert not watched.server.metrics().errors


def test_who_sends_no_header_in_time_is_not_waited_for() -> None:
    with ManualLoop() as loop:
        watched = Watched(reactor=loop.reactor, options=ConnectionOptions(handshake_timeout=7.0))
        loop.add(watched.server)
        address = watched.server.listen(LOCAL, proxy_protocol=True)
        with Peer(address) as peer:
            peer.send(b"PROXY TCP4 ")
            loop.until(lambda: watched.server.metrics().bytes_in == 11)
            loop.advance(6.9)
            assert watched.server.connection_count == 1
            loop.advance(0.2)
            loop.until(lambda: watched.server.connection_count == 0)
            loop.until(lambda: watched.errors.items)
            ((_, error),) = watched.errors.items
            assert str(error) == "the header of the PROXY protocol took too long"
            assert peer.is_cut_off()


# -- TLS behind it -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@VERSIONS
@pytest.mark.parametrize("together", [False, True])
def test_tls_begins_behind_the_header(
    certificates: Certificates, version: int, together: bool
) -> None:
    watched = Watched(tls=tao.load_server_tls(certificates.server_file))
    with watched.running() as address, Peer(address) as raw:
        peer = TlsPeer(raw.sock, peer_context(certificates))
        if together:
            peer.begin()
            raw.send(proxied(version, *CLIENT) + peer.take())
        else:
            raw.send(proxied(version, *CLIENT))
            assert wait_until(
                lambda: (
                    [conn.state for conn in watched.server.connections()]
                    == [ConnectionState.HANDSHAKING]
                )
            )
            assert watched.server.connections()[0].remote_address == CLIENT
        peer.handshake()
        peer.send(frame(1, b"x"))
        assert peer.receive(9) == frame(1, b"x")
        assert watched.opened.wait()[0].remote_address == CLIENT


def test_a_header_inside_tls_is_none(certificates: Certificates) -> None:
    watched = Watched(tls=tao.load_server_tls(certificates.server_file))
    with watched.running() as address, TlsPeer.connect(address, peer_context(certificates)) as peer:
        with pytest.raises((EOFError, ConnectionError, ssl.SSLError)):
            peer.handshake()
        assert isinstance(watched.errors.wait()[0][1], ProxyProtocolError)


# -- limits --------------------------------------------------------------------------------------


def test_limits_are_those_of_the_client_and_not_the_proxy_s() -> None:
    watched = Watched(max_connections_per_address=2)
    with watched.running() as address:
        peers = [Peer(address) for _ in range(5)]
        try:
            for peer, last in zip(peers, (1, 2, 3, 3, 3), strict=True):
                peer.send(proxied(2, f"203.0.113.{last}", 1))
                if peer is not peers[-1]:
                    assert is_served(peer)
            assert peers[-1].is_cut_off()
            metrics = watched.server.metrics()
            assert (metrics.connections_refused, dict(metrics.errors)) == (1, {})
            peers[2].close()
            assert wait_until(lambda: len(watched.closed) == 1)
            assert wait_until(lambda: watched.server.connection_count == 3)
            with Peer(address) as peer:
                peer.send(proxied(2, "203.0.113.3", 1))
                assert is_served(peer)
        finally:
            for peer in peers:
                peer.close()
    assert len(watched.opened) == len(watched.closed) == 5
    assert not watched.errors.items


def test_a_network_of_ipv6_counts_as_one_address() -> None:
    watched = Watched(max_connections_per_address=2)
    with watched.running() as address:
        peers = [Peer(address) for _ in range(4)]
        try:
            hosts = [
                "2001:db8:0:1::1",
                "2001:db8:0:1:ffff::2",
                "2001:db8:0:2::1",
                "2001:db8:0:1::3",
            ]
            for peer, host in zip(peers, hosts, strict=True):
                peer.send(proxied(1, host, 1))
                if peer is not peers[-1]:
                    assert is_served(peer)
            assert peers[-1].is_cut_off()
        finally:
            for peer in peers:
                peer.close()


def test_a_client_that_connects_too_often_is_told_apart_from_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with ManualLoop() as loop:
        watched = Watched(reactor=loop.reactor, connection_rate=Rate(1, per=10.0))
        loop.add(watched.server)
        address = watched.server.listen(LOCAL, proxy_protocol=True)

        def attempt(host: str) -> tuple[int, int]:
            with Peer(address) as peer:
                before = watched.server.metrics()
                refused, opened = before.connections_refused, len(watched.opened)
                peer.send(proxied(1, host, 56324))
                loop.until(
                    lambda: (
                        watched.server.metrics().connections_refused > refused
                        or len(watched.opened) > opened
                    )
                )
                return (
                    len(watched.opened) - opened,
                    watched.server.metrics().connections_refused - refused,
                )

        assert attempt("203.0.113.1") == (1, 0)
        assert attempt("203.0.113.1") == (0, 1)
        assert attempt("203.0.113.2") == (1, 0)
        loop.advance(10.0)
        assert attempt("203.0.113.1") == (1, 0)
        loop.until(lambda: watched.server.connection_count == 0)
    (text,) = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert text.startswith("refused 203.0.113.1:56324: connection_rate")


def test_the_frames_of_all_connections_of_a_client_count_together() -> None:
    with ManualLoop() as loop:
        watched = Watched(reactor=loop.reactor, frame_rate=Rate(3, per=10.0))
        loop.add(watched.server)
        address = watched.server.listen(LOCAL, proxy_protocol=True)
        peers = [Peer(address) for _ in range(3)]
        try:
            for peer, host in zip(peers, ("203.0.113.1",) * 2 + ("203.0.113.2",), strict=True):
                peer.send(proxied(2, host, 1) + frame(1, b"x") * 2)
            loop.until(lambda: watched.errors.items)
            loop.settle()
            ((conn, error),) = watched.errors.items
            assert isinstance(error, tao.AdmissionError)
            assert conn.remote_address[0] == "203.0.113.1"
            loop.until(lambda: watched.server.metrics().handled == 5)
        finally:
            for peer in peers:
                peer.close()
        loop.until(lambda: watched.server.connection_count == 0)
        rates = watched.server._limits._frame_rates
        assert rates is not None
        assert not rates._held


def test_who_has_not_said_whose_it_is_counts_in_all() -> None:
    watched = Watched(max_connections=1)
    with watched.running() as address, Peer(address) as first:
        assert wait_until(lambda: watched.server.connection_count == 1)
        with Peer(address) as second:
            assert second.is_cut_off()
        first.send(proxied(1, *CLIENT))
        assert is_served(first)


# -- who may be a proxy --------------------------------------------------------------------------


def test_who_is_no_trusted_proxy_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched()
    with watched.running(trusted_proxies=["192.0.2.0/24"]) as address:
        with Peer(address) as peer:
            assert peer.is_cut_off()
        assert watched.server.metrics().connections_refused == 1
    assert "it is none of trusted_proxies" in caplog.text
    assert not watched.opened.items
    assert not watched.errors.items


def test_a_trusted_proxy_is_believed() -> None:
    watched = Watched()
    with watched.running(trusted_proxies=["192.0.2.0/24", "127.0.0.1"]) as address:
        with Peer(address) as peer:
            peer.send(proxied(1, *CLIENT))
            assert is_served(peer)
        assert watched.opened.wait()[0].remote_address == CLIENT


def test_one_address_with_proxies_and_one_without() -> None:
    watched = Watched()
    direct = watched.server.listen(LOCAL)
    with watched.running() as address, Peer(direct) as peer, Peer(address) as other:
        own = peer.sock.getsockname()
        assert is_served(peer)
        other.send(proxied(1, *CLIENT))
        assert is_served(other)
        assert [conn.remote_address for conn in watched.opened.wait(2)] == [own, CLIENT]


MISUSES: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    (LOCAL, {"trusted_proxies": ["::1"]}, ValueError, "pass proxy_protocol=True too"),
    (LOCAL, {"proxy_protocol": True, "trusted_proxies": ["here"]}, ValueError, "'here'"),
    (LOCAL, {"proxy_protocol": True, "trusted_proxies": "::1"}, TypeError, r"\['::1'\]"),
    (LOCAL, {"mode": 0o600}, ValueError, "the file of a Unix socket"),
    (LOCAL, {"proxy": True}, TypeError, "unexpected keyword argument 'proxy'"),
]


@pytest.mark.parametrize(("address", "options", "error", "text"), MISUSES)
@pytest.mark.parametrize("verb", ["listen", "start", "running"])
def test_options_that_make_no_sense(
    address: Any, options: dict[str, Any], error: type[Exception], text: str, verb: str
) -> None:
    server = Server(registry=MessageRegistry())

    def call() -> None:
        made = getattr(server, verb)(address, **options)
        if verb == "running":
            made.__enter__()

    with pytest.raises(error, match=text):
        call()
    assert "not listening" in repr(server)


# -- Unix sockets --------------------------------------------------------------------------------

needs_unix = pytest.mark.skipif(
    not hasattr(socket, "AF_UNIX"), reason="a system without Unix sockets"
)


@needs_unix
def test_a_proxy_on_a_unix_socket(tmp_path: Path) -> None:
    """And the limits are the client's, though the socket's own peers have no address."""
    watched = Watched(max_connections_per_address=1)
    path = str(tmp_path / "s")
    with watched.running(path, mode=0o600), Peer(path) as peer, Peer(path) as second:
        peer.send(proxied(2, *CLIENT))
        assert is_served(peer)
        assert watched.opened.wait()[0].remote_address == CLIENT
        second.send(proxied(2, *CLIENT))
        assert second.is_cut_off()


@needs_unix
def test_who_may_connect_to_a_unix_socket_its_mode_says(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    server = Server(registry=MessageRegistry())
    with pytest.raises(ValueError, match="use mode="):
        server.listen(path, proxy_protocol=True, trusted_proxies=["::1"])
    assert not os.path.exists(path)


@needs_unix
def test_a_client_that_is_a_path(tmp_path: Path) -> None:
    watched = Watched(max_connections_per_address=1)
    with watched.running() as address:
        for _ in range(2):
            with Peer(address) as peer:
                peer.send(v2(0x21, 0x31, b"/run/client".ljust(108, b"\0") + bytes(108)))
                assert is_served(peer)
        first, _ = watched.opened.wait(2)
        assert first.remote_address == "/run/client"
        assert first.name == "/run/client"


# -- unasked -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header", [proxied(1, *CLIENT), proxied(2, *CLIENT), line("UNKNOWN"), SIGNATURE]
)
@pytest.mark.parametrize("codec", [None, LengthPrefixedCodec()])
@pytest.mark.parametrize("split", [0, 9])
def test_a_header_that_nobody_asked_for_is_no_message(
    header: bytes, codec: Any, split: int
) -> None:
    """It is taken for what its bytes are, a length without measure; the reason says what they might be."""
    watched = Watched(codec=codec)
    with watched.server.running(LOCAL) as address, Peer(address) as peer:
        peer.send(header[:split])
        if split:
            assert wait_until(lambda: watched.server.metrics().bytes_in >= split)
        peer.send(header[split:])
        assert peer.is_cut_off()
        peer.close()
        ((conn, reason),) = watched.closed.wait()
        assert isinstance(reason.error, FrameTooLargeError)
        assert "the PROXY protocol" in str(reason.error)
        assert "proxy_protocol=True" in str(reason.error)
        assert conn.remote_address[0] == "127.0.0.1"
        assert watched.server.metrics().messages_in == 0


def test_other_bytes_without_measure_are_not_taken_for_one() -> None:
    watched = Watched()
    with watched.server.running(LOCAL) as address, Peer(address) as peer:
        peer.send(frame(1, b"x") + b"\xff" * 8)
        assert peer.receive_frame() == (1, b"x")
        assert peer.is_cut_off()
        peer.close()
        assert "PROXY" not in str(watched.closed.wait()[0][1])


def test_handlers_see_who_it_is() -> None:
    seen: Calls[Any] = Calls()
    registry = MessageRegistry()

    def handle(_context: tao.Context[bytes], conn: WriteCloser) -> None:
        seen.add((conn.remote_address, conn.name))

    registry.register(1, as_bytes, handle)
    server = Server(registry=registry)
    with server.running(LOCAL, proxy_protocol=True) as address, Peer(address) as peer:
        peer.send(proxied(1, *CLIENT) + frame(1))
        assert seen.wait() == [(CLIENT, "203.0.113.7:56324")]
