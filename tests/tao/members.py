"""Servers that a backplane joins, with a peer each.

Contents: Member, members.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from tao import Backplane, MessageRegistry, Server, ServerConn
from tests.support import LOCAL, Peer, Sample, wait_until

__all__ = ["Member", "hears_all", "members", "say"]


@dataclass
class Member:
    """A server that runs, and a peer of it."""

    server: Server
    peer: Peer
    conn: ServerConn
    """The peer's connection, at the server's end."""
    address: tuple[str, int]


@contextmanager
def members(
    *backplanes: Backplane | None, grace: float = 2.0, **arguments: Any
) -> Iterator[list[Member]]:
    """A server with each of these backplanes, while the block runs."""
    with ExitStack() as stack:
        made = []
        for backplane in backplanes:
            server = Server(**{"registry": MessageRegistry(), **arguments}, backplane=backplane)
            address = stack.enter_context(server.running(LOCAL, grace=grace))
            peer = stack.enter_context(Peer(address))
            assert wait_until(server.connections)
            made.append(Member(server, peer, server.connections()[0], address))
        yield made


def say(member: Member, numbers: range) -> None:
    """Broadcast a message for each of the numbers."""
    for number in numbers:
        assert member.server.broadcast(Sample(1, b"%d" % number)).others == "queued"


def hears_all(member: Member, numbers: range) -> None:
    """The peer gets them, each once, in this order, and nothing in between."""
    for number in numbers:
        assert member.peer.receive_frame() == (1, b"%d" % number)
