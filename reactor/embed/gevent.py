"""In gevent's hub: a greenlet waits for the reactor's descriptor or its time-out, and makes the passes.

Inline handlers, and the reactor's own callbacks, run in that greenlet, always the same one, where they may
use what in gevent looks as if it blocked: others run meanwhile, but the reactor does not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import gevent
from gevent.event import AsyncResult, Event
from gevent.monkey import get_original

from reactor.embed.embedding import BUDGET, Embedding
from reactor.errors import WrongThreadError
from reactor.loop import Reactor

__all__ = ["attach"]

READABLE = 1  # as gevent's loops count

T = TypeVar("T")

_thread = get_original("_thread", "get_ident")  # the system's, of which a hub has one


def attach(reactor: Reactor, *, budget: float = BUDGET) -> Embedding:
    """Have a greenlet of the calling thread's hub drive the reactor; `detach` in any of that hub's.

    In a program whose threads are patched a greenlet counts as a thread, here as well: the reactor
    belongs to the one that drives it, and others may use of it what any thread may. Raises as
    `Reactor.set_host` does.
    """
    host = _Host()
    try:
        return host.call(lambda: _Embedding(reactor, host, budget))
    except BaseException:
        host.end()
        raise


class _Embedding(Embedding):
    def __init__(self, reactor: Reactor, host: _Host, budget: float) -> None:
        self._call = host.call
        super().__init__(reactor, host, budget)

    def detach(self) -> None:
        self._call(super().detach)


class _Host:
    def __init__(self) -> None:
        loop = gevent.get_hub().loop
        self._loop = loop
        self._jobs: list[Callable[[], None]] = []
        self._rung = Event()
        self._over = False
        self._io: gevent.Watcher | None = None
        self._timer = loop.timer(0.0)
        self._async = loop.async_()
        self._thread = _thread()
        self._greenlet = gevent.spawn(self._run)

    def call(self, function: Callable[[], T]) -> T:
        """Call it in the greenlet, and wait for what it returns."""
        if self._over or gevent.getcurrent() is self._greenlet:
            return function()
        if _thread() != self._thread:
            raise WrongThreadError(
                "this is for the greenlets of the hub that drives the reactor; call it from one of them"
            )
        result: AsyncResult[T] = AsyncResult()

        def job() -> None:
            try:
                result.set(function())
            except Exception as error:
                result.set_exception(error)

        self._do(job)
        return result.get()

    def _do(self, job: Callable[[], None]) -> None:
        self._jobs.append(job)
        self._rung.set()

    def _run(self) -> None:
        """The greenlet."""
        try:
            while not self._over:
                self._rung.wait()
                self._rung.clear()
                jobs, self._jobs = self._jobs, []
                for job in jobs:
                    job()
                if self._io is not None and not self._over:
                    self._io.start(self._handle_readable)
        finally:
            self.end()

    def begin(self, on_ready: Callable[[], None], on_time: Callable[[], None]) -> None:
        self._on_ready, self._on_time = on_ready, on_time
        self._async.start(lambda: self._do(on_ready))

    def watch(self, fd: int) -> None:
        self._io = self._loop.io(fd, READABLE)
        self._io.start(self._handle_readable)

    def _handle_readable(self) -> None:
        # Until the pass has been made: it may have to wait for a handler that others run beside.
        if self._io is not None:
            self._io.stop()
        self._do(self._on_ready)

    def unwatch(self, fd: int) -> None:
        if self._io is not None:
            self._io.stop()
            self._io.close()
            self._io = None

    def set_timer(self, delay: float) -> None:
        self._timer.stop()
        self._timer.close()
        self._timer = self._loop.timer(delay)
        self._timer.start(lambda: self._do(self._on_time), update=True)

    def post(self) -> None:
        self._async.send()

    def end(self) -> None:
        if not self._over:
            self._over = True
            self.unwatch(-1)
            for watcher in (self._timer, self._async):
                watcher.stop()
                watcher.close()
            self._rung.set()

    def __repr__(self) -> str:
        return "gevent"
