"""Named groups of connections: the rooms of a chat.

Owns the membership, and no connection. Any thread. Membership ends with the connection.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeAlias, TypeVar

from reactor import ConnectionState
from tao.message import Message

__all__ = ["BroadcastReport", "Group", "WhenFull"]

WhenFull: TypeAlias = Literal["refuse", "drop_oldest", "close"]
"""What becomes of a receiver that has reached its limit: it does not get the message; or the messages
that have waited longest make room for it, which its CloseReason reports; or it is given up, and aborted."""


@dataclass(frozen=True, slots=True)
class BroadcastReport:
    """What became of a message to many. The three numbers add up to this server's own receivers."""

    sent: int
    """Connections that the message was queued for."""
    refused: int
    """Connections at their limit, or whose codec cannot encode it: they do not get it."""
    closed: int
    """Connections that were not open: in their handshake, on their way out, or aborted for being at their
    limit."""
    others: Literal["none", "queued", "refused"] = "none"
    """The same for the connections of other servers: there is no backplane; the message waits to be sent to
    them; or too much waits already, and they do not get it."""


class Member(Protocol):
    """What a group needs of a connection."""

    @property
    def net_id(self) -> int: ...
    @property
    def state(self) -> ConnectionState: ...


M = TypeVar("M", bound=Member)


class Group(Generic[M]):
    """Some of a server's connections, under a name. Made by `Server.group`.

    With a backplane every server has those of that name that are its own, and `broadcast` reaches all.
    """

    __slots__ = ("_deliver", "_lock", "_members", "name")

    def __init__(
        self, name: str, deliver: Callable[[Iterable[M], Message, WhenFull], BroadcastReport]
    ) -> None:
        self.name: str = name
        self._deliver = deliver
        self._lock = threading.Lock()
        self._members: dict[int, M] = {}  # under the lock

    def join(self, conn: M) -> None:
        """Make a connection a member. Twice is once. One that has closed is not kept."""
        with self._lock:
            self._members[conn.net_id] = conn
        # The server ends the membership when it has closed; if that is behind us, we must.
        if conn.state is ConnectionState.CLOSED:
            self.leave(conn)

    def leave(self, conn: M) -> None:
        """End a connection's membership, if it is a member."""
        with self._lock:
            self._members.pop(conn.net_id, None)

    def members(self) -> list[M]:
        """Those who are in it now."""
        with self._lock:
            return list(self._members.values())

    def broadcast(self, message: Message, *, when_full: WhenFull = "refuse") -> BroadcastReport:
        """Write a message to every member, those of other servers too. See `Server.broadcast`."""
        return self._deliver(self.members(), message, when_full)

    def __contains__(self, conn: object) -> bool:
        net_id = getattr(conn, "net_id", None)
        with self._lock:
            return net_id in self._members and self._members[net_id] is conn

    def __len__(self) -> int:
        return len(self._members)

    def __repr__(self) -> str:
        return f"<Group {self.name!r}, {len(self._members)} members>"
