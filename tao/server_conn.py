"""A connection, at the server.

Owns what only a server's connection has: a name that holds on every server of a backplane. All else is
`tao.conn`'s. Any thread.
"""

from __future__ import annotations

from typing import Protocol, cast

from tao.conn import Conn

__all__ = ["ServerConn"]


class Member(Protocol):
    """What is asked of the server, which cannot be imported here: it imports this module."""

    @property
    def member_id(self) -> str: ...


class ServerConn(Conn["ServerConn"]):
    """A client's connection, at the server."""

    __slots__ = ()

    @property
    def cluster_id(self) -> str:
        """What `Server.unicast` takes on every server of the backplane: no other connection, of whatever
        server, has had it. It holds no secret, and is no proof of anything."""
        server = cast(Member, self._session.server)  # which a Server is, and nobody else makes one
        return f"{server.member_id}-{self.net_id}"
