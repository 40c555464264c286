"""What the reactor's tests share: a clock driven by hand, bounded waits, and a loop on a thread.

No wait here is longer than DEADLINE, and none is a sleep that has to be long enough: each ends as
soon as what it waits for has happened.
"""

from __future__ import annotations

import os
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TypeVar

from reactor import Clock, Reactor

T = TypeVar("T")

DEADLINE = 10.0
"""Seconds after which something that was to happen counts as not having happened."""

SELECTORS: dict[str, Callable[[], selectors.BaseSelector | None]] = {
    "default": lambda: None,
    "select": selectors.SelectSelector,
}
if hasattr(selectors, "PollSelector"):
    SELECTORS["poll"] = selectors.PollSelector


class ManualClock:
    """Time that passes when it is told to."""

    def __init__(self, monotonic: float = 1_000.0, unix: float = 1_700_000_000.0) -> None:
        self._monotonic = monotonic
        self._unix = unix

    def monotonic(self) -> float:
        return self._monotonic

    def unix(self) -> float:
        return self._unix

    def advance(self, seconds: float) -> None:
        self._monotonic += seconds
        self._unix += seconds


_: Clock = ManualClock()  # checked by mypy: it is a Clock


def run_until(reactor: Reactor, predicate: Callable[[], object], what: str = "it") -> None:
    """Make passes on this thread until `predicate` holds."""
    end = time.monotonic() + DEADLINE
    while not predicate():
        left = end - time.monotonic()
        assert left > 0, f"{what} has not happened in {DEADLINE:g} s"
        # A hundredth at a time: what is waited for may be a thread's doing, and wake nobody.
        reactor.run_once(min(left, 0.01))


def run_passes(reactor: Reactor, count: int = 3) -> None:
    """Make a few passes that do not wait, for what must not happen to have its chance."""
    for _ in range(count):
        reactor.run_once(0)


class LoopThread:
    """A reactor that runs on a thread of its own while the block lasts."""

    def __init__(self, reactor: Reactor) -> None:
        self.reactor = reactor
        self._thread = threading.Thread(target=self._run, name="test-loop")
        self._error: BaseException | None = None

    def _run(self) -> None:
        try:
            self.reactor.run()
        except BaseException as error:
            self._error = error

    def __enter__(self) -> LoopThread:
        running = threading.Event()
        self.reactor.call_soon_threadsafe(running.set)
        self._thread.start()
        assert running.wait(DEADLINE), "the loop does not run"
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.reactor.stop()
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive(), "the loop has not stopped"
        if self._error is not None:
            raise self._error

    def call(self, function: Callable[[], T]) -> T:
        """Call it on the loop's thread, and wait for what it returns."""
        done = threading.Event()
        outcome: list[T] = []
        errors: list[BaseException] = []

        def run() -> None:
            try:
                outcome.append(function())
            except BaseException as error:
                errors.append(error)
            done.set()

        self.reactor.call_soon_threadsafe(run)
        assert done.wait(DEADLINE), "the loop has not called it"
        if errors:
            raise errors[0]
        return outcome[0]


def on_thread(function: Callable[[], T]) -> T:
    """Call it on another thread, and wait for what it returns or raises."""
    outcome: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(function())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="test-other")
    thread.start()
    thread.join(DEADLINE)
    assert not thread.is_alive(), "the other thread is stuck"
    if errors:
        raise errors[0]
    return outcome[0]


@contextmanager
def socket_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected Unix sockets that do not block."""
    left, right = socket.socketpair()
    with left, right:
        left.setblocking(False)
        right.setblocking(False)
        yield left, right


def tcp_pair(*, buffer_size: int | None = None) -> tuple[socket.socket, socket.socket]:
    """Two connected TCP sockets on the loopback: ours, which does not block, and the peer's.

    `buffer_size`, in bytes, is for our send buffer and the peer's receive buffer.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        if buffer_size is not None:
            # Before the connection is made: it is then that the window is settled (tcp(7)).
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_size)
        peer = socket.socket()
        if buffer_size is not None:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_size)
        peer.settimeout(DEADLINE)
        peer.connect(listener.getsockname())
        ours, _address = listener.accept()
        ours.setblocking(False)
        return ours, peer


def reset(sock: socket.socket) -> None:
    """Close it with a RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def receive_all(sock: socket.socket) -> bytes:
    """Everything up to the FIN."""
    chunks = []
    while chunk := sock.recv(65_536):
        chunks.append(chunk)
    return b"".join(chunks)


def open_descriptors() -> frozenset[int]:
    """The numbers of this process's descriptors."""
    numbers = frozenset(int(name) for name in os.listdir("/dev/fd"))
    # The directory itself was among them; it is closed by now.
    return frozenset(number for number in numbers if _is_open(number))


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
