"""What is gathered while somebody watches.

Contents: Watched (one source), Sampler.

Owns one thread, which there is only while the live page, or something else that asks for `/status`, has
asked lately: a server that nobody watches pays nothing. It wakes up TICKS times in a second, to have
the next handlers timed and the loops asked for a sign of life, and makes a point of every source's
series once in a second. A source that hangs holds up this thread, and nothing of the program's; the
page says then how old its numbers are.
"""

from __future__ import annotations

import inspect
import logging
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tao.metrics import MetricsSnapshot
from tao.monitor.series import Series
from tao.monitor.sources import Source, Sources, snapshot_of
from tao.monitor.timing import HandlerTimer
from tao.monitor.watch import WatchedServer
from tao.registry import MessageRegistry
from tao.server import Server

__all__ = ["TICKS", "Sampler", "Watched"]

logger: logging.Logger = logging.getLogger("tao")

TICKS = 20
"""In a second: samples of handlers of one kind, signs of life of a loop, looks at a queue."""

INTERVAL = 1.0
"""Seconds between two points."""

LINGERING = 10.0
"""Seconds for which it goes on after somebody has asked."""

FIRST_WAIT = 2.0
"""Seconds that who asks first waits for the first point."""

STOP_TIMEOUT = 5.0
"""Seconds that `stop` waits for a source that hangs."""


@dataclass(slots=True)
class Watched:
    """A source, and what has been gathered of it. Written by the sampler's thread."""

    source: Source
    server: WatchedServer | None
    """None for a function that is no server's `metrics`."""
    series: Series = field(default_factory=Series)


class Sampler:
    """Gathers, while somebody asks. All methods are for any thread."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._begun = time.monotonic()
        self.id: str = secrets.token_hex(8)
        """Which one this is: after a restart it is another."""
        self._changed = threading.Condition()
        # Under the condition.
        self._thread: threading.Thread | None = None
        self._running = False  # whether the thread goes on, or is about to begin
        self._stopped = False
        self._asked_at = 0.0
        self._pointed_at: float | None = None  # when the last points were made
        self._watched: dict[str, Watched] = {}  # made anew for every change
        self._timers: dict[MessageRegistry, HandlerTimer] = {}  # the sampler's thread

    @property
    def time(self) -> float:
        """Seconds since it was made: what points have."""
        return time.monotonic() - self._begun

    @property
    def interval(self) -> float:
        """Seconds between two points."""
        return INTERVAL

    def look(self) -> tuple[dict[str, Watched], float | None]:
        """What is watched, by the names of the sources, and how old its last points are, in seconds.

        Begins to gather if it did not, and waits for the first points then; the age is None if they do
        not come in time. Raises RuntimeError when there is no thread to be had.
        """
        with self._changed:
            self._asked_at = time.monotonic()
            if not self._running and not self._stopped:
                thread = threading.Thread(target=self._run, name="tao-monitor-sampler", daemon=True)
                self._pointed_at = None
                thread.start()
                self._thread, self._running = thread, True
            self._changed.wait_for(
                lambda: self._pointed_at is not None or self._stopped, FIRST_WAIT
            )
            pointed_at = self._pointed_at
            age = None if pointed_at is None else max(0.0, time.monotonic() - pointed_at)
            return self._watched, age

    def stop(self) -> None:
        """End the thread. Waits some seconds for a source that hangs, and leaves it behind then."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(STOP_TIMEOUT)
            if thread.is_alive():
                logger.warning("the monitor leaves its sampler behind: a source does not return")

    # -- the sampler's thread --------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while True:
                self._gather()
                self._rest()
                with self._changed:
                    if not self._is_wanted():  # who asks from here on starts another thread
                        self._running = False
                        return
        except BaseException:
            with self._changed:
                self._running = False
            raise

    def _gather(self) -> None:
        next_point = time.monotonic()
        while True:
            if time.monotonic() >= next_point:
                self._point()
                # From here: a source that was slow is not asked the more often for it.
                next_point = time.monotonic() + INTERVAL
            for watched in self._watched.values():
                if watched.server is not None:
                    watched.server.tick()
            for timer in self._timers.values():
                timer.arm()
            with self._changed:
                self._changed.wait_for(lambda: self._stopped, 1 / TICKS)
                if not self._is_wanted():
                    return

    def _is_wanted(self) -> bool:
        """Under the condition."""
        return not self._stopped and time.monotonic() - self._asked_at < LINGERING

    def _point(self) -> None:
        self._follow_sources()
        for name, watched in self._watched.items():
            snapshot = snapshot_of(name, watched.source)
            if snapshot is not None:
                self._add_point(watched, snapshot)
        with self._changed:
            self._pointed_at = time.monotonic()
            self._changed.notify_all()

    def _add_point(self, watched: Watched, snapshot: MetricsSnapshot) -> None:
        server = watched.server
        if server is None:
            queue, lag = snapshot.queue_depth, snapshot.loop_lag
        else:
            server.look()
            queue = max(server.take_queue_depth(), snapshot.queue_depth)
            lag = server.take_lag()
        watched.series.add(self.time, snapshot, queue=queue, lag=lag)

    def _follow_sources(self) -> None:
        sources = self._sources.items()
        before = self._watched
        if [(name, watched.source) for name, watched in before.items()] != sources:
            found = {}
            for name, source in sources:
                watched = before.get(name)
                if watched is None or watched.source != source:
                    watched = Watched(source, _server_of(source))
                found[name] = watched
            with self._changed:
                self._watched = found
        self._follow_registries()

    def _follow_registries(self) -> None:
        """One timer for each registry, however many servers have it."""
        servers = [each.server for each in self._watched.values() if each.server is not None]
        for registry in list(self._timers):
            if all(server.registry is not registry for server in servers):
                self._timers.pop(registry).disarm()
        for server in servers:
            if server.registry not in self._timers:
                self._timers[server.registry] = HandlerTimer(server.registry)
        for registry, timer in self._timers.items():
            timer.listeners = {
                server.server: server.note for server in servers if server.registry is registry
            }

    def _rest(self) -> None:
        """Nobody watches: leave everything as it was."""
        for timer in self._timers.values():
            timer.disarm()
        self._timers.clear()
        for watched in self._watched.values():
            watched.series.pause()
            if watched.server is not None:
                watched.server.forget()


def _server_of(source: Callable[[], MetricsSnapshot]) -> WatchedServer | None:
    """The server whose `metrics` this is."""
    if inspect.ismethod(source) and isinstance(source.__self__, Server):
        return WatchedServer(source.__self__)
    return None
