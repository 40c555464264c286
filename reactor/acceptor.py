"""Listening sockets.

Contents: `listen`, Acceptor.

Owns one listening socket and hands every connection that it accepts to a callback, which owns it from
then on. The loop's thread only.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import sys
from collections.abc import Callable

from reactor.loop import READ, Channel, Reactor
from reactor.system import AddressInfo, OperatingSystem, SocketAddress, System, look_up
from reactor.timing_wheel import Timeout

__all__ = ["Acceptor", "listen"]

logger: logging.Logger = logging.getLogger("reactor")

ACCEPTS_PER_PASS = 64
"""Connections accepted before other descriptors get their turn."""

RETRY_DELAY = 0.1
"""Seconds without accepting after the system has run out of something. The listening socket stays
readable all that time: without a pause the loop would spin."""

_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

# What accept(2) reports of a connection that failed while it waited: on Linux the network's errors
# come out of accept, and mean "try the next".
_GONE = frozenset(
    getattr(errno, name)
    for name in [
        "ECONNABORTED",
        "ECONNRESET",
        "EPROTO",
        "ENETDOWN",
        "ENOPROTOOPT",
        "EHOSTDOWN",
        "ENONET",
        "EHOSTUNREACH",
        "EOPNOTSUPP",
        "ENETUNREACH",
        "EPERM",
        "ETIMEDOUT",
    ]
    if hasattr(errno, name)
)


def listen(
    address: tuple[str, int] | str, *, backlog: int = 1024, system: System | None = None
) -> socket.socket:
    """A non-blocking listening socket: TCP for `(host, port)`, a Unix socket for a path.

    Port 0 lets the system choose. An empty host is every address of this machine, IPv6 and IPv4 both
    where the system can. Raises OSError, with the address in its text, when it cannot be had.
    """
    if system is None:
        system = OperatingSystem()
    try:
        if isinstance(address, str):
            sock = system.open_socket(socket.AF_UNIX)
            target: SocketAddress = address
            family = socket.AF_UNIX
        else:
            family, target = _resolve(address)
            sock = system.open_socket(family)
    except OSError as error:
        raise OSError(error.errno, f"cannot listen on {address!r}: {_text(error)}") from error
    try:
        if family != socket.AF_UNIX and sys.platform != "win32":
            # A port in TIME_WAIT may be taken again. On Windows it would let two servers share one.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(bool(address[0])))
        sock.bind(target)
        sock.listen(backlog)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        hint = ""
        if error.errno == errno.EADDRINUSE:
            hint = (
                "; stop the program that uses it, or choose another port (0 lets the system choose)"
            )
        elif error.errno == errno.EACCES and not isinstance(address, str):
            hint = "; ports below 1024 are for privileged programs: choose another port"
        elif error.errno == errno.EADDRNOTAVAIL:
            hint = "; use an address of this machine, or an empty host for all of them"
        raise OSError(error.errno, f"cannot listen on {address!r}: {_text(error)}{hint}") from error
    return sock


def _resolve(address: tuple[str, int]) -> AddressInfo:
    host, port = address
    if (
        not 0 <= port <= 65535
    ):  # getaddrinfo(3) takes it modulo 65,536, or does not say what is wrong
        raise ValueError(f"a port is a number from 0 to 65535, not {port!r}")
    if not host:
        if socket.has_dualstack_ipv6():
            return socket.AF_INET6, ("::", port)
        return socket.AF_INET, ("", port)
    return look_up(host, port, socket.AI_PASSIVE)[0]


def _text(error: OSError) -> str:
    return error.strerror or str(error)


class Acceptor:
    """Accepts the connections of one listening socket, which it closes when it is closed.

    `on_accept(sock, address)` gets a non-blocking socket. A spare descriptor is held back for the
    moment in which the process has no other: with it the waiting client is accepted and told off by a
    close, where it would hang otherwise.
    """

    def __init__(
        self,
        reactor: Reactor,
        sock: socket.socket,
        on_accept: Callable[[socket.socket, SocketAddress], object],
    ) -> None:
        self._reactor = reactor
        self._socket = sock
        self._accept = reactor.system.accepting(sock)
        self._on_accept = on_accept
        self._paused = False  # somebody has asked for it
        self._retry: Timeout | None = None  # the system has run out of something
        self._system = reactor.system
        self._spare: int | None = self._system.open_spare()
        self._channel: Channel | None = reactor.register(sock, READ, self._handle_ready)
        self.address: SocketAddress = sock.getsockname()
        """Where it listens, as the socket gives it."""
        self.refused: int = 0
        """Connections told off for want of descriptors."""

    def _handle_ready(self, _ready: int) -> None:
        for _ in range(ACCEPTS_PER_PASS):
            if self._channel is None or not self._channel.events:
                return  # closed or paused by what on_accept did
            try:
                sock, address = self._accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _GONE:
                    continue
                if error.errno in _EXHAUSTED:
                    self._handle_exhausted(error)
                    return
                raise
            try:
                self._on_accept(sock, address)
            except Exception:
                sock.close()
                raise

    def _handle_exhausted(self, error: OSError) -> None:
        logger.warning("cannot accept, and will try again in %g s: %s", RETRY_DELAY, error)
        if self._spare is not None:
            self._system.close_spare(self._spare)
            self._spare = None
            try:
                self._socket.accept()[0].close()
                self.refused += 1
            except OSError:
                pass  # another thread was faster, or the client has given up
            self._spare = self._system.open_spare()
        self._retry = self._reactor.call_later(RETRY_DELAY, self._try_again)
        self._update_interest()

    def _try_again(self) -> None:
        self._retry = None
        if self._spare is None:
            self._spare = self._system.open_spare()
        self._update_interest()

    def pause(self) -> None:
        """Accept nothing until `resume`; clients wait in the system's backlog."""
        self._paused = True
        self._update_interest()

    def resume(self) -> None:
        """Accept again."""
        self._paused = False
        self._update_interest()

    def _update_interest(self) -> None:
        if self._channel is not None:
            accepting = not self._paused and self._retry is None
            self._reactor.modify(self._channel, READ if accepting else 0)

    def close(self) -> None:
        """Stop listening. Twice is once."""
        if self._channel is None:
            return
        self._reactor.unregister(self._channel)
        self._channel = None
        if self._retry is not None:
            self._retry.cancel()
        if self._spare is not None:
            self._system.close_spare(self._spare)
            self._spare = None
        path = self.address
        self._socket.close()
        # An abstract address, of Linux, is bytes, begins with a zero and has no file.
        if isinstance(path, str) and path and path[0] != "\0":
            try:
                os.unlink(path)
            except OSError:
                pass  # somebody has tidied up before us

    def __repr__(self) -> str:
        if self._channel is None:
            return "<Acceptor closed>"
        return f"<Acceptor on {self.address!r}>"
