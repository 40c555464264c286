"""What is owed even when something else has failed: a flush, an on_close, a worker, a report."""

from __future__ import annotations

import logging
import socket
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from reactor import ConnectionOptions
from tao import (
    Backoff,
    ClientConn,
    CloseReason,
    Context,
    MessageRegistry,
    Server,
    ServerConn,
    TypeLengthValueCodec,
    WriteCloser,
)
from tests.support import LOCAL, Calls, Peer, Sample, as_bytes, frame, reset, wait_until


def test_a_refused_broadcast_does_not_silence_later_writes() -> None:
    server = Server(registry=MessageRegistry(), options=ConnectionOptions(output_limit=262_144))
    with server.running(LOCAL) as address, Peer(address) as peer:
        assert wait_until(server.connections)
        assert server.broadcast(Sample(1, bytes(300_000))).refused == 1
        [conn] = server.connections()
        assert conn.write(Sample(1, b"after it"))
        assert peer.receive_frame() == (1, b"after it")


def test_an_executor_that_was_shut_down_does_not_keep_on_close_back() -> None:
    order: Calls[str] = Calls()
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    server = Server(
        registry=MessageRegistry(),
        executor=executor,
        on_connect=lambda conn: order.add("connect"),
        on_close=lambda conn, reason: order.add("close"),
    )
    with server.running(LOCAL) as address, Peer(address):
        assert order.wait(2) == ["connect", "close"]
        assert wait_until(lambda: server.connection_count == 0)


@contextmanager
def failing_log() -> Iterator[None]:
    """Whatever is logged as an error raises in the application's own filter."""

    def fail(record: logging.LogRecord) -> bool:
        if record.levelno >= logging.ERROR:
            raise RuntimeError("of the filter")
        return True

    logger = logging.getLogger("tao")
    logger.addFilter(fail)
    try:
        yield
    finally:
        logger.removeFilter(fail)


def test_a_log_that_fails_costs_no_worker_and_no_on_close() -> None:
    def fail(_context: Context[bytes], _conn: WriteCloser) -> None:
        raise ValueError("on purpose")

    registry = MessageRegistry()
    registry.register(1, as_bytes, fail)
    closed: Calls[CloseReason] = Calls()
    server = Server(
        registry=registry, worker_size=1, on_close=lambda conn, reason: closed.add(reason)
    )
    with failing_log(), server.running(LOCAL) as address:
        with Peer(address) as peer:
            peer.send_frame(1)
            assert isinstance(closed.wait(1)[0].error, ValueError)
        with Peer(address):
            pass  # another one, on the same worker
        closed.wait(2)


def test_a_kept_timer_that_waited_for_an_end_runs_once() -> None:
    """It expired while on_close ran; the next connection takes it over, and the last must not."""
    times: Calls[float] = Calls()
    server = Server(registry=MessageRegistry())
    waited = threading.Event()

    def on_close(_conn: ClientConn, _reason: CloseReason) -> None:
        if not waited.is_set():
            waited.set()
            time.sleep(0.5)  # the timer expires in here

    with (
        server.running(LOCAL) as address,
        ClientConn(
            address,
            registry=MessageRegistry(),
            on_close=on_close,
            reconnect=Backoff(first=0.01, jitter=0),
        ) as client,
    ):
        client.run_every(0.4, lambda now, conn: times.add(now), keep=True)
        assert wait_until(server.connections)
        server.connections()[0].abort()
        first, second = times.wait(2)[:2]
    assert second - first > 0.1


def test_on_connect_comes_first_however_soon_it_is_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written offline is sent as it opens, and finds the peer gone."""
    order: Calls[str] = Calls()
    with socket.create_server(LOCAL) as listener:
        client = ClientConn(
            listener.getsockname(),
            registry=MessageRegistry(),
            offline_limit=1000,
            on_connect=lambda conn: order.add("connect"),
            on_close=lambda conn, reason: order.add("close"),
        )
        handle_connected = ClientConn._handle_connected

        def reset_first(self: ClientConn, sock: socket.socket) -> None:
            reset(listener.accept()[0])
            # Seen from this end: the reset has arrived.
            assert wait_until(lambda: sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0)
            handle_connected(self, sock)

        monkeypatch.setattr(ClientConn, "_handle_connected", reset_first)
        client.write(Sample(1, b"offline"))
        client.start()
        reason = client.wait_closed(10)
    assert reason is not None
    assert order.wait(2) == ["connect", "close"]


def test_a_codec_whose_header_raises_in_the_backlog_ends_the_connection() -> None:
    class Broken(TypeLengthValueCodec):
        def header(self, data: bytes) -> Any:
            raise ValueError("on purpose")

    go_on = threading.Event()
    registry = MessageRegistry()

    def wait(_context: Context[bytes], _conn: WriteCloser) -> None:
        go_on.wait(10)

    registry.register(1, as_bytes, wait)
    closed: Calls[CloseReason] = Calls()

    def on_close(_conn: ServerConn, reason: CloseReason) -> None:
        closed.add(reason)

    server = Server(registry=registry, codec=Broken(), buffer_size=2, on_close=on_close)
    with server.running(LOCAL) as address, Peer(address) as peer:
        peer.send(frame(1) * 5 + struct.pack("<iI", 1, 9)[:3])
        go_on.set()
        assert isinstance(closed.wait(1)[0].error, ValueError)


def test_what_a_handler_wrote_and_nobody_collected_is_counted_as_unsent() -> None:
    """The loop may have collected it between the two calls; not each time."""
    registry = MessageRegistry()

    def write_and_abort(_context: Context[bytes], conn: WriteCloser) -> None:
        conn.write(Sample(1, b"never sent"))
        conn.abort()

    registry.register(1, as_bytes, write_and_abort)
    closed: Calls[CloseReason] = Calls()
    server = Server(registry=registry, on_close=lambda conn, reason: closed.add(reason))
    with server.running(LOCAL) as address:
        for count in range(1, 21):
            with Peer(address) as peer:
                peer.send_frame(1)
                closed.wait(count)
    sizes = {reason.unsent for reason in closed.items}
    assert len(frame(1, b"never sent")) in sizes
    assert sizes <= {0, len(frame(1, b"never sent"))}
