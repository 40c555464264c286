"""In Qt's event loop, by PySide6: a socket notifier watches the reactor's descriptor.

Inline handlers, and the reactor's own callbacks, run on the thread that `attach` was called on, as a rule
that of the windows; there they may use widgets, and must not block. One that opens a dialog which has an
event loop of its own holds the reactor up until the dialog is closed, and the program no further.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from PySide6.QtCore import QCoreApplication, QEvent, QObject, QSocketNotifier, Qt, QTimer

from reactor.embed.embedding import BUDGET, Embedding
from reactor.errors import HostError
from reactor.loop import Reactor

__all__ = ["attach"]


def attach(reactor: Reactor, *, budget: float = BUDGET) -> Embedding:
    """Have the event loop of the calling thread drive the reactor.

    Raises HostError when there is no QCoreApplication yet, and as `Reactor.set_host` does.
    """
    if QCoreApplication.instance() is None:
        raise HostError("make the QApplication first: without one, Qt has no event loop")
    return Embedding(reactor, _Host(), budget)


class _Inbox(QObject):
    """Gets events that other threads post."""

    def __init__(self, on_event: Callable[[], None]) -> None:
        super().__init__()
        self._on_event = on_event

    def event(self, event: QEvent) -> bool:
        if event.type() is not QEvent.Type.User:
            return super().event(event)
        self._on_event()
        return True


class _Host:
    def begin(self, on_ready: Callable[[], None], on_time: Callable[[], None]) -> None:
        self._on_ready = on_ready
        self._notifier: QSocketNotifier | None = None
        self._inbox = _Inbox(on_ready)
        self._timer = QTimer()
        self._timer.setSingleShot(True)
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(on_time)

    def watch(self, fd: int) -> None:
        if sys.platform == "win32":
            raise NotImplementedError("Qt watches sockets only")
        if self._notifier is None:
            self._notifier = QSocketNotifier(fd, QSocketNotifier.Type.Read)
            self._notifier.activated.connect(self._handle_activated)
        self._notifier.setEnabled(True)

    def _handle_activated(self) -> None:
        self._on_ready()

    def unwatch(self, fd: int) -> None:
        if self._notifier is not None:
            self._notifier.setEnabled(False)

    def set_timer(self, delay: float) -> None:
        self._timer.start(round(delay * 1e3))

    def post(self) -> None:
        QCoreApplication.postEvent(self._inbox, QEvent(QEvent.Type.User))

    def end(self) -> None:
        self._timer.stop()

    def __repr__(self) -> str:
        return "Qt"
