"""The listening sockets of a service, by worker.

Owns them for as long as the service lasts: the workers have copies of the descriptors, and when these are
closed, what waits to be accepted still waits. The parent's thread.
"""

from __future__ import annotations

import logging
import socket
import sys
from collections.abc import Sequence

from reactor import SocketAddress, SocketFile, listen
from tao.address import format_address

__all__ = ["SPREADS", "Listeners"]

logger: logging.Logger = logging.getLogger("tao")

SPREADS = sys.platform == "linux"
"""Whether the kernel spreads connections over the sockets that share a port by SO_REUSEPORT. Others have
the option too, and give all connections to one of the sockets: there the workers share one."""


class Listeners:
    """For each worker's slot the sockets that it accepts from.

    With `spread`, each slot has a socket of its own at each TCP address, and the kernel deals connections
    out evenly: socket(7), SO_REUSEPORT. Without, and for Unix sockets and those that were handed to us,
    all slots have the same one. The file of a Unix socket is removed when it is closed; `mode` is its mode.
    Raises OSError, with the address in its text, for one that cannot be had.
    """

    def __init__(
        self,
        addresses: Sequence[tuple[str, int] | str],
        inherited: Sequence[socket.socket] = (),
        *,
        slots: int,
        backlog: int = 1024,
        mode: int | None = None,
        spread: bool = SPREADS,
    ) -> None:
        self._slots: list[list[socket.socket]] = [list(inherited) for _ in range(slots)]
        self._all: list[socket.socket] = list(inherited)
        self._files: list[SocketFile] = []
        try:
            for address in addresses:
                self._open(address, backlog, mode, spread)
        except BaseException:
            self.close()
            raise

    def _open(
        self, address: tuple[str, int] | str, backlog: int, mode: int | None, spread: bool
    ) -> None:
        if isinstance(address, str):
            first = listen(address, backlog=backlog, mode=mode)
            self._files.append(SocketFile(address))
        else:
            first = listen(address, backlog=backlog)
        self._all.append(first)
        self._slots[0].append(first)
        for slot in self._slots[1:]:
            if spread and isinstance(address, tuple):
                sock = _beside(first, backlog)
                self._all.append(sock)
            else:
                sock = first
            slot.append(sock)

    @property
    def addresses(self) -> list[SocketAddress]:
        """Where the service listens, with the ports that were chosen."""
        return [sock.getsockname() for sock in self._slots[0]]

    def of(self, slot: int) -> tuple[int, ...]:
        """The descriptors that a slot accepts from."""
        return tuple(sock.fileno() for sock in self._slots[slot])

    def beside(self, slot: int) -> dict[int, tuple[int, ...]]:
        """By slot, the descriptors that only that one accepts from: without `slot` and what all have."""
        own = set(self.of(slot))
        others = {other: self.of(other) for other in range(len(self._slots)) if other != slot}
        found = {
            other: tuple(each for each in numbers if each not in own)
            for other, numbers in others.items()
        }
        return {other: numbers for other, numbers in found.items() if numbers}

    def close(self) -> None:
        """Close this process's descriptors, and remove the files. Twice is once."""
        while self._files:
            self._files.pop().remove()  # before the close: see SocketFile
        for sock in self._all:
            sock.close()

    def __repr__(self) -> str:
        if self._all and self._all[0].fileno() == -1:
            return "<Listeners closed>"
        return f"<Listeners {', '.join(map(format_address, self.addresses))}>"


def _beside(first: socket.socket, backlog: int) -> socket.socket:
    """Another socket that listens on the same port.

    The first one was bound without the option, so that a port which any other program listens on is
    refused, even if that one shares: with the option from the start, a service that is started twice would
    run twice. Set when it listens already, it lets the next ones in (Linux, inet_csk_bind_conflict).
    """
    first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock = socket.socket(first.family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if first.family == socket.AF_INET6:
            only = first.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
        sock.bind(first.getsockname())
        sock.listen(backlog)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock
