"""The wake-up pipe: how another thread ends the loop's sleep.

Contents: Lock, Pipe (what it needs of the two), Waker, give_back.

Owns a pipe, or a socket pair where the system cannot select on pipes (Windows). It carries no data:
what is to be done stands in the loop's queue, the byte only says "look". Nothing here blocks, so
`wake` may be called from any thread and from a signal handler.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Protocol

__all__ = ["Lock", "Pipe", "Waker", "give_back"]

LONGEST_HOLD = 0.5
"""Seconds for which nobody holds a lock that `give_back` is for, unless the process is stopped in them."""


class Lock(Protocol):
    """What is asked of a lock; `threading.Lock` is one. Any thread."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take it; whether it was got. `timeout` is in seconds, -1 for as long as it takes."""
        ...

    def release(self) -> None:
        """Give it back. Raises RuntimeError when nobody has it."""
        ...

    def locked(self) -> bool:
        """Whether somebody has it; a moment old."""
        ...

    def __enter__(self) -> bool: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...


def give_back(lock: Lock) -> None:
    """After an exception: release the lock, if the exception has come between its `acquire` and the next
    step, as Ctrl-C may. For a lock that is never held for long: whoever cannot get it is taken to have it.

    `with` needs no such thing, but for a lock that is taken for every message it costs too much.
    """
    try:
        lock.acquire(timeout=LONGEST_HOLD)
    finally:  # also after another Ctrl-C: to get it takes no time for that, unless it is our own
        with suppress(RuntimeError):  # who had it has just released it
            lock.release()


def _send_nothing(_data: bytes) -> None:
    """For a pipe that has been closed, whose descriptors may be somebody else's by now."""


class Pipe(Protocol):
    """What is asked of a pipe that is not the system's. Nothing blocks: it raises BlockingIOError."""

    def fileno(self) -> int:
        """The end that turns readable."""
        ...

    def send(self, data: bytes, /) -> object:
        """Put bytes in at the other end."""
        ...

    def receive(self, size: int, /) -> bytes:
        """Take `size` bytes at the most."""
        ...

    def close(self) -> None:
        """Give up both ends."""
        ...


class Waker:
    """Ends the loop's sleep from any thread, at the price of one byte a sleep at the most.

    A lock is the switch between the two sides. Free means "the loop sleeps, or is about to": whoever
    takes it, without waiting, is the one who writes the byte. Held means that the loop is awake, or
    that its byte is on the way. Taking a lock is a test-and-set on every Python, with or without a
    global interpreter lock, so of many threads exactly one writes.

    No wake-up is lost: the loop arms first and looks at its queue after; the others fill the queue
    first and try the lock after. Whichever order the two come in, one of them sees the other.
    """

    __slots__ = (
        "__weakref__",
        "_armed",
        "_close",
        "_fd",
        "_receive",
        "_send",
        "_signal_fd",
        "wakeups",
    )

    def __init__(self, pipe: Pipe | None = None, lock: Lock | None = None) -> None:
        self._armed: Lock = threading.Lock() if lock is None else lock
        self._armed.acquire()  # a new waker belongs to a loop that is awake
        self.wakeups: int = 0
        """Bytes read so far: how often a sleep was ended. Written by the loop's thread."""
        self._send: Callable[[bytes], object]
        self._receive: Callable[[int], bytes]
        self._signal_fd: int | None = (
            None  # what the interpreter may write to; None: nothing of the system's
        )
        if pipe is not None:
            self._fd, close = pipe.fileno(), pipe.close
            self._send, self._receive = pipe.send, pipe.receive
        elif sys.platform == "win32":
            self._fd, close = self._open_socket_pair()
        else:
            self._fd, close = self._open_pipe()
        # Runs once: when `close` calls it, or when a waker that nobody closed is collected.
        self._close = weakref.finalize(self, close)
        # Not at the interpreter's end, where a loop on a daemon thread may still read from it.
        self._close.atexit = False

    def _open_pipe(self) -> tuple[int, Callable[[], None]]:
        reader, writer = os.pipe()  # not inheritable, by PEP 446
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)

        def close() -> None:
            os.close(reader)
            os.close(writer)

        self._send = lambda data: os.write(writer, data)
        self._receive = lambda size: os.read(reader, size)
        self._signal_fd = writer
        return reader, close

    def _open_socket_pair(self) -> tuple[int, Callable[[], None]]:
        reader, writer = socket.socketpair()
        reader.setblocking(False)
        writer.setblocking(False)

        def close() -> None:
            reader.close()
            writer.close()

        self._send, self._receive = writer.send, reader.recv
        self._signal_fd = writer.fileno()
        return reader.fileno(), close

    def fileno(self) -> int:
        """The descriptor that turns readable when somebody wakes the loop."""
        return self._fd

    def arm(self) -> None:
        """Ask for a byte on the next `wake`. The loop's thread; look at the queue after this."""
        if self._armed.locked():
            self._armed.release()

    def disarm(self) -> None:
        """Stop asking: from here on the loop will look at its queue anyway. The loop's thread."""
        self._armed.acquire(blocking=False)

    def wake(self) -> None:
        """End the loop's sleep, or prevent it. Any thread, and signal handlers; never blocks."""
        try:
            if self._armed.acquire(blocking=False):
                self._send(b"\0")
        except OSError:
            pass  # it is full, and so is readable; or closed, and there is no loop left to wake
        except BaseException:
            # Ctrl-C, and perhaps between the two: then nobody else would write the byte.
            with suppress(OSError):
                self._send(b"\0")
            raise

    @contextmanager
    def woken_by_signals(self) -> Iterator[None]:
        """While the block runs, a signal ends the loop's sleep. For the loop's thread, around its run.

        A handler written in Python runs when the main thread gets to it. The system ends that thread's
        sleep if the signal comes while it sleeps there; but not if it comes in the last moment before,
        or is delivered to another thread: then it would wait for whatever wakes the loop next. Does
        nothing on other threads than the main one, or where something else has asked for this already.
        See `signal.set_wakeup_fd`.
        """
        ours = False
        if self._signal_fd is not None and threading.current_thread() is threading.main_thread():
            before = signal.set_wakeup_fd(self._signal_fd, warn_on_full_buffer=False)
            ours = before == -1
            if not ours:
                signal.set_wakeup_fd(before)
        try:
            yield
        finally:
            if ours:
                signal.set_wakeup_fd(-1)

    def drain(self) -> None:
        """Empty the pipe. The loop's thread, when the descriptor is readable."""
        try:
            self.wakeups += len(self._receive(4096))
        except (BlockingIOError, InterruptedError):
            pass

    def close(self) -> None:
        """Release the descriptors. `wake` does nothing from here on."""
        self._armed.acquire(blocking=False)  # never released again: nobody writes any more
        self._send = _send_nothing  # whoever is just about to
        self._close()

    def __repr__(self) -> str:
        state = "closed" if not self._close.alive else f"fd={self._fd}"
        return f"<Waker {state}, {self.wakeups} wake-ups>"
