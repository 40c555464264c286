"""How a server keeps within its memory: what each connection is charged for, and what all may hold."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from reactor import Pause
from tao import (
    CloseReason,
    ConnectionOptions,
    Context,
    MessageRegistry,
    Server,
    ServerConn,
    WouldBlockError,
    WriteCloser,
)
from tao.budget import LEAST_SHARE
from tao.waiting import MESSAGE_COST
from tests.support import DEADLINE, LOCAL, Calls, Peer, Sample, as_bytes, frame, wait_until

ECHO, HOLD, MUCH = 1, 2, 3
MUCH_SIZE = 100_000


class Held:
    """A server of few connections, and a handler that waits until the test lets it go."""

    def __init__(self, **arguments: object) -> None:
        self.release = threading.Event()
        self.begun: Calls[bytes] = Calls()
        self.opened: Calls[ServerConn] = Calls()
        self.reasons: Calls[CloseReason] = Calls()
        registry = MessageRegistry()
        registry.register(ECHO, as_bytes, lambda ctx, conn: Sample(ECHO, ctx.message))
        registry.register(HOLD, as_bytes, self._hold)
        registry.register(MUCH, as_bytes, lambda ctx, conn: Sample(MUCH, bytes(MUCH_SIZE)))
        self.server = Server(
            registry=registry,
            on_connect=self.opened.add,
            on_close=lambda conn, reason: self.reasons.add(reason),
            **arguments,  # type: ignore[arg-type]
        )

    def _hold(self, context: Context[bytes], _conn: WriteCloser) -> None:
        self.begun.add(context.message)
        assert self.release.wait(DEADLINE)

    @property
    def total(self) -> int:
        return self.server.metrics().bytes_held

    @contextmanager
    def running(self) -> Iterator[tuple[str, int]]:
        try:
            with self.server.running(LOCAL) as address:
                try:
                    yield address
                finally:
                    self.release.set()
        finally:
            assert self.total == 0


# -- what is charged -----------------------------------------------------------------------------


def test_nothing_is_held_by_what_has_been_answered() -> None:
    held = Held()
    with held.running() as address, Peer(address) as peer:
        peer.send_frame(ECHO, b"hello")
        assert peer.receive_frame() == (ECHO, b"hello")
        assert wait_until(lambda: held.total == 0)


def test_a_message_is_charged_while_it_is_handled_and_while_it_waits() -> None:
    held = Held()
    with held.running() as address, Peer(address) as peer:
        peer.send_frame(HOLD, b"x" * 92)
        held.begun.wait()
        assert wait_until(lambda: held.total == 100 + MESSAGE_COST)
        peer.send(frame(HOLD, b"y" * 192) + frame(ECHO))
        assert wait_until(lambda: held.total == 100 + 200 + 8 + 3 * MESSAGE_COST)
        [conn] = held.server.connections()
        assert conn.bytes_held == held.total
        held.release.set()
        assert peer.receive_frame() == (ECHO, b"")
        assert wait_until(lambda: held.total == 0)


@pytest.mark.parametrize("pieces", [1, 3])
def test_an_unfinished_frame_is_charged_as_it_comes(pieces: int) -> None:
    held = Held()
    data = frame(ECHO, b"x" * 1000)
    with held.running() as address, Peer(address) as peer:
        for piece in range(1, pieces + 1):
            peer.send(data[(piece - 1) * 100 : piece * 100])
            assert wait_until(lambda: held.total == 100 * piece)  # noqa: B023
        peer.send(data[pieces * 100 :])
        assert peer.receive_frame() == (ECHO, b"x" * 1000)
        assert wait_until(lambda: held.total == 0)


def test_what_a_peer_does_not_read_is_charged_when_it_is_written_and_not_when_it_is_sent() -> None:
    held = Held()
    with held.running() as address, Peer(address, receive_buffer=4096) as peer:
        [conn] = held.opened.wait()
        for _ in range(50):
            conn.write(Sample(MUCH, bytes(MUCH_SIZE)))
        assert wait_until(lambda: 0 < held.total == conn.pending)
        size = len(frame(MUCH, bytes(MUCH_SIZE)))
        for _ in range(50):
            peer.receive(size)
        assert wait_until(lambda: held.total == 0)


def test_a_connection_that_is_lost_takes_what_it_held_with_it() -> None:
    held = Held(options=ConnectionOptions(input_high=10_000))
    with held.running() as address, Peer(address, receive_buffer=4096) as peer:
        [conn] = held.opened.wait()
        peer.send(frame(HOLD) + frame(ECHO, bytes(5_000)) * 4 + frame(ECHO, b"cut off")[:-1])
        held.begun.wait()
        assert wait_until(lambda: held.total > 4 * 5_000)
        conn.write(Sample(MUCH, bytes(8_000_000)))
        assert wait_until(lambda: held.total > 2_000_000)
        peer.reset()
        held.release.set()
        held.reasons.wait()
        assert wait_until(lambda: held.total == 0)


def test_a_broadcast_is_charged_to_all_who_do_not_read_it() -> None:
    held = Held()
    with held.running() as address:
        peers = [Peer(address, receive_buffer=4096) for _ in range(3)]
        conns = held.opened.wait(3)
        for _ in range(50):
            held.server.broadcast(Sample(MUCH, bytes(MUCH_SIZE)))
        assert wait_until(lambda: 0 < held.total == sum(conn.pending for conn in conns))
        for peer in peers:
            peer.close()
        held.reasons.wait(3)
        assert wait_until(lambda: held.total == 0)


# -- what one connection may hold ----------------------------------------------------------------


def test_reading_pauses_when_the_messages_that_wait_are_large() -> None:
    """Fewer of them than `buffer_size`: it is the bytes that count."""
    held = Held(options=ConnectionOptions(input_high=100_000))
    with held.running() as address, Peer(address) as peer:
        [conn] = held.opened.wait()
        peer.send_frame(HOLD)
        held.begun.wait()
        sender = threading.Thread(target=peer.send, args=(frame(ECHO, bytes(50_000)) * 100,))
        sender.start()
        connection = conn._session.connection
        assert wait_until(lambda: connection.paused & Pause.WORK)
        # One read more than allowed, at the most.
        assert held.total <= 100_000 + 262_144 + 10 * MESSAGE_COST
        held.release.set()
        assert peer.receive_frames(100) == [(ECHO, bytes(50_000))] * 100
        sender.join()
        assert wait_until(lambda: held.total == 0)
        assert not connection.paused


def test_a_frame_may_be_larger_than_what_may_wait() -> None:
    held = Held(options=ConnectionOptions(input_high=1_000))
    with held.running() as address, Peer(address) as peer:
        sender = threading.Thread(target=peer.send_frame, args=(ECHO, bytes(2_000_000)))
        sender.start()
        assert peer.receive_frame() == (ECHO, bytes(2_000_000))
        sender.join()


# -- what all connections may hold ---------------------------------------------------------------

LIMIT = 1_048_576
CONNECTIONS = 16
SHARE = LIMIT // 4 // CONNECTIONS


def send_what_goes(peer: Peer, data: bytes) -> None:
    """As much as is taken until the connection ends."""
    with contextlib.suppress(OSError):
        peer.send(data)


def pressed(held: Held) -> bool:
    budget = held.server._budget
    assert budget is not None
    return budget.ledger.pressed


def test_who_holds_much_waits_and_who_holds_little_is_served() -> None:
    held = Held(memory_limit=LIMIT, max_connections=CONNECTIONS)
    half = frame(ECHO, bytes(2 * LIMIT))
    with held.running() as address:
        greedy = Peer(address)
        sender = threading.Thread(target=send_what_goes, args=(greedy, half[:LIMIT]))
        sender.start()
        assert wait_until(lambda: pressed(held))
        assert wait_until(lambda: held.opened.items[0]._session.connection.paused & Pause.MEMORY)
        assert LIMIT // 2 < held.total <= LIMIT // 2 + 262_144
        with Peer(address) as modest:
            for size in (0, 100, SHARE // 4):
                modest.send_frame(ECHO, bytes(size))
                assert modest.receive_frame() == (ECHO, bytes(size))
        held.opened.items[0].abort()
        assert wait_until(lambda: not pressed(held))
        assert wait_until(lambda: held.total == 0)
        greedy.close()
        sender.join()


def test_reading_goes_on_when_there_is_room_again() -> None:
    held = Held(memory_limit=LIMIT, max_connections=CONNECTIONS, worker_size=1)
    frames = frame(ECHO, bytes(SHARE // 2)) * 200
    with held.running() as address, Peer(address) as other:
        other.send_frame(HOLD)  # takes the only worker
        held.begun.wait()
        with Peer(address) as peer:
            sender = threading.Thread(target=peer.send, args=(frames,))
            sender.start()
            assert wait_until(lambda: pressed(held))
            held.release.set()
            assert peer.receive_frames(200) == [(ECHO, bytes(SHARE // 2))] * 200
            sender.join()
            assert wait_until(lambda: not pressed(held) and held.total == 0)
            assert not held.opened.items[1]._session.connection.paused


def test_a_write_is_refused_to_who_holds_much_and_not_to_who_holds_little() -> None:
    held = Held(
        memory_limit=LIMIT,
        max_connections=CONNECTIONS,
        options=ConnectionOptions(output_limit=4 * LIMIT),
    )
    with held.running() as address, Peer(address, receive_buffer=4096), Peer(address) as other:
        lazy, modest = held.opened.wait(2)
        if lazy.remote_address == other.sock.getsockname():
            lazy, modest = modest, lazy

        def fill() -> None:
            for _ in range(1000):
                lazy.write(Sample(MUCH, bytes(10_000)))
                assert held.total <= LIMIT // 4 * 3
                wait_until(lambda: not lazy._session.connection._flush_posted, 0.01)

        with pytest.raises(WouldBlockError, match=f"hold .* of {LIMIT}"):
            fill()
        assert modest.write(Sample(ECHO, b"for you"))
        assert other.receive_frame() == (ECHO, b"for you")


@pytest.mark.parametrize("limit", [0, -1, 4 * LEAST_SHARE * 16 - 1])
def test_a_limit_that_is_too_small_is_refused(limit: int) -> None:
    with pytest.raises(ValueError, match=f"memory_limit must be at least {4 * LEAST_SHARE}"):
        Server(memory_limit=limit, max_connections=16)


def test_the_least_limit() -> None:
    Server(memory_limit=4 * LEAST_SHARE * 16, max_connections=16)


def test_input_high_is_checked() -> None:
    with pytest.raises(ValueError, match="input_high"):
        ConnectionOptions(input_high=0)
