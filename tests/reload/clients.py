"""The clients: some stay connected and send numbered messages, some connect anew for each.

Plain sockets, which know the wire format and nothing of the code under test. Each is one thread.
"""

from __future__ import annotations

import socket
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import TypeAlias

from tests.reload.record import message
from tests.support import DEADLINE, frame

__all__ = ["Address", "Client", "Tally", "Visitor"]

Address: TypeAlias = tuple[str, int] | str
"""Of TCP, or the path of a Unix socket."""

ECHO = 1
HEADER = 8


@dataclass(slots=True)
class Tally:
    """What a client has seen. Written by its thread, read when that has ended."""

    connections: int = 0
    sent: int = 0
    answered: set[bytes] = field(default_factory=set)
    unanswered: int = 0
    """Messages that were on their way when the server's FIN came, and were sent again."""
    refused: int = 0
    broken: list[str] = field(default_factory=list)
    """What must not happen: resets, wrong replies, time-outs."""


class Client(threading.Thread):
    """Stays connected, with `window` messages in flight; at the server's FIN it comes back."""

    def __init__(self, address: Address, number: int, end: threading.Event) -> None:
        super().__init__(name=f"client {number}")
        self._address = address
        self._end = end
        self._number = number
        self._next = 0
        self.window = 4
        """Messages that may be without a reply."""
        self.tally = Tally()
        """Of meaning when the thread has ended."""

    def run(self) -> None:
        """Until the end is set; and then until nothing is left to be answered."""
        again: deque[bytes] = deque()
        while not self._end.is_set() or again:
            try:
                sock = self._connect()
            except OSError as error:
                self.tally.refused += 1
                self.tally.broken.append(f"connect: {error}")
                return
            self.tally.connections += 1
            with sock:
                waiting: deque[bytes] = deque()
                try:
                    self._talk(sock, again, waiting)
                except OSError as error:
                    self.tally.broken.append(f"{self.name}: {error!r}")
                    return
            # In their order, before any new one.
            self.tally.unanswered += len(waiting)
            again.extendleft(reversed(waiting))

    def _connect(self) -> socket.socket:
        if not isinstance(self._address, str):
            return socket.create_connection(self._address, DEADLINE)
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.settimeout(DEADLINE)
            sock.connect(self._address)
        except BaseException:
            sock.close()
            raise
        return sock

    def _talk(self, sock: socket.socket, again: deque[bytes], waiting: deque[bytes]) -> None:
        """Send and receive until the server has sent FIN, or all is done."""
        data = b""
        while True:
            while len(waiting) < self.window and (again or not self._ended()):
                value = again.popleft() if again else self._new()
                waiting.append(value)
                sock.sendall(frame(ECHO, value))
                self.tally.sent += 1
            if not waiting:
                return
            piece = sock.recv(65_536)
            if not piece:
                if data:
                    self.tally.broken.append(f"{self.name}: FIN in the middle of a reply")
                return
            data += piece
            size = HEADER + len(waiting[0])
            while len(data) >= size:
                reply, data = data[:size], data[size:]
                value = waiting.popleft() if waiting else b""
                if reply != frame(ECHO, value):
                    self.tally.broken.append(f"{self.name}: {reply!r} in place of {value!r}")
                    return
                self.tally.answered.add(value)

    def _ended(self) -> bool:
        return self._end.is_set()

    def _new(self) -> bytes:
        self._next += 1
        return message(self._number, self._next)


class Visitor(Client):
    """Connects for every message, and again if it was not answered."""

    def __init__(self, address: Address, number: int, end: threading.Event) -> None:
        super().__init__(address, number, end)
        self.window = 1
        self._had_one = False

    def _ended(self) -> bool:
        had_one, self._had_one = self._had_one, not self._had_one
        return had_one or super()._ended()
