"""A connection on a real socket whose handler writes down what it is told.

Contents: Recorder, End, Make, make_ends.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from reactor import (
    TRANSITIONS,
    CloseReason,
    Connection,
    ConnectionOptions,
    ConnectionState,
    Environment,
    Reactor,
    Watermark,
    WriteResult,
)
from tests.reactor.support import DEADLINE, run_passes, run_until, tcp_pair

__all__ = ["MUCH", "REACHABLE", "SMALL_MARKS", "End", "Make", "Recorder", "make_ends"]

S = ConnectionState

MUCH = 4 << 20
"""Bytes that no two socket buffers hold, once they have been made small."""

SMALL_MARKS = ConnectionOptions(output=Watermark(1_000, 10_000))

REACHABLE: dict[S, set[S]] = {}
for _state in reversed(S):  # the states are defined in the order in which they come
    REACHABLE[_state] = {_state}.union(*(REACHABLE[to] for to in TRANSITIONS[_state].values()))


class Recorder:
    """A handler that writes down what it is told, and checks that it is told in order."""

    def __init__(self) -> None:
        self.connection: Connection | None = None
        self.calls: list[str] = []
        self.states: list[S] = []
        self.data = bytearray()
        self.reasons: list[CloseReason] = []
        self.idle = True
        self.threads: set[int] = set()
        self.reply: bytes | None = None
        """What is returned for data."""
        self.on_data: Callable[[bytes], object] = lambda data: None
        self.on_open: Callable[[], object] = lambda: None
        self.on_draining: Callable[[], object] = lambda: None
        self.on_closed: Callable[[CloseReason], object] = lambda reason: None

    def _note(self, call: str) -> None:
        assert self.connection is not None
        self.calls.append(call)
        self.states.append(self.connection.state)
        self.threads.add(threading.get_ident())

    def handle_open(self) -> None:
        self._note("open")
        self.on_open()

    def handle_data(self, data: bytes) -> bytes | None:
        if not self.calls or self.calls[-1] != "data":
            self._note("data")
        self.data += data
        self.on_data(data)
        return self.reply

    def handle_draining(self) -> None:
        self._note("draining")
        self.on_draining()

    def handle_writable(self) -> None:
        self._note("writable")

    def handle_closed(self, reason: CloseReason) -> None:
        self._note("closed")
        self.reasons.append(reason)
        self.on_closed(reason)

    def is_idle(self) -> bool:
        return self.idle

    @property
    def reason(self) -> CloseReason:
        [reason] = self.reasons
        return reason

    def check(self) -> None:
        """What is promised of every life, however it went."""
        assert self.calls.count("open") <= 1
        assert self.calls.count("draining") <= 1
        assert self.calls.count("closed") == 1
        assert self.calls[-1] == "closed", "something was called after the last call"
        if "open" in self.calls:
            assert self.calls[0] == "open"
        else:
            assert self.calls == ["closed"]
        if "draining" in self.calls:
            assert "data" not in self.calls[self.calls.index("draining") :]
        for before, after in itertools.pairwise(self.states):
            assert after in REACHABLE[before], f"{after} cannot come after {before}"
        assert len(self.threads) == 1


@dataclass
class End:
    """Our connection and its handler, and the peer's socket."""

    reactor: Reactor
    connection: Connection
    handler: Recorder
    peer: socket.socket
    ours: socket.socket | None
    received: bytearray = field(default_factory=bytearray)

    def is_in(self, state: S) -> bool:
        """A call, and not a comparison, of which a type checker would believe that it still holds
        after the next pass."""
        return self.connection.state is state

    def start(self) -> End:
        assert self.ours is not None
        self.connection.start(self.ours)
        return self

    def until(self, predicate: Callable[[], object], what: str = "it") -> None:
        run_until(self.reactor, predicate, what)

    def until_closed(self) -> CloseReason:
        self.until(lambda: self.handler.reasons, "the end")
        return self.handler.reason

    def peer_reads(self, size: int = 65_536) -> None:
        """The peer takes what there is, without waiting."""
        self.peer.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            self.received += self.peer.recv(size)
        self.peer.settimeout(DEADLINE)

    def until_received(self, size: int) -> None:
        def read() -> bool:
            self.peer_reads()
            return len(self.received) >= size

        self.until(read, f"the {size}th byte")

    def until_fin(self) -> bytes:
        """The peer reads to the end, while the loop runs; gives all that it has read."""
        ended: list[bool] = []

        def read() -> bool:
            self.peer.setblocking(False)
            try:
                while chunk := self.peer.recv(65_536):
                    self.received += chunk
                ended.append(True)
            except BlockingIOError:
                pass
            self.peer.settimeout(DEADLINE)
            return bool(ended)

        self.until(read, "our FIN")
        return bytes(self.received)

    def fill(self) -> int:
        """Write more than the kernel takes; gives the number of bytes."""
        self.write(bytes(MUCH))
        run_passes(self.reactor)
        assert self.connection.pending > 0, "the kernel has taken everything"
        return MUCH

    def write(self, data: bytes) -> None:
        assert self.connection.write(data) in (WriteResult.ACCEPTED, WriteResult.ABOVE_HIGH)


Make = Callable[..., End]


def make_ends(reactor: Reactor) -> Iterator[Make]:
    ends: list[End] = []

    def make(*, buffer_size: int | None = None, started: bool = True, **options: Any) -> End:
        handler = Recorder()
        given = options.pop("options", None) or ConnectionOptions(**options)
        connection = Connection(Environment(reactor, given), handler)
        handler.connection = connection
        ours, peer = tcp_pair(buffer_size=buffer_size)
        end = End(reactor, connection, handler, peer, ours)
        ends.append(end)
        return end.start() if started else end

    yield make
    for end in ends:
        end.connection.abort()
        run_passes(reactor)
        end.peer.close()
        if end.ours is not None:
            end.ours.close()
        end.handler.check()
    assert reactor.statistics().channels == 0
    assert reactor.statistics().timeouts_waiting == 0
