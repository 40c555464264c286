"""Addresses, as people write and read them.

Contents: parse_address, check_address, format_address, format_peer, host_of, set_no_delay.

Owns the reading of an address from a text, the check of what a caller passes, the text of what the system
returns, and the one option that every TCP socket gets. Any thread.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from typing import Any

__all__ = [
    "check_address",
    "format_address",
    "format_peer",
    "host_of",
    "parse_address",
    "set_no_delay",
]

EXPECTED = (
    "HOST:PORT, such as 127.0.0.1:12345, [::1]:12345 for IPv6, :12345 for every address "
    "of this machine, or unix:PATH for a Unix socket"
)
"""What the errors of `parse_address` say is right."""


def parse_address(text: str, *, first_port: int = 0) -> tuple[str, int] | str:
    """The address that a text names, as `Server.listen` and `ClientConn` take it.

    - `127.0.0.1:80`, `example.org:80`: a host and a port.
    - `[::1]:80`, `[fe80::1%eth0]:80`: IPv6, with the interface where the address needs one.
    - `:80`: every address of this machine to who listens, this machine to who connects.
    - `unix:/run/chat.sock`, or a path with a `/` at its beginning or after a dot: a Unix socket.
    - `unix:@name` or `@name`: a Unix socket of Linux's abstract name space, without a file.

    `first_port` is the lowest port allowed: 0, which lets the system choose one, is of use to who listens
    only. Raises ValueError, which says what is expected, for any other text.
    """
    path = text.removeprefix("unix:")
    if path != text or path.startswith(("/", "./", "../", "@")):
        if not path or path == "@" or "\0" in path:
            raise ValueError(f"{text!r} names no Unix socket; use {EXPECTED}")
        return "\0" + path[1:] if path[0] == "@" else path
    host, colon, digits = text.rpartition(":")
    if not (colon and digits.isascii() and digits.isdigit()):
        raise ValueError(f"{text!r} has no port; use {EXPECTED}")
    if host.startswith("["):
        if not host.endswith("]") or not _is_ipv6(host[1:-1]):
            raise ValueError(f"{host!r} is no IPv6 address in brackets; use {EXPECTED}")
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(
            f"{text!r} leaves open where the port begins, put IPv6 addresses in brackets; use {EXPECTED}"
        )
    elif host and not (host.isprintable() and not set(host) & set(" []/@%")):
        raise ValueError(f"{host!r} is no host in {text!r}; use {EXPECTED}")
    # Of more digits than these no port is made: int() has better things to do.
    port = int(digits[:20])
    _check_port(port, first_port)
    return host, port


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True


def check_address(address: object, *, first_port: int) -> None:
    """Raises TypeError or ValueError unless it is `(host, port)` or the path of a Unix socket."""
    if isinstance(address, str):
        if not address:
            raise ValueError(f"the path of a Unix socket must not be empty, as {address!r} is")
        if "\0" in address[1:] and address[0] != "\0":
            # The system would take it up to there, and nobody look for it under that name.
            raise ValueError(
                f"the path of a Unix socket must have no zero byte, as {address!r} does"
            )
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
    _check_port(address[1], first_port)


def _check_port(port: int, first_port: int) -> None:
    if not first_port <= port <= 65535:
        raise ValueError(f"a port is a number from {first_port} to 65535, not {port}")


def format_address(address: object) -> str:
    """`host:port`, `[host]:port`, a path, `@name` for an abstract name, or "-" for none.

    `parse_address` reads it again, unless it is a bare file name. An IPv4 address in IPv6's form, as a
    socket for both gives it, is shown as the IPv4 address that it is (RFC 4291, 2.5.5.2); a scope by
    its interface's name (RFC 4007, 11).
    """
    if isinstance(address, tuple):
        host, port = host_of(address), address[1]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if isinstance(address, bytes):
        address = os.fsdecode(address)
    if isinstance(address, str) and address.startswith("\0"):
        return "@" + address[1:]
    return str(address) if address else "-"


def format_peer(remote: object, local: object) -> str:
    """As `format_address` of the peer's; of one without, on a Unix socket, where it has connected to.

    A peer chooses the path that its own socket has. What is not printable in it is escaped, for it could
    begin a line of a log that says what the peer likes.
    """
    if not remote and local and isinstance(local, str | bytes):
        return f"unix:{format_address(local)}"
    text = format_address(remote)
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def host_of(address: tuple[Any, ...]) -> str:
    """The host of a TCP address, such that it leads there: a link-local one of IPv6 with its interface.

    The socket module gives the interface as a number of its own, the last of four, and not in the host.
    """
    host = str(address[0])
    if host.startswith("::ffff:") and "." in host:
        return host.removeprefix("::ffff:")
    scope = address[3] if len(address) == 4 else 0
    if not scope or "%" in host:
        return host
    try:
        return f"{host}%{socket.if_indextoname(scope)}"
    except (OSError, OverflowError):  # it is gone, or was another machine's
        return f"{host}%{scope}"


def set_no_delay(sock: socket.socket) -> None:
    """Have a TCP socket send at once: Nagle's algorithm is of no use to who joins small frames himself."""
    if sock.family == getattr(socket, "AF_UNIX", None):
        return
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError:
        pass  # the peer has reset it already, which some systems report here: the next read will say so
