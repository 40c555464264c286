"""Addresses, as people write and read them.

Owns the check of what a caller passes, the text of what the system returns, and the one option that every
TCP socket gets.
"""

from __future__ import annotations

import socket

__all__ = ["check_address", "format_address", "set_no_delay"]


def check_address(address: object, *, first_port: int) -> None:
    """Raises TypeError or ValueError unless it is `(host, port)` or the path of a Unix socket."""
    if isinstance(address, str):
        return
    if not (
        isinstance(address, tuple)
        and len(address) == 2
        and isinstance(address[0], str)
        and isinstance(address[1], int)
    ):
        raise TypeError(
            f"an address is (host, port), such as ('127.0.0.1', 12345), "
            f"or the path of a Unix socket; not {address!r}"
        )
    if not first_port <= address[1] <= 65535:
        raise ValueError(f"a port is a number from {first_port} to 65535, not {address[1]}")


def format_address(address: object) -> str:
    """`host:port`, `[host]:port`, a path, or "-" for none."""
    if isinstance(address, tuple):
        host, port = address[:2]
        return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
    return str(address) if address else "-"


def set_no_delay(sock: socket.socket) -> None:
    """Have a TCP socket send at once: Nagle's algorithm is of no use to who joins small frames himself."""
    if sock.family == getattr(socket, "AF_UNIX", None):
        return
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError:
        pass  # the peer has reset it already, which some systems report here: the next read will say so
