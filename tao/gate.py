"""Where a server's connections come in.

Contents: Gate, host_of_peer.

Owns the server's acceptors, the decision whether there is a place for who has connected, and what is told
of those for whom there is none. It does not make connections, which the server does, nor count those of
an address, which `tao.address_limits` does; messages are let in by `tao.admission`. The loop's thread
only.

How many connections there are, the server says each time: a place is taken from the moment at which it has
the connection in its table to the one at which on_close has returned.
"""

from __future__ import annotations

import logging
import socket
from typing import Literal

from reactor import Acceptor, SocketAddress
from tao.address import format_peer
from tao.address_limits import AddressLimits
from tao.counts import check_count
from tao.metrics import Metrics
from tao.proxy_protocol import TrustedProxies
from tao.rate import Rate, TokenBucket

__all__ = ["REFUSAL_LINES", "Gate", "host_of_peer"]

logger: logging.Logger = logging.getLogger("tao")

REFUSAL_LINES = Rate(1, burst=10)
"""Lines that the log gets of refused connections; the next one says how many there were without."""


class Gate:
    """One server's. Times, `now`, are in monotonic seconds.

    At `most` connections those that come are closed at once ("refuse"), or not accepted until there is room
    ("wait"), as `when_full` says. Raises ValueError or TypeError for arguments that make no sense.
    """

    __slots__ = ("_limits", "_lines", "_metrics", "_most", "_unsaid", "_waits", "acceptors")

    def __init__(
        self,
        most: int,
        when_full: Literal["refuse", "wait"],
        limits: AddressLimits,
        metrics: Metrics,
    ) -> None:
        check_count("max_connections", most, "connections")
        if when_full not in ("refuse", "wait"):
            raise ValueError(f"when_full is 'refuse' or 'wait', not {when_full!r}")
        self._most = most
        self._waits = when_full == "wait"
        self._limits = limits
        self._metrics = metrics
        self._lines = TokenBucket(REFUSAL_LINES)
        self._unsaid = 0  # refused since the last such line
        self.acceptors: list[Acceptor] = []
        """Written here only; any thread may take a list of it, which is one step."""

    def add(self, acceptor: Acceptor, connections: int) -> None:
        """One more address is listened on; with so many connections that there are."""
        if self._waits and connections >= self._most:
            acceptor.pause()
        self.acceptors.append(acceptor)

    def close(self) -> None:
        """Nobody else comes in. Twice is once."""
        for acceptor in self.acceptors:
            acceptor.close()

    def refusal(
        self,
        address: SocketAddress,
        host: str,
        proxies: TrustedProxies | None,
        connections: int,
        now: float,
    ) -> str | None:
        """Why who connects from there is not let in; None: it is. It counts as an attempt.

        `host` is what the limits count the address under. `proxies`: those that may come by the address
        that it came by; None if that is not for proxies.
        """
        if proxies is None:
            why = self._limits.refusal(host, now)
        else:
            # The limits are the client's, of whom nothing is known yet.
            why = None if proxies.trusts(address) else "it is none of trusted_proxies"
        if why is None and connections >= self._most:
            why = f"max_connections ({self._most}) is reached"
        return why

    def refuse(
        self,
        sock: socket.socket,
        address: SocketAddress,
        local: SocketAddress | None,
        why: str,
        now: float,
    ) -> None:
        """Close what was accepted, and tell of it."""
        self.note_refusal(format_peer(address, local), why, now)
        sock.close()  # counted first: who sees the end may look

    def note_refusal(self, peer: str, why: str, now: float) -> None:
        """Count it, and have a line in the log."""
        self._metrics.connections_refused += 1
        # A flood of connections is not to become one of lines.
        if not self._lines.take(now):
            self._unsaid += 1
            return
        more = f"; {self._unsaid} more before it" if self._unsaid else ""
        self._unsaid = 0
        logger.warning("refused %s: %s%s", peer, why, more, extra={"peer": peer})

    def handle_come(self, connections: int) -> None:
        """One more is in the table, which has so many with it."""
        if self._waits and connections >= self._most:
            for acceptor in self.acceptors:
                acceptor.pause()

    def handle_gone(self, connections: int) -> None:
        """One less is in the table, which has so many without it."""
        if self._waits and connections == self._most - 1:
            for acceptor in self.acceptors:
                acceptor.resume()

    def __repr__(self) -> str:
        return f"<Gate for {self._most} connections, {len(self.acceptors)} acceptors>"


def host_of_peer(address: SocketAddress | None) -> str:
    """What limits of addresses go by; nothing for a Unix socket's peer."""
    return address[0] if isinstance(address, tuple) else ""
