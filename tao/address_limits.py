"""What one peer's address may have and do at a server.

Contents: AddressLimits.

Owns the count of each address's connections and the two rates, and nothing of the connections
themselves. Where there is no limit nothing is kept. The loop's thread only.

An address is what `network_of` takes for one: of IPv6 a network of 64 bits. A peer without one, as on a
Unix socket, is not limited: its host is empty.
"""

from __future__ import annotations

from collections import Counter

from tao.address_rates import AddressRates, network_of
from tao.counts import check_count
from tao.rate import Rate, TokenBucket

__all__ = ["AddressLimits"]


class AddressLimits:
    """The limits of each address: open connections, how often it connects, how many frames it sends.

    Raises ValueError or TypeError for what is no limit.
    """

    __slots__ = ("_connections", "_frame_rates", "_most", "_open")

    def __init__(
        self, most: int | None, connection_rate: Rate | None, frame_rate: Rate | None
    ) -> None:
        if most is not None:
            check_count("max_connections_per_address", most, "connections")
        for name, rate in (("connection_rate", connection_rate), ("frame_rate", frame_rate)):
            if rate is not None and not isinstance(rate, Rate):
                raise TypeError(f"{name} is a Rate, such as Rate(10), not {rate!r}")
        self._most = most
        self._open: Counter[str] = Counter()  # by network
        self._connections = None if connection_rate is None else AddressRates(connection_rate)
        self._frame_rates = None if frame_rate is None else AddressRates(frame_rate)

    def refusal(self, host: str, now: float) -> str | None:
        """Why there may be no more connections from there; None: there may. It counts as an attempt.

        `now` is in monotonic seconds.
        """
        if not host:
            return None
        rates = self._connections
        if rates is not None and not rates.take(host, now):
            return f"connection_rate ({rates.rate}) is reached"
        if self._most is not None and self._open[network_of(host)] >= self._most:
            return f"max_connections_per_address ({self._most}) is reached"
        return None

    def enter(self, host: str) -> TokenBucket | None:
        """A connection from there has come about; what its frames are to be taken from, if limited."""
        if not host:
            return None
        if self._most is not None:
            self._open[network_of(host)] += 1
        return None if self._frame_rates is None else self._frame_rates.hold(host)

    def leave(self, host: str, now: float) -> None:
        """Undo one `enter`."""
        if not host:
            return
        if self._frame_rates is not None:
            self._frame_rates.release(host, now)
        if self._most is not None:
            network = network_of(host)
            self._open[network] -= 1
            if self._open[network] <= 0:
                del self._open[network]

    def __repr__(self) -> str:
        return f"<AddressLimits, {len(self._open)} addresses with connections>"
