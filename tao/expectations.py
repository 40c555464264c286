"""What a connection expects of its peer, and by when.

Owns Expectations: the deadline for the first message, that for the rest of a frame that has begun, and the
signs of life, for one connection. They are made as they are needed, and end together. How each of them is
kept is `tao.deadline`'s and `tao.heartbeat`'s; what of the input is missing, the session says. The loop's
thread only.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from reactor import Connection, Reactor
from tao.deadline import InputDeadline
from tao.heartbeat import Heartbeat, HeartbeatKeeper
from tao.message import Message

__all__ = ["Expectations"]


class Expectations:
    """Calls `expire`, with the reason in words, when the peer is late.

    `is_partial` says whether a frame has begun, and the rest of it is missing.
    """

    __slots__ = (
        "_connection",
        "_expire",
        "_first",
        "_frame",
        "_is_partial",
        "_keeper",
        "_partial",
        "_reactor",
    )

    def __init__(
        self,
        reactor: Reactor,
        connection: Connection,
        is_partial: Callable[[], bool],
        expire: Callable[[str], object],
    ) -> None:
        self._reactor = reactor
        self._connection = connection
        self._is_partial = is_partial
        self._expire = expire
        self._keeper: HeartbeatKeeper | None = None
        self._first: InputDeadline | None = None
        self._frame: InputDeadline | None = None  # made by the first frame in pieces
        self._partial = -1  # how many frames came before the one to which that applies

    def expect_signs_of_life(
        self, heartbeat: Heartbeat, write: Callable[[Message], object]
    ) -> None:
        """From now on; and give them, by `write`."""
        self._keeper = HeartbeatKeeper(heartbeat, self._reactor, self._connection, write)

    def expect_message(self, seconds: float, is_missing: Callable[[], bool]) -> None:
        """The first, in `seconds` from now."""
        text = f"no message came in the first {seconds:g} s"
        self._first = self._deadline(seconds, is_missing, text)
        self._first.begin()

    def expect_rest(self, seconds: float, came_before: int) -> None:
        """Of a frame, before which so many have come: in `seconds` from when it was first asked for."""
        if self._partial == came_before:
            return
        self._partial = came_before
        if self._frame is None:
            text = f"a frame was not whole {seconds:g} s after it began"
            self._frame = self._deadline(seconds, self._is_partial, text)
        self._frame.begin()

    def forget_rest(self) -> None:
        """What is there of a frame is asked for anew, when it is its turn or another codec's."""
        self._partial = -1

    def _deadline(self, seconds: float, is_missing: Callable[[], bool], text: str) -> InputDeadline:
        return InputDeadline(
            seconds,
            self._reactor,
            self._connection,
            is_missing=is_missing,
            expire=partial(self._expire, text),
        )

    def end(self) -> None:
        """The connection is ending. Twice is once."""
        for kept in (self._keeper, self._first, self._frame):
            if kept is not None:
                kept.stop()
