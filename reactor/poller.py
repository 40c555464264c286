"""What the loop sleeps in.

Contents: Poller, SelectorPoller, EpollPoller, default_poller.

Owns the kernel's event queue. A poller knows numbers only: descriptors and masks go in, descriptors
and masks come out. The loop's thread only.
"""

from __future__ import annotations

import math
import select
import selectors
import sys
from typing import Protocol

FINE = 0.005
"""Seconds up to which a sleep is timed by the microsecond."""

SELECTABLE = 1024
"""Descriptors from here on are beyond select(2), FD_SETSIZE."""

ALL = sys.maxsize
"""As many as there are."""

__all__ = ["ALL", "READ", "WRITE", "EpollPoller", "Poller", "SelectorPoller", "default_poller"]

READ: int = selectors.EVENT_READ
"""Wait until there is something to read, or to accept. A bit, to be or-ed with WRITE."""
WRITE: int = selectors.EVENT_WRITE
"""Wait until there is room for what is to be sent. A bit, to be or-ed with READ."""


class Poller(Protocol):
    """Waits for descriptors. Masks are READ, WRITE or both, and never 0."""

    def register(self, fd: int, events: int) -> None: ...
    def modify(self, fd: int, events: int) -> None: ...
    def unregister(self, fd: int) -> None: ...
    def poll(self, timeout: float | None, most: int = ALL) -> list[tuple[int, int]]:
        """Sleep for `timeout` seconds at the most (None: without end); which are ready, for what.

        `most` is how many to name; of more that are ready, each has its turn if one asks again.

        What is ready for reading and nothing else has READ as its mask; of any other mask, `events_of`
        says what it means.
        """
        ...

    def events_of(self, mask: int) -> int:
        """READ, WRITE or both, from a mask that `poll` has returned."""
        ...

    def fileno(self) -> int | None:
        """The queue's own descriptor, readable when something is ready; None where it has none."""
        ...

    def close(self) -> None: ...


class SelectorPoller:
    """Over any selector of the `selectors` module: kqueue, poll, select, or a user's own."""

    __slots__ = ("_named", "_selector")

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._named = 0  # so many were named when there were too many: where to go on

    def register(self, fd: int, events: int) -> None:
        self._selector.register(fd, events)

    def modify(self, fd: int, events: int) -> None:
        self._selector.modify(fd, events)

    def unregister(self, fd: int) -> None:
        self._selector.unregister(fd)

    def poll(self, timeout: float | None, most: int = ALL) -> list[tuple[int, int]]:
        found = [(key.fd, events) for key, events in self._selector.select(timeout)]
        if len(found) > most:
            # Always in the same order: the last ones would never be named.
            first = self._named % len(found)
            self._named += most
            found = (found[first:] + found[:first])[:most]
        return found

    def events_of(self, mask: int) -> int:
        return mask

    def fileno(self) -> int | None:
        fileno = getattr(self._selector, "fileno", None)
        return None if fileno is None else int(fileno())

    def close(self) -> None:
        self._selector.close()

    def __repr__(self) -> str:
        return f"SelectorPoller({self._selector!r})"


class EpollPoller:
    """epoll(7), without the selector's key objects: 0.3 of the 5 microseconds of an echo.

    Measured beside `selectors.EpollSelector` in the same run; see `python -m tests.bench`.
    """

    __slots__ = ("_epoll", "_fine", "_size")

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._fine = FINE if self._epoll.fileno() < SELECTABLE else 0.0
        self._size = 1

    def register(self, fd: int, events: int) -> None:
        self._epoll.register(fd, _TO_EPOLL[events])
        self._size += 1

    def modify(self, fd: int, events: int) -> None:
        self._epoll.modify(fd, _TO_EPOLL[events])

    def unregister(self, fd: int) -> None:
        self._size -= 1
        try:
            self._epoll.unregister(fd)
        except OSError:
            pass  # closed before it was unregistered: epoll has forgotten it by itself

    def poll(self, timeout: float | None, most: int = ALL) -> list[tuple[int, int]]:
        if not timeout:
            seconds = -1.0 if timeout is None else 0.0
        elif timeout < self._fine:
            # epoll_wait(2) counts in milliseconds, select(2) in microseconds: of many time-outs in a
            # second, 99 in 100 are less than 1.2 ms late and not 2.5. The call that it costs is one
            # of a loop that is about to sleep.
            select.select((self._epoll,), (), (), timeout)
            seconds = 0.0
        else:
            seconds = math.ceil(timeout * 1e3) * 1e-3  # down, the loop would spin for the last one
        # The kernel begins with those that it has not named for the longest time.
        size = self._size
        return self._epoll.poll(seconds, size if size < most else most)

    def events_of(self, mask: int) -> int:
        # As in `selectors`: an error or a hang-up is readiness for whatever is waited for.
        return (READ if mask & ~_EPOLLOUT else 0) | (WRITE if mask & ~_EPOLLIN else 0)

    def fileno(self) -> int | None:
        return self._epoll.fileno()

    def close(self) -> None:
        self._epoll.close()

    def __repr__(self) -> str:
        return f"<EpollPoller fd={-1 if self._epoll.closed else self._epoll.fileno()}>"


if hasattr(select, "epoll"):
    _EPOLLIN, _EPOLLOUT = select.EPOLLIN, select.EPOLLOUT
    assert _EPOLLIN == READ  # so that the usual mask need not be translated
    _TO_EPOLL = {READ: _EPOLLIN, WRITE: _EPOLLOUT, READ | WRITE: _EPOLLIN | _EPOLLOUT}


def default_poller() -> Poller:
    """The best that the system has."""
    if hasattr(select, "epoll"):
        return EpollPoller()
    return SelectorPoller(selectors.DefaultSelector())
