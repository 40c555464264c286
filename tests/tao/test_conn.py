"""tao.conn: the names that an application uses on a connection."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from tao import ConnectionState, MessageRegistry, Server, ServerConn, TypeLengthValueCodec
from tests.support import LOCAL, Calls, Peer, Sample, as_bytes, wait_until


def echo_registry() -> MessageRegistry:
    registry = MessageRegistry()
    registry.register(1, as_bytes, lambda context, conn: Sample(1, context.message))
    return registry


def test_it_says_who_is_at_either_end() -> None:
    opened: Calls[ServerConn] = Calls()
    server = Server(registry=MessageRegistry(), on_connect=opened.add)
    with server.running(LOCAL) as address, Peer(address) as peer:
        [conn] = opened.wait()
        host, port = peer.sock.getsockname()
        assert conn.remote_address == (host, port)
        assert conn.local_address == address
        assert conn.name == f"{host}:{port}"
        states = [conn.state]
        assert repr(conn) == f"<ServerConn {conn.net_id} {host}:{port} OPEN>"
    states.append(conn.state)
    assert states == [ConnectionState.OPEN, ConnectionState.CLOSED]
    assert conn.name == f"{host}:{port}"


def test_net_ids_are_not_used_twice() -> None:
    opened: Calls[ServerConn] = Calls()
    server = Server(registry=MessageRegistry(), on_connect=opened.add)
    with server.running(LOCAL) as address:
        for count in range(1, 6):
            with Peer(address):
                opened.wait(count)
    assert len({conn.net_id for conn in opened.items}) == 5


def test_heart_beat_is_the_time_of_the_last_byte() -> None:
    opened: Calls[ServerConn] = Calls()
    server = Server(registry=echo_registry(), on_connect=opened.add)
    with server.running(LOCAL) as address, Peer(address) as peer:
        [conn] = opened.wait()
        first = conn.heart_beat
        assert abs(time.time() - first) < 60.0
        peer.send_frame(1)
        peer.receive_frame()
        second = conn.heart_beat
        assert second >= first - 0.05  # the two clocks are not read at the same moment
        assert abs(time.time() - second) < 60.0


def test_values_stay_with_the_connection() -> None:
    opened: Calls[ServerConn] = Calls()
    server = Server(registry=MessageRegistry(), on_connect=opened.add)
    with server.running(LOCAL) as address, Peer(address), Peer(address):
        first, second = opened.wait(2)
        assert first.context_value("user") is None
        first.set_context_value("user", "Ada")
        assert first.context_value("user") == "Ada"
        assert second.context_value("user") is None
        first.set_context_value("user", "Grace")
        assert first.context_value("user") == "Grace"


def test_pending_counts_what_the_system_has_not_taken() -> None:
    opened: Calls[ServerConn] = Calls()
    server = Server(registry=MessageRegistry(), on_connect=opened.add)
    with server.running(LOCAL) as address, Peer(address, receive_buffer=4096) as peer:
        [conn] = opened.wait()
        assert conn.pending == 0
        conn.write(Sample(1, b"x" * 8_000_000))
        assert 0 < conn.pending <= 8_000_008
        peer.receive(8_000_008)
        assert wait_until(lambda: conn.pending == 0)


def test_closing_twice_is_closing_once() -> None:
    opened: Calls[ServerConn] = Calls()
    server = Server(registry=MessageRegistry(), on_connect=opened.add)
    with server.running(LOCAL) as address, Peer(address) as peer:
        [conn] = opened.wait()
        conn.close()
        conn.close()
        assert conn.state is not ConnectionState.OPEN
        assert peer.receive_to_end() == b""


def test_a_write_that_cannot_be_encoded_raises_and_harms_nothing() -> None:
    opened: Calls[ServerConn] = Calls()
    server = Server(registry=MessageRegistry(), on_connect=opened.add)
    with server.running(LOCAL) as address, Peer(address) as peer:
        [conn] = opened.wait()
        with pytest.raises(ValueError, match="int32"):
            conn.write(Sample(1 << 31))
        conn.write(Sample(1, b"x"))
        assert peer.receive_frame() == (1, b"x")


LATE: dict[str, Callable[[ServerConn], Any]] = {
    "close": lambda conn: conn.close(),
    "abort": lambda conn: conn.abort(),
    "pause_reading": lambda conn: conn.pause_reading(),
    "resume_reading": lambda conn: conn.resume_reading(),
    "cancel_timer": lambda conn: conn.cancel_timer(1),
    "run_after": lambda conn: conn.run_after(0.0, print),
    "run_every": lambda conn: conn.run_every(1.0, print),
    "set_codec": lambda conn: conn.set_codec(TypeLengthValueCodec()),
    "heart_beat": lambda conn: conn.heart_beat,
    "repr": repr,
}


@pytest.mark.parametrize("verb", LATE)
def test_every_verb_but_write_is_harmless_after_the_end(verb: str) -> None:
    """Of the connection, and of the server with its loop: who holds a connection cannot know."""
    opened: Calls[ServerConn] = Calls()
    server = Server(registry=MessageRegistry(), on_connect=opened.add)
    with server.running(LOCAL) as address:
        with Peer(address):
            [conn] = opened.wait()
        assert wait_until(lambda: conn.state is ConnectionState.CLOSED)
        LATE[verb](conn)
    LATE[verb](conn)
