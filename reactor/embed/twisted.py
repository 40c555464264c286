"""In twisted: its reactor watches the descriptor of ours.

Inline handlers, and the reactor's own callbacks, run on twisted's thread, where they may use its Deferreds
and transports, and must not block.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from reactor.embed.embedding import BUDGET, Embedding
from reactor.loop import Reactor

__all__ = ["attach"]


def attach(reactor: Reactor, host: object = None, *, budget: float = BUDGET) -> Embedding:
    """Have `host`, a reactor of twisted's, drive this one; `twisted.internet.reactor` if none is given.

    `host` provides IReactorFDSet, IReactorTime and IReactorThreads, as all of twisted's do but that of
    I/O completion ports, under which a thread waits. On the thread that `host` runs on. Raises as
    `Reactor.set_host` does.
    """
    if host is None:
        # Imported late: the import chooses the reactor, unless the program has installed one.
        host = importlib.import_module("twisted.internet.reactor")
    return Embedding(reactor, _Host(host), budget)


class _Reader:
    """Implements twisted's IReadDescriptor, whose methods are asked for and not its declaration."""

    def __init__(self, fd: int, on_ready: Callable[[], None]) -> None:
        self._fd = fd
        self._on_ready = on_ready

    def fileno(self) -> int:
        return self._fd

    def doRead(self) -> None:
        self._on_ready()

    def connectionLost(self, reason: object) -> None:
        """The host lets go of all it watches, at its end."""

    def logPrefix(self) -> str:
        return "reactor"


class _Host:
    def __init__(self, host: Any) -> None:
        self._host = host
        self._reader: _Reader | None = None
        self._timer: Any = None

    def begin(self, on_ready: Callable[[], None], on_time: Callable[[], None]) -> None:
        self._on_ready, self._on_time = on_ready, on_time

    def watch(self, fd: int) -> None:
        if not hasattr(self._host, "addReader"):
            raise NotImplementedError("this reactor of twisted's watches no descriptors")
        self._reader = _Reader(fd, self._on_ready)
        self._host.addReader(self._reader)

    def unwatch(self, fd: int) -> None:
        self._host.removeReader(self._reader)

    def set_timer(self, delay: float) -> None:
        self._cancel_timer()
        self._timer = self._host.callLater(delay, self._on_time)

    def _cancel_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def post(self) -> None:
        self._host.callFromThread(self._on_ready)

    def end(self) -> None:
        self._cancel_timer()

    def __repr__(self) -> str:
        return f"twisted {self._host!r}"
