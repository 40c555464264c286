"""The clients: some stay connected and send numbered messages, some connect anew for each.

Plain sockets, or the standard library's over TLS, which know the wire format and nothing of the code under
test. Each is one thread.
"""

from __future__ import annotations

import random
import socket
import ssl
import threading
import time
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

LONGEST_ROUND_TRIP = 0.1
"""Seconds: of a client by TLS, which is as far away as that or nearer. On this machine's own network a
handshake would be over before a reload could find it under way."""


@dataclass(slots=True)
class Tally:
    """What a client has seen. Written by its thread, read when that has ended."""

    connections: int = 0
    sent: int = 0
    answered: set[bytes] = field(default_factory=set)
    unanswered: int = 0
    """Messages that were on their way when the server's FIN came, and were sent again."""
    unheard: int = 0
    """Connections of which the server's FIN was all that came."""
    handshakes: int = 0
    """Of TLS, that were begun."""
    broken_off: int = 0
    """And were not let be finished."""
    refused: int = 0
    broken: list[str] = field(default_factory=list)
    """What must not happen: resets, wrong replies, time-outs."""


class Client(threading.Thread):
    """Stays connected, with `window` messages in flight; at the server's FIN it comes back.

    By TLS, if it has a `context`.
    """

    def __init__(
        self,
        address: Address,
        number: int,
        end: threading.Event,
        context: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(name=f"client {number}")
        self._address = address
        self._context = context
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
            if self._context is not None:
                self.tally.handshakes += 1
                try:
                    sock = _shake_hands(sock, self._context)
                except OSError:  # ssl.SSLError is one
                    self.tally.broken_off += 1
                    if self._end.is_set():
                        return
                    continue
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
        heard = False
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
                self.tally.unheard += not heard
                if data:
                    self.tally.broken.append(f"{self.name}: FIN in the middle of a reply")
                return
            heard = True
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

    def __init__(
        self,
        address: Address,
        number: int,
        end: threading.Event,
        context: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(address, number, end, context)
        self.window = 1
        self._had_one = False

    def _ended(self) -> bool:
        had_one, self._had_one = self._had_one, not self._had_one
        return had_one or super()._ended()


def _shake_hands(sock: socket.socket, context: ssl.SSLContext) -> socket.socket:
    """From afar: what the client sends after its first message leaves a round trip later."""
    sock.setblocking(False)
    with sock:  # which is empty when the other has taken over
        secure = context.wrap_socket(
            sock,
            server_hostname="localhost",
            do_handshake_on_connect=False,
            suppress_ragged_eofs=False,
        )
    try:
        try:
            secure.do_handshake()
        except ssl.SSLWantReadError:
            time.sleep(random.uniform(0.0, LONGEST_ROUND_TRIP))
        secure.settimeout(DEADLINE)
        secure.do_handshake()
    except BaseException:
        secure.close()
        raise
    return secure
