"""Named groups of connections: the rooms of a chat.

Owns the membership, and no connection. Any thread. Membership ends with the connection.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Generic, Literal, Protocol, TypeAlias, TypeVar
from weakref import WeakValueDictionary

from reactor import ConnectionState
from tao.message import Message

__all__ = ["BroadcastReport", "Group", "Groups", "WhenFull"]

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


class Groups(Generic[M]):
    """The groups of one server, by their names. Any thread.

    A group is kept for as long as it has members, or somebody holds it: that peers may name rooms costs
    nothing when nobody is in them any more. What a connection's end costs is the groups that it was in.
    """

    __slots__ = ("_joined", "_lock", "_named")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Under the lock, as are the members of all groups.
        self._named: WeakValueDictionary[str, Group[M]] = WeakValueDictionary()
        self._joined: dict[
            int, set[Group[M]]
        ] = {}  # by connection; what keeps a group with members

    def get(
        self,
        name: str,
        deliver: Callable[[str, Iterable[M], Message, WhenFull], BroadcastReport],
    ) -> Group[M]:
        """The group of that name, made if there is none; what it says is what `deliver` delivers."""
        with self._lock:
            group = self._named.get(name)
            if group is None:
                group = Group(name, self._lock, self._joined, partial(deliver, name))
                self._named[name] = group
        return group

    def find(self, name: str) -> Group[M] | None:
        """The group of that name, if there is one."""
        with self._lock:
            return self._named.get(name)

    def leave_all(self, net_id: int) -> None:
        """That connection has closed."""
        with self._lock:
            for group in self._joined.pop(net_id, ()):
                del group._members[net_id]

    def __len__(self) -> int:
        return len(self._named)

    def __repr__(self) -> str:
        return f"<Groups, {len(self._named)} of them>"


class Group(Generic[M]):
    """Some of a server's connections, under a name. Made by `Server.group`.

    With a backplane every server has those of that name that are its own, and `broadcast` reaches all.
    """

    __slots__ = ("__weakref__", "_deliver", "_joined", "_lock", "_members", "name")

    def __init__(
        self,
        name: str,
        lock: threading.Lock,
        joined: dict[int, set[Group[M]]],
        deliver: Callable[[Iterable[M], Message, WhenFull], BroadcastReport],
    ) -> None:
        self.name: str = name
        self._deliver = deliver
        self._lock = lock  # that of all groups of the server
        self._joined = joined  # under the lock: theirs, too
        self._members: dict[int, M] = {}  # under the lock

    def join(self, conn: M) -> None:
        """Make a connection a member. Twice is once. One that has closed is not kept."""
        with self._lock:
            self._members[conn.net_id] = conn
            self._joined.setdefault(conn.net_id, set()).add(self)
        # The server ends the membership when it has closed; if that is behind us, we must.
        if conn.state is ConnectionState.CLOSED:
            self.leave(conn)

    def leave(self, conn: M) -> None:
        """End a connection's membership, if it is a member."""
        with self._lock:
            if self._members.pop(conn.net_id, None) is None:
                return
            joined = self._joined[conn.net_id]
            joined.discard(self)
            if not joined:
                del self._joined[conn.net_id]

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
