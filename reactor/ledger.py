"""The byte ledger: what the connections of one server hold together, and what they may.

Owns two sums and the marks that they are held against. What a connection holds it says itself
(`reactor.connection` for what waits to be sent, the layer above for what has been read and not been
handled); what is done when it is too much is decided above (`tao.budget`).

A byte is charged when it comes to stay and by whoever brings it: by the loop for what it reads, by any
thread for what it writes. What passes through within one stage of a pass, read, handled and sent at once,
does not come to stay and is not charged.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from reactor.allocator import largest_read
from reactor.loop import Reactor

__all__ = ["Ledger"]

PRESSED_READ_SIZE = 4096
"""Bytes for a read while memory is short: each of a thousand may read once before it can be stopped."""

PRESSED_ROOM = 4
"""Messages that may wait on one connection meanwhile: of the smallest, that much could bring hundreds."""


class Ledger:
    """The sums of one server's connections, or of one client's.

    Of `limit` bytes, half may be held by anybody: above that mark, `high`, reading has to stop. What is
    written is taken up to three quarters. The last quarter is divided into `shares`: a connection that
    holds less than its share may go on even then, so that those who hold much stop themselves and
    not the others. Without `limit` it only counts.
    """

    __slots__ = (
        "_lock",
        "_on_pressure",
        "_usual_room",
        "high",
        "largest_read",
        "limit",
        "low",
        "moved",
        "posted",
        "pressed",
        "room",
        "share",
        "write_limit",
    )

    def __init__(
        self,
        reactor: Reactor,
        limit: int | None = None,
        shares: int = 1,
        *,
        room: int = 256,
        on_pressure: Callable[[], object] | None = None,
    ) -> None:
        self.limit: int = sys.maxsize if limit is None else limit
        self.high: int = self.limit // 2
        """Bytes above which reading stops for who holds more than a share."""
        self.low: int = self.limit // 8 * 3
        """Bytes below which it goes on for all."""
        self.write_limit: int = self.limit // 4 * 3
        """Bytes above which writing is refused to who holds more than a share."""
        self.share: int = self.limit // 4 // shares
        """Bytes that a connection may always hold."""
        self._lock = reactor.system.lock()
        self._on_pressure = on_pressure
        self.posted: int = 0
        """Bytes charged by `post`, ever. Under the lock; read without it, it is a moment old."""
        self.moved: int = 0
        """What the loop has added and taken away; with `posted`, the sum. Written on the loop's thread."""
        self.pressed: bool = False
        """Whether `high` was passed and `low` not reached since. Written on the loop's thread."""
        self.largest_read: int = largest_read()
        """Bytes that may be read from a connection in a pass. The loop's thread."""
        self.room: int = room
        """Messages that may wait on one connection. The loop's thread."""
        self._usual_room = room

    @property
    def total(self) -> int:
        """Bytes held. Any thread; a moment old."""
        return self.posted + self.moved

    def post(self, size: int) -> None:
        """Charge what was written. Any thread."""
        with self._lock:
            self.posted += size
        if self.posted + self.moved > self.high and not self.pressed and self._on_pressure:
            self._on_pressure()

    def move(self, change: int) -> None:
        """Charge what has come to stay, or discharge what has gone. The loop's thread."""
        self.moved += change
        if change > 0 and self.posted + self.moved > self.high:
            self.press()

    def press(self) -> None:
        """It has become too much: from here on each reads little at a time. The loop's thread.

        Whoever is to do something about the rest is told, once; `ease` ends it.
        """
        if not self.pressed and self._on_pressure:
            self.pressed = True
            self.largest_read = PRESSED_READ_SIZE
            self.room = min(self._usual_room, PRESSED_ROOM)
            self._on_pressure()

    def ease(self) -> None:
        """It is not too much any more. The loop's thread."""
        self.pressed = False
        self.largest_read = largest_read()
        self.room = self._usual_room

    def refuses(self, size: int, held: int) -> bool:
        """Whether a connection that holds `held` bytes may not write `size` more. Any thread."""
        return self.posted + self.moved + size > self.write_limit and held + size > self.share

    def __repr__(self) -> str:
        limit = "" if self.limit == sys.maxsize else f" of {self.limit}"
        return f"<Ledger {self.total}{limit} bytes{' pressed' if self.pressed else ''}>"
