"""In Tk's event loop: a file handler watches the reactor's descriptor; where Tk has none, a thread does.

Inline handlers, and the reactor's own callbacks, run on Tk's thread, where they may use widgets, and must
not block.
"""

from __future__ import annotations

import _tkinter
import threading
import tkinter
from collections.abc import Callable
from typing import Protocol, cast

from reactor.embed.embedding import BUDGET, Embedding
from reactor.loop import Reactor

__all__ = ["Widget", "attach"]


_DO_WHAT_IS_ASKED = _tkinter.DONT_WAIT | _tkinter.FILE_EVENTS
"""Flags of Tcl_DoOneEvent(3): what other threads ask for is done with any; timers and windows wait."""


class Widget(Protocol):
    """Any of tkinter's widgets, such as the root. Tk's thread.

    What tells one from other things: the types that the standard library's own class comes with are not
    all known, and so are none that are made of them.
    """

    def update_idletasks(self) -> None:
        """Draw."""
        ...

    def deletecommand(self, name: str) -> None:
        """Forget one of Tcl's commands."""
        ...


def attach(reactor: Reactor, root: Widget, *, budget: float = BUDGET) -> Embedding:
    """Have the event loop of `root`, any widget of the program, drive the reactor. Tk's thread.

    Detach before the widget is destroyed; after that nothing drives the reactor. Raises as
    `Reactor.set_host` does.
    """
    return Embedding(reactor, _Host(cast(tkinter.Misc, root)), budget)


class _Host:
    def __init__(self, root: tkinter.Misc) -> None:
        self._root = root
        self._timer: str | None = None
        self._command = ""  # Tcl's name for `_handle_ready`
        self._over = False
        self._posting = (
            threading.Lock()
        )  # held by the thread that waits, while Tk's is to do something

    def begin(self, on_ready: Callable[[], None], on_time: Callable[[], None]) -> None:
        self._on_ready, self._on_time = on_ready, on_time
        self._command = self._root.register(self._handle_ready)

    def watch(self, fd: int) -> None:
        try:
            create = self._root.tk.createfilehandler
        except AttributeError:
            raise NotImplementedError("Tk watches no descriptors on Windows") from None
        create(fd, tkinter.READABLE, lambda _fd, _mask: self._handle_ready())

    def _handle_ready(self) -> None:
        self._on_ready()
        self._draw()

    def _draw(self) -> None:
        # Tk draws when there is no event left; a busy server's descriptor is one without end.
        if not self._over:
            self._root.update_idletasks()

    def unwatch(self, fd: int) -> None:
        self._root.tk.deletefilehandler(fd)

    def set_timer(self, delay: float) -> None:
        self._cancel_timer()
        self._timer = self._root.after(round(delay * 1e3), self._handle_time)

    def _handle_time(self) -> None:
        self._timer = None
        self._on_time()
        self._draw()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._root.after_cancel(self._timer)
            self._timer = None

    def post(self) -> None:
        with self._posting:
            while not self._over:
                try:
                    # Tk has its own thread do this, and waits for it. An event would be lost where there
                    # is no window yet; the command may be gone when its turn comes.
                    self._root.tk.call("after", 0, f"catch {self._command}")
                    return
                except RuntimeError:
                    pass  # the main loop does not run; Tk has waited a second for it

    def end(self) -> None:
        self._over = True
        # Who is in there waits for this thread, and if Tk's loop ends now, for ever.
        while not self._posting.acquire(timeout=0.001):
            self._root.tk.dooneevent(_DO_WHAT_IS_ASKED)
        self._posting.release()
        try:
            self._cancel_timer()
            self._root.deletecommand(self._command)
        except tkinter.TclError:
            pass  # the widget has been destroyed

    def __repr__(self) -> str:
        return f"Tk {self._root}"
