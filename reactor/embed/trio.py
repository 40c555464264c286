"""In trio: a task waits for the reactor's descriptor or its time-out, and makes the passes.

Inline handlers, and the reactor's own callbacks, run on trio's thread, in that task. What they raise is
logged as ever, and does not end the nursery.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVarTuple, Unpack

import trio

from reactor.embed.embedding import BUDGET, Embedding
from reactor.loop import Reactor

__all__ = ["Nursery", "attach"]


Arguments = TypeVarTuple("Arguments")


class Nursery(Protocol):
    """What is used of a `trio.Nursery`: known where trio is not installed, too. Trio's thread."""

    def start_soon(
        self,
        async_fn: Callable[[Unpack[Arguments]], Awaitable[object]],
        /,
        *args: *Arguments,
        name: object = None,
    ) -> None:
        """Start a task."""
        ...


def attach(reactor: Reactor, nursery: Nursery, *, budget: float = BUDGET) -> Embedding:
    """Have a task in `nursery` drive the reactor, until `detach` or until the nursery is cancelled.

    On trio's thread. Raises as `Reactor.set_host` does.
    """
    host = _Host()
    embedding = Embedding(reactor, host, budget)
    nursery.start_soon(host.drive, embedding, name="reactor")
    return embedding


class _Host:
    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._scope = trio.CancelScope()  # of the task's present sleep
        self._deadline = math.inf  # in trio's time
        self._ready = False  # a post has come
        self._fd: int | None = None
        self._over = False

    async def drive(self, embedding: Embedding) -> None:
        """The task."""
        try:
            while await self._sleep():
                self._ready = False
                if trio.current_time() >= self._deadline:
                    self._deadline = math.inf
                    self._on_time()
                else:
                    self._on_ready()
        finally:
            embedding.detach()  # it may be that the nursery has been cancelled

    async def _sleep(self) -> bool:
        """Until there is something to do; False when there will not be any more."""
        if self._over:
            return False
        with trio.CancelScope(deadline=self._deadline) as self._scope:
            if self._ready:
                await trio.lowlevel.checkpoint()
            elif self._fd is None:
                await trio.sleep_forever()
            else:
                try:
                    await trio.lowlevel.wait_readable(self._fd)
                except trio.ClosedResourceError:
                    pass  # `unwatch`
        return not self._over

    def begin(self, on_ready: Callable[[], None], on_time: Callable[[], None]) -> None:
        self._on_ready, self._on_time = on_ready, on_time

    def watch(self, fd: int) -> None:
        self._fd = fd

    def unwatch(self, fd: int) -> None:
        self._fd = None
        trio.lowlevel.notify_closing(fd)

    def set_timer(self, delay: float) -> None:
        self._deadline = self._scope.deadline = trio.current_time() + delay

    def post(self) -> None:
        self._token.run_sync_soon(self._wake)

    def _wake(self) -> None:
        self._ready = True
        self._scope.cancel()

    def end(self) -> None:
        self._over = True
        self._scope.cancel()

    def __repr__(self) -> str:
        return "trio"
