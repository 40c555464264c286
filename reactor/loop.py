"""The event loop.

Contents: Channel (a descriptor, its interest, its callback), Watched (what the loop sees of one), Host
(another loop that drives this one), Statistics, Reactor.

Owns the selector, the timing wheel, the wake-up pipe and the queue of posted callbacks. It does not
own the descriptors that it watches, and knows nothing of connections. One thread runs it. Everything
is for that thread alone, but for what says "any thread".

A pass, in this order:
1. sleep in the selector until a descriptor is ready, the next time-out is due, or somebody wakes it;
2. call the channels that are ready, then what they have asked for by `call_after_events`;
3. fire the time-outs that have expired;
4. run the callbacks that were posted before this step began: one that posts itself cannot starve I/O.

Steps 2 and 3 are one stage and step 4 is another; what a stage has gathered (`call_at_stage_end`) is
dealt with at its end.
"""

from __future__ import annotations

import logging
import math
import os
import selectors
import threading
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeAlias, TypeVar, TypeVarTuple, Unpack

from reactor.allocator import keep_freed_memory
from reactor.clock import Clock
from reactor.errors import (
    ForkError,
    HostError,
    ReactorClosedError,
    ReentrancyError,
    WrongThreadError,
)
from reactor.poller import READ, WRITE, Poller, SelectorPoller
from reactor.system import OperatingSystem, System
from reactor.timing_wheel import Timeout, TimingWheel

__all__ = [
    "READ",
    "WRITE",
    "Channel",
    "FileDescriptorLike",
    "HasFileno",
    "Host",
    "Reactor",
    "Statistics",
    "Watched",
]

logger: logging.Logger = logging.getLogger("reactor")

TICK = 0.001
"""Seconds in a tick of the wheel: what `epoll_wait` can tell apart."""

LONGEST_SLEEP = 86_400.0
"""Seconds; some systems refuse a time-out that does not fit 32 bits of milliseconds."""

CALLBACKS_PER_PASS = 10_000
"""Of descriptors, time-outs and posted callbacks, so many each before the others have their turn."""

CALLBACKS_PER_SHARE = 32
"""Likewise where a pass is one of several within a budget: so often the time is looked at."""

Arguments = TypeVarTuple("Arguments")
T = TypeVar("T")

_ceil = math.ceil

# Those of this process, to be told when it turns out to be a forked child. To ask the system for the
# process's number instead, in every call that must know, cost a fifth of a `call_later`.
_reactors: weakref.WeakSet[Reactor] = weakref.WeakSet()


def _disown_reactors() -> None:
    for reactor in _reactors:
        reactor.forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown_reactors)


class HasFileno(Protocol):
    """Something with a descriptor."""

    def fileno(self) -> int: ...


FileDescriptorLike: TypeAlias = "int | HasFileno"


class Watched(Protocol):
    """A descriptor, what is waited for, and what is called: a Channel, or who is its own.

    The reactor alone writes the two. The loop's thread.
    """

    fd: int
    """The descriptor's number; -1: it is not watched."""
    events: int
    """READ, WRITE, both or 0: not waiting for anything."""

    def handle_ready(self, ready: int) -> object:
        """So much of `events` has come."""
        ...


class Channel:
    """A descriptor, the events that somebody waits for, and the callback that gets them.

    It does not own the descriptor. Made by `Reactor.register`; changed by `modify` and `unregister`. The
    loop's thread. Implements Watched.
    """

    __slots__ = ("callback", "events", "fd")

    def __init__(self, callback: Callable[[int], object]) -> None:
        self.fd: int = -1
        """The descriptor's number; -1 when it is not registered any more."""
        self.events: int = 0
        """READ, WRITE, both or 0: registered, but not waiting for anything."""
        self.callback: Callable[[int], object] = callback
        """What is called with the events that have come."""

    def handle_ready(self, ready: int) -> None:
        """Call the callback."""
        self.callback(ready)

    def fileno(self) -> int:
        """The descriptor's number."""
        return self.fd

    def __repr__(self) -> str:
        names = [name for bit, name in ((READ, "READ"), (WRITE, "WRITE")) if self.events & bit]
        return f"<Channel fd={self.fd} events={'|'.join(names) or 'none'} of {self.callback!r}>"


class Host(Protocol):
    """Another loop, on whose thread this one makes its passes; see `Reactor.set_host`."""

    def handle_sooner(self) -> None:
        """Between two passes, `timeout()` has become less than it was. The loop's thread."""
        ...

    def handle_close(self) -> None:
        """The reactor is about to be closed: let go of its descriptor. The loop's thread."""
        ...


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a reactor has done since it was made, and what it holds now."""

    passes: int
    """Times that the loop came out of the selector."""
    wakeups: int
    """Passes that another thread, or a signal handler, caused."""
    events: int
    """Descriptors found ready."""
    callbacks: int
    """Posted callbacks run."""
    timeouts_fired: int
    """Time-outs whose moment has come, each repetition for itself."""
    timeouts_waiting: int
    """Time-outs that are set now."""
    channels: int
    """Descriptors registered, the wake-up pipe's not counted."""


class Reactor:
    """A single-threaded event loop over a selector.

    `selector` is one of the `selectors` module's (the system's best by default), which the reactor
    closes; `clock` tells the time; `system` is where everything else comes from, and those two too if
    they are not given.
    """

    def __init__(
        self,
        *,
        selector: selectors.BaseSelector | None = None,
        clock: Clock | None = None,
        system: System | None = None,
    ) -> None:
        keep_freed_memory()
        self.system: System = OperatingSystem() if system is None else system
        """What it runs on; for who needs a socket, a lock or a thread on the same. Any thread."""
        self._poller: Poller = (
            self.system.open_poller() if selector is None else SelectorPoller(selector)
        )
        self._clock: Clock = self.system.clock if clock is None else clock
        self._monotonic = self._clock.monotonic
        self._origin = self._monotonic()
        self._wheel = TimingWheel()
        self._watched: dict[int, Watched] = {}
        # Descriptors registered in this pass, which get no event yet: what the pass has been told of
        # their numbers was of others.
        self._new: set[int] = set()
        self._shared: dict[Callable[[Reactor], object], Any] = {}
        self._expired: deque[Timeout] = deque()
        self._after_events: deque[Callable[[], object]] = deque()
        self._at_stage_end: deque[Callable[[], object]] = deque()
        # Filled by any thread, emptied by the loop's. Only append, popleft and len are used, each of
        # which deque documents as safe between threads.
        self._posted: deque[Callable[[], object]] = self.system.queue()
        self._waker = self.system.open_waker()
        self._waker_fd = self._waker.fileno()
        self._poller.register(self._waker_fd, READ)
        # Written by any thread, read by the loop after it has armed the waker: see `stop`.
        self._stop_requested = False
        self._running = False
        self._closed = False
        self.thread: int = 0
        """The number of the loop's thread from its first pass on; 0 when it has none."""
        # The loop's thread.
        self._host: Host | None = None
        self._released = False  # the host has let go in the middle of a pass
        self.lent: bool = False
        """Whether another thread is in `wait`, or about to be: no pass may begin. The loop's thread."""
        self.forked: bool = False
        """Whether it is another process's: this one was forked off from it, and must not use it. Set in
        the child, before any code of the program's runs there."""
        _reactors.add(self)
        self.passes: int = 0
        """Times that the loop came out of the selector. The loop's thread."""
        self._events = self._callbacks = self._fired = 0
        self.pass_time: float = self._origin
        """Monotonic seconds at which this pass came out of the selector. The loop's thread."""
        self.pass_seconds: float = 0.0
        """Seconds that the last pass took after its sleep: what a descriptor may have had to wait."""
        self._waker.arm()

    # -- running ---------------------------------------------------------------------------------

    def run(self) -> None:
        """Run passes on this thread until `stop`.

        Whatever a callback raises is logged, except KeyboardInterrupt and SystemExit: those end the
        run and are raised here; the reactor may be run again. Raises ReentrancyError when the loop
        runs already, HostError when a host drives it, ReactorClosedError after `close`, ForkError in a
        forked child.
        """
        if self._host is not None:
            raise HostError(f"this reactor is driven by {self._host!r}; detach it from there first")
        self._enter()
        try:
            with self._waker.woken_by_signals():
                while not self._stop_requested:
                    self._pass(self.timeout())
        finally:
            self._stop_requested = False
            self._running = False
            self.thread = 0

    def run_once(self, timeout: float | None = None, *, budget: float | None = None) -> int:
        """Run one pass; wait up to `timeout` seconds for something to do (None: as long as it takes).

        With 0 it does what is due and returns: the call for a loop of one's own, see `fileno`. From
        the first call on the reactor belongs to the calling thread. Returns the number of events,
        time-outs and callbacks dealt with.

        With a `budget`, in seconds, it goes on until nothing is due or so much time has been used, the
        wait not counted; what is left then is for the next call, and `fileno` and `timeout` say that
        there is something. Callbacks are not interrupted: it may be over by as long as CALLBACKS_PER_SHARE
        of each kind take.

        Raises as `run` does, and WrongThreadError.
        """
        self._enter()
        try:
            until_due = self.timeout()
            if timeout is None or (until_due is not None and until_due < timeout):
                timeout = until_due
            elif timeout < 0:
                timeout = 0.0
            if budget is None:
                return self._pass(timeout)
            done = last = self._pass(timeout, CALLBACKS_PER_SHARE)
            ends = self.pass_time + budget
            while last and self._monotonic() < ends:
                last = self._pass(0.0, CALLBACKS_PER_SHARE)
                done += last
            return done
        finally:
            self._running = False
            if self._released:
                self._released = False
                self.thread = 0

    def _enter(self) -> None:
        self._check()
        if self._running:
            raise ReentrancyError(
                "this reactor runs already, and its callbacks must not run it again; return, and have "
                "call_soon or call_later call what comes after"
            )
        if self.lent:
            raise ReentrancyError(
                "a thread waits for this reactor on its host's behalf; detach it from the host first"
            )
        self._running = True
        self.thread = threading.get_ident()

    def stop(self) -> None:
        """Have `run` return after the present pass. Any thread, and signal handlers.

        The flag is set before the waker is tried, and `run` reads it after arming the waker: the
        same order that keeps a posted callback from being slept over.
        """
        self._stop_requested = True
        self.wake()

    def close(self) -> None:
        """Release the selector and the wake-up pipe. Twice is once. Descriptors stay their owners'.

        In a forked child it releases the child's copies only. A host is told, and lets go of it. Raises
        ReentrancyError inside a pass; with a host, WrongThreadError on another thread than the host's.
        """
        if self._closed:
            return
        if not self.forked:
            if self._running:
                raise ReentrancyError(
                    "this reactor runs; call stop(), and close it when run() has returned"
                )
            if self._host is not None:
                self._check()
                self._host.handle_close()
        self._closed = True
        self._poller.close()
        self._waker.close()
        self._watched.clear()
        self._posted.clear()

    @property
    def running(self) -> bool:
        """Whether somebody is inside `run` or `run_once`. Any thread; a moment old."""
        return self._running

    @property
    def closed(self) -> bool:
        """Whether `close` has been called."""
        return self._closed

    def fileno(self) -> int | None:
        """A descriptor for a foreign loop to wait on: readable when a pass has something to do.

        Wait until it is readable or `timeout()` has passed, then call `run_once(0)`. What another
        thread posts makes it readable; for what this thread asks for between two passes, see
        `set_host`. None where the system's selector has no descriptor of its own (`select` and `poll`):
        there a thread can `wait`.
        """
        return self._poller.fileno()

    def timeout(self) -> float | None:
        """Seconds that the loop may sleep: 0.0 when something waits, None when nothing is timed."""
        if self._posted or self._expired or self._after_events or self._at_stage_end:
            return 0.0
        tick = self._wheel.next_tick()
        if tick is None:
            return None
        delay = self._origin + tick * TICK - self._monotonic()
        return 0.0 if delay <= 0.0 else min(delay, LONGEST_SLEEP)

    def set_host(self, host: Host | None) -> None:
        """Say that another loop drives this one from now on, on the calling thread; None: no longer.

        `host.handle_sooner()` is called when something on this thread, between two passes, has made
        `timeout()` smaller, which a host that sleeps could not know. What other threads do makes the
        descriptor readable, and ends `wait`. `reactor.embed` has hosts for the usual loops.

        Raises HostError when it has a host, ReentrancyError inside a pass (but None is for anywhere),
        WrongThreadError, ReactorClosedError and ForkError.
        """
        self._check()
        if host is None:
            if self._host is None:
                return
            self._host = None
            self.lent = False
            # Inside a pass the thread is still the loop's.
            self._released = self._running
            if not self._running:
                self.thread = 0
            return
        if self._host is not None:
            raise HostError(f"this reactor is driven by {self._host!r}; detach it from there first")
        if self._running:
            raise ReentrancyError("this reactor runs already; stop it before a host drives it")
        self._host = host
        self.thread = threading.get_ident()

    def wait(self, timeout: float | None = None) -> None:
        """Sleep until a pass has something to do, `timeout` seconds at the most; do none of it.

        For a thread that waits on behalf of a host which cannot wait for a descriptor; see
        `reactor.embed.waiter`. Any thread, one at a time, and never while a pass is made: the host sets
        `lent` before, and takes it back when this has returned. May raise OSError or ValueError when a
        descriptor is closed meanwhile; then, too, a pass has something to do.
        """
        self._poller.poll(timeout)

    def _pass(self, timeout: float | None, most: int | None = None) -> int:
        if most is None:
            most = CALLBACKS_PER_PASS
        ready = self._poller.poll(timeout, most)
        self._waker.disarm()
        self.passes += 1
        self.pass_time = now = self._monotonic()
        try:
            done = len(ready)
            watched, new = self._watched, self._new
            if new:
                new.clear()
            for fd, mask in ready:
                # An earlier callback of this pass may have closed the descriptor, whose number may
                # by now be another channel's, or changed what it waits for: nothing stale gets out.
                try:
                    channel = watched[fd]
                except KeyError:
                    done -= 1
                    if fd == self._waker_fd:
                        self._waker.drain()
                    continue
                if mask != READ or channel.events != READ:
                    if mask != READ:
                        mask = self._poller.events_of(mask)  # noqa: PLW2901
                    mask &= channel.events  # noqa: PLW2901
                if mask and not (new and fd in new):
                    try:
                        channel.handle_ready(mask)
                    except Exception:
                        _log_failure(channel)
                else:
                    done -= 1
            self._events += done
            if self._after_events:
                _run_gathered(self._after_events, again=True)
            if self._wheel:
                self._expired.extend(self._wheel.advance(self._tick_at(now)))
            expired = self._expired
            if expired:  # an echo's pass has none
                for _ in range(min(len(expired), most)):
                    # Taken one by one, so that what KeyboardInterrupt leaves is run by the next pass.
                    due = expired.popleft()
                    self._fired += 1
                    done += 1
                    try:
                        due.fire()
                    except Exception:
                        _log_failure(due)
            _run_gathered(self._at_stage_end)
            posted = self._posted
            for _ in range(min(len(posted), most)):
                callback = posted.popleft()
                self._callbacks += 1
                done += 1
                try:
                    callback()
                except Exception:
                    _log_failure(callback)
            _run_gathered(self._at_stage_end)
            self.pass_seconds = self._monotonic() - now
            return done
        finally:
            self._waker.arm()

    # -- time ------------------------------------------------------------------------------------

    def time(self) -> float:
        """The monotonic time in seconds, which `call_at` counts in. Any thread."""
        return self._monotonic()

    @property
    def clock(self) -> Clock:
        """The clock that the loop lives by."""
        return self._clock

    def _tick_at(self, when: float) -> int:
        """The last tick that has come at `when`; see `put`."""
        tick = math.floor((when - self._origin) / TICK)
        if self._origin + (tick + 1) * TICK <= when:
            return tick + 1
        return tick if self._origin + tick * TICK <= when else tick - 1

    # -- calling later ---------------------------------------------------------------------------

    def call_soon(
        self, callback: Callable[[Unpack[Arguments]], object], *arguments: *Arguments
    ) -> Timeout:
        """Call it in this pass's step 4, or the next one's. In the order of the calls."""
        self._check()
        timeout = Timeout(partial(callback, *arguments) if arguments else callback)
        self._posted.append(timeout.fire)
        if self._host is not None and not self._running:
            self._host.handle_sooner()
        return timeout

    def call_soon_threadsafe(
        self, callback: Callable[[Unpack[Arguments]], object], *arguments: *Arguments
    ) -> Timeout:
        """As `call_soon`, from any thread or signal handler; the loop is woken if it sleeps.

        Raises ReactorClosedError after `close`, ForkError in a forked child.
        """
        if self._closed or self.forked:
            self._check_process()
        timeout = Timeout(partial(callback, *arguments) if arguments else callback)
        self.post(timeout.fire)
        self._waker.wake()
        return timeout

    def post(self, callback: Callable[[], object]) -> None:
        """Queue a callback, without a handle and without waking the loop. Any thread.

        For what is about to post more: `wake` once when all is posted. Raises ForkError in a forked
        child.
        """
        if self.forked:
            raise self.fork_error()
        self._posted.append(callback)

    def wake(self) -> None:
        """End the loop's sleep, if it sleeps. Any thread, and signal handlers; never blocks.

        Nothing in a forked child: the pipe is the parent's too.
        """
        if not self.forked:
            self._waker.wake()

    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[Arguments]], object],
        *arguments: *Arguments,
    ) -> Timeout:
        """Call it in `delay` seconds; never earlier, and up to a millisecond later by design."""
        self._check()
        return self.put(
            Timeout(partial(callback, *arguments) if arguments else callback),
            self._monotonic() + delay,
        )

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Arguments]], object],
        *arguments: *Arguments,
    ) -> Timeout:
        """Call it when `time()`, in seconds, is `when`; a time that has passed is the next pass.

        Of two that are due in the same millisecond, the first asked for is called first.
        Raises ValueError for a time that is not finite.
        """
        self._check()
        return self.put(Timeout(partial(callback, *arguments) if arguments else callback), when)

    def put(self, timeout: Timeout, when: float) -> Timeout:
        """Have a time-out of the caller's making fire at `when`, in seconds as `time()` gives them.

        Returns it. For kinds of its own. Raises ValueError for a time that is not finite.
        """
        # The first tick that is not before `when`. A tick stands for the moment origin + tick * TICK,
        # computed in this one way everywhere; the rounding is corrected against it, so that no time-out
        # is early by an ulp.
        try:
            tick = _ceil((when - self._origin) / TICK)
        except (OverflowError, ValueError):
            raise ValueError(f"a time-out must be at a finite time, not {when!r}") from None
        if self._origin + tick * TICK < when:
            tick += 1
        if self._host is None or self._running:
            self._wheel.add(timeout, tick)
        else:
            before = self._wheel.next_tick()
            self._wheel.add(timeout, tick)
            if self._wheel.next_tick() != before:
                self._host.handle_sooner()
        return timeout

    def call_every(
        self,
        interval: float,
        callback: Callable[[Unpack[Arguments]], object],
        *arguments: *Arguments,
    ) -> Timeout:
        """Call it every `interval` seconds, the first time in `interval` seconds.

        The times are multiples of the interval from now: they do not drift. Times that were missed,
        because the loop was held up, are skipped and not made up for.
        Raises ValueError for an interval that is not positive and finite.
        """
        self._check()
        if not (math.isfinite(interval) and interval > 0.0):
            raise ValueError(f"an interval must be a positive number of seconds, not {interval!r}")
        action = partial(callback, *arguments) if arguments else callback
        return _Repetition(self, interval, action)

    def call_after_events(self, callback: Callable[[], object]) -> None:
        """Call it when the descriptors of this pass have had their turn, before time-outs fire: for what
        has been read, which is to count before a deadline for it does. After Ctrl-C, which may come before
        it has done a thing, it is called again by the next pass."""
        self._check()
        self._after_events.append(callback)
        if self._host is not None and not self._running:
            self._host.handle_sooner()

    def call_at_stage_end(self, callback: Callable[[], object]) -> None:
        """Call it when this stage of the pass is over, before posted callbacks: for what gathers work
        of many events, to pass it on as one."""
        self._check()
        self._at_stage_end.append(callback)
        if self._host is not None and not self._running:
            self._host.handle_sooner()

    # -- descriptors -----------------------------------------------------------------------------

    def register(
        self, fileobj: FileDescriptorLike, events: int, callback: Callable[[int], object]
    ) -> Channel:
        """Call `callback(ready)` in each pass that finds `fileobj` ready for any of `events`.

        `events` is READ, WRITE, or both; 0 registers without waiting for anything yet. Readiness is
        level-triggered. An error or a hang-up counts as readiness for whatever is waited for.
        Raises ValueError for a bad descriptor or mask, KeyError for one that is registered, OSError
        where the system cannot wait for it (a regular file).
        """
        self._check()
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        if fd < 0:
            raise ValueError(
                f"{fileobj!r} is closed, or no descriptor at all ({fd}); register it while it is open"
            )
        channel = Channel(callback)
        self.watch(channel, fd, events)
        return channel

    def watch(self, channel: Watched, fd: int, events: int) -> None:
        """As `register`, for what is its own channel, and is called itself. If it raises, nothing is.

        A connection is: with a Channel, and a method bound for that, an idle one was a tenth larger.
        """
        self._check()
        _check_events(events)
        if fd in self._watched:
            raise KeyError(f"descriptor {fd} is registered already; modify it instead")
        if events:
            self._poller.register(fd, events)
        channel.fd, channel.events = fd, events
        self._watched[fd] = channel
        if self._running:
            self._new.add(fd)
        if self.lent:
            self.wake()  # who waits does not know of it

    def modify(self, fileobj: FileDescriptorLike, events: int) -> None:
        """Wait for `events` from now on, in this very pass too. `fileobj` may be the Channel.

        Raises KeyError for what is not registered, ValueError for a bad mask.
        """
        self._check()
        _check_events(events)
        self.wait_for(self._watched_as(fileobj), events)

    def wait_for(self, channel: Watched, events: int) -> None:
        """As `modify`, of what is watched: it is not looked whether it is."""
        self._check()
        before = channel.events
        if before == events:
            return
        # Pollers have no notion of a descriptor that waits for nothing.
        if not events:
            self._poller.unregister(channel.fd)
        elif not before:
            self._poller.register(channel.fd, events)
        else:
            self._poller.modify(channel.fd, events)
        channel.events = events
        if self.lent:
            self.wake()

    def unregister(self, fileobj: FileDescriptorLike) -> None:
        """Forget it: no callback comes any more, in this very pass too. Before closing it, please.

        Raises KeyError for what is not registered.
        """
        self._check()
        self.forget(self._watched_as(fileobj))

    def forget(self, channel: Watched) -> None:
        """As `unregister`, of what is watched: it is not looked whether it is."""
        self._check()
        fd, channel.fd = channel.fd, -1
        del self._watched[fd]
        if channel.events:
            channel.events = 0
            self._poller.unregister(fd)
            if self.lent:
                self.wake()  # nobody may wait for a descriptor that is about to be closed

    def _watched_as(self, fileobj: FileDescriptorLike) -> Watched:
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        channel = self._watched.get(fd)
        if channel is None or (isinstance(fileobj, Channel) and fileobj is not channel):
            raise KeyError(f"{fileobj!r} is not registered; register it first, and once")
        return channel

    def shared(self, kind: Callable[[Reactor], T]) -> T:
        """What `kind` makes for this reactor, the same for all who ask: what those on one loop have in
        common. Any thread."""
        made: T | None = self._shared.get(kind)
        if made is None:
            # One step: of two threads, the first one's stays.
            made = self._shared.setdefault(kind, kind(self))
        assert made is not None
        return made

    # -- the rest --------------------------------------------------------------------------------

    def in_loop_thread(self) -> bool:
        """Whether the caller runs on the loop's thread, inside `run` or `run_once`. Any thread."""
        return self._running and self.thread == threading.get_ident()

    def in_other_thread(self) -> bool:
        """Whether the reactor belongs to another thread than the caller's. Any thread."""
        thread = self.thread
        return thread != 0 and thread != threading.get_ident()

    def statistics(self) -> Statistics:
        """A snapshot of the counters. Any thread: each number is right, all together are close."""
        return Statistics(
            passes=self.passes,
            wakeups=self._waker.wakeups,
            events=self._events,
            callbacks=self._callbacks,
            timeouts_fired=self._fired,
            timeouts_waiting=len(self._wheel),
            channels=len(self._watched),
        )

    def _check(self) -> None:
        if self._closed or self.forked:
            self._check_process()
        thread = self.thread
        if thread and thread != threading.get_ident():
            self.check_thread()

    def check_thread(self) -> None:
        """Raise WrongThreadError if the reactor belongs to another thread than the caller's. Any thread.

        For what is the loop's alone, and uses no method of the reactor that would say so.
        """
        if self.thread and self.thread != threading.get_ident():
            raise WrongThreadError(
                "this is for the thread that runs the reactor; "
                "from another one, use call_soon_threadsafe"
            )

    def _check_process(self) -> None:
        if self.forked:
            raise self.fork_error()
        raise ReactorClosedError("this reactor has been closed; make a new one")

    def fork_error(self) -> ForkError:
        """What to raise for a use of something of this reactor's, when it is `forked`."""
        return ForkError(
            "this belongs to the process from which this one was forked, and is shared with it; "
            "make a new reactor, server or client in the child"
        )

    def __repr__(self) -> str:
        state = "closed" if self._closed else "running" if self._running else "idle"
        return (
            f"<Reactor {state}, {len(self._watched)} channels, "
            f"{len(self._wheel)} time-outs, {self.passes} passes>"
        )


class _Repetition(Timeout):
    """A time-out that puts itself back into the wheel."""

    __slots__ = ("_interval", "_next", "_reactor")

    def __init__(self, reactor: Reactor, interval: float, action: Callable[[], object]) -> None:
        super().__init__(action)
        self._reactor = reactor
        self._interval = interval
        self._next = reactor.time() + interval
        reactor.put(self, self._next)

    def fire(self) -> None:
        action = self._callback
        if action is None:
            return
        reactor = self._reactor
        # Back into the wheel first: the action may cancel, and may raise. The next time is the first
        # multiple that is still to come.
        behind = reactor.pass_time - self._next
        self._next += self._interval * (1 + max(0, math.floor(behind / self._interval)))
        reactor.put(self, self._next)
        action()


def _run_gathered(gathered: deque[Callable[[], object]], *, again: bool = False) -> None:
    """Call each. With `again`, one that Ctrl-C has ended, perhaps at its first step, has another turn."""
    for _ in range(len(gathered)):
        callback = gathered.popleft()
        try:
            callback()
        except Exception:
            _log_failure(callback)
        except BaseException:
            if again:
                gathered.appendleft(callback)
            raise


def _log_failure(callback: object) -> None:
    logger.exception("a callback of the loop raised: %r", callback)


def _check_events(events: int) -> None:
    if events & ~(READ | WRITE):
        raise ValueError(f"events must be READ, WRITE, both or 0, not {events!r}")
