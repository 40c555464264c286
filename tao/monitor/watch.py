"""What a monitor sees of a server beside its metrics.

Contents: WatchedServer; SORTS, the orders in which connections are listed.

Owns nothing of the server's and changes nothing in it. This is the one place where the monitor looks
into a server: at the sessions, which any thread may list, and at numbers of theirs that are a moment old.
`tick` and `look` are for the sampler's thread, the rest for any.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable
from typing import Any

from reactor import ConnectionState, Pause, Reactor, ReactorClosedError
from tao.address import format_address
from tao.monitor.timing import HandlerTimes, Sample
from tao.registry import Entry, MessageRegistry
from tao.server import Server
from tao.server_conn import ServerConn
from tao.session import Session

__all__ = ["SORTS", "WatchedServer"]

LIST_AGE = 0.5
"""Seconds for which a list of connections is good."""

BREATHER = 256
"""Connections that are looked at before other threads, the loop's above all, are let in."""

_PAUSES = {
    Pause.USER: "paused by the program",
    Pause.WORK: "enough messages wait",
    Pause.OUTPUT: "the peer does not read",
    Pause.PROTOCOL: "cannot be understood",
    Pause.MEMORY: "memory is short",
}

_Session = Session[ServerConn]


class WatchedServer:
    """A server, for as long as it is watched."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._times: dict[int, HandlerTimes] = {}  # put in by workers, in one step each
        # The sampler's thread asks and the loop's answers, each in one step.
        self._asked_at: float | None = None
        self._longest_lag = 0.0
        self._deepest_queue = 0
        # Which connections' handlers run, with what they had in hand when that was first seen. Made
        # anew by the sampler's thread, read by others.
        self._busy: dict[_Session, tuple[object, float]] = {}
        self._listing = threading.Lock()
        self._lists: dict[tuple[str, int], tuple[float, dict[str, Any]]] = {}  # under the lock

    @property
    def server(self) -> Server:
        """The server itself."""
        return self._server

    @property
    def registry(self) -> MessageRegistry:
        """Its messages."""
        return self._server._registry

    # -- the sampler's thread --------------------------------------------------------------------

    def tick(self) -> None:
        """Ask the loop for a sign of life, unless one is still due, and look at the queue."""
        pool = self._server._pool
        if pool is not None:
            self._deepest_queue = max(self._deepest_queue, pool.waiting)
        reactor = self._server._reactor
        if reactor is None or self._asked_at is not None or not reactor.in_other_thread():
            return  # or nobody runs it
        self._asked_at = time.monotonic()
        try:
            reactor.call_soon_threadsafe(self._answer)
        except ReactorClosedError:
            self._asked_at = None

    def _answer(self) -> None:
        """On the loop's thread."""
        asked_at = self._asked_at
        if asked_at is not None:
            self._longest_lag = max(self._longest_lag, time.monotonic() - asked_at)
            self._asked_at = None

    def take_lag(self) -> float:
        """Seconds that the loop took to answer, at the worst since the last call; or has taken so far."""
        longest, self._longest_lag = self._longest_lag, 0.0
        asked_at = self._asked_at
        reactor = self._server._reactor
        if asked_at is not None and reactor is not None:
            if reactor.closed or not reactor.in_other_thread():
                self._asked_at = None  # it has ended, and will not answer
            else:
                longest = max(longest, time.monotonic() - asked_at)
        return longest

    def take_queue_depth(self) -> int:
        """Connections that waited for a worker, at the most since the last call."""
        deepest, self._deepest_queue = self._deepest_queue, 0
        return deepest

    def look(self) -> None:
        """See which handlers run, and whether they are the same as at the last look."""
        now = time.monotonic()
        busy = {}
        for session in self._server._snapshot():
            if session.handler_thread:
                batch = session.batch
                seen = self._busy.get(session)
                busy[session] = seen if seen is not None and seen[0] is batch else (batch, now)
        self._busy = busy

    def forget(self) -> None:
        """Nobody watches any more."""
        self._busy = {}
        self._asked_at = None
        self._longest_lag = 0.0
        self._deepest_queue = 0

    # -- any thread ------------------------------------------------------------------------------

    def note(self, entry: Entry[object], message: object, sample: Sample) -> None:
        """A handler was timed. On the thread that has run it."""
        times = self._times.get(entry.number)
        name = _name_of(entry.handler)
        if times is None or times.handler != name:
            times = HandlerTimes(entry.number, name, "", entry.inline)
            self._times[entry.number] = times
        times.message = type(message).__name__
        times.samples.append(sample)

    def handlers(self) -> list[dict[str, Any]]:
        """By the kind of message, those that are slowest at the 99th percentile first; times in seconds."""
        now = time.monotonic()
        found: list[dict[str, Any]] = []
        for times in list(self._times.values()):
            recent = times.recent(now)
            if recent:
                found.append(
                    {
                        "number": times.number,
                        "message": times.message,
                        "handler": times.handler,
                        "inline": times.inline,
                        "samples": len(recent),
                        "mean": sum(recent) / len(recent),
                        "p50": _at(recent, 0.5),
                        "p95": _at(recent, 0.95),
                        "p99": _at(recent, 0.99),
                        "max": recent[-1],
                    }
                )
        found.sort(key=lambda each: (-each["p99"], each["number"]))
        return found

    def facts(self) -> dict[str, Any]:
        """What the server was made with, and where it listens."""
        server = self._server
        return {
            "listening": [format_address(each.address) for each in list(server._gate.acceptors)],
            "max_connections": server._max_connections,
            "workers": server._worker_size,
            "memory_limit": server._memory_limit,
        }

    def connections(self, sort: str, limit: int) -> dict[str, Any]:
        """The first `limit` connections in one of the orders of SORTS, and how many there are besides.

        However many ask for them: they are gone through once in LIST_AGE.
        """
        with self._listing:
            now = time.monotonic()
            listed = self._lists.get((sort, limit))
            if listed is None or now - listed[0] > LIST_AGE:
                listed = now, self._list(sort, limit)
                for old in [key for key, each in self._lists.items() if now - each[0] > LIST_AGE]:
                    del self._lists[old]
                self._lists[sort, limit] = listed
            return listed[1]

    def _list(self, sort: str, limit: int) -> dict[str, Any]:
        sessions = self._server._snapshot()
        reactor = self._server._reactor
        rows: list[dict[str, Any]] = []
        if reactor is not None:
            now = reactor.time()
            key = SORTS[sort]
            keyed = _with_keys(sessions, lambda session: key(self, session))
            for _, _, session in heapq.nsmallest(limit, keyed, key=lambda each: each[:2]):
                rows.append(self._row(session, reactor, now))
        return {"sort": sort, "rows": rows, "more": len(sessions) - len(rows)}

    def _row(self, session: _Session, reactor: Reactor, now: float) -> dict[str, Any]:
        connection = session.connection
        state = connection.state
        pauses = connection.paused
        return {
            "id": session.net_id,
            "peer": session.conn.name,
            "state": str(state),
            "age": max(0.0, now - session.made_at),
            "idle": max(0.0, now - connection.last_received),
            "busy": self._busy_for(session),
            "unhandled": session.unhandled,
            "messages": session.messages_in,
            "bytes_in": connection.bytes_received,
            "bytes_out": connection.bytes_sent,
            "unsent": connection.pending,
            "held": session.bytes_held,
            "not_reading": [
                text
                for pause, text in _PAUSES.items()
                if pauses & pause and state is ConnectionState.OPEN
            ],
        }

    def _busy_for(self, session: _Session) -> float | None:
        """Seconds that the handler in hand has run, as far as was seen; None: there is none."""
        if not session.handler_thread:
            return None
        seen = self._busy.get(session)
        if seen is None or seen[0] is not session.batch:
            return 0.0
        return time.monotonic() - seen[1]


SORTS: dict[str, Callable[[WatchedServer, _Session], float]] = {
    "busy": lambda watched, session: -(watched._busy_for(session) or 0.0),
    "bytes": lambda _, session: (
        -(session.connection.bytes_received + session.connection.bytes_sent)
    ),
    "held": lambda _, session: -session.bytes_held,
    "idle": lambda _, session: session.connection.last_received,
    "messages": lambda _, session: -session.messages_in,
    "newest": lambda _, session: -session.net_id,
    "oldest": lambda _, session: session.net_id,
}
"""By their names: what is least for the connection that comes first."""


def _with_keys(
    sessions: list[_Session], key: Callable[[_Session], float]
) -> list[tuple[float, int, _Session]]:
    keyed = []
    for index, session in enumerate(sessions):
        if index % BREATHER == BREATHER - 1:
            time.sleep(0)  # lets the interpreter go: the loop need not wait out this thread's turn
        keyed.append((key(session), session.net_id, session))
    return keyed


def _at(ordered: list[float], share: float) -> float:
    """The least of them that is not exceeded by that share of them."""
    return ordered[max(0, -(-len(ordered) * round(share * 100) // 100) - 1)]


def _name_of(handler: object) -> str:
    """For people: a function's own name, with its class; of other things that can be called, their type."""
    while hasattr(handler, "func"):  # functools.partial's
        handler = handler.func
    name = getattr(handler, "__qualname__", None) or type(handler).__qualname__
    return str(name).rpartition("<locals>.")[2]
