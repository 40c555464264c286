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
from reactor.socket_file import SocketFile, check_mode, listen_on_path
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
    address: tuple[str, int] | str,
    *,
    backlog: int = 1024,
    mode: int | None = None,
    system: System | None = None,
) -> socket.socket:
    """A non-blocking listening socket: TCP for `(host, port)`, a Unix socket for a path.

    Port 0 lets the system choose. An empty host is every address of this machine, IPv6 and IPv4 both
    where the system can, and so is "::"; "0.0.0.0" is all of IPv4 alone. A link-local address of IPv6 names
    its interface: "fe80::1%eth0". A name stands for its first address.

    A path that begins with a zero byte is one of Linux's abstract names. Any other path has a file: one
    that is there is replaced if it is a socket that nobody listens on. `mode` becomes its mode; without,
    it is what the process's umask leaves. Raises OSError, with the address in its text, when it cannot
    be had, ValueError or TypeError for a mode that is none or for TCP, ValueError for a port that is none.
    """
    if system is None:
        system = OperatingSystem()
    if isinstance(address, str):
        check_mode(address, mode)
    elif mode is not None:
        raise ValueError(
            f"mode={mode!r} is for the file of a Unix socket: leave it out for {address!r}"
        )
    try:
        if isinstance(address, str):
            family: socket.AddressFamily = _unix_family()
            target: SocketAddress = address
        else:
            family, target = _resolve(address)
        sock = system.open_socket(family)
    except OSError as error:
        raise OSError(error.errno, f"cannot listen on {address!r}: {_text(error)}") from error
    try:
        if isinstance(address, str):
            listen_on_path(sock, address, backlog, mode)
        else:
            _bind(sock, target)
            sock.listen(backlog)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise OSError(
            # Of a path that is too long the socket module gives a text alone.
            error.errno or errno.EINVAL,
            f"cannot listen on {address!r}: {_text(error)}{_way_out(error, address)}",
        ) from error
    except BaseException:
        sock.close()
        raise
    return sock


def _bind(sock: socket.socket, target: SocketAddress) -> None:
    if sys.platform != "win32":
        # A port in TIME_WAIT may be taken again. On Windows it would let two servers share one.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if sock.family == socket.AF_INET6:
        # Said in either case: what holds unless it is said differs between systems, and administrators
        # may change it (ipv6(7), bindv6only). OpenBSD has no sockets for both.
        both = target[0] == "::" and socket.has_dualstack_ipv6()
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not both))
    sock.bind(target)


def _way_out(error: OSError, address: tuple[str, int] | str) -> str:
    if error.errno == errno.EADDRINUSE and isinstance(address, str):
        if error.strerror != os.strerror(error.errno):
            return ""  # it says so itself
        return "; stop the program that listens there, or choose another path"
    if error.errno == errno.EADDRINUSE:
        return "; stop the program that uses it, or choose another port (0 lets the system choose)"
    if error.errno == errno.EACCES and not isinstance(address, str):
        return "; ports below 1024 are for privileged programs: choose another port"
    if error.errno == errno.EADDRNOTAVAIL:
        return "; use an address of this machine, or an empty host for all of them"
    return ""


def _unix_family() -> socket.AddressFamily:
    family: socket.AddressFamily | None = getattr(socket, "AF_UNIX", None)
    if family is None:
        raise OSError(errno.EAFNOSUPPORT, "this system has no Unix sockets; use (host, port)")
    return family


def _resolve(address: tuple[str, int]) -> AddressInfo:
    host, port = address
    # getaddrinfo(3) takes it modulo 65,536, or does not say what is wrong.
    if not 0 <= port <= 65535:
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

    With it goes `file`, the Unix socket's, if that is this acceptor's to remove.

    `on_accept(sock, address)` gets a non-blocking socket; a `bare` one, if that is asked for, is of the
    class in C that `socket.socket` is made of, without what that adds in Python. A spare descriptor is held
    back for the moment in which the process has no other: with it the waiting client is accepted and told
    off by a close, where it would hang otherwise.
    """

    def __init__(
        self,
        reactor: Reactor,
        sock: socket.socket,
        on_accept: Callable[[socket.socket, SocketAddress], object],
        *,
        file: SocketFile | None = None,
        bare: bool = False,
    ) -> None:
        self._reactor = reactor
        self._socket = sock
        self._accept = reactor.system.accepting(sock, bare=bare)
        self._file = file
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
        if self._file is not None:
            self._file.remove()  # before the close: after it another file could have its inode
        self._socket.close()

    def __repr__(self) -> str:
        if self._channel is None:
            return "<Acceptor closed>"
        return f"<Acceptor on {self.address!r}>"
