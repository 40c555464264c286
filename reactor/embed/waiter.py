"""A thread that waits for a reactor whose host cannot: where there is no descriptor to watch.

Owns the thread. Either it waits, or the host's thread makes passes, never both: the poller is handed to
and fro. Windows needs it, and selectors without a descriptor of their own.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

from reactor.loop import Reactor

__all__ = ["Waiter"]

logger: logging.Logger = logging.getLogger("reactor")


class Waiter:
    """Calls `post`, on its thread, when a pass has something to do. All else is for the host's thread."""

    def __init__(self, reactor: Reactor, post: Callable[[], None]) -> None:
        self._reactor = reactor
        self._post = post
        self._timeouts: queue.SimpleQueue[float | None] = queue.SimpleQueue()
        self._waiting = threading.Lock()  # held while the poller is in use
        self._over = threading.Event()
        # A daemon: a program that ends without detaching shall end.
        thread = reactor.system.thread(self._run, name="reactor-waiter", daemon=True)
        thread.start()

    def hand_over(self, timeout: float | None) -> None:
        """Wait, for `timeout` seconds at the most, then call `post`, once."""
        self._reactor.lent = True
        self._timeouts.put(timeout)

    def take_back(self) -> None:
        """It has called `post`: the poller is the host's."""
        self._reactor.lent = False

    def end(self) -> None:
        """Wait no more. On return the thread does nothing with the reactor any longer."""
        self._over.set()
        self._reactor.wake()
        with self._waiting:
            pass
        self._timeouts.put(None)

    def _run(self) -> None:
        while True:
            timeout = self._timeouts.get()
            with self._waiting:
                if self._over.is_set():
                    return
                try:
                    self._reactor.wait(timeout)
                except (OSError, ValueError):
                    pass  # a descriptor was closed meanwhile: the pass to come sees to it
            if self._over.is_set():
                return
            try:
                self._post()
            except Exception as error:
                logger.error("the host of %r cannot be reached any more: %s", self._reactor, error)
                return
