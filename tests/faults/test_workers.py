"""Workers that are all taken, that are shut down, and handlers that raise what nobody expects."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from tao import CloseCause, CloseReason, Context, MessageRegistry, Server, ServerConn, WriteCloser
from tests.faults.support import INLINE, POOLED, Watched, check_alive
from tests.support import DEADLINE, LOCAL, Calls, Peer, Sample, as_bytes, wait_until


class Held:
    """A registry whose message 3 holds a worker until it is released."""

    def __init__(self) -> None:
        self.begun: Calls[int] = Calls()
        self.release = threading.Event()

    def __call__(self, context: Context[bytes], conn: WriteCloser) -> Sample:
        self.begun.add(conn.net_id)
        assert self.release.wait(DEADLINE)
        return Sample(POOLED, context.message)


@pytest.mark.parametrize("workers", [1, 4])
def test_every_worker_is_held(workers: int) -> None:
    """The loop goes on: it accepts, answers inline, counts; what waits is done when they are free."""
    held = Held()
    watched = Watched(worker_size=workers)
    watched.registry.register(3, as_bytes, held)
    with watched.server.running(LOCAL) as address, ExitStack() as stack:
        holders = [stack.enter_context(Peer(address)) for _ in range(workers)]
        for peer in holders:
            peer.send_frame(3, b"held")
        held.begun.wait(workers)
        waiting = [stack.enter_context(Peer(address)) for _ in range(10)]
        for number, peer in enumerate(waiting):
            peer.send_frame(POOLED, b"%d" % number)
        other = stack.enter_context(Peer(address))
        for _ in range(20):
            other.send_frame(INLINE, b"on the loop")
            assert other.receive_frame() == (POOLED, b"on the loop")
        assert wait_until(lambda: watched.server.metrics().queue_depth == len(waiting))
        assert len(held.begun) == workers
        held.release.set()
        for peer in holders:
            assert peer.receive_frame() == (POOLED, b"held")
        for number, peer in enumerate(waiting):
            assert peer.receive_frame() == (POOLED, b"%d" % number)
        check_alive(other)


def test_an_executor_that_is_shut_down_in_the_middle() -> None:
    """Messages on their way end with their connections, and say so; the loop goes on, and stops."""
    executor = ThreadPoolExecutor(2)
    watched = Watched(executor=executor, worker_size=2)
    with watched.server.running(LOCAL) as address, Peer(address) as peer, Peer(address) as other:
        check_alive(peer)
        check_alive(other)
        executor.shutdown(wait=True)
        peer.send_frame(POOLED, b"for nobody")
        assert peer.is_cut_off()
        # What needs no worker is still done.
        other.send_frame(INLINE, b"on the loop")
        assert other.receive_frame() == (POOLED, b"on the loop")
        reason = watched.only_reason()
        assert reason.cause is CloseCause.FAILED
        assert isinstance(reason.error, RuntimeError)
        assert reason.unhandled == 1
        other.close()
        assert wait_until(lambda: watched.server.connection_count == 0)


class Unexpected(BaseException):
    """Nothing that a handler should raise."""


@pytest.mark.parametrize(
    "kind", [Unexpected, SystemExit, KeyboardInterrupt, GeneratorExit, MemoryError]
)
def test_a_handler_that_raises_a_base_exception_costs_its_connection_and_no_worker(
    kind: type[BaseException],
) -> None:
    """More often than there are workers: each is used again."""
    watched = Watched(worker_size=2)
    watched.registry.register(3, as_bytes, _raising(kind))
    with watched.server.running(LOCAL) as address, Peer(address) as other:
        for _ in range(6):
            with Peer(address) as peer:
                peer.send_frame(POOLED, b"before")
                assert peer.receive_frame() == (POOLED, b"before")
                peer.send_frame(3)
                assert peer.is_cut_off()
        reasons = watched.reasons.wait(6)
        assert all(reason.cause is CloseCause.FAILED for _, reason in reasons)
        assert all(type(reason.error) is kind for _, reason in reasons)
        assert [type(error) for _, error in watched.errors.items] == [kind] * 6
        check_alive(other)


def _raising(kind: type[BaseException]) -> Callable[[Context[bytes], WriteCloser], None]:
    def handle(_context: Context[bytes], _conn: WriteCloser) -> None:
        raise kind("on purpose")

    return handle


@pytest.mark.parametrize("callback", ["on_connect", "on_error", "on_close", "timer"])
def test_a_callback_that_raises_a_base_exception_costs_no_worker(callback: str) -> None:
    served: Calls[bytes] = Calls()
    closed: Calls[CloseReason] = Calls()
    registry = MessageRegistry()

    def fail(*_arguments: object) -> None:
        raise Unexpected("on purpose")

    def echo(context: Context[bytes], conn: WriteCloser) -> Sample:
        served.add(context.message)
        if context.message == b"raise" and callback == "timer":
            conn.run_after(0.0, fail)
        return Sample(POOLED, context.message)

    registry.register(POOLED, as_bytes, echo)
    failing = 0

    def on_connect(conn: ServerConn) -> None:
        nonlocal failing
        failing += 1
        if callback == "on_connect" and failing <= 3:
            fail()

    def on_close(conn: ServerConn, reason: CloseReason) -> None:
        closed.add(reason)
        if callback == "on_close":
            fail()

    server = Server(
        registry=registry,
        worker_size=1,
        on_connect=on_connect,
        on_close=on_close,
        on_error=fail if callback == "on_error" else None,
    )
    with server.running(LOCAL) as address:
        for _ in range(3):
            with Peer(address) as peer:
                if callback == "on_error":
                    peer.send_frame(99)  # not registered
                elif callback == "timer":
                    peer.send_frame(POOLED, b"raise")
                    assert peer.receive_frame() == (POOLED, b"raise")
                if callback in ("on_connect", "timer"):
                    assert peer.is_cut_off()
        closed.wait(3)
        with Peer(address) as peer:
            peer.send_frame(POOLED, b"served")
            assert peer.receive_frame() == (POOLED, b"served")
    assert len(closed) == 4
