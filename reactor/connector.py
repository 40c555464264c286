"""One connect, without blocking.

Owns the socket until it is connected, then hands it over. Resolving a name blocks, so that is done
on a thread of its own, which ends with it. The loop's thread, but for that.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable

from reactor.errors import ReactorError
from reactor.loop import WRITE, Channel, Reactor
from reactor.system import AddressInfo, look_up
from reactor.timing_wheel import Timeout

__all__ = ["Connector"]

_UNIX: socket.AddressFamily | None = getattr(socket, "AF_UNIX", None)

_UNDER_WAY = frozenset({errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EALREADY})


def _target(address: tuple[str, int]) -> tuple[str, int]:
    """An empty host is this machine, as with an empty host one listens on all that it has."""
    return address[0] or "localhost", address[1]


def _numeric(address: tuple[str, int] | str) -> list[AddressInfo] | None:
    """What needs no resolver: a path, or an IP address in figures."""
    if isinstance(address, str):
        if _UNIX is None:
            raise OSError(errno.EAFNOSUPPORT, "this system has no Unix sockets; use (host, port)")
        return [(_UNIX, address)]
    host, port = _target(address)
    if not 0 < port <= 65535:  # getaddrinfo(3) takes it modulo 65,536
        raise OSError(errno.EINVAL, f"a port to connect to is from 1 to 65535, not {port!r}")
    try:
        return look_up(host, port, socket.AI_NUMERICHOST | socket.AI_NUMERICSERV)
    except (socket.gaierror, UnicodeError):
        return None


class Connector:
    """Connects to a name: resolves it, then tries its addresses in the resolver's order.

    An empty host is this machine. A path, or an abstract name of Linux's, is a Unix socket's.
    Exactly one of `on_connected(sock)` and `on_failed(error)` is called, on the loop's thread, unless
    `cancel` came first. `timeout`, in seconds, is for each address. The error is the last address's.
    """

    def __init__(
        self,
        reactor: Reactor,
        address: tuple[str, int] | str,
        *,
        timeout: float,
        on_connected: Callable[[socket.socket], object],
        on_failed: Callable[[OSError], object],
    ) -> None:
        self._reactor = reactor
        self._address = address
        self._timeout = timeout
        self._on_connected = on_connected
        self._on_failed = on_failed
        self._candidates: list[AddressInfo] = []
        self._error = OSError(errno.EHOSTUNREACH, "the name has no address")
        self._socket: socket.socket | None = None
        self._channel: Channel | None = None
        self._deadline: Timeout | None = None
        self._done = False
        try:
            known = _numeric(address)
        except OSError as error:
            self._error = error
            known = []
        if known is not None:
            self._candidates = known
            reactor.call_soon(self._try_next)
        else:
            # A daemon: a resolver that hangs for a minute must not hold up the end of the program.
            reactor.system.thread(self._resolve, name="tao-resolver", daemon=True).start()

    def _resolve(self) -> None:
        """On the resolver's thread: touches nothing but its own names and the loop's queue."""
        assert not isinstance(self._address, str)
        try:
            outcome: list[AddressInfo] | OSError = self._reactor.system.addresses(
                *_target(self._address)
            )
        except OSError as error:
            outcome = error
        except UnicodeError as error:  # a label of the name is empty or too long
            outcome = OSError(errno.EINVAL, f"{self._address[0]!r} is not a host name: {error}")
        try:
            self._reactor.call_soon_threadsafe(self._handle_resolved, outcome)
        except ReactorError:
            pass  # the loop has been closed: nobody waits for the answer

    def _handle_resolved(self, outcome: list[AddressInfo] | OSError) -> None:
        if isinstance(outcome, OSError):
            self._error = outcome
        else:
            self._candidates = outcome
        self._try_next()

    def _try_next(self) -> None:
        while not self._done:
            if not self._candidates:
                self._done = True
                self._on_failed(self._error)
                return
            family, target = self._candidates.pop(0)
            try:
                self._socket = self._reactor.system.open_socket(family)
                self._socket.setblocking(False)
                code = self._socket.connect_ex(target)
            except (OSError, OverflowError) as error:
                self._give_up(OSError(getattr(error, "errno", None) or errno.EINVAL, str(error)))
                continue
            if code == 0:
                self._finish()
                return
            # Of a Unix socket EAGAIN means that the backlog is full: connect(2).
            if code in _UNDER_WAY and (family != _UNIX or code == errno.EINPROGRESS):
                self._channel = self._reactor.register(self._socket, WRITE, self._handle_ready)
                self._deadline = self._reactor.call_later(self._timeout, self._handle_timeout)
                return
            self._give_up(OSError(code, os.strerror(code)))

    def _handle_ready(self, _ready: int) -> None:
        assert self._socket is not None
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._give_up(OSError(code, os.strerror(code)))
            self._try_next()
        else:
            self._finish()

    def _handle_timeout(self) -> None:
        self._give_up(TimeoutError(errno.ETIMEDOUT, f"no answer in {self._timeout:g} s"))
        self._try_next()

    def _finish(self) -> None:
        sock = self._socket
        assert sock is not None
        try:
            to_itself = sock.family != _UNIX and sock.getsockname() == sock.getpeername()
        except OSError:  # ENOTCONN: reset already, which the first read will say
            to_itself = False
        if to_itself:
            # Both ends are this socket: TCP's simultaneous open, when the system happens to choose the
            # very port as ours on which nobody listens. RFC 9293, 3.5.
            self._give_up(ConnectionRefusedError(errno.ECONNREFUSED, "connected to itself"))
            self._try_next()
            return
        self._release()
        self._socket = None
        self._done = True
        self._on_connected(sock)

    def _give_up(self, error: OSError) -> None:
        self._error = error
        self._release()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _release(self) -> None:
        if self._channel is not None:
            self._reactor.unregister(self._channel)
            self._channel = None
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def cancel(self) -> None:
        """Give it up; neither callback is called any more. Twice is once."""
        self._done = True
        self._release()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def __repr__(self) -> str:
        return f"<Connector to {self._address!r}{' done' if self._done else ''}>"
