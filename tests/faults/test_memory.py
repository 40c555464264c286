"""A thousand connections, each of which tries to have the server hold as much as it can.

The server runs in a process of its own, so that what it takes of the system can be measured.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import sys
import time
from pathlib import Path

import pytest

from tests.examples.support import Program
from tests.faults.support import header
from tests.support import Peer, frame

CONNECTIONS = 1000
LIMIT = 33_554_432

ECHO, MUCH, SLOW = 1, 2, 3

SERVER = f"""
import threading
from tao import MessageRegistry, Server
from tests.support import Sample, as_bytes

released = threading.Event()
registry = MessageRegistry()
registry.register({ECHO}, as_bytes, lambda ctx, conn: Sample({ECHO}, ctx.message), inline=True)
registry.register({MUCH}, as_bytes, lambda ctx, conn: Sample({MUCH}, bytes(65_536)))
registry.register({SLOW}, as_bytes, lambda ctx, conn: released.wait(60.0) and None)
server = Server(
    registry=registry, memory_limit={LIMIT}, max_connections={CONNECTIONS} + 1, frame_timeout=1.0
)
with server.running(("127.0.0.1", 0)) as address:
    print(f"listening on {{address[0]}}:{{address[1]}}", flush=True)
    for command in iter(input, "end"):
        if command == "release":
            released.set()
            continue
        print(f"held {{server.metrics().bytes_held}} answers {{command}}", flush=True)
"""

# What a connection sends again and again, until the server reads no more: the beginning of a frame that
# never ends; requests whose replies are not read; small messages for handlers that do not return.
HOSTILE = (
    header(ECHO, 1 << 22) + bytes(1 << 20),
    frame(MUCH) * 512,
    frame(SLOW, b"x" * 32) * 512,
)


def resident_bytes(process: int) -> int:
    """What the system has given it; proc(5), statm."""
    pages = Path(f"/proc/{process}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


class Attack:
    """The thousand, each of which writes whenever it can."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._selector = selectors.DefaultSelector()
        self._left: dict[int, memoryview] = {}
        self._socks: list[socket.socket] = []
        self.sent = 0
        for index in range(CONNECTIONS):
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(address)
            sock.setblocking(False)
            self._socks.append(sock)
            self._left[sock.fileno()] = memoryview(HOSTILE[index % len(HOSTILE)])
            self._selector.register(sock, selectors.EVENT_WRITE)

    def go_on(self) -> int:
        """One look at all; how many bytes were taken."""
        before = self.sent
        for key, _ in self._selector.select(0.05):
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            data = self._left[key.fd]
            try:
                sent = sock.send(data[:65_536])
            except OSError as error:
                if error.errno != errno.EAGAIN:
                    self._selector.unregister(sock)
                continue
            self.sent += sent
            if sent == len(data):
                self._selector.unregister(sock)
            self._left[key.fd] = data[sent:]
        return self.sent - before

    def close(self) -> None:
        """All of them."""
        self._selector.close()
        for sock in self._socks:
            sock.close()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_thousand_that_fill_what_they_can() -> None:
    with Program(["-c", SERVER]) as program:
        address = program.address()
        asked = 0

        def held() -> int:
            nonlocal asked
            asked += 1
            program.enter(f"{asked}\n")
            return int(program.wait_for(rf"held (-?\d+) answers {asked}\n")[1])

        with Peer(address) as modest:

            def check_alive() -> None:
                modest.send_frame(ECHO, b"still there?")
                assert modest.receive_frame() == (ECHO, b"still there?")

            check_alive()
            before = resident_bytes(program.pid)
            most_held = most_resident = 0
            attack = Attack(address)
            try:
                quiet_since = time.monotonic()
                until = quiet_since + 8.0
                while time.monotonic() < min(until, quiet_since + 1.0):
                    if attack.go_on():
                        quiet_since = time.monotonic()
                    check_alive()
                    most_held = max(most_held, held())
                    most_resident = max(most_resident, resident_bytes(program.pid))
                assert attack.sent > 2 * LIMIT  # they have sent more than it may hold
            finally:
                attack.close()
                program.enter("release\n")
            check_alive()
            print(f"held {most_held}, resident {most_resident - before}, sent {attack.sent}")
            # What is charged stays within the limit, but for one small read and one reply each: how much
            # either brings is known when it is there.
            assert LIMIT // 4 < most_held <= LIMIT + CONNECTIONS * (4096 + 65_536 // len(HOSTILE))
            # A waiting value is there twice, as it came and as a message; and the allocator keeps some.
            assert most_resident - before < 3 * LIMIT + CONNECTIONS * 16_384
            deadline = time.monotonic() + 20.0
            while held() and time.monotonic() < deadline:
                pass
            assert held() == 0
            program.enter("end\n")
            assert program.wait() == 0, program.errors
