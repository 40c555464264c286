"""The timers of one connection.

Owns their ids and their place in the loop's wheel. Timers may be set and cancelled from any thread;
their callbacks run in the connection's order, like its handlers. They end with the connection.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

from reactor import Lock, Reactor, Timeout

__all__ = ["ConnectionTimers"]

# One counter for all, so that an id names one timer in a log. `next` on it is one step.
_ids = itertools.count(1)


LONGEST_DELAY = 1e10
"""Seconds; three centuries, well within what the loop's wheel can tell apart."""


class _Timer:
    """A callback, and when. Under the lock of its ConnectionTimers."""

    __slots__ = ("callback", "repeats", "timeout", "waiting")

    def __init__(self, callback: Callable[[float], object], repeats: bool) -> None:
        self.callback = callback
        self.repeats = repeats
        self.timeout: Timeout | None = None  # None: it is not in the wheel yet, or any more
        self.waiting = False  # it has expired, and waits for its turn in the connection's order


class ConnectionTimers:
    """Sets, cancels and ends timers. `enqueue` puts a call into the connection's order."""

    __slots__ = ("_ended", "_enqueue", "_lock", "_reactor", "_timers")

    def __init__(
        self,
        reactor: Reactor,
        enqueue: Callable[[Callable[[], object]], object],
        lock: Lock | None = None,
    ) -> None:
        self._reactor = reactor
        self._enqueue = enqueue
        # Guards what follows. The owner's own will do: it is never held for long.
        self._lock = reactor.system.lock() if lock is None else lock
        self._timers: dict[int, _Timer] | None = None  # made by the first
        self._ended = False

    def run_at(self, when: float, callback: Callable[[float], object]) -> int:
        """`when` is a Unix time in seconds; one that has passed is at once."""
        return self.run_after(when - self._reactor.clock.unix(), callback)

    def run_after(self, delay: float, callback: Callable[[float], object]) -> int:
        """`delay` in seconds. Raises ValueError unless it is finite."""
        if not (math.isfinite(delay) and delay <= LONGEST_DELAY):
            raise ValueError(
                f"a timer's delay must be finite, and at most {LONGEST_DELAY:g} s, not {delay!r}"
            )
        return self._set(_Timer(callback, False), self._reactor.time() + delay, 0.0)

    def run_every(self, interval: float, callback: Callable[[float], object]) -> int:
        """`interval` in seconds, from now. Raises ValueError unless it is positive and finite."""
        if not (math.isfinite(interval) and 0 < interval <= LONGEST_DELAY):
            raise ValueError(f"an interval must be a positive number of seconds, not {interval!r}")
        return self._set(_Timer(callback, True), 0.0, interval)

    def _set(self, timer: _Timer, when: float, interval: float) -> int:
        timer_id = next(_ids)
        with self._lock:
            if self._ended:
                return timer_id  # the connection has ended, and its timers with it
            if self._timers is None:
                self._timers = {}
            self._timers[timer_id] = timer
        if self._reactor.in_loop_thread():
            self._start(timer_id, timer, when, interval)
        else:
            self._reactor.call_soon_threadsafe(self._start, timer_id, timer, when, interval)
        return timer_id

    def cancel(self, timer_id: int) -> bool:
        """Call it off. Once this has returned the callback does not begin any more.

        Returns whether it was still to run.
        """
        with self._lock:
            timer = None if self._timers is None else self._timers.pop(timer_id, None)
            if timer is None:
                return False
            timeout, timer.timeout = timer.timeout, None
        if timeout is not None:
            if self._reactor.in_loop_thread():
                timeout.cancel()
            else:
                self._reactor.call_soon_threadsafe(timeout.cancel)
        return True

    def end(self) -> None:
        """Cancel all, and those that come. The loop's thread."""
        with self._lock:
            self._ended = True
            timers, self._timers = self._timers, None
        if timers is not None:
            for timer in timers.values():
                if timer.timeout is not None:
                    timer.timeout.cancel()

    def _start(self, timer_id: int, timer: _Timer, when: float, interval: float) -> None:
        """Into the wheel. The loop's thread."""
        with self._lock:
            if self._timers is None or timer_id not in self._timers:
                return  # cancelled meanwhile
            if timer.repeats:
                timer.timeout = self._reactor.call_every(interval, self._expire, timer_id, timer)
            else:
                timer.timeout = self._reactor.call_at(when, self._expire, timer_id, timer)

    def _expire(self, timer_id: int, timer: _Timer) -> None:
        """The loop's thread."""
        with self._lock:
            if timer.waiting:
                return  # its last time has not had its turn yet: this one is skipped
            timer.waiting = True
        self._enqueue(lambda: self._run(timer_id, timer))

    def _run(self, timer_id: int, timer: _Timer) -> None:
        """In the connection's order, on a worker."""
        with self._lock:
            timer.waiting = False
            if self._timers is None or timer_id not in self._timers:
                return
            if not timer.repeats:
                del self._timers[timer_id]
        timer.callback(self._reactor.clock.unix())

    def __len__(self) -> int:
        return 0 if self._timers is None else len(self._timers)
