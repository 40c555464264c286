"""What the tests share.

Contents: DEADLINE, LOCAL, ManualClock, frame, Sample, as_bytes, Calls, wait_until, Peer, descriptors,
no_descriptors_left.

A Peer is a bare socket with hand-written frames: it knows the wire format from the design, and nothing
of the code that it tests.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, TypeVar

import pytest

__all__ = [
    "DEADLINE",
    "LOCAL",
    "Calls",
    "ManualClock",
    "Peer",
    "Sample",
    "as_bytes",
    "descriptors",
    "frame",
    "no_descriptors_left",
    "reset",
    "wait_until",
]

T = TypeVar("T")

DEADLINE = 10.0
"""Seconds after which something that should have happened has not. No test waits for it to pass."""

LOCAL = ("127.0.0.1", 0)
"""Listen here: the system chooses the port."""


class ManualClock:
    """A clock that stands still until it is told otherwise. Implements `reactor.Clock`."""

    def __init__(self, monotonic: float = 1024.0, unix: float = 1_700_000_000.0) -> None:
        self._monotonic = monotonic
        self._unix = unix

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment."""
        return self._monotonic

    def unix(self) -> float:
        """Seconds since 1970."""
        return self._unix

    def advance(self, seconds: float) -> None:
        """Let time pass, on both scales."""
        assert seconds >= 0.0
        self._monotonic += seconds
        self._unix += seconds

    def set_unix(self, unix: float) -> None:
        """Step the wall clock alone, as an administrator would."""
        self._unix = unix


def frame(number: int, value: bytes = b"") -> bytes:
    """A frame of the default wire format: int32 type, uint32 length, both little-endian, the value."""
    return struct.pack("<iI", number, len(value)) + value


@dataclass(frozen=True, slots=True)
class Sample:
    """A message of any number and value."""

    message_number: int
    value: bytes = b""

    def serialize(self) -> bytes:
        """The value, as it is."""
        return self.value


def as_bytes(data: bytes) -> bytes:
    """A deserializer that leaves the value as it is."""
    return data


class Calls(Generic[T]):
    """What callbacks were called with, on whatever threads, and a way to wait for it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._items: list[T] = []

    def add(self, item: T) -> None:
        """Note a call."""
        with self._changed:
            self._items.append(item)
            self._changed.notify_all()

    @property
    def items(self) -> list[T]:
        """A copy of what there is so far."""
        with self._changed:
            return list(self._items)

    def wait(self, count: int = 1, timeout: float = DEADLINE) -> list[T]:
        """All that there are, as soon as there are `count`; fails when they do not come."""
        with self._changed:
            enough = self._changed.wait_for(lambda: len(self._items) >= count, timeout)
            assert enough, f"{len(self._items)} calls of {count}: {self._items!r}"
            return list(self._items)

    def __len__(self) -> int:
        return len(self._items)


def wait_until(condition: Callable[[], object], timeout: float = DEADLINE) -> bool:
    """Look until it holds; for what gives no sign. Returns whether it came to hold."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.002)
    return True


def reset(sock: socket.socket) -> None:
    """Close a socket so that the other end gets a RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


class Peer:
    """The other end of a connection, by hand. Everything that waits fails after DEADLINE."""

    def __init__(
        self, address: Any, *, receive_buffer: int | None = None, send_buffer: int | None = None
    ) -> None:
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        # Both before connect: the window is agreed upon in the handshake.
        if receive_buffer is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if send_buffer is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        self.sock.settimeout(DEADLINE)
        try:
            self.sock.connect(address)
            if family != socket.AF_UNIX:
                self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except BaseException:
            self.sock.close()
            raise

    @classmethod
    def accept(cls, listener: socket.socket) -> Peer:
        """The server's end of a connection to `listener`."""
        peer = cls.__new__(cls)
        listener.settimeout(DEADLINE)
        peer.sock = listener.accept()[0]
        peer.sock.settimeout(DEADLINE)
        return peer

    def send(self, data: bytes) -> None:
        """All of it."""
        self.sock.sendall(data)

    def send_frame(self, number: int, value: bytes = b"") -> None:
        """One message, in one segment if it is small."""
        self.send(frame(number, value))

    def receive(self, size: int) -> bytes:
        """Exactly `size` bytes. Raises EOFError when the stream ends before."""
        data = bytearray()
        while len(data) < size:
            chunk = self.sock.recv(size - len(data))
            if not chunk:
                raise EOFError(f"the stream ended after {len(data)} bytes of {size}")
            data += chunk
        return bytes(data)

    def receive_frame(self) -> tuple[int, bytes]:
        """The number and the value of the next message."""
        number, size = struct.unpack("<iI", self.receive(8))
        return number, self.receive(size)

    def receive_frames(self, count: int) -> list[tuple[int, bytes]]:
        """The next `count` messages."""
        return [self.receive_frame() for _ in range(count)]

    def receive_to_end(self) -> bytes:
        """All that comes up to the other end's FIN."""
        data = bytearray()
        while chunk := self.sock.recv(65_536):
            data += chunk
        return bytes(data)

    def is_cut_off(self) -> bool:
        """Whether the stream ends here, by FIN or by RST."""
        try:
            return self.sock.recv(1) == b""
        except ConnectionError:
            return True

    def finish_sending(self) -> None:
        """Send FIN, and go on receiving."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Send RST."""
        reset(self.sock)

    def close(self) -> None:
        """Close. Twice is once."""
        self.sock.close()

    def __enter__(self) -> Peer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def descriptors() -> set[int]:
    """The numbers of this process's open descriptors."""
    found = set()
    for name in os.listdir("/dev/fd"):
        try:
            os.fstat(int(name))
        except OSError:
            continue  # the one by which the directory was read
        found.add(int(name))
    return found


@contextlib.contextmanager
def no_descriptors_left() -> Iterator[None]:
    """This process cannot have another descriptor while the block lasts."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    held: list[int] = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(descriptors()) + 2, limits[1]))
        with contextlib.suppress(OSError):  # EMFILE
            while True:
                held.append(os.dup(0))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for number in held:
            os.close(number)
