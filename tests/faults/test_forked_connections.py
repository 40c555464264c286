"""Connections and servers of the parent, in a forked child: what they are asked for, they cannot do."""

from __future__ import annotations

import threading
from collections.abc import Callable

from reactor import ForkError
from tao import LineCodec, Server, ServerConn
from tests.faults.support import (
    POOLED,
    Watched,
    check_alive,
    sleeping_server,
)
from tests.forking import in_child, needs_fork
from tests.support import DEADLINE, LOCAL, Peer, Sample

# Those that end something come last: whatever they are refused for, it is not for that.
CALLS: dict[str, Callable[[Server, ServerConn], object]] = {
    "write": lambda server, conn: conn.write(Sample(POOLED, b"of the child")),
    "unicast": lambda server, conn: server.unicast(conn.net_id, Sample(POOLED, b"of the child")),
    "broadcast": lambda server, conn: server.broadcast(Sample(POOLED, b"of the child")),
    "set_codec": lambda server, conn: conn.set_codec(LineCodec()),
    "stop": lambda server, conn: server.stop(0.0),
    "close": lambda server, conn: conn.close(),
    "abort": lambda server, conn: conn.abort(),
}


@needs_fork
def test_a_child_is_refused_what_only_the_parent_can_do() -> None:
    """By an exception: nothing is accepted that will never be sent. The parent's loop sleeps on.

    The wake-up pipe is shared: a byte of the child's would end the parent's sleep.
    """
    watched = Watched()
    with watched.server.running(LOCAL) as address, Peer(address) as peer:
        conn = sleeping_server(watched, peer)
        reactor = watched.server._reactor
        assert reactor is not None
        before = reactor.statistics()

        def use() -> None:
            accepted = []
            for name, call in CALLS.items():
                try:
                    call(watched.server, conn)
                except ForkError:
                    continue
                accepted.append(name)
            for harmless in (reactor.wake, reactor.stop):
                try:
                    harmless()
                except ForkError:
                    pass  # to be refused is as well as to have no effect
            assert accepted == []

        refused = in_child(use) == 0
        # A wake-up of our own, behind which those of the child have been counted.
        woken = threading.Event()
        reactor.call_soon_threadsafe(woken.set)
        assert woken.wait(DEADLINE)
        assert reactor.statistics().wakeups == before.wakeups + 1
        check_alive(peer)
        assert refused
