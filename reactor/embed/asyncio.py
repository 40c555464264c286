"""In asyncio, and so in uvloop: the reactor's passes are callbacks of the event loop.

Inline handlers, and the reactor's own callbacks, run on the event loop's thread, where they may use its
futures and tasks, and must not block.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from reactor.embed.embedding import BUDGET, Embedding
from reactor.loop import Reactor

__all__ = ["attach"]


def attach(
    reactor: Reactor, loop: asyncio.AbstractEventLoop | None = None, *, budget: float = BUDGET
) -> Embedding:
    """Have `loop` drive the reactor, or the loop that runs, if none is given. The loop's thread.

    On Windows' ProactorEventLoop, which cannot watch a descriptor, a thread waits for the reactor.
    Raises RuntimeError when no loop is given and none runs, and as `Reactor.set_host` does.
    """
    return Embedding(reactor, _Host(loop or asyncio.get_running_loop()), budget)


class _Host:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, on_ready: Callable[[], None], on_time: Callable[[], None]) -> None:
        self._on_ready, self._on_time = on_ready, on_time

    def watch(self, fd: int) -> None:
        self._loop.add_reader(fd, self._on_ready)

    def unwatch(self, fd: int) -> None:
        if not self._loop.is_closed():
            self._loop.remove_reader(fd)

    def set_timer(self, delay: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(delay, self._on_time)

    def post(self) -> None:
        self._loop.call_soon_threadsafe(self._on_ready)

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def __repr__(self) -> str:
        return repr(self._loop)
