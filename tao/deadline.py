"""By when the peer must have sent something.

Owns InputDeadline: one time-out of the loop, however many bytes come and however often it is begun anew.
The loop's thread only.
"""

from __future__ import annotations

from collections.abc import Callable

from reactor import Connection, ConnectionState, Reactor, Timeout

__all__ = ["InputDeadline"]

PATIENCE = 8
"""What comes due while reading is paused is looked at again after this part of the time it had, at the
least: so late it may be noticed, and so seldom is looked."""


class InputDeadline:
    """Calls `expire` when what was begun is still missing `seconds` later.

    Bytes that come do not put it off; only time in which we did not read, when they could not come, is not
    counted. Like the heartbeat's, the time-out is not cancelled when all is well, but asks `is_missing`
    when it expires; a busy connection sets one in so many seconds, and not one for each frame.
    """

    __slots__ = (
        "_begun_at",
        "_connection",
        "_expire",
        "_is_missing",
        "_reactor",
        "_seconds",
        "_timeout",
    )

    def __init__(
        self,
        seconds: float,
        reactor: Reactor,
        connection: Connection,
        *,
        is_missing: Callable[[], bool],
        expire: Callable[[], object],
    ) -> None:
        self._seconds = seconds
        self._reactor = reactor
        self._connection = connection
        self._is_missing = is_missing
        self._expire = expire
        self._begun_at = 0.0  # in the connection's `read_for`
        self._timeout: Timeout | None = None  # None: it is not in the wheel

    def begin(self) -> None:
        """The time runs from now. Nothing if the connection is at its end."""
        self._begun_at = self._connection.read_for()
        if self._timeout is None and self._connection.state is ConnectionState.OPEN:
            self._timeout = self._reactor.call_later(self._seconds, self._look)

    def _look(self) -> None:
        self._timeout = None
        if not self._is_missing():
            return
        left = self._seconds - (self._connection.read_for() - self._begun_at)
        if left <= 0:
            self._expire()
        else:
            if self._connection.paused:
                left = max(left, self._seconds / PATIENCE)
            self._timeout = self._reactor.call_later(left, self._look)

    def stop(self) -> None:
        """The connection is ending."""
        if self._timeout is not None:
            self._timeout.cancel()
            self._timeout = None
