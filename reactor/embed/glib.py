"""In GLib's main loop, and so in GTK programs: a source watches the reactor's descriptor.

Inline handlers, and the reactor's own callbacks, run on the thread that runs the main context, where they
may use widgets, and must not block.
"""

from __future__ import annotations

from collections.abc import Callable

from gi.repository import GLib

from reactor.embed.embedding import BUDGET, Embedding
from reactor.loop import Reactor

__all__ = ["attach"]


def attach(
    reactor: Reactor, *, priority: int = GLib.PRIORITY_DEFAULT, budget: float = BUDGET
) -> Embedding:
    """Have the default main context drive the reactor. The thread that runs it.

    GTK draws at a lower priority than the default: to a busy server, a window that is to stay fluid is
    given `GLib.PRIORITY_DEFAULT_IDLE`, at which the reactor waits for the drawing. Raises as
    `Reactor.set_host` does.
    """
    return Embedding(reactor, _Host(priority), budget)


class _Host:
    def __init__(self, priority: int) -> None:
        self._priority = priority
        self._watch = self._timer = 0  # ids of sources; 0: none

    def begin(self, on_ready: Callable[[], None], on_time: Callable[[], None]) -> None:
        self._on_ready, self._on_time = on_ready, on_time

    def watch(self, fd: int) -> None:
        self._watch = GLib.unix_fd_add_full(
            self._priority, fd, GLib.IOCondition.IN, self._handle_readable
        )

    def _handle_readable(self, _fd: int, _condition: GLib.IOCondition) -> bool:
        watch = self._watch
        self._on_ready()
        return watch == self._watch  # else it has been removed, and perhaps made anew

    def unwatch(self, fd: int) -> None:
        GLib.source_remove(self._watch)
        self._watch = 0

    def set_timer(self, delay: float) -> None:
        self._cancel_timer()
        self._timer = GLib.timeout_add(
            round(delay * 1e3), self._handle_time, priority=self._priority
        )

    def _handle_time(self) -> bool:
        self._timer = 0
        self._on_time()
        return GLib.SOURCE_REMOVE

    def _cancel_timer(self) -> None:
        if self._timer:
            GLib.source_remove(self._timer)
            self._timer = 0

    def post(self) -> None:
        GLib.idle_add(self._handle_post, priority=self._priority)

    def _handle_post(self) -> bool:
        self._on_ready()
        return GLib.SOURCE_REMOVE

    def end(self) -> None:
        self._cancel_timer()

    def __repr__(self) -> str:
        return "GLib"
