"""How a server keeps within its memory.

Owns what is done while its connections hold too much together (`reactor.ledger` counts it): whoever
holds more than a share is not read from, what is read comes in small pieces, and less may wait to be
sent before a peer has to read first. Who holds little goes on as before. It runs on the loop's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from reactor import Ledger, Reactor, Timeout
from tao.session import Session

__all__ = ["LEAST_SHARE", "MemoryBudget", "check_memory_limit", "default_memory_limit"]

LEAST_SHARE = 4096
"""Bytes that every connection must be able to hold, come what may: one small read."""

SWEEP_INTERVAL = 0.01
"""Seconds between two looks at all connections while they hold too much."""


def default_memory_limit(max_connections: int) -> int:
    """Bytes: a quarter of a gigabyte, or for very many connections 64 KiB each."""
    return max(268_435_456, 65_536 * max_connections)


def check_memory_limit(limit: int, max_connections: int) -> None:
    """Raise ValueError unless so many bytes are enough for so many connections."""
    if limit < 4 * LEAST_SHARE * max_connections:
        raise ValueError(
            f"memory_limit must be at least {4 * LEAST_SHARE} bytes for each of max_connections, "
            f"{4 * LEAST_SHARE * max_connections} in all, not {limit!r}"
        )


class MemoryBudget:
    """The ledger of a server, and what follows from it."""

    def __init__(
        self,
        reactor: Reactor,
        limit: int,
        max_connections: int,
        buffer_size: int,
        sessions: Callable[[], Iterable[Session[Any]]],
    ) -> None:
        self._reactor = reactor
        self._sessions = sessions
        self._sweeping: Timeout | None = None  # the loop's thread
        # Set by whichever thread finds the limit passed, cleared by the loop: to ask twice does no harm.
        self._asked = False
        self.ledger: Ledger = Ledger(
            reactor, limit, max_connections, room=buffer_size, on_pressure=self._ask
        )

    def _ask(self) -> None:
        if not self._asked:
            self._asked = True
            self._reactor.post(self._begin)
            self._reactor.wake()

    def _begin(self) -> None:
        self._asked = False
        ledger = self.ledger
        if self._sweeping is not None or not (ledger.pressed or ledger.total > ledger.high):
            return
        ledger.press()
        self._sweeping = self._reactor.call_every(SWEEP_INTERVAL, self._sweep)
        self._sweep()

    def _sweep(self) -> None:
        """Every so often, and not with each change: O(connections), and only while it is needed."""
        ledger = self.ledger
        if ledger.total <= ledger.low:
            self.end()
        for session in self._sessions():
            session.weigh()

    def end(self) -> None:
        """Look no more; also when the server stops. Twice is once. The loop's thread."""
        self.ledger.ease()
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None

    def __repr__(self) -> str:
        return f"<MemoryBudget {self.ledger!r}>"
