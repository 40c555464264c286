"""Ctrl-C on a thread that writes to connections, or ends them, while their loop runs on another.

The tests raise KeyboardInterrupt at each place where it can come in turn, however many there are.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import pytest

from reactor import CloseCause, Reactor
from tao import (
    ClientConn,
    CloseReason,
    ConnectionClosedError,
    Context,
    MessageRegistry,
    Server,
    WriteCloser,
)
from tests.interrupting import interrupt, then
from tests.support import DEADLINE, LOCAL, Calls, Sample, as_bytes, wait_until


class Ends:
    """A server, what has come there, and what its clients were told and how they have ended."""

    def __init__(self) -> None:
        self.received: Calls[bytes] = Calls()
        self.told: Calls[bytes] = Calls()
        self.reasons: Calls[CloseReason] = Calls()
        self.server = Server(registry=self._registry(self.received))
        self.address: Any = None

    @staticmethod
    def _registry(calls: Calls[bytes]) -> MessageRegistry:
        def handle(context: Context[bytes], _conn: WriteCloser) -> None:
            calls.add(context.message)

        registry = MessageRegistry()
        registry.register(1, as_bytes, handle)
        return registry

    def connect(self, **arguments: Any) -> ClientConn:
        """A client that is connected."""
        client = ClientConn(
            self.address,
            registry=self._registry(self.told),
            on_close=lambda _, reason: self.reasons.add(reason),
            **arguments,
        )
        client.start()
        client.wait_connected(DEADLINE)
        return client


@contextmanager
def serving() -> Iterator[Ends]:
    ends = Ends()
    with ends.server.running(LOCAL) as ends.address:
        yield ends


@pytest.mark.parametrize("offline_limit", [0, 1000])
def test_ctrl_c_in_a_write_holds_up_no_other(offline_limit: int) -> None:
    with serving() as ends:
        client = ends.connect(offline_limit=offline_limit)
        for place in count():
            interrupted = interrupt(lambda: client.write(Sample(1, b"interrupted")), place)
            behind = b"%d" % place
            then(lambda behind=behind: client.write(Sample(1, behind)))  # type: ignore[misc]
            assert wait_until(lambda behind=behind: behind in ends.received.items), place  # type: ignore[misc]
            if not interrupted:
                break
        assert place > 10
        client.close()
        assert client.wait_closed(DEADLINE) == CloseReason(CloseCause.CLOSED)


@pytest.mark.parametrize("abort", [False, True], ids=["close", "abort"])
def test_ctrl_c_in_the_end_of_a_connection(*, abort: bool) -> None:
    """Asked a second time, it ends."""
    with serving() as ends:
        for place in count():
            client = ends.connect()
            end = client.abort if abort else client.close
            interrupted = interrupt(end, place)
            then(end)
            reason = client.wait_closed(DEADLINE)
            assert reason is not None, f"it does not end, interrupted at place {place}"
            assert reason.cause is (CloseCause.ABORTED if abort else CloseCause.CLOSED)
            if not interrupted:
                break
        assert place > 10
        assert len(ends.reasons) == place + 1, "on_close comes once for each"


def test_ctrl_c_in_a_broadcast_holds_up_nobody() -> None:
    with serving() as ends:
        clients = [ends.connect(), ends.connect()]
        assert wait_until(lambda: ends.server.connection_count == 2)
        for place in count():
            interrupted = interrupt(lambda: ends.server.broadcast(Sample(1, b"interrupted")), place)
            behind = b"%d" % place
            for conn in ends.server.connections():  # not another broadcast, which would send both
                then(lambda behind=behind, conn=conn: conn.write(Sample(1, behind)))  # type: ignore[misc]
            assert wait_until(lambda behind=behind: ends.told.items.count(behind) == 2), place  # type: ignore[misc]
            if not interrupted:
                break
        assert place > 20
        for client in clients:
            client.close()
            assert client.wait_closed(DEADLINE) == CloseReason(CloseCause.CLOSED)


def test_ctrl_c_in_a_call_gives_no_other_call_its_reply() -> None:
    """The next one gets its own; or, where nobody knows whether the first was sent, the connection ends."""
    registry = MessageRegistry()
    registry.register(1, as_bytes, lambda context, _: Sample(1, context.message))
    replies = MessageRegistry()
    replies.register(1, as_bytes)
    ended = 0
    with Server(registry=registry).running(LOCAL) as address:
        for place in count():
            client = ClientConn(address, registry=replies)
            client.start()
            client.wait_connected(DEADLINE)
            interrupted = interrupt(lambda: client.call(Sample(1, b"interrupted")), place)  # noqa: B023
            try:
                assert client.call(Sample(1, b"next")).result(DEADLINE) == b"next"
                client.close()
                assert client.wait_closed(DEADLINE) == CloseReason(CloseCause.CLOSED)
            except ConnectionClosedError:
                ended += 1
                reason = client.wait_closed(DEADLINE)
                assert reason is not None
                assert "call was interrupted" in str(reason.error)
            if not interrupted:
                break
    assert 0 < ended < place


def test_ctrl_c_where_a_loop_is_called_does_not_keep_it_asleep() -> None:
    loop = Reactor()
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        for place in count():
            called: Calls[int] = Calls()
            interrupted = interrupt(lambda: loop.call_soon_threadsafe(int), place)
            then(lambda: loop.call_soon_threadsafe(called.add, 1))  # noqa: B023 - before the next round
            called.wait()
            if not interrupted:
                break
        assert place > 3
    finally:
        loop.stop()
        thread.join()
        loop.close()


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="NOT TESTED: no pthread_kill")
def test_a_signal_that_does_not_wake_the_main_thread_ends_its_wait() -> None:
    """As one that comes in the last moment before it sleeps: here another thread gets it."""

    def interrupt_main(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    def send() -> None:
        time.sleep(0.1)
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, interrupt_main)
    try:
        with serving() as ends:
            client = ends.connect()
            sender = threading.Thread(target=send)
            begun = time.monotonic()
            sender.start()
            with pytest.raises(KeyboardInterrupt):
                client.wait_closed(DEADLINE)
            assert time.monotonic() - begun < DEADLINE / 2, (
                "it is not the time-out that has ended it"
            )
            sender.join()
            client.close()
            assert client.wait_closed(DEADLINE) == CloseReason(CloseCause.CLOSED)
    finally:
        signal.signal(signal.SIGUSR1, before)
