"""How a TCP socket is ended, on real sockets."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

import pytest

from reactor.socket_ending import LINGER_READS, read_to_fin, reset_on_close, send_fin
from tests.reactor.support import reset, tcp_pair

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Ours, which does not block, and the peer's."""
    ours, peer = tcp_pair()
    yield ours, peer
    ours.close()
    peer.close()


def test_fin_comes_behind_what_was_sent(pair: Pair) -> None:
    ours, peer = pair
    ours.send(b"last")
    send_fin(ours)
    assert peer.recv(100) == b"last"
    assert peer.recv(100) == b""


def test_fin_to_a_peer_that_has_reset_says_so(pair: Pair) -> None:
    ours, peer = pair
    reset(peer)
    with pytest.raises(ConnectionResetError, match="the peer has reset") as raised:
        send_fin(ours)
    assert raised.value.errno == errno.ECONNRESET


def test_another_error_of_fin_is_told_as_it_is(pair: Pair) -> None:
    ours, _ = pair
    ours.close()
    with pytest.raises(OSError, match="descriptor") as raised:
        send_fin(ours)
    assert raised.value.errno == errno.EBADF


def test_what_comes_before_the_peers_fin_is_thrown_away(pair: Pair) -> None:
    ours, peer = pair
    assert not read_to_fin(ours)
    peer.sendall(b"too")
    assert not read_to_fin(ours)
    peer.sendall(b"late")
    peer.shutdown(socket.SHUT_WR)
    assert read_to_fin(ours)


def test_who_sends_much_is_not_read_to_the_end_at_once(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reactor.socket_ending.LINGER_SIZE", 1)
    ours, peer = pair
    peer.sendall(bytes(LINGER_READS + 1))
    peer.shutdown(socket.SHUT_WR)
    assert not read_to_fin(ours)
    assert read_to_fin(ours)


def test_a_reset_is_no_fin(pair: Pair) -> None:
    ours, peer = pair
    reset(peer)
    with pytest.raises(ConnectionResetError):
        read_to_fin(ours)


def test_closing_can_be_made_to_reset(pair: Pair) -> None:
    ours, peer = pair
    reset_on_close(ours)
    ours.close()
    with pytest.raises(ConnectionResetError):
        peer.recv(100)


def test_what_is_not_connected_any_more_need_not_be_reset(pair: Pair) -> None:
    ours, _ = pair
    ours.close()
    reset_on_close(ours)
