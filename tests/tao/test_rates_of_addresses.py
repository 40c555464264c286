"""connection_rate and frame_rate: what one address may do, on real sockets and by a manual clock."""

from __future__ import annotations

import logging
import socket
from contextlib import ExitStack
from typing import Any

import pytest

from tao import (
    AdmissionError,
    CloseReason,
    MessageRegistry,
    Objection,
    Rate,
    Server,
)
from tests.support import DEADLINE, LOCAL, Calls, Peer, Sample, as_bytes, frame
from tests.tao.manual import ManualLoop


def echoing(**arguments: Any) -> Server:
    """Message 1 echoes on the loop."""
    registry = MessageRegistry()
    registry.register(1, as_bytes, lambda context, conn: Sample(1, context.message), inline=True)
    return Server(registry=registry, **arguments)


def connect(address: tuple[str, int], host: str) -> socket.socket:
    """From that address of this machine's own network."""
    return socket.create_connection(address, DEADLINE, (host, 0))


def is_served(loop: ManualLoop, sock: socket.socket) -> bool:
    """Whether it is answered, and not cut off."""
    sock.setblocking(False)
    received: list[bytes] = []

    def receive() -> bool:
        try:
            received.append(sock.recv(100))
        except BlockingIOError:
            return False
        except ConnectionError:
            received.append(b"")
        return True

    try:
        sock.send(frame(1, b"x"))
    except ConnectionError:
        return False
    loop.until(receive)
    return received == [frame(1, b"x")]


def other_loopback_address() -> bool:
    """Linux has all of 127/8; other systems have the first, unless they are told."""
    with socket.socket() as sock:
        try:
            sock.bind(("127.0.0.2", 0))
        except OSError:
            return False
    return True


needs_two_addresses = pytest.mark.skipif(
    not other_loopback_address(), reason="this machine has one loopback address only"
)


@needs_two_addresses
def test_who_connects_too_often_is_refused_and_others_are_not() -> None:
    with ManualLoop() as loop, ExitStack() as stack:
        server = echoing(reactor=loop.reactor, connection_rate=Rate(2, per=10.0))
        loop.add(server)
        address = server.listen(LOCAL)
        served = []
        for host in ("127.0.0.1",) * 4 + ("127.0.0.2",):
            sock = stack.enter_context(connect(address, host))
            served.append(is_served(loop, sock))
        assert served == [True, True, False, False, True]
        assert server.metrics().connections_refused == 2
        assert server.connection_count == 3
        # An attempt that was refused costs nothing: the next may come when one token has.
        loop.advance(5.0)
        assert is_served(loop, stack.enter_context(connect(address, "127.0.0.1")))
        assert not is_served(loop, stack.enter_context(connect(address, "127.0.0.1")))


def test_a_flood_of_connections_is_none_of_lines(caplog: pytest.LogCaptureFixture) -> None:
    with ManualLoop() as loop, caplog.at_level(logging.WARNING, "tao"):
        server = echoing(reactor=loop.reactor, connection_rate=Rate(1, per=3600.0))
        loop.add(server)
        address = server.listen(LOCAL)

        def attempt(count: int) -> None:
            before = server.metrics().connections_refused
            for done in range(1, count + 1):
                with Peer(address):
                    loop.until(
                        lambda done=done: server.metrics().connections_refused == before + done  # type: ignore[misc]
                    )

        with Peer(address):
            loop.until(lambda: server.connection_count == 1)
            attempt(100)
            loop.advance(1.0)
            attempt(2)
        lines = [record.getMessage() for record in caplog.records]
        assert len(lines) == 11
        assert all("connection_rate (1 in 3600 s, 1 at once) is reached" in line for line in lines)
        assert [line for line in lines if "more before it" in line] == lines[10:]
        assert lines[10].endswith("; 90 more before it")


@needs_two_addresses
def test_the_frames_of_an_address_are_those_of_all_its_connections() -> None:
    errors: Calls[BaseException] = Calls()
    reasons: Calls[CloseReason] = Calls()
    with ManualLoop() as loop, ExitStack() as stack:
        server = echoing(
            reactor=loop.reactor,
            frame_rate=Rate(4, per=8.0),
            on_error=lambda _conn, error: errors.add(error),
            on_close=lambda _conn, reason: reasons.add(reason),
        )
        loop.add(server)
        address = server.listen(LOCAL)
        first, second = (stack.enter_context(connect(address, "127.0.0.1")) for _ in range(2))
        other = stack.enter_context(connect(address, "127.0.0.2"))
        assert all(is_served(loop, sock) for sock in (first, second, first, second))
        assert not is_served(loop, first)
        first.close()
        loop.until(lambda: len(reasons) == 1)
        [error] = errors.items
        assert isinstance(error, AdmissionError)
        assert (error.number, error.objection) == (1, Objection.ADDRESS_RATE)
        assert reasons.items[0].error is error
        assert is_served(loop, other)
        loop.advance(2.0)
        assert is_served(loop, second)
        # To leave and come back does not fill the bucket.
        second.close()
        loop.until(lambda: len(reasons) == 2)
        third = stack.enter_context(connect(address, "127.0.0.1"))
        assert not is_served(loop, third)


def test_every_frame_counts_whatever_becomes_of_it() -> None:
    with ManualLoop() as loop:
        server = echoing(reactor=loop.reactor, frame_rate=Rate(3))
        loop.add(server)
        with connect(server.listen(LOCAL), "127.0.0.1") as sock:
            sock.send(frame(0, bytes(8)) + frame(99))
            loop.until(lambda: server.metrics().messages_in == 2)
            assert is_served(loop, sock)
            assert not is_served(loop, sock)


def test_nothing_is_kept_of_who_has_gone() -> None:
    with ManualLoop() as loop:
        server = echoing(reactor=loop.reactor, frame_rate=Rate(3))
        loop.add(server)
        rates = server._limits._frame_rates
        assert rates is not None
        address = server.listen(LOCAL)
        for _ in range(3):
            with Peer(address) as peer:
                loop.until(lambda: server.connection_count == 1)
                assert len(rates) == 1
                assert is_served(loop, peer.sock)
            loop.until(lambda: server.connection_count == 0)
            loop.advance(1.0)
        with Peer(address):  # looks after the others when it goes
            loop.until(lambda: server.connection_count == 1)
        loop.until(lambda: server.connection_count == 0)
        assert len(rates) == 0


def test_what_is_no_rate() -> None:
    wrong: Any = 5
    with pytest.raises(TypeError, match="connection_rate is a Rate"):
        Server(connection_rate=wrong)
    with pytest.raises(TypeError, match="frame_rate is a Rate"):
        Server(frame_rate=wrong)
