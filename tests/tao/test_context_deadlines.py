"""Deadlines of contexts, and context variables in handlers; the rest of tao.context is in test_context."""

from __future__ import annotations

import contextvars
import math
import threading
import time
from typing import Any

import pytest

from tao import ClientConn, Context, MessageRegistry, Server, ServerConn, WriteCloser
from tao.interfaces import MessageServer
from tests.support import DEADLINE, LOCAL, Calls, Peer, Sample, as_bytes, wait_until


class Source:
    """A session, as far as a context sees one: it sleeps as long as it is told to."""

    net_id = 17
    server: MessageServer | None = None

    def __init__(self) -> None:
        self.cancelled = False
        self.waited: list[float | None] = []

    def monotonic(self) -> float:
        """The time that deadlines are in."""
        return time.monotonic()

    def wait_cancelled(self, timeout: float | None = None) -> bool:
        """Notes how long it was to sleep, and does not."""
        self.waited.append(timeout)
        return self.cancelled


# -- with_timeout, remaining ---------------------------------------------------------------------


def test_without_a_deadline_there_is_nothing_remaining() -> None:
    context = Context(b"", Source())
    assert context.remaining is None
    assert not context.cancelled


def test_remaining_falls_to_zero_and_no_further() -> None:
    context = Context(b"", Source()).with_timeout(60.0)
    first = context.remaining
    assert first is not None
    assert 0.0 < first <= 60.0
    assert wait_until(lambda: context.remaining != first)
    second = context.remaining
    assert second is not None
    assert second < first
    assert not context.cancelled
    for seconds in (0.0, -1.0, -math.ulp(0.0)):
        late = Context(b"", Source()).with_timeout(seconds)
        assert late.remaining == 0.0
        assert late.cancelled
        assert late.wait_cancelled() is True


def test_the_outer_context_has_no_deadline() -> None:
    outer = Context(b"hello", Source())
    inner = outer.with_timeout(0.0)
    assert inner.cancelled
    assert not outer.cancelled
    assert outer.remaining is None
    assert (inner.message, inner.net_id) == (b"hello", 17)


def test_the_nearer_deadline_counts() -> None:
    near = Context(b"", Source()).with_timeout(10.0)
    inner = near.with_timeout(3600.0)
    assert inner.remaining is not None
    assert inner.remaining <= 10.0
    far = Context(b"", Source()).with_timeout(3600.0).with_timeout(10.0)
    assert far.remaining is not None
    assert far.remaining <= 10.0


def test_a_deadline_stays_with_values_and_values_with_it() -> None:
    context = Context(b"", Source()).with_value("key", 1).with_timeout(10.0).with_value("key", 2)
    assert context.value("key") == 2
    assert context.remaining is not None
    assert Context(b"", Source()).with_value("key", 1).with_timeout(1.0).value("key") == 1


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -math.inf])
def test_a_time_out_is_finite(seconds: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        Context(b"", Source()).with_timeout(seconds)


def test_waiting_is_for_the_shorter_of_the_two() -> None:
    source = Source()
    plain = Context(b"", source)
    limited = plain.with_timeout(60.0)
    plain.wait_cancelled()
    plain.wait_cancelled(5.0)
    limited.wait_cancelled(5.0)
    assert source.waited == [None, 5.0, 5.0]
    limited.wait_cancelled()
    limited.wait_cancelled(3600.0)
    for waited in source.waited[3:]:
        assert waited is not None
        assert 0.0 < waited <= 60.0


def test_a_connection_that_ends_cancels_before_the_deadline() -> None:
    source = Source()
    context = Context(b"", source).with_timeout(3600.0)
    source.cancelled = True
    assert context.cancelled
    assert context.remaining is not None
    assert context.remaining > 0.0


# -- in handlers ---------------------------------------------------------------------------------


def test_a_handler_that_waits_ends_with_its_deadline() -> None:
    seen: Calls[tuple[bool, bool, float]] = Calls()
    registry = MessageRegistry()

    def handle(context: Context[bytes], _conn: WriteCloser) -> Sample:
        begun = time.monotonic()
        limited = context.with_timeout(0.05)
        cancelled = limited.wait_cancelled(3600.0)
        seen.add((cancelled, context.cancelled, time.monotonic() - begun))
        return Sample(2, b"late")

    registry.register(1, as_bytes, handle)
    with Server(registry=registry).running(LOCAL) as address, Peer(address) as peer:
        peer.send_frame(1)
        [(cancelled, outer, took)] = seen.wait()
        assert (cancelled, outer) == (True, False)
        assert took >= 0.05
        assert peer.receive_frame() == (2, b"late")  # the connection has nothing to do with it


def test_a_handler_that_waits_ends_with_its_connection_before_its_deadline() -> None:
    seen: Calls[bool] = Calls()
    begun = threading.Event()
    registry = MessageRegistry()

    def handle(context: Context[bytes], _conn: WriteCloser) -> None:
        begun.set()
        limited = context.with_timeout(3600.0)
        seen.add(limited.wait_cancelled())
        seen.add(context.cancelled)

    registry.register(1, as_bytes, handle)
    with Server(registry=registry).running(LOCAL) as address, Peer(address) as peer:
        peer.send_frame(1)
        assert begun.wait(DEADLINE)
        peer.reset()
        assert seen.wait(2) == [True, True]


def test_a_clients_handlers_have_deadlines_too() -> None:
    seen: Calls[bool] = Calls()
    registry = MessageRegistry()

    def handle(context: Context[bytes], _conn: WriteCloser) -> None:
        seen.add(context.with_timeout(0.01).wait_cancelled(3600.0))

    registry.register(1, as_bytes, handle)
    server = Server(registry=MessageRegistry(), on_connect=lambda conn: conn.write(Sample(1)))
    with server.running(LOCAL) as address, ClientConn(address, registry=registry):
        assert seen.wait() == [True]


# -- context variables ---------------------------------------------------------------------------

tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="nobody")


def variable_registry() -> MessageRegistry:
    """Message 1 answers with the variable's value; message 2 sets it first."""
    registry = MessageRegistry()

    def get(_context: Context[bytes], _conn: WriteCloser) -> Sample:
        return Sample(1, tenant.get().encode())

    def put(context: Context[bytes], _conn: WriteCloser) -> Sample:
        before = tenant.get()
        tenant.set(context.message.decode())
        return Sample(2, before.encode())

    registry.register(1, as_bytes, get)
    registry.register(2, as_bytes, put)
    return registry


def set_before(value: str, **arguments: Any) -> Server:
    """A server that is made where the variable has this value; here it has not."""

    def make() -> Server:
        tenant.set(value)
        return Server(**arguments)

    return contextvars.copy_context().run(make)


def test_what_was_set_before_the_server_was_made_is_seen_by_handlers() -> None:
    server = set_before("outer", registry=variable_registry())
    assert tenant.get() == "nobody"
    with server.running(LOCAL) as address, Peer(address) as peer:
        peer.send_frame(1)
        assert peer.receive_frame() == (1, b"outer")


def test_what_is_set_after_the_server_was_made_is_not() -> None:
    server = set_before("outer", registry=variable_registry())
    token = tenant.set("later")
    try:
        with server.running(LOCAL) as address, Peer(address) as peer:
            peer.send_frame(1)
            assert peer.receive_frame() == (1, b"outer")
    finally:
        tenant.reset(token)


def test_what_a_handler_sets_is_for_the_next_of_its_connection() -> None:
    server = set_before("outer", registry=variable_registry(), worker_size=4)
    with server.running(LOCAL) as address, Peer(address) as first, Peer(address) as second:
        for round_number in range(20):  # on whatever workers
            first.send_frame(2, b"first %d" % round_number)
            first.receive_frame()
            second.send_frame(1)
            assert second.receive_frame() == (1, b"outer")
            first.send_frame(1)
            assert first.receive_frame() == (1, b"first %d" % round_number)
        with Peer(address) as third:
            third.send_frame(1)
            assert third.receive_frame() == (1, b"outer")
    assert tenant.get() == "nobody"


def test_callbacks_and_timers_are_in_their_connections_context() -> None:
    seen: Calls[tuple[str, str]] = Calls()

    def enter(conn: ServerConn) -> None:
        tenant.set(f"tenant of {conn.net_id}")
        conn.run_after(0.0, lambda now, conn: seen.add(("timer", tenant.get())))

    server = set_before(
        "outer",
        registry=variable_registry(),
        on_connect=enter,
        on_close=lambda conn, reason: seen.add(("close", tenant.get())),
    )
    with server.running(LOCAL) as address:
        with Peer(address) as peer:
            peer.send_frame(1)
            assert peer.receive_frame() == (1, b"tenant of 1")
            seen.wait(1)
        seen.wait(2)
    assert seen.items == [("timer", "tenant of 1"), ("close", "tenant of 1")]


def test_connections_at_once_do_not_see_each_others() -> None:
    """While one handler sleeps between setting and reading, another sets its own."""
    together = threading.Barrier(2)
    registry = MessageRegistry()

    def handle(context: Context[bytes], _conn: WriteCloser) -> Sample:
        tenant.set(context.message.decode())
        together.wait(DEADLINE)
        return Sample(1, tenant.get().encode())

    registry.register(1, as_bytes, handle)
    server = Server(registry=registry, worker_size=2)
    with server.running(LOCAL) as address, Peer(address) as first, Peer(address) as second:
        first.send_frame(1, b"first")
        second.send_frame(1, b"second")
        assert first.receive_frame() == (1, b"first")
        assert second.receive_frame() == (1, b"second")


def test_a_clients_handlers_see_what_was_set_before_it_was_made() -> None:
    seen: Calls[str] = Calls()
    registry = MessageRegistry()
    registry.register(1, as_bytes, lambda context, conn: seen.add(tenant.get()))
    server = Server(registry=MessageRegistry(), on_connect=lambda conn: conn.write(Sample(1)))

    def make(address: tuple[str, int]) -> ClientConn:
        tenant.set("outer")
        return ClientConn(address, registry=registry)

    with server.running(LOCAL) as address:
        client = contextvars.copy_context().run(make, address)
        with client:
            assert seen.wait() == ["outer"]
