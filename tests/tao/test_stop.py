"""How a server stops: from where it is asked, what it waits for, and what is left of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reactor import Reactor
from tao import (
    CloseCause,
    CloseReason,
    Context,
    MessageRegistry,
    Server,
    ServerConn,
    StopReport,
    TaoError,
    WriteCloser,
)
from tests.support import (
    DEADLINE,
    LOCAL,
    Calls,
    Peer,
    Sample,
    as_bytes,
    descriptors,
    frame,
    wait_until,
)

ROOT = Path(__file__).parents[2]

SLACK = 5.0
"""Seconds beyond a promised time that a busy machine is given."""


def echo_registry() -> MessageRegistry:
    """Message 1 echoes."""
    registry = MessageRegistry()
    registry.register(1, as_bytes, lambda context, conn: Sample(1, context.message))
    return registry


@contextmanager
def serving(server: Server) -> Iterator[tuple[str, int]]:
    """Serve on a thread. The block is to stop the server; the thread must end by that."""
    address: tuple[str, int] = server.listen(LOCAL)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield address
        thread.join(DEADLINE)
        assert not thread.is_alive(), "the server still runs"
    finally:
        server.stop(0.0)
        thread.join()


# -- from where it is asked ----------------------------------------------------------------------


def test_from_another_thread_it_returns_when_all_is_over() -> None:
    server = Server(registry=echo_registry())
    threads, open_before = set(threading.enumerate()), descriptors()
    address = server.listen(LOCAL)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    with Peer(address) as peer:
        peer.send_frame(1, b"x")
        assert peer.receive_frame() == (1, b"x")
    assert wait_until(lambda: server.connection_count == 0)
    assert server.stop() == StopReport(drained=0, aborted=0, finished=True)
    assert descriptors() == open_before
    thread.join(DEADLINE)
    assert set(threading.enumerate()) == threads
    assert repr(server) == "<Server stopped, 0 connections>"


@pytest.mark.parametrize("inline", [False, True], ids=["pooled", "inline"])
def test_from_a_handler_it_returns_at_once(inline: bool) -> None:
    """And what the handler returns still goes out."""
    reports: Calls[StopReport] = Calls()
    registry = echo_registry()

    def stop(context: Context[bytes], conn: WriteCloser) -> Sample:
        reports.add(context.server.stop())
        return Sample(6, b"bye")

    registry.register(5, as_bytes, stop, inline=inline)
    server = Server(registry=registry)
    with serving(server) as address, Peer(address) as peer, Peer(address) as other:
        peer.send_frame(5)
        assert peer.receive_to_end() == frame(6, b"bye")
        assert other.receive_to_end() == b""
    [report] = reports.items
    assert not report.finished
    assert server.stop().finished


@pytest.mark.parametrize("callback", ["on_connect", "on_message", "on_close", "on_error", "timer"])
def test_from_a_callback_it_returns_at_once(callback: str) -> None:
    reports: Calls[StopReport] = Calls()

    def stop(*arguments: object) -> None:
        reports.add(server.stop())

    def set_timer(conn: ServerConn) -> None:
        conn.run_after(0.0, stop)

    registry = echo_registry()
    registry.register(5, as_bytes)
    server = Server(
        registry=registry,
        on_connect=stop if callback == "on_connect" else set_timer if callback == "timer" else None,
        on_message=stop if callback == "on_message" else None,
        on_close=stop if callback == "on_close" else None,
        on_error=stop if callback == "on_error" else None,
    )
    with serving(server) as address, Peer(address) as peer:
        if callback == "on_message":
            peer.send_frame(5)
        elif callback == "on_error":
            peer.send_frame(99)
        elif callback == "on_close":
            peer.close()
        if callback != "on_close":
            assert peer.is_cut_off()
    assert not reports.wait()[0].finished
    assert server.stop().finished


SCRIPT = """
import os, sys, threading
from tao import MessageRegistry, Server

class Blob:
    message_number = 1
    def __init__(self, value):
        self.value = value
    def serialize(self):
        return self.value

def handle(context, conn):
    for index in range(400):
        conn.write(Blob(b"%04d" % index * 2500))
    print("written", flush=True)

def wait(context, conn):
    print("waiting", flush=True)
    assert context.wait_cancelled(20)
    return Blob(b"cancelled")

registry = MessageRegistry()
registry.register(1, bytes, handle)
registry.register(2, bytes, wait)
server = Server(registry=registry, on_close=lambda conn, reason: print(reason, flush=True))
print(server.listen(("127.0.0.1", 0))[1], flush=True)
server.serve_forever()
assert threading.enumerate() == [threading.main_thread()]
print("over", flush=True)
"""


@contextmanager
def process() -> Iterator[tuple[subprocess.Popen[str], tuple[str, int]]]:
    """A program that serves on its main thread, and where."""
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", SCRIPT],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            assert server.stdout is not None
            yield server, ("127.0.0.1", int(server.stdout.readline()))
        finally:
            server.kill()


@pytest.mark.skipif(os.name != "posix", reason="Windows has no signals to send to a process")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_from_a_signal_everything_written_is_delivered(number: signal.Signals) -> None:
    with process() as (server, address), Peer(address, receive_buffer=4096) as peer:
        assert server.stdout is not None
        peer.send_frame(1)
        assert server.stdout.readline() == "written\n"
        server.send_signal(number)
        for index in range(400):
            assert peer.receive_frame() == (1, b"%04d" % index * 2500)
        assert peer.receive_to_end() == b""
        peer.close()
        output, errors = server.communicate(timeout=DEADLINE)
        assert (server.returncode, errors) == (0, "")
        assert output == "the server stopped\nover\n"


@pytest.mark.skipif(os.name != "posix", reason="Windows has no signals to send to a process")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_from_a_signal_while_the_loop_sleeps(number: signal.Signals) -> None:
    with process() as (server, address), Peer(address) as peer:
        assert server.stdout is not None
        peer.send_frame(2)
        assert server.stdout.readline() == "waiting\n"
        server.send_signal(number)
        assert peer.receive_to_end() == frame(1, b"cancelled")
        peer.close()
        output, errors = server.communicate(timeout=DEADLINE)
        assert (server.returncode, errors) == (0, "")
        assert output == "the server stopped\nover\n"


def test_twice_is_once() -> None:
    reasons: Calls[CloseReason] = Calls()
    server = Server(registry=echo_registry(), on_close=lambda conn, reason: reasons.add(reason))
    with serving(server) as address:
        with Peer(address) as peer:
            peer.send_frame(1, b"x")
            assert peer.receive_frame() == (1, b"x")
        first = server.stop()
        assert first.finished
        assert server.stop() == first
    assert server.stop() == first
    assert len(reasons) == 1


def test_many_threads_at_once() -> None:
    server = Server(registry=echo_registry())
    reports: Calls[StopReport] = Calls()
    with serving(server) as address:
        with Peer(address) as peer:
            peer.send_frame(1, b"x")
            assert peer.receive_frame() == (1, b"x")
        threads = [threading.Thread(target=lambda: reports.add(server.stop())) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(reports.items)) == 1
        assert reports.items[0].finished


def test_a_server_that_never_listened() -> None:
    server = Server()
    assert server.stop() == StopReport(0, 0, True)
    with pytest.raises(TaoError, match="stopped"):
        server.listen(LOCAL)


def test_a_server_that_listens_and_does_not_serve() -> None:
    open_before = descriptors()
    server = Server(registry=echo_registry())
    address = server.listen(LOCAL)
    assert descriptors() != open_before
    assert server.stop().finished
    assert descriptors() == open_before
    with pytest.raises(ConnectionRefusedError):
        Peer(address)
    server.serve_forever()  # there is nothing left to serve: it returns
    with pytest.raises(TaoError, match="stopped"):
        server.listen(LOCAL)


def test_a_stopped_server_does_not_listen_again() -> None:
    server = Server(registry=echo_registry())
    with server.running(LOCAL):
        pass
    with pytest.raises(TaoError, match="make a new one"):
        server.listen(LOCAL)


@pytest.mark.parametrize("grace", [-1.0, float("nan"), float("inf")])
def test_a_grace_that_makes_no_sense(grace: float) -> None:
    with pytest.raises(ValueError, match="grace"):
        Server().stop(grace)


# -- what it waits for ---------------------------------------------------------------------------


def test_messages_that_have_come_are_answered() -> None:
    begun = threading.Event()
    registry = echo_registry()

    def block(context: Context[bytes], conn: WriteCloser) -> Sample:
        begun.set()
        assert context.wait_cancelled(DEADLINE)  # the server has begun to stop
        return Sample(6)

    registry.register(5, as_bytes, block)
    reports: Calls[StopReport] = Calls()
    reasons: Calls[CloseReason] = Calls()
    server = Server(registry=registry, on_close=lambda conn, reason: reasons.add(reason))
    with serving(server) as address, Peer(address) as peer:
        peer.send(frame(5) + frame(1, b"a") + frame(1, b"b"))
        assert begun.wait(DEADLINE)
        stopping = threading.Thread(target=lambda: reports.add(server.stop()))
        stopping.start()
        assert peer.receive_to_end() == frame(6) + frame(1, b"a") + frame(1, b"b")
        peer.close()
        stopping.join()
    assert reports.items == [StopReport(drained=1, aborted=0, finished=True)]
    [reason] = reasons.items
    assert (reason.cause, reason.clean) == (CloseCause.STOPPED, True)


def can_connect(address: tuple[str, int]) -> bool:
    """Whether somebody listens there."""
    try:
        Peer(address).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("grace", [0.0, 0.2])
def test_a_peer_that_never_reads_is_cut_off(grace: float) -> None:
    opened: Calls[ServerConn] = Calls()
    reasons: Calls[CloseReason] = Calls()
    server = Server(
        registry=echo_registry(),
        on_connect=opened.add,
        on_close=lambda conn, reason: reasons.add(reason),
    )
    with serving(server) as address, Peer(address, receive_buffer=4096):
        opened.wait()[0].write(Sample(1, b"x" * 8_000_000))
        begin = time.monotonic()
        report = server.stop(grace)
        assert grace <= time.monotonic() - begin < grace + 1.0 + SLACK
        assert report == StopReport(drained=0, aborted=1, finished=True)
    [reason] = reasons.items
    assert reason.cause is CloseCause.STOPPED
    assert isinstance(reason.error, TimeoutError)
    assert reason.unsent > 0


def test_a_handler_that_does_not_return_is_left_behind() -> None:
    begun, release, returned = threading.Event(), threading.Event(), threading.Event()
    registry = echo_registry()

    def block(context: Context[bytes], conn: WriteCloser) -> Sample:
        begun.set()
        release.wait(DEADLINE)
        returned.set()
        return Sample(6)

    registry.register(5, as_bytes, block)
    server = Server(registry=registry)
    try:
        with serving(server) as address, Peer(address) as peer, Peer(address) as other:
            peer.send_frame(5)
            assert begun.wait(DEADLINE)
            other.close()
            begin = time.monotonic()
            report = server.stop(0.1)
            assert time.monotonic() - begin < 0.1 + 1.0 + SLACK
            assert not report.finished
            assert report.aborted == 1
            assert not returned.is_set()
            assert peer.is_cut_off()
    finally:
        release.set()  # its end is of no consequence to anybody
    assert returned.wait(DEADLINE)


@pytest.mark.parametrize(("first", "second"), [(60.0, 0.1), (0.1, 60.0)])
def test_of_two_graces_the_shorter_holds(first: float, second: float) -> None:
    begun, stopping, release = threading.Event(), threading.Event(), threading.Event()
    registry = echo_registry()

    def block(context: Context[bytes], conn: WriteCloser) -> None:
        begun.set()
        context.wait_cancelled(DEADLINE)
        stopping.set()
        release.wait(2 * DEADLINE)

    registry.register(5, as_bytes, block)
    server = Server(registry=registry)
    stops = [threading.Thread(target=server.stop, args=(grace,)) for grace in (first, second)]
    try:
        with serving(server) as address, Peer(address) as peer:
            peer.send_frame(5)
            assert begun.wait(DEADLINE)
            stops[0].start()
            assert stopping.wait(DEADLINE)  # the first has been heard
            begin = time.monotonic()
            stops[1].start()
            assert peer.is_cut_off()
            assert time.monotonic() - begin < 0.1 + SLACK
    finally:
        release.set()
    for stop in stops:
        stop.join(DEADLINE)
        assert not stop.is_alive()


def test_many_connections_end_in_good_order() -> None:
    opened: Calls[ServerConn] = Calls()
    reasons: Calls[CloseReason] = Calls()
    server = Server(
        registry=echo_registry(),
        on_connect=opened.add,
        on_close=lambda conn, reason: reasons.add(reason),
    )
    with serving(server) as address:
        peers = [Peer(address) for _ in range(100)]
        opened.wait(100)
        reports: Calls[StopReport] = Calls()
        stopping = threading.Thread(target=lambda: reports.add(server.stop()))
        stopping.start()
        for peer in peers:
            assert peer.receive_to_end() == b""
            peer.close()
        stopping.join()
    assert reports.items == [StopReport(drained=100, aborted=0, finished=True)]
    assert {reason.cause for reason in reasons.items} == {CloseCause.STOPPED}
    assert len(reasons) == 100


# -- a loop of somebody else's -------------------------------------------------------------------


def test_a_given_reactor_goes_on_running() -> None:
    reactor = Reactor()
    thread = threading.Thread(target=reactor.run)
    thread.start()
    try:
        threads, open_before = set(threading.enumerate()), descriptors()
        server = Server(registry=echo_registry(), reactor=reactor)
        address = server.listen(LOCAL)
        with Peer(address) as peer:
            peer.send_frame(1, b"x")
            assert peer.receive_frame() == (1, b"x")
        assert server.stop().finished
        assert descriptors() == open_before
        assert wait_until(lambda: set(threading.enumerate()) == threads)
        assert reactor.statistics().channels == 0
        ran = threading.Event()
        reactor.call_soon_threadsafe(ran.set)
        assert ran.wait(DEADLINE)
    finally:
        reactor.stop()
        thread.join()
        reactor.close()


def test_a_given_reactor_keeps_no_timers_of_a_server_that_has_stopped() -> None:
    reactor = Reactor()
    thread = threading.Thread(target=reactor.run)
    thread.start()
    try:
        server = Server(registry=echo_registry(), reactor=reactor)
        server.listen(LOCAL)
        server.schedule(60.0, lambda now, conn: None)
        assert server.stop().finished
        assert wait_until(lambda: reactor.statistics().timeouts_waiting == 0)
    finally:
        reactor.stop()
        thread.join()
        reactor.close()


def test_on_the_thread_that_runs_the_loop_pass_by_pass_it_does_not_wait_for_itself() -> None:
    """Between two passes this thread is still the loop's: to wait would be to wait for itself."""
    reactor = Reactor()
    server = Server(registry=echo_registry(), reactor=reactor)
    address = server.listen(LOCAL)
    reactor.run_once(0)
    begin = time.monotonic()
    server.stop(8.0)
    took = time.monotonic() - begin

    def stopped() -> bool:
        reactor.run_once(0.01)
        return "stopped" in repr(server)

    assert wait_until(stopped)
    reactor.close()
    assert not can_connect(address)
    assert took < 4.0


def test_the_message_of_a_connection_that_was_just_accepted_is_answered() -> None:
    """A stop may come in the pass that accepts it, before anything has been read."""
    reactor = Reactor()
    server = Server(registry=echo_registry(), reactor=reactor)
    address = server.listen(LOCAL)
    reactor.run_once(0)  # from here on `stop` knows whose thread this is
    with Peer(address) as peer:
        peer.send_frame(1, b"x")  # it waits with its connection in the backlog
        peer.finish_sending()
        server.stop(DEADLINE)  # which begins in the pass that accepts
        ends = time.monotonic() + DEADLINE
        while not server.stop(DEADLINE).finished and time.monotonic() < ends:
            reactor.run_once(0.05)
        assert peer.receive_to_end() == frame(1, b"x")
    reactor.close()
