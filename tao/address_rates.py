"""How often each of the peers' addresses may do something.

Contents: AddressRates, network_of.

Owns a token bucket for each address that has used its own lately. The loop's thread only.

Its memory is bounded, however many addresses an attacker has: what is kept is a bucket for each address
that somebody holds, of which there are no more than connections, and at most `CAPACITY` others. Of those
the ones that were used longest ago are forgotten first. One that has filled up again is no loss: a new one
is the same. One that has not gives its address a new burst, and costs whoever wants that CAPACITY other
addresses.
"""

from __future__ import annotations

import ipaddress

from tao.rate import Rate, TokenBucket

__all__ = ["AddressRates", "network_of"]

CAPACITY = 16_384
"""Buckets kept for addresses that nobody holds."""

TIDIED_AT_ONCE = 2
"""Old buckets looked at for each new one: more than one, so that they become fewer."""


class AddressRates:
    """One rate, for each address on its own."""

    __slots__ = ("_capacity", "_held", "_idle", "rate")

    def __init__(self, rate: Rate, *, capacity: int = CAPACITY) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1 bucket, not {capacity!r}")
        self.rate: Rate = rate
        self._capacity = capacity
        self._idle: dict[str, TokenBucket] = {}  # the one that was used last is last
        self._held: dict[str, tuple[TokenBucket, int]] = {}  # with how many hold it

    def take(self, host: str, now: float) -> bool:
        """Take one of the address's tokens; whether there was one. `now` is in monotonic seconds."""
        network = network_of(host)
        held = self._held.get(network)
        if held is not None:
            return held[0].take(now)
        bucket = self._find(network)
        taken = bucket.take(now)
        self._keep(network, bucket, now)
        return taken

    def hold(self, host: str) -> TokenBucket:
        """The address's bucket, not to be forgotten until `release` has been called as often."""
        network = network_of(host)
        bucket, holders = self._held.get(network) or (self._find(network), 0)
        self._held[network] = bucket, holders + 1
        return bucket

    def release(self, host: str, now: float) -> None:
        """Undo one `hold`."""
        network = network_of(host)
        bucket, holders = self._held.pop(network)
        if holders > 1:
            self._held[network] = bucket, holders - 1
        else:
            self._keep(network, bucket, now)

    def _find(self, network: str) -> TokenBucket:
        """Of one that nobody holds; it is taken out."""
        return self._idle.pop(network) if network in self._idle else TokenBucket(self.rate)

    def _keep(self, network: str, bucket: TokenBucket, now: float) -> None:
        idle = self._idle
        for _ in range(TIDIED_AT_ONCE):
            oldest = next(iter(idle), None)
            if oldest is None or not (idle[oldest].is_full(now) or len(idle) >= self._capacity):
                break
            del idle[oldest]
        if not bucket.is_full(now):
            idle[network] = bucket

    def __len__(self) -> int:
        return len(self._idle) + len(self._held)

    def __repr__(self) -> str:
        return f"<AddressRates {self.rate}, {len(self)} addresses>"


def network_of(host: str) -> str:
    """What counts as one address: one of IPv4; of IPv6, the 64 bits of the network.

    Who has one IPv6 address has the 2**64 of its network (RFC 4291, 2.5.1; RFC 6177), and could use
    another for each connection. An IPv4 address in IPv6's form, as a socket for both gives it, is the
    IPv4 address (RFC 4291, 2.5.5.2). What is no address of either is taken as it is.
    """
    if ":" not in host:
        return host
    try:
        address = ipaddress.IPv6Address(host.partition("%")[0])
    except ValueError:
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return address.packed[:8].hex()
