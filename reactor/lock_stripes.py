"""Locks for many.

Owns LockStripes: of the connections of one loop, hundreds of which may share a lock. Such a lock is held
for a few steps, never while another one is taken, and never for long, so that whose it is makes no
difference to who waits. Any thread.
"""

from __future__ import annotations

import itertools

from reactor.loop import Reactor
from reactor.waker import Lock

__all__ = ["LockStripes"]

STRIPES = 64
"""So many at the most: that two threads of a pool meet at one is rare by then. With a lock for
each, an idle connection was a tenth larger."""


class LockStripes:
    """Made by the first who asks, and given out in turn."""

    __slots__ = ("_locks", "_reactor", "_turns")

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        # A step of it is one of the interpreter's, whichever threads take one.
        self._turns = itertools.cycle(range(STRIPES))
        # Only appended to: of two threads that do so at once, one has made a lock for a later turn.
        self._locks: list[Lock] = []

    def next(self) -> Lock:
        """One that may be others' too."""
        turn = next(self._turns)
        while turn >= len(self._locks):
            self._locks.append(self._reactor.system.lock())
        return self._locks[turn]

    def __repr__(self) -> str:
        return f"<LockStripes {len(self._locks)} of {STRIPES}>"
