"""What all hosts have in common: when a pass is made, and what wakes the host for the next one.

Contents: HostLoop (what a host must be able to do), Embedding (a reactor and its host).

Owns no loop and no reactor. The host watches the reactor's descriptor, which is readable when a pass has
something to do, and keeps one timer, for the reactor's time-out; where it cannot watch descriptors, or
there is none, a thread waits instead. Nothing is asked periodically: an idle reactor costs its host
nothing. Everything is for the host's thread, but for what says "any thread".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import TracebackType
from typing import Protocol

from reactor.embed.waiter import Waiter
from reactor.loop import Reactor

__all__ = ["BUDGET", "Embedding", "HostLoop"]

BUDGET = 0.001
"""Seconds that a reactor may use, unless it is set otherwise, before its host has its turn."""

SLACK = 1e-5
"""Seconds that a timer which is set already may be late without being set anew."""


class HostLoop(Protocol):
    """A loop that can drive a reactor. The host's thread, but for `post`."""

    def begin(self, on_ready: Callable[[], None], on_time: Callable[[], None]) -> None:
        """Take what is to be called, on this thread and from now on."""
        ...

    def watch(self, fd: int) -> None:
        """Call `on_ready()` whenever the descriptor is readable. Not called twice in a row.

        Raises NotImplementedError where the host cannot.
        """
        ...

    def unwatch(self, fd: int) -> None:
        """Undo `watch`."""
        ...

    def set_timer(self, delay: float) -> None:
        """Call `on_time()` once in `delay` seconds, a whole number of milliseconds; 0 is soon, but after
        others have had a turn. The timer that was set before is called off."""
        ...

    def post(self) -> None:
        """Call `on_ready()` soon. Any thread. Raises when the host is gone."""
        ...

    def end(self) -> None:
        """Call off the timer and release what there is; nothing is called any more. Must not raise."""
        ...


class Embedding:
    """A reactor and the host that drives it, until `detach`. The host's thread.

    Also a context manager, which detaches in the end. `budget` is how many seconds a turn of the
    reactor's may take before it lets the host go on; a callback is not interrupted. Raises ValueError for
    one that is not positive, and as `Reactor.set_host` does.
    """

    def __init__(self, reactor: Reactor, host: HostLoop, budget: float = BUDGET) -> None:
        if not budget > 0.0:
            raise ValueError(f"budget must be a positive number of seconds, not {budget!r}")
        self._reactor = reactor
        self._host = host
        self._budget = budget
        self._fd: int | None = reactor.fileno()
        self._waiter: Waiter | None = None
        self._watched = False
        self._due = math.inf  # monotonic seconds: when the host's timer expires
        reactor.set_host(self)
        self._attached = True
        try:
            host.begin(self._handle_ready, self._handle_time)
            try:
                self._watch()
            except NotImplementedError:
                self._fd = None
            if self._fd is None:
                self._waiter = Waiter(reactor, host.post)
            self._plan()
        except BaseException:
            self.detach()
            raise

    @property
    def reactor(self) -> Reactor:
        """The one that is driven."""
        return self._reactor

    @property
    def attached(self) -> bool:
        """Whether the host still drives it. Any thread."""
        return self._attached

    def detach(self) -> None:
        """Have the host drive the reactor no more; callbacks of the reactor's may call it too.

        What is registered and timed stays, for another host, or for `run` on any thread. A server is
        stopped before this, since nothing would see to its end after it. Twice is once. Raises
        WrongThreadError, and ForkError in a forked child.
        """
        if not self._attached:
            return
        self._reactor.set_host(None)
        self._attached = False
        if self._waiter is not None:
            self._waiter.end()
        self._unwatch()
        self._host.end()

    # -- what the host calls ---------------------------------------------------------------------

    def _handle_time(self) -> None:
        self._due = math.inf
        self._handle_ready()

    def _handle_ready(self) -> None:
        """The descriptor is readable, or something is due."""
        reactor = self._reactor
        if not self._attached:
            return  # it was on its way
        if reactor.running:
            # A callback of the pass further down has run the host's loop: a dialog, say. The descriptor
            # stays readable until that returns, and would be reported without end.
            self._unwatch()
            return
        if self._waiter is not None:
            self._waiter.take_back()
        try:
            reactor.run_once(0, budget=self._budget)
        finally:
            if self._attached:
                self._watch()
                self._plan()

    # -- what the reactor calls ------------------------------------------------------------------

    def handle_sooner(self) -> None:
        """Implements `reactor.Host`."""
        if self._waiter is not None:
            self._reactor.wake()  # its thread comes back, and is sent again for a shorter time
        else:
            self._plan()

    def handle_close(self) -> None:
        """Implements `reactor.Host`."""
        self.detach()

    # -- the host's alarm ------------------------------------------------------------------------

    def _watch(self) -> None:
        if not self._watched and self._fd is not None:
            self._host.watch(self._fd)
            self._watched = True

    def _unwatch(self) -> None:
        if self._watched and self._fd is not None:
            self._watched = False
            self._host.unwatch(self._fd)

    def _plan(self) -> None:
        """See to it that the host wakes in time."""
        timeout = self._reactor.timeout()
        if self._waiter is not None:
            self._waiter.hand_over(timeout)
            return
        if timeout is None:
            return  # a timer may still be set: it will find nothing to do, once
        due = self._reactor.time() + timeout
        # One that expires earlier stays: to set a timer anew in each pass costs more than to wake once
        # for nothing.
        if due < self._due - SLACK:
            self._due = due
            # Up: hosts that count in milliseconds would come early, and again until it is time.
            self._host.set_timer(math.ceil(timeout * 1e3) * 1e-3)

    def __enter__(self) -> Embedding:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.detach()

    def __repr__(self) -> str:
        state = "in" if self._attached else "detached from"
        return f"<Embedding of {self._reactor!r} {state} {self._host!r}>"
