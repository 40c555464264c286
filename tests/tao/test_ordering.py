"""Order: one connection's messages are handled one at a time, in the order in which they came.

On real sockets, with a peer that writes its frames by hand.
"""

from __future__ import annotations

import os
import random
import selectors
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tao import (
    ConnectionOptions,
    ConnectionState,
    Context,
    MessageRegistry,
    Server,
    ServerConn,
    Watermark,
    WriteCloser,
)
from tests.support import DEADLINE, LOCAL, Calls, Peer, Sample, as_bytes, frame, wait_until

CONNECTIONS = 50
FRAME_SIZE = 16
TURN = 64
"""Chunks that one connection sends before the next has its turn."""


def echo(context: Context[bytes], conn: WriteCloser) -> Sample:
    """The same message back."""
    return Sample(1, context.message)


def echo_registry(*, inline: bool) -> MessageRegistry:
    registry = MessageRegistry()
    registry.register(1, as_bytes, echo, inline=inline)
    return registry


class Stream:
    """One connection's messages, each with a number of its own, and how much of their echo has come."""

    def __init__(self, address: Any, index: int, count: int, chunk: int) -> None:
        self.sock = socket.create_connection(address)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)
        self._data = memoryview(
            b"".join(frame(1, struct.pack("<II", index, number)) for number in range(count))
        )
        self._chunk = chunk
        self._sent = self._received = 0

    def send(self) -> bool:
        """Send chunks for a turn, each by a call of its own. Returns whether there are more."""
        data, chunk = self._data, self._chunk
        try:
            for _ in range(TURN):
                if self._sent == len(data):
                    return False
                self._sent += self.sock.send(data[self._sent : self._sent + chunk])
        except BlockingIOError:
            pass
        return True

    def receive(self) -> bool:
        """Compare what came with what was sent. Returns whether it is complete."""
        data = self.sock.recv(65_536)
        assert data, f"cut off after {self._received} bytes"
        begin, self._received = self._received, self._received + len(data)
        assert data == self._data[begin : self._received]
        return self._received == len(self._data)


def exchange(address: Any, *, count: int, chunk: int) -> None:
    """Send `count` messages on each of 50 connections at once, and see that every one comes back."""
    streams = [Stream(address, index, count, chunk) for index in range(CONNECTIONS)]
    try:
        with selectors.DefaultSelector() as selector:
            both = selectors.EVENT_READ | selectors.EVENT_WRITE
            for stream in streams:
                selector.register(stream.sock, both, stream)
            while selector.get_map():
                ready = selector.select(DEADLINE)
                assert ready, "nothing came back any more"
                for key, events in ready:
                    stream = key.data
                    if events & selectors.EVENT_WRITE and not stream.send():
                        selector.modify(stream.sock, selectors.EVENT_READ, stream)
                    if events & selectors.EVENT_READ and stream.receive():
                        selector.unregister(stream.sock)
    finally:
        for stream in streams:
            stream.sock.close()


@pytest.mark.parametrize("inline", [False, True], ids=["pooled", "inline"])
@pytest.mark.parametrize(
    ("chunk", "count"),
    [
        pytest.param(FRAME_SIZE, 10_000, id="whole frames"),
        pytest.param(1, 300, id="byte by byte"),
        pytest.param(100 * FRAME_SIZE, 10_000, id="a hundred frames in a segment"),
    ],
)
def test_fifty_connections_get_every_message_back_in_order(
    chunk: int, count: int, inline: bool
) -> None:
    """Byte by byte is slow; TAO_TEST_FULL=1 in the environment sends all 10,000 in that way too."""
    if os.environ.get("TAO_TEST_FULL"):
        count = 10_000
    server = Server(registry=echo_registry(inline=inline))
    with server.running(LOCAL) as address:
        exchange(address, count=count, chunk=chunk)


def mixed_registry(seen: list[int]) -> MessageRegistry:
    """Message 1 is handled on a worker, message 2 on the loop; both say in `seen` that they were."""

    def handle(context: Context[bytes], conn: WriteCloser) -> Sample:
        seen.append(int.from_bytes(context.message, "little"))
        return Sample(3, context.message)

    registry = MessageRegistry()
    registry.register(1, as_bytes, handle)
    registry.register(2, as_bytes, handle, inline=True)
    return registry


@pytest.mark.parametrize("chunk", [12, 7, 12 * 100, 12 * 3000])
def test_inline_and_pooled_messages_keep_one_order(chunk: int) -> None:
    seen: list[int] = []
    kinds = random.Random(chunk)
    count = 3000
    data = b"".join(frame(kinds.choice((1, 2)), struct.pack("<I", n)) for n in range(count))
    with Server(registry=mixed_registry(seen)).running(LOCAL) as address, Peer(address) as peer:

        def send() -> None:
            for begin in range(0, len(data), chunk):
                peer.send(data[begin : begin + chunk])

        sender = threading.Thread(target=send)
        sender.start()
        replies = peer.receive(12 * count)
        sender.join()
        assert replies == b"".join(frame(3, struct.pack("<I", n)) for n in range(count))
        assert seen == list(range(count))


def test_messages_of_one_connection_do_not_overlap() -> None:
    """Even though there are workers enough."""
    inside: list[int] = []
    overlaps: Calls[int] = Calls()
    registry = MessageRegistry()

    def handle(context: Context[bytes], conn: WriteCloser) -> Sample:
        inside.append(1)
        time.sleep(0)  # an invitation to whoever might run at the same time
        overlaps.add(len(inside))
        inside.pop()
        return Sample(1)

    registry.register(1, as_bytes, handle)
    with Server(registry=registry).running(LOCAL) as address, Peer(address) as peer:
        for _ in range(200):
            peer.send(frame(1) * 3)
        peer.receive_frames(600)
        assert overlaps.items == [1] * 600


@pytest.mark.parametrize("inline", [False, True], ids=["pooled", "inline"])
def test_what_a_handler_writes_comes_before_what_it_returns(inline: bool) -> None:
    registry = MessageRegistry()

    def handle(context: Context[bytes], conn: WriteCloser) -> Sample:
        conn.write(Sample(2, context.message + b"a"))
        conn.write(Sample(2, context.message + b"b"))
        return Sample(3, context.message)

    registry.register(1, as_bytes, handle, inline=inline)
    names = [b"%d" % number for number in range(200)]
    with Server(registry=registry).running(LOCAL) as address, Peer(address) as peer:
        peer.send(b"".join(frame(1, name) for name in names))
        for name in names:
            assert peer.receive_frames(3) == [(2, name + b"a"), (2, name + b"b"), (3, name)]
        for name in names[:20]:  # and with nothing else under way
            peer.send_frame(1, name)
            assert peer.receive_frames(3) == [(2, name + b"a"), (2, name + b"b"), (3, name)]


def test_writes_of_mixed_handlers_keep_the_order() -> None:
    registry = MessageRegistry()

    def handle(context: Context[bytes], conn: WriteCloser) -> Sample:
        conn.write(Sample(3, context.message))
        return Sample(4, context.message)

    registry.register(1, as_bytes, handle)
    registry.register(2, as_bytes, handle, inline=True)
    names = [b"%d" % number for number in range(500)]
    with Server(registry=registry).running(LOCAL) as address, Peer(address) as peer:
        peer.send(b"".join(frame(1 + index % 2, name) for index, name in enumerate(names)))
        for name in names:
            assert peer.receive_frames(2) == [(3, name), (4, name)]


# -- handlers that block -------------------------------------------------------------------------


@pytest.fixture
def blocking() -> Iterator[tuple[MessageRegistry, threading.Event, threading.Event]]:
    """Message 1 echoes; message 2 writes its value, then blocks until the second event is set.

    The first event says that it has begun to block.
    """
    begun, release = threading.Event(), threading.Event()
    registry = MessageRegistry()

    def block(context: Context[bytes], conn: WriteCloser) -> Sample:
        if context.message:
            conn.write(Sample(2, context.message))
        begun.set()
        assert release.wait(DEADLINE)
        return Sample(2, b"done")

    registry.register(1, as_bytes, echo)
    registry.register(2, as_bytes, block)
    yield registry, begun, release
    release.set()


Blocking = tuple[MessageRegistry, threading.Event, threading.Event]


def test_a_handler_that_blocks_holds_up_its_own_connection_only(blocking: Blocking) -> None:
    registry, begun, release = blocking
    with (
        Server(registry=registry).running(LOCAL) as address,
        Peer(address) as blocked,
        Peer(address) as other,
    ):
        blocked.send(frame(2) + frame(1, b"behind"))
        assert begun.wait(DEADLINE)
        for number in range(100):
            other.send_frame(1, b"%d" % number)
            assert other.receive_frame() == (1, b"%d" % number)
        assert not release.is_set()
        blocked.sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            blocked.sock.recv(1)
        blocked.sock.settimeout(DEADLINE)
        release.set()
        assert blocked.receive_frames(2) == [(2, b"done"), (1, b"behind")]


def test_a_blocked_connection_in_the_same_segment_of_time(blocking: Blocking) -> None:
    """All in one pass, so that they stand in one queue: the blocked one is in front of the others."""
    registry, begun, release = blocking
    with Server(registry=registry).running(LOCAL) as address:
        peers = [Peer(address) for _ in range(10)]
        try:
            peers[0].send_frame(2)
            for peer in peers[1:]:
                peer.send_frame(1, b"x")
            for peer in peers[1:]:
                assert peer.receive_frame() == (1, b"x")
            assert begun.wait(DEADLINE)
            release.set()
            assert peers[0].receive_frame() == (2, b"done")
        finally:
            for peer in peers:
                peer.close()


def test_twenty_handlers_block_at_once() -> None:
    """Each for a second, on connections of their own: side by side, not one after the other."""
    registry = MessageRegistry()

    def sleep(context: Context[bytes], conn: WriteCloser) -> Sample:
        time.sleep(1.0)  # what the handler does, not what the test waits for
        return Sample(2)

    registry.register(1, as_bytes, sleep)
    with Server(registry=registry, worker_size=20).running(LOCAL) as address:
        peers = [Peer(address) for _ in range(20)]
        try:
            begin = time.monotonic()
            for peer in peers:
                peer.send_frame(1)
            for peer in peers:
                assert peer.receive_frame() == (2, b"")
            assert 1.0 <= time.monotonic() - begin < 2.5
        finally:
            for peer in peers:
                peer.close()


def test_what_a_handler_wrote_arrives_while_it_blocks(blocking: Blocking) -> None:
    registry, _, release = blocking
    with Server(registry=registry).running(LOCAL) as address, Peer(address) as peer:
        peer.send_frame(2, b"wait, please")
        assert peer.receive_frame() == (2, b"wait, please")
        assert not release.is_set()
        release.set()
        assert peer.receive_frame() == (2, b"done")


@pytest.mark.parametrize("before", [1, 2, 50])
def test_earlier_replies_of_a_batch_arrive_while_the_next_handler_blocks(
    blocking: Blocking, before: int
) -> None:
    registry, _, release = blocking
    with Server(registry=registry).running(LOCAL) as address, Peer(address) as peer:
        peer.send(frame(1, b"first") * before + frame(2) + frame(1, b"last"))
        assert peer.receive_frames(before) == [(1, b"first")] * before
        assert not release.is_set()
        release.set()
        assert peer.receive_frames(2) == [(2, b"done"), (1, b"last")]


def test_what_is_written_before_a_block_arrives_at_any_moment() -> None:
    """The same, again and again, at many distances from what another connection does.

    The loop looks after a worker's results from time to time while work is under way; what is written
    between its last look and the block must not be forgotten. The sleeps are there to try different
    moments, and not for anything to be over.
    """
    release = threading.Semaphore(0)
    registry = MessageRegistry()

    def write_and_block(context: Context[bytes], conn: WriteCloser) -> None:
        time.sleep(int.from_bytes(context.message, "little") * 1e-6)
        conn.write(Sample(2, context.message))
        assert release.acquire(timeout=DEADLINE)

    registry.register(1, as_bytes, echo)
    registry.register(2, as_bytes, write_and_block)
    moments = random.Random(1)
    with (
        Server(registry=registry).running(LOCAL) as address,
        Peer(address) as peer,
        Peer(address) as other,
    ):
        peer.sock.settimeout(2.0)
        try:
            for _ in range(400):
                other.send_frame(1)
                time.sleep(moments.uniform(0.8e-3, 1.6e-3))
                work = struct.pack("<I", moments.randrange(400, 950))
                peer.send_frame(2, work)
                assert peer.receive_frame() == (2, work)
                release.release()
                assert other.receive_frame() == (1, b"")
        finally:
            release.release()


def fill(server: Server, conn: WriteCloser) -> int:
    """By an inline handler: broadcast until the kernel takes no more; how many bytes it has taken."""
    assert isinstance(conn, ServerConn)
    value = bytes(60_000)
    sent = 0
    while not conn.pending:
        server.broadcast(Sample(9, value))
        sent += len(frame(9, value))
    return sent - conn.pending


def test_a_peer_that_reads_while_its_messages_are_decoded_does_not_disturb_their_order() -> None:
    """An inline handler's broadcast pauses its own connection, and its reply, by finding that the peer
    has read, ends the pause: in the middle of a piece with messages for the workers."""
    filled: Calls[int] = Calls()
    read = threading.Event()
    registry = MessageRegistry()

    def answer(_context: Context[bytes], conn: WriteCloser) -> Sample:
        filled.add(fill(server, conn))
        assert read.wait(DEADLINE)
        return Sample(1, b"inline")

    registry.register(1, as_bytes, echo)
    registry.register(2, as_bytes, answer, inline=True)
    server = Server(registry=registry, options=ConnectionOptions(output=Watermark(0, 0)))
    with server.running(LOCAL) as address, Peer(address) as peer:
        peer.send(frame(2) + frame(1, b"first") + frame(1, b"second"))
        [size] = filled.wait()
        rest = -size % len(frame(9, bytes(60_000)))
        peer.receive(size)
        read.set()
        peer.receive(rest)
        assert peer.receive_frames(3) == [(1, b"inline"), (1, b"first"), (1, b"second")]
        assert server.metrics().errors == {}


def test_a_server_that_stops_answers_all_that_it_has_read() -> None:
    """Also when all replies so far are sent at once, in the middle of a piece that has more requests."""
    filled: Calls[int] = Calls()
    held, read = threading.Event(), threading.Event()
    begun: Calls[bool] = Calls()
    conns: Calls[WriteCloser] = Calls()
    registry = MessageRegistry()

    def hold(_context: Context[bytes], _conn: WriteCloser) -> None:
        assert held.wait(DEADLINE)

    def begin(_context: Context[bytes], conn: WriteCloser) -> None:
        filled.add(fill(server, conn))
        conns.add(conn)

    def answer(_context: Context[bytes], _conn: WriteCloser) -> Sample:
        begun.add(True)
        assert read.wait(DEADLINE)
        return Sample(1, bytes(40_000))

    registry.register(1, as_bytes, hold)
    registry.register(2, as_bytes, begin, inline=True)
    registry.register(3, as_bytes, answer, inline=True)
    options = ConnectionOptions(output=Watermark(65_536, 65_536))
    server = Server(registry=registry, options=options, buffer_size=1)
    with server.running(LOCAL) as address, Peer(address) as peer:
        peer.send(frame(2) + frame(1) + frame(3) * 20)
        [size] = filled.wait()
        reports: Calls[int] = Calls()
        stopper = threading.Thread(target=lambda: reports.add(server.stop(DEADLINE).drained))
        stopper.start()
        try:
            [conn] = conns.wait()
            assert isinstance(conn, ServerConn)
            assert wait_until(lambda: conn.state is ConnectionState.DRAINING)
            held.set()
            begun.wait()
            peer.receive(size)
            read.set()
            rest = -size % len(frame(9, bytes(60_000)))
            assert len(peer.receive_to_end()) == rest + 20 * len(frame(1, bytes(40_000)))
            assert reports.wait() == [1]
        finally:
            held.set()
            read.set()
            stopper.join()
