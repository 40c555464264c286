"""Resources that may not be shared by threads: database connections, mostly.

Owns the resources that its factory makes, from then until `close_all`. It knows nothing of databases.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar, cast

from tao.errors import TaoError

__all__ = ["DataSource"]

logger: logging.Logger = logging.getLogger("tao")

T_co = TypeVar("T_co", covariant=True)


class DataSource(Generic[T_co]):
    """One resource for each thread that asks: each worker has its own, and none waits for another's.

    `factory` makes one, on the thread that will use it. `close` ends one; None: there is nothing to
    end. A server that is given the data source calls `close_all` when it has stopped and all handlers
    have returned; without a server, the program does.

    `close` is called on another thread than the one that used the resource. The standard library's
    sqlite3 refuses that unless it is asked not to:

        db = DataSource(lambda: sqlite3.connect(path, check_same_thread=False), sqlite3.Connection.close)

    A thread that ends leaves its resource open until `close_all`; a server's workers live as long as
    the server, those of an executor of your own perhaps not. Raises TypeError for what is no function.
    """

    __slots__ = ("_close", "_closed", "_factory", "_local", "_lock", "_resources")

    def __init__(
        self, factory: Callable[[], T_co], close: Callable[[T_co], object] | None = None
    ) -> None:
        if not callable(factory):
            raise TypeError(f"factory must be a function that makes a resource, not {factory!r}")
        if close is not None and not callable(close):
            raise TypeError(f"close must be a function of a resource, or None, not {close!r}")
        self._factory = factory
        # It is given what the factory has made, and nothing else.
        self._close = cast(Callable[[object], object] | None, close)
        self._local = threading.local()  # `resource`: this thread's, once it has one
        # Orders "made" against "all are closed", so that nothing is made and then forgotten.
        self._lock = threading.Lock()
        self._resources: deque[object] = (
            deque()
        )  # added to under the lock; in the order of their making
        self._closed = False  # set under the lock, and only ever set

    def get(self) -> T_co:
        """This thread's resource, which is made the first time. Any thread.

        Raises what the factory raises; the next call tries again. Raises TaoError after `close_all`.
        """
        if self._closed:
            raise _closed_error()
        try:
            return cast(T_co, self._local.resource)
        except AttributeError:
            pass  # outside of here, so that what the factory raises does not look like its consequence
        resource = self._factory()
        if not self._keep(resource):
            self._close_one(resource)
            raise _closed_error()
        self._local.resource = resource
        return resource

    def _keep(self, resource: object) -> bool:
        """Note it for `close_all`; False if that was called while it was made."""
        with self._lock:
            if not self._closed:
                self._resources.append(resource)
            return not self._closed

    def close_all(self) -> None:
        """Close every resource, in the order of their making; from now on there are none.

        Each is closed once, however often and on however many threads this is called. One whose close
        raises is logged, and the others are closed all the same. Any thread, when none uses its
        resource any more.
        """
        with self._lock:
            self._closed = True
        while True:
            try:
                # One at a time and in one step: another call, or one after a KeyboardInterrupt in here,
                # goes on with the rest.
                resource = self._resources.popleft()
            except IndexError:
                break
            self._close_one(resource)
        self._local = threading.local()  # lets go of what `close` has not made an end of

    def _close_one(self, resource: object) -> None:
        if self._close is None:
            return
        try:
            self._close(resource)
        except Exception:
            logger.exception("closing %r of a data source failed", resource)

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self._resources)} resources"
        return f"<DataSource {state}>"


def _closed_error() -> TaoError:
    return TaoError(
        "this data source has been closed: no handler may use it after the server's stop"
    )
