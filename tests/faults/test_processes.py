"""Signals while something blocks, and forks while something runs."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from reactor import ForkError, Reactor
from tao import ClientConn, CloseCause, Context, MessageRegistry, Server, ServerConn, WriteCloser
from tests.faults.support import (
    INLINE,
    POOLED,
    Watched,
    check_alive,
    sleeping_server,
)
from tests.forking import in_child, needs_fork
from tests.support import DEADLINE, LOCAL, Calls, Peer, Sample, as_bytes

needs_signals = pytest.mark.skipif(
    not hasattr(signal, "setitimer"), reason="a system without signals of that kind"
)

# -- signals -------------------------------------------------------------------------------------

EVERY = 0.0005
"""Seconds between two signals."""


@contextmanager
def signals() -> Iterator[Callable[[], int]]:
    """Have the main thread interrupted by signals all the time; gives how many there were so far."""
    count = 0

    def handle(_number: int, _frame: object) -> None:
        nonlocal count
        count += 1

    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, EVERY, EVERY)
    try:
        yield lambda: count
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        _restore(signal.SIGALRM, before)


@contextmanager
def kills(*threads: int) -> Iterator[None]:
    """Have other threads' system calls interrupted (EINTR); they live as long as the block lasts."""
    before = signal.signal(signal.SIGUSR2, lambda number, frame: None)
    over = threading.Event()

    def send() -> None:
        while not over.wait(EVERY):
            for thread in threads:
                signal.pthread_kill(thread, signal.SIGUSR2)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield
    finally:
        over.set()
        sender.join()
        _restore(signal.SIGUSR2, before)


def _restore(number: int, before: Any) -> None:
    """To ignore a signal takes back the one that may still be on its way; its default ends the process."""
    signal.signal(number, signal.SIG_IGN)
    signal.signal(number, before)


def _wait_for(seconds: float, wait: Callable[[], object]) -> object:
    """What it returned; that it waited so long, at least, is checked."""
    begun = time.monotonic()
    result = wait()
    assert time.monotonic() - begun >= seconds
    return result


@needs_signals
def test_signals_while_the_main_thread_waits_for_the_loop() -> None:
    """connect, wait_connected, listen, wait_closed and stop: none returns early, none is cut short."""
    release, begun = threading.Event(), threading.Event()
    registry = MessageRegistry()

    def block(_context: Context[bytes], _conn: WriteCloser) -> Sample:
        begun.set()
        assert release.wait(DEADLINE)
        return Sample(POOLED, b"done")

    registry.register(3, as_bytes, block)
    replies: Calls[bytes] = Calls()
    answers = MessageRegistry()
    answers.register(POOLED, as_bytes, lambda context, conn: replies.add(context.message))
    server = Server(registry=registry)
    with signals() as count, server.running(LOCAL) as address:
        with ClientConn(address, registry=answers) as client:
            client.write(Sample(3))
            assert begun.wait(DEADLINE)
            assert _wait_for(0.05, lambda: client.wait_closed(0.05)) is None
            server.listen(LOCAL)  # waits for the loop to do it
            release.set()
            assert replies.wait() == [b"done"]
            client.close()
            reason = client.wait_closed(DEADLINE)
            assert reason is not None
            assert (reason.cause, reason.clean) == (CloseCause.CLOSED, True)
        assert server.stop().finished
        assert count() > 0


@needs_signals
def test_signals_while_the_main_thread_serves() -> None:
    """`serve_forever` sleeps, is interrupted, and goes on; timers are not early for it."""
    watched = Watched()
    address = watched.server.listen(LOCAL)
    outcome: Calls[object] = Calls()

    def talk() -> None:
        try:
            with Peer(address) as peer:
                for _ in range(50):
                    check_alive(peer)
                [conn] = watched.server.connections()
                fired: Calls[float] = Calls()
                begun = time.monotonic()
                conn.run_after(0.05, lambda now, conn: fired.add(time.monotonic()))
                assert fired.wait()[0] - begun >= 0.05
                check_alive(peer)
            outcome.add("talked")
        except BaseException as error:
            outcome.add(error)
        finally:
            watched.server.stop()

    thread = threading.Thread(target=talk)
    with signals() as count:
        thread.start()
        watched.server.serve_forever()
        thread.join()
        assert count() > 0
    assert outcome.items == ["talked"]


@needs_signals
def test_signals_while_run_once_waits() -> None:
    """It waits for as long as it was told, and still sees what comes meanwhile."""
    reactor = Reactor()
    try:
        with signals() as count:
            assert _wait_for(0.05, lambda: reactor.run_once(0.05)) == 0
            called: Calls[float] = Calls()
            due = reactor.time() + 0.05
            reactor.call_at(due, lambda: called.add(reactor.time()))
            end = time.monotonic() + DEADLINE
            while not len(called) and time.monotonic() < end:
                reactor.run_once()
            assert called.wait()[0] >= due
            assert count() > 0
    finally:
        reactor.close()


@needs_signals
def test_signals_to_the_loop_and_to_the_workers() -> None:
    """EINTR in the selector, in the handlers' waits and where a worker waits for work."""
    threads: Calls[int] = Calls()
    registry = MessageRegistry()

    def wait(context: Context[bytes], _conn: WriteCloser) -> Sample:
        threads.add(threading.get_ident())
        assert not _wait_for(0.002, lambda: context.wait_cancelled(0.002))
        return Sample(POOLED, context.message)

    registry.register(POOLED, as_bytes, wait)
    registry.register(
        INLINE, as_bytes, lambda context, conn: Sample(POOLED, context.message), inline=True
    )
    server = Server(registry=registry, worker_size=1)
    with server.running(LOCAL) as address, Peer(address) as peer:
        peer.send_frame(POOLED, b"first")
        assert peer.receive_frame() == (POOLED, b"first")
        [loop] = [thread for thread in threading.enumerate() if thread.name == "tao-server"]
        assert loop.ident is not None
        with kills(loop.ident, threads.items[0]):
            for number in range(60):
                value = b"%d" % number
                peer.send_frame(POOLED if number % 2 else INLINE, value)
                assert peer.receive_frame() == (POOLED, value)
                if number % 20 == 0:
                    time.sleep(0.06)  # for longer than a worker waits for more work
        check_alive(peer)
    assert len(set(threads.items)) == 1


# -- fork ----------------------------------------------------------------------------------------


@needs_fork
def test_a_child_that_ends_takes_nothing_of_the_server_with_it() -> None:
    """All its descriptors are copies, and are closed at its end; the parent serves on."""
    watched = Watched()
    with watched.server.running(LOCAL) as address, Peer(address) as peer:
        sleeping_server(watched, peer)
        assert in_child(lambda: None) == 0
        check_alive(peer)
        with Peer(address) as newcomer:
            check_alive(newcomer)


CHILDS_CALLS: dict[str, Callable[[Server, ServerConn], object]] = {
    "serve_forever": lambda server, conn: server.serve_forever(),
    "listen": lambda server, conn: server.listen(LOCAL),
    "schedule": lambda server, conn: server.schedule(1.0, lambda now, conn: None),
    "run_after": lambda server, conn: conn.run_after(1.0, lambda now, conn: None),
    "pause_reading": lambda server, conn: conn.pause_reading(),
    "resume_reading": lambda server, conn: conn.resume_reading(),
}


@needs_fork
def test_a_child_that_uses_the_parents_server_is_refused() -> None:
    """And the parent's loop does not notice: not a pass, not a wake-up."""
    watched = Watched()
    with watched.server.running(LOCAL) as address, Peer(address) as peer:
        conn = sleeping_server(watched, peer)
        before = watched.server.metrics()

        def use() -> None:
            for name, call in CHILDS_CALLS.items():
                try:
                    call(watched.server, conn)
                except ForkError:
                    continue
                pytest.fail(f"{name} has not been refused")

        assert in_child(use) == 0
        after = watched.server.metrics()
        assert (after.passes, after.wakeups) == (before.passes, before.wakeups)
        check_alive(peer)


@needs_fork
def test_a_child_can_serve_on_a_server_of_its_own() -> None:
    watched = Watched()
    with watched.server.running(LOCAL) as address, Peer(address) as peer:
        sleeping_server(watched, peer)

        def serve() -> None:
            own = Watched()
            with own.server.running(LOCAL) as elsewhere, Peer(elsewhere) as other:
                check_alive(other)

        assert in_child(serve) == 0
        check_alive(peer)
