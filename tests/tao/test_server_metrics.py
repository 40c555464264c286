"""Server.metrics: what is counted is what has happened, on real sockets."""

from __future__ import annotations

import dataclasses
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from tao import (
    Context,
    MessageRegistry,
    MetricsSnapshot,
    Server,
    ServerConn,
    TypeLengthValueCodec,
    WriteCloser,
)
from tao.metrics import BUCKET_BOUNDS
from tests.support import DEADLINE, LOCAL, Calls, Peer, Sample, as_bytes, frame, wait_until
from tests.tao.crowd import crowd

SLEEP = 0.03
"""Seconds that a slow handler takes; well above what is sampled."""


def echo_registry() -> MessageRegistry:
    """Message 1 echoes on a worker, 2 on the loop; 3 sleeps; 4 raises."""
    registry = MessageRegistry()

    def fail(_context: Context[bytes], _conn: WriteCloser) -> None:
        raise ZeroDivisionError

    registry.register(1, as_bytes, lambda context, conn: Sample(1, context.message))
    registry.register(2, as_bytes, lambda context, conn: Sample(2, context.message), inline=True)
    registry.register(3, as_bytes, lambda context, conn: time.sleep(SLEEP))
    registry.register(4, as_bytes, fail)
    return registry


def reaches(server: Server, name: str, value: object) -> bool:
    """Whether a number comes to have that value: an answer is there a moment before it is counted."""
    return wait_until(lambda: getattr(server.metrics(), name) == value, timeout=2.0)


# -- counters ------------------------------------------------------------------------------------


def test_nothing_before_listen() -> None:
    before = Server(registry=echo_registry()).metrics()
    assert before.connections_total == before.connections_open == before.connections_refused == 0
    assert before.messages_in == before.bytes_in == before.bytes_out == before.handled == 0
    assert before.handler_seconds == 0.0
    assert sum(before.handler_histogram) == 0
    assert before.passes == before.wakeups == before.timers == before.queue_depth == 0
    assert before.errors == {}
    assert before.uptime >= 0.0


@pytest.mark.parametrize("number", [1, 2], ids=["pooled", "inline"])
def test_traffic_is_counted_to_the_byte(number: int) -> None:
    sizes = [0, 1, 7, 100, 5000, 70_000]
    sent = sum(8 + size for size in sizes)
    server = Server(registry=echo_registry())
    with server.running(LOCAL) as address:
        for round_number in (1, 2):
            with Peer(address) as peer:
                for size in sizes:
                    peer.send_frame(number, b"x" * size)
                    assert peer.receive_frame() == (number, b"x" * size)
                peer.send(frame(number)[:5])  # not yet a message, but bytes
                assert reaches(server, "bytes_in", round_number * (sent + 5))
                assert reaches(server, "bytes_out", round_number * sent)
                assert reaches(server, "handled", round_number * len(sizes))
                now = server.metrics()
                assert now.messages_in == round_number * len(sizes)
                assert (now.connections_total, now.connections_open) == (round_number, 1)
            assert reaches(server, "connections_open", 0)
        assert server.metrics().errors == {}
    after = server.metrics()  # what has been counted stays
    assert (after.bytes_in, after.bytes_out) == (2 * (sent + 5), 2 * sent)
    assert after.messages_in == after.handled == 2 * len(sizes)
    assert after.connections_total == 2


def test_many_messages_in_one_segment() -> None:
    server = Server(registry=echo_registry(), buffer_size=16)
    with server.running(LOCAL) as address, Peer(address) as peer:
        peer.send(frame(1) * 500)
        peer.receive_frames(500)
        assert reaches(server, "handled", 500)
        assert server.metrics().messages_in == 500


def test_inline_handlers_that_had_to_wait_for_their_turn_are_counted() -> None:
    """Behind a message for a worker, inline ones are handled later, in order; and counted as well."""
    server = Server(registry=echo_registry())
    with server.running(LOCAL) as address, Peer(address) as peer:
        peer.send((frame(1) + frame(2) * 3) * 10)
        assert [number for number, _ in peer.receive_frames(40)] == [1, 2, 2, 2] * 10
        assert reaches(server, "messages_in", 40)
        assert reaches(server, "handled", 40), server.metrics().handled


def test_what_is_no_message_is_not_counted_as_one_that_was_handled() -> None:
    """Callbacks and timers run like handlers, but `handled` is of messages: with it go the rates."""
    ticks: Calls[float] = Calls()
    closed: Calls[ServerConn] = Calls()
    server = Server(
        registry=echo_registry(),
        on_connect=lambda conn: None,
        on_close=lambda conn, reason: closed.add(conn),
    )
    with server.running(LOCAL) as address:
        with Peer(address) as peer:
            assert wait_until(server.connections)
            server.connections()[0].run_every(0.001, lambda now, conn: ticks.add(now))
            ticks.wait(3)
            peer.send_frame(1)
            peer.receive_frame()
        closed.wait()
        assert reaches(server, "connections_open", 0)
        assert server.metrics().handled == 1


def test_what_is_not_understood_is_a_message_that_came_and_was_not_handled() -> None:
    server = Server(registry=echo_registry())
    with server.running(LOCAL) as address, Peer(address) as peer:
        peer.send(frame(77) * 2 + frame(1))
        peer.receive_frame()
        assert reaches(server, "messages_in", 3)
        assert reaches(server, "handled", 1), server.metrics().handled


def test_what_is_decoded_again_is_received_once() -> None:
    """A handler changes the codec; what was read ahead is decoded by the new one, and is no more."""
    registry = echo_registry()
    registry.register(
        5, as_bytes, lambda context, conn: conn.set_codec(TypeLengthValueCodec(max_length=1 << 20))
    )
    server = Server(registry=registry)
    with server.running(LOCAL) as address, Peer(address) as peer:
        peer.send(frame(5) + frame(1) * 9)
        peer.receive_frames(9)
        assert reaches(server, "handled", 10)
        assert server.metrics().messages_in == 10


# -- errors --------------------------------------------------------------------------------------


def test_errors_are_counted_once_by_their_kind() -> None:
    server = Server(registry=echo_registry(), close_on_error=False)
    with server.running(LOCAL) as address, Peer(address) as peer:
        peer.send(frame(4) * 3 + frame(77) * 2 + frame(1))
        assert peer.receive_frame() == (1, b"")
        assert reaches(server, "errors", {"ZeroDivisionError": 3, "UndefinedMessageError": 2})


Break = Callable[[Peer], object]

BREAKS: dict[str, tuple[str, Break]] = {
    "a handler": ("ZeroDivisionError", lambda peer: peer.send_frame(4)),
    "the codec": (
        "FrameTooLargeError",
        lambda peer: peer.send(struct.pack("<iI", 1, (1 << 23) + 1)),
    ),
    "the network": ("ConnectionResetError", lambda peer: peer.reset()),
}


@pytest.mark.parametrize("what", BREAKS)
def test_an_error_that_costs_the_connection_is_one(what: str) -> None:
    kind, do = BREAKS[what]
    closed: Calls[ServerConn] = Calls()
    server = Server(registry=echo_registry(), on_close=lambda conn, reason: closed.add(conn))
    with server.running(LOCAL) as address, Peer(address) as peer:
        peer.send_frame(2)
        peer.receive_frame()
        do(peer)
        if what != "the network":
            assert peer.is_cut_off()
            peer.close()
        closed.wait()
        assert reaches(server, "connections_open", 0)
        assert server.metrics().errors == {kind: 1}


def test_a_good_end_is_no_error() -> None:
    server = Server(registry=echo_registry())
    with server.running(LOCAL) as address:
        with Peer(address) as peer:
            peer.send_frame(1)
            peer.receive_frame()
        assert reaches(server, "connections_open", 0)
    assert server.metrics().errors == {}


# -- refusals ------------------------------------------------------------------------------------


def test_refusals_are_counted_apart() -> None:
    server = Server(registry=echo_registry(), max_connections=1)
    with server.running(LOCAL) as address, Peer(address) as peer:
        peer.send_frame(1)
        peer.receive_frame()
        for _ in range(3):
            with Peer(address) as refused:
                assert refused.is_cut_off()
        now = server.metrics()
        assert (now.connections_total, now.connections_open, now.connections_refused) == (1, 1, 3)


# -- time in handlers ----------------------------------------------------------------------------


def slow_ones(snapshot: MetricsSnapshot) -> int:
    """Handlers in the buckets that one which sleeps can be in."""
    first = next(index for index, bound in enumerate(BUCKET_BOUNDS) if bound >= SLEEP)
    return sum(snapshot.handler_histogram[first:])


def test_slow_handlers_are_each_in_the_histogram() -> None:
    server = Server(registry=echo_registry(), worker_size=4)
    with server.running(LOCAL) as address, ExitStack() as stack:
        peers = [stack.enter_context(Peer(address)) for _ in range(4)]
        for peer in peers:
            peer.send(frame(3))
        assert reaches(server, "handled", 4)
        for peer in peers:
            peer.send(frame(3) * 2)  # as one batch, or as two
        assert reaches(server, "handled", 12)
        now = server.metrics()
        assert slow_ones(now) == 12
        assert now.handler_seconds >= 12 * SLEEP * 0.99
        assert now.handler_percentile(0.99) >= SLEEP
        assert 0 < now.queries_per_second <= 1 / SLEEP * 1.02


def test_quick_handlers_do_not_show_among_the_slow() -> None:
    server = Server(registry=echo_registry())
    with server.running(LOCAL) as address, Peer(address) as peer:
        peer.send_frame(3)
        assert reaches(server, "handled", 1)  # alone: messages of one batch share its time evenly
        for _ in range(100):
            peer.send_frame(1)
            peer.receive_frame()
        assert reaches(server, "handled", 101)
        # A quick one may be held up by the machine; a hundred are not, all of them.
        assert 1 <= slow_ones(server.metrics()) < 50
        assert server.metrics().handler_seconds >= SLEEP * 0.99


# -- what there is now ---------------------------------------------------------------------------


def test_connections_that_wait_for_a_worker() -> None:
    release = threading.Event()
    begun = threading.Event()
    registry = MessageRegistry()

    def hold(_context: Context[bytes], _conn: WriteCloser) -> None:
        begun.set()
        assert release.wait(DEADLINE)

    registry.register(1, as_bytes, hold)
    server = Server(registry=registry, worker_size=1)
    with server.running(LOCAL) as address, ExitStack() as stack:
        peers = [stack.enter_context(Peer(address)) for _ in range(4)]
        assert server.metrics().queue_depth == 0
        peers[0].send_frame(1)
        assert begun.wait(DEADLINE)
        for peer in peers[1:]:
            peer.send_frame(1)
        assert reaches(server, "queue_depth", 3)
        release.set()
        assert reaches(server, "handled", 4)
        assert server.metrics().queue_depth == 0


def test_timers_are_counted_while_they_are_set() -> None:
    with crowd() as these:
        _, conn = these.join()
        before = these.server.metrics().timers
        ids = [conn.run_after(3600.0, lambda now, conn: None) for _ in range(5)]
        assert reaches(these.server, "timers", before + 5)
        for timer_id in ids:
            conn.cancel_timer(timer_id)
        assert reaches(these.server, "timers", before)


# -- snapshots -----------------------------------------------------------------------------------


def test_a_snapshot_stays_as_it_is() -> None:
    server = Server(registry=echo_registry(), close_on_error=False)
    with server.running(LOCAL) as address, Peer(address) as peer:
        before = server.metrics()
        copy = dataclasses.asdict(dataclasses.replace(before, errors={}, backplane={}))
        peer.send(frame(4) + frame(1) * 10)
        peer.receive_frames(10)
        assert reaches(server, "handled", 11)
        assert dataclasses.asdict(dataclasses.replace(before, errors={}, backplane={})) == copy
        assert before.errors == {}
        frozen: Any = before
        with pytest.raises(dataclasses.FrozenInstanceError):
            frozen.handled = 5
        with pytest.raises(TypeError):
            frozen.errors["x"] = 1
        assert server.metrics().errors == {"ZeroDivisionError": 1}


COUNTERS = (
    "uptime",
    "connections_total",
    "connections_refused",
    "messages_in",
    "bytes_in",
    "bytes_out",
    "handled",
    "handler_seconds",
    "wakeups",
    "passes",
)


@contextmanager
def switching() -> Iterator[None]:
    """Threads change at every opportunity."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def test_counters_only_grow_whoever_looks_while_connections_come_and_go() -> None:
    """Many threads look, while traffic passes from connections that are open to those that are gone."""
    rounds, crowd_size = 4, 60
    server = Server(registry=echo_registry())
    over = threading.Event()

    def look() -> list[str]:
        fallen: list[str] = []
        last = server.metrics()
        while not over.is_set():
            now = server.metrics()
            for name in COUNTERS:
                if getattr(now, name) < getattr(last, name):
                    fallen.append(f"{name}: {getattr(last, name)} to {getattr(now, name)}")
            last = now
        return fallen

    def talk(address: Any, number: int) -> None:
        for _ in range(rounds):
            with ExitStack() as stack:
                peers = [stack.enter_context(Peer(address)) for _ in range(crowd_size)]
                for peer in peers:
                    peer.send_frame(number, b"x" * 92)
                for peer in peers:
                    peer.receive_frame()

    with server.running(LOCAL) as address, ThreadPoolExecutor(4) as executor, switching():
        try:
            looking = [executor.submit(look) for _ in range(2)]
            for talking in [executor.submit(talk, address, number) for number in (1, 2)]:
                talking.result(30.0)
        finally:
            over.set()
        fallen = [line for one in looking for line in one.result(DEADLINE)]
        assert fallen == []
    after, total = server.metrics(), 2 * rounds * crowd_size
    assert after.connections_total == after.messages_in == after.handled == total
    assert after.bytes_in == after.bytes_out == total * 100


@pytest.mark.parametrize("inline", [False, True], ids=["pooled", "inline"])
def test_a_handler_may_look(inline: bool) -> None:
    registry = MessageRegistry()

    def count(_context: Context[bytes], _conn: WriteCloser) -> Sample:
        return Sample(1, b"%d" % server.metrics().connections_open)

    registry.register(1, as_bytes, count, inline=inline)
    server = Server(registry=registry)
    with server.running(LOCAL) as address, Peer(address) as peer:
        peer.send_frame(1)
        assert peer.receive_frame() == (1, b"1")


def test_the_loop_says_how_it_does() -> None:
    server = Server(registry=echo_registry())
    with server.running(LOCAL) as address, Peer(address) as peer:
        first = server.metrics()
        for _ in range(10):
            peer.send_frame(1)
            peer.receive_frame()
        second = server.metrics()
        assert second.passes > first.passes
        assert second.wakeups >= first.wakeups
        assert second.uptime > first.uptime
        assert 0.0 <= second.loop_lag < DEADLINE
