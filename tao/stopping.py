"""How a server's connections end when it stops.

Owns the grace, what is done to the connections in it and after it, and the count of how they ended. It does
not close the acceptors or release what the server has, nor wait for anything: `tao.server` does. Those
connections that are not open yet are `tao.latecomers`'. The loop's thread only; the numbers may be read by
any.

A stop goes one way: the connections are closed, and drain; at the end of the grace those that are left are
cut off; a moment later, handlers that have not returned are given up. As soon as no connection is left, it
is over. It can be hurried, and not be put off.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

from reactor import CloseCause, CloseReason, Reactor, Timeout
from tao.latecomers import Latecomers
from tao.session import Session
from tao.stop_report import StopReport

__all__ = ["STOP_MARGIN", "Stopping"]

logger: logging.Logger = logging.getLogger("tao")

STOP_MARGIN = 1.0
"""Seconds beyond its grace that `stop` waits for the loop to report, before it says that it has not."""


class Stopping:
    """One server's stop.

    `sessions` is the server's own table of its connections. The server takes out of it those that are gone,
    before it says so; those that are given up are taken out here. `on_over` is called once.
    """

    __slots__ = (
        "_grace",
        "_latecomers",
        "_on_over",
        "_reactor",
        "_sessions",
        "aborted",
        "drained",
        "ends",
        "left_behind",
        "over",
    )

    def __init__(
        self,
        reactor: Reactor,
        sessions: dict[int, Session[Any]],
        on_over: Callable[[], object],
    ) -> None:
        self._reactor = reactor
        self._sessions = sessions
        self._on_over = on_over
        self._latecomers: Latecomers | None = None  # made by a stop that has a grace
        self._grace: Timeout | None = None
        self.ends: float = math.inf
        """When the grace ends, in monotonic seconds; never later than it was."""
        self.drained: int = 0
        self.aborted: int = 0
        self.left_behind: int = 0
        """Connections whose handlers have not returned."""
        self.over: bool = False
        """Whether all connections are gone."""

    def begin(self, grace: float) -> None:
        """Close all connections, in good order; once, and then `hurry`. The server accepts no more."""
        if grace:
            # What this pass has accepted is read by the next one: the message that a client sends as
            # soon as it is connected has come, too. Where TLS or a proxy's header must come first, it
            # takes longer.
            self._latecomers = Latecomers(self._reactor, self._sessions.values())
            self._reactor.call_soon(self._close_sessions)
        else:
            self._close_sessions()

    def hurry(self, grace: float) -> None:
        """It is to be over in `grace` seconds, if that is sooner than it was."""
        ends = self._reactor.time() + grace
        if self._grace is None or ends < self.ends:
            if self._grace is not None:
                self._grace.cancel()
            self.ends = ends
            self._grace = self._reactor.call_at(ends, self._handle_grace_over)
            if self._latecomers is not None:
                self._latecomers.hurry(grace)
        self._check()

    def handle_open(self, session: Session[Any]) -> None:
        """A connection is OPEN, be it that late."""
        if self._latecomers is not None:
            self._latecomers.handle_open(session)

    def handle_gone(self, session: Session[Any], reason: CloseReason) -> None:
        """A connection is closed, its on_close has returned, and it is no longer in the table."""
        if self._latecomers is not None:
            self._latecomers.handle_gone(session)
        if reason.cause is CloseCause.STOPPED and reason.clean:
            self.drained += 1
        self._check()

    def report(self, *, finished: bool) -> StopReport:
        """How it has gone so far. `finished`: the server has released what it had. Any thread."""
        return StopReport(self.drained, self.aborted, finished and not self.left_behind)

    def _close_sessions(self) -> None:
        latecomers = self._latecomers or ()
        for session in list(self._sessions.values()):
            if session not in latecomers:
                session.close(CloseCause.STOPPED)

    def _handle_grace_over(self) -> None:
        for session in list(self._sessions.values()):
            if session.abort(CloseCause.STOPPED, TimeoutError("the grace of stop() was over")):
                self.aborted += 1
        self._grace = self._reactor.call_later(
            # Behind what has been posted by then: it may say that the last one has ended.
            STOP_MARGIN / 2,
            self._reactor.post,
            self._give_up,
        )

    def _give_up(self) -> None:
        """Handlers that have not returned cannot be ended from outside. They are left behind."""
        for session in self._sessions.values():
            logger.error("%s: its handler has not returned; stopped without it", session.conn)
        self.left_behind = len(self._sessions)
        self._sessions.clear()
        self._check()

    def _check(self) -> None:
        if not self._sessions and not self.over:
            if self._grace is not None:
                self._grace.cancel()
            self.over = True
            self._on_over()

    def __repr__(self) -> str:
        return f"<Stopping, {'over' if self.over else f'{len(self._sessions)} connections left'}>"
