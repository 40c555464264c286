"""What is asked of the operating system.

Contents: System, OperatingSystem.

Owns the one place through which the loop, and all that is built on it, gets at descriptors, names, threads
and locks; so that a simulation can stand in for the system (`reactor.testing`). What has been got is
used as what it is: a socket is a socket, and no call on it comes by here. Any thread.
"""

from __future__ import annotations

import os
import random
import socket
import threading
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Protocol, TypeAlias, TypeVar, cast

from reactor.clock import Clock, SystemClock
from reactor.poller import Poller, default_poller
from reactor.waker import Lock, Waker

__all__ = ["Accept", "AddressInfo", "OperatingSystem", "SocketAddress", "System", "look_up"]

SocketAddress: TypeAlias = tuple[str, int] | tuple[str, int, int, int] | str | bytes
"""An address as the socket module gives it: a host and a port, with two more numbers for IPv6; the path
of a Unix socket, which is empty for one without a name; or bytes, an abstract address of Linux."""

T = TypeVar("T")

Accept: TypeAlias = Callable[[], "tuple[socket.socket, SocketAddress]"]
"""Returns a new connection, which does not block, and its peer's address. Raises OSError."""

AddressInfo: TypeAlias = tuple[socket.AddressFamily, SocketAddress]
"""A family, and an address as `connect` takes it."""


def _accept(accept: Accept) -> tuple[socket.socket, SocketAddress]:
    sock, address = accept()
    sock.setblocking(False)
    return sock, address


def look_up(host: str, port: int, flags: int = 0) -> list[AddressInfo]:
    """getaddrinfo(3) for streams, in its order. Raises OSError, or UnicodeError for what is no name."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    # Other addresses than these come from a Python that was built without IPv6 alone.
    return [(info[0], cast(SocketAddress, info[4])) for info in found]


class System(Protocol):
    """What a Reactor, and what runs on it, needs of the system that it runs on."""

    @property
    def clock(self) -> Clock:
        """What tells the time."""
        ...

    def open_poller(self) -> Poller:
        """What the loop sleeps in."""
        ...

    def open_waker(self) -> Waker:
        """What ends that sleep; its descriptor is one that the poller knows."""
        ...

    def open_socket(self, family: socket.AddressFamily) -> socket.socket:
        """A stream socket; it blocks, as new ones do."""
        ...

    def accepting(self, listener: socket.socket, *, bare: bool = False) -> Accept:
        """What accepts a connection that waits there, whenever it is called; see `reactor.Acceptor`."""
        ...

    def open_spare(self) -> int | None:
        """A descriptor that is good for nothing; None when there is none to be had."""
        ...

    def close_spare(self, fd: int) -> None:
        """Give it back."""
        ...

    def addresses(self, host: str, port: int) -> list[AddressInfo]:
        """What the name stands for. May block. Raises OSError, or UnicodeError for what is no name."""
        ...

    def lock(self) -> Lock:
        """As `threading.Lock()`."""
        ...

    def reentrant_lock(self) -> AbstractContextManager[object]:
        """As `threading.RLock()`."""
        ...

    def queue(self) -> deque[T]:
        """An empty one, which threads use without a lock."""
        ...

    def condition(self, lock: AbstractContextManager[object]) -> threading.Condition:
        """As `threading.Condition(lock)`, over one that `reentrant_lock` has made."""
        ...

    def event(self) -> threading.Event:
        """As `threading.Event()`."""
        ...

    def thread(
        self, target: Callable[[], object], *, name: str, daemon: bool = False
    ) -> threading.Thread:
        """One that is still to be started."""
        ...

    def uniform(self, low: float, high: float) -> float:
        """A random number between the two."""
        ...


class OperatingSystem:
    """The one that this process runs on. It keeps nothing: all objects of it are the same."""

    __slots__ = ()

    @property
    def clock(self) -> Clock:
        """The system's monotonic and wall clocks."""
        return SystemClock()

    def open_poller(self) -> Poller:
        """An epoll queue where there is one, else what the `selectors` module thinks best."""
        return default_poller()

    def open_waker(self) -> Waker:
        """One over a pipe, or a socket pair on Windows."""
        return Waker()

    def open_socket(self, family: socket.AddressFamily) -> socket.socket:
        """A stream socket; it blocks, as new ones do. Raises OSError."""
        return socket.socket(family, socket.SOCK_STREAM)

    def accepting(self, listener: socket.socket, *, bare: bool = False) -> Accept:
        """`listener.accept`, but for its looking up family and type by name each time: a tenth of what a
        connection costs that brings one message. A `bare` one saves 2 in 100 more, and 40 bytes."""
        # What `socket.socket.accept` is made of, in the C module; it is not a public name.
        accept_descriptor: Callable[[], tuple[int, SocketAddress]] | None
        accept_descriptor = getattr(listener, "_accept", None)
        if accept_descriptor is None or type(listener) is not socket.socket:
            return partial(_accept, listener.accept)
        family, kind, protocol = listener.family, listener.type, listener.proto
        make = cast(Callable[..., socket.socket], socket.SocketType if bare else socket.socket)

        def accept() -> tuple[socket.socket, SocketAddress]:
            fd, address = accept_descriptor()
            sock = make(family, kind, protocol, fd)
            sock.setblocking(False)
            return sock, address

        return accept

    def open_spare(self) -> int | None:
        """The null device, opened; None when the process can open no more."""
        try:
            return os.open(os.devnull, os.O_RDONLY)
        except OSError:
            return None

    def close_spare(self, fd: int) -> None:
        """Close what `open_spare` has opened."""
        os.close(fd)

    def addresses(self, host: str, port: int) -> list[AddressInfo]:
        """What getaddrinfo(3) says, in its order. May block. Raises OSError or UnicodeError."""
        return look_up(host, port)

    def lock(self) -> Lock:
        """As `threading.Lock()`, which it is."""
        return threading.Lock()

    def reentrant_lock(self) -> AbstractContextManager[object]:
        """As `threading.RLock()`, which it is."""
        return threading.RLock()

    def queue(self) -> deque[T]:
        """A deque: its append and its popleft are one step each."""
        return deque()

    def condition(self, lock: AbstractContextManager[object]) -> threading.Condition:
        """As `threading.Condition(lock)`, which it is."""
        return threading.Condition(cast(threading.Lock, lock))

    def event(self) -> threading.Event:
        """As `threading.Event()`, which it is."""
        return threading.Event()

    def thread(
        self, target: Callable[[], object], *, name: str, daemon: bool = False
    ) -> threading.Thread:
        """A thread of the process's that is still to be started."""
        return threading.Thread(target=target, name=name, daemon=daemon)

    def uniform(self, low: float, high: float) -> float:
        """As `random.uniform`: a random number between the two."""
        return random.uniform(low, high)

    def __repr__(self) -> str:
        return "OperatingSystem()"
