"""The clients: they talk, listen, and connect again when they are cut off.

Contents: Clients.

One asyncio loop for all of them. They read and write frames by hand.
"""

from __future__ import annotations

import asyncio
import random
import time

from tests.cluster.judge import Connection
from tests.cluster.wire import FRAME, HEARD, SAID, TEXT, WELCOME

__all__ = ["Clients"]

RETRY = 0.05
"""Seconds between two attempts to connect."""


class _Talk(asyncio.Protocol):
    """One connection."""

    def __init__(self, clients: Clients) -> None:
        self.record = Connection(len(clients.connections))
        self.transport: asyncio.WriteTransport | None = None
        self.over = asyncio.Event()
        self._clients = clients
        self._data = b""
        clients.connections.append(self.record)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self.transport = transport

    def connection_lost(self, _error: Exception | None) -> None:
        self.record.ended = not self._clients.finished
        self.transport = None
        self.over.set()

    def data_received(self, data: bytes) -> None:
        data = self._data + data
        start, size = 0, len(data)
        now = time.monotonic()
        while size - start >= FRAME.size:
            kind, length = FRAME.unpack_from(data, start)
            end = start + FRAME.size + length
            if end > size:
                break
            value = data[start + FRAME.size : end]
            start = end
            if kind == HEARD:
                self._hear(value, now)
            else:
                assert kind == WELCOME
                self.record.server = value.decode()
                self.record.since = now
        self._data = data[start:]

    def _hear(self, value: bytes, now: float) -> None:
        sender, number = TEXT.unpack(value)
        self.record.hear(sender, number)
        # Their times are for a sample: one sender in some.
        if sender % 8 == 0:
            other = self._clients.connections[sender]
            delay = now - other.said[number - 1]
            is_local = other.server == self.record.server
            (self.record.local_delays if is_local else self.record.remote_delays).append(delay)

    def say(self) -> None:
        """The next message; nothing before it is welcome."""
        if self.transport is not None and self.record.server:
            self.record.said.append(time.monotonic())
            value = TEXT.pack(self.record.id, len(self.record.said))
            self.transport.write(FRAME.pack(SAID, len(value)) + value)


class Clients:
    """All of them, on the running loop."""

    def __init__(self, ports: list[int], count: int, interval: float) -> None:
        self.connections: list[Connection] = []
        self.finished = False
        self.quiet = False
        self._interval = interval
        self._talks: dict[int, _Talk] = {}
        self._may_return = asyncio.Event()
        self._may_return.set()
        self._tasks = [
            asyncio.create_task(self._live(client, ports[client % len(ports)]))
            for client in range(count)
        ]

    async def _live(self, client: int, port: int) -> None:
        loop = asyncio.get_running_loop()
        while not self.finished:
            # Some come back at once, to a server that shares the port; the others when it is there.
            if client % 4 >= 2:
                await self._may_return.wait()
            try:
                _, talk = await loop.create_connection(lambda: _Talk(self), "127.0.0.1", port)
            except OSError:
                await asyncio.sleep(RETRY)
                continue
            self._talks[client] = talk
            await self._speak(talk)

    async def _speak(self, talk: _Talk) -> None:
        dice = random.Random(talk.record.id)
        while not talk.over.is_set():
            pause = self._interval * dice.uniform(0.5, 1.5)
            try:
                await asyncio.wait_for(talk.over.wait(), pause)
            except TimeoutError:
                if not self.quiet:
                    talk.say()

    def hold_back(self) -> None:
        """Half of those that are cut off from here on wait for `let_return`."""
        self._may_return.clear()

    def let_return(self) -> None:
        """The server is there again."""
        self._may_return.set()

    @property
    def welcome_count(self) -> int:
        """Clients that are connected and have been told where."""
        return sum(
            talk.transport is not None and bool(talk.record.server) for talk in self._talks.values()
        )

    def received(self) -> int:
        """Messages that all have heard together."""
        return sum(connection.received for connection in self.connections)

    async def close(self) -> None:
        """End all connections."""
        self.finished = True
        for talk in self._talks.values():
            if talk.transport is not None:
                talk.transport.close()
        await asyncio.gather(*self._tasks)
