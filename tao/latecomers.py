"""The connections that a stop has found on their way to OPEN, or open and about to say their first word.

Owns Latecomers, and the time that they get. It does not end the stop, nor say when a connection is open:
`tao.stopping` does the one, `reactor.connection` the other. The loop's thread only.

What is promised: **whoever was accepted before the stop, and does its part in time, gets open, and what it
sends then is answered**, as is what the connections had sent that were open already. And the other way
round: nobody has more than OPENING_TIME for getting open and FIRST_TIME from there on, and both together
end before the grace does. So a latecomer has one deadline at any time; it moves once, when the connection
is open, and is otherwise only ever brought forward.

A client that has only just been connected may have sent its first message by then: to it, it is a
connection like any other. So one that is open is a latecomer too, if no message has come of it yet and its
peer was heard of less than YOUNG_TIME ago, be it that it connected.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from reactor import CloseCause, ConnectionState, Reactor, Timeout
from tao.session import Session

__all__ = ["FIRST_TIME", "OPENING_TIME", "Latecomers"]

OPENING_TIME = 1.5
"""Seconds that a stop waits for connections to get open: several round trips on a slow line, where the
header of the PROXY protocol and a TLS handshake take three in all (RFC 5246, 7.3). Half of the grace at
most: one that stalls must take nothing from those that are being drained."""

FIRST_TIME = 0.5
"""Seconds in which what such a connection sends is still answered. The client's first message comes right
behind its part of the handshake (RFC 8446, 2), or, in TLS 1.2, a round trip later; and a large one comes in
pieces. A quarter of the grace at most: another is left for sending the answers."""

YOUNG_TIME = 0.2
"""Seconds since the peer was heard of in which its first message may be on the way: right behind the last
packet of TCP's handshake (RFC 9293, 3.5), or of TLS's, or behind a piece of the message."""

_OPENING = (ConnectionState.PREFACING, ConnectionState.HANDSHAKING)


class Latecomers:
    """Of `sessions`, those that come late. At its deadline each is closed as the stop closes others.

    Their time begins with the first `hurry`.
    """

    def __init__(self, reactor: Reactor, sessions: Iterable[Session[Any]]) -> None:
        self._reactor = reactor
        self._first_time = FIRST_TIME
        # When each is due, in monotonic seconds, and what sees to it. One that has been closed is in here
        # until it is gone.
        self._waiting: dict[Session[Any], tuple[float, Timeout | None]] = {
            session: (math.inf, None)
            for session in sessions
            if session.connection.state in _OPENING or self._is_young(session)
        }

    def _is_young(self, session: Session[Any]) -> bool:
        connection = session.connection
        return (
            connection.state is ConnectionState.OPEN
            and not session.messages_in
            and self._reactor.time() - connection.last_received < YOUNG_TIME
        )

    def __contains__(self, session: Session[Any]) -> bool:
        """Whether the stop leaves it to us."""
        return session in self._waiting

    def hurry(self, grace: float) -> None:
        """The stop is to be over in `grace` seconds, which is sooner than it was."""
        now = self._reactor.time()
        self._first_time = min(FIRST_TIME, grace / 4)
        for session, (due, timeout) in list(self._waiting.items()):
            connection = session.connection
            if connection.state in _OPENING:
                latest = now + min(OPENING_TIME, grace / 2)
            elif timeout is None:
                latest = min(connection.last_received + YOUNG_TIME, now + self._first_time)
            else:
                latest = now + self._first_time
            if latest < due:
                self._set(session, latest)

    def handle_open(self, session: Session[Any]) -> None:
        """The state is OPEN: from here on it is listened to."""
        if session in self._waiting:
            self._set(session, self._reactor.time() + self._first_time)

    def handle_gone(self, session: Session[Any]) -> None:
        """It needs no deadline any more."""
        _, timeout = self._waiting.pop(session, (0.0, None))
        if timeout is not None:
            timeout.cancel()

    def _set(self, session: Session[Any], due: float) -> None:
        _, timeout = self._waiting[session]
        if timeout is not None:
            timeout.cancel()
        timeout = self._reactor.call_at(due, session.close, CloseCause.STOPPED)
        self._waiting[session] = (due, timeout)

    def __repr__(self) -> str:
        return f"<Latecomers: {len(self._waiting)}>"
