"""The parent of a service's workers.

Contents: Plan, Slot, Supervisor.

Owns the workers' lives: it starts them, starts those again that have fallen, replaces all of them on a
reload, and ends them. It speaks to no client, and imports nothing of the application. One thread, the
main one, on which a reactor runs.

How a reload loses no connection: new workers load the application beside the old ones, which go on. When
all have loaded, they are told to serve; a worker is told to stop when its successor has begun to accept
from the same sockets. These are the parent's, and are never closed in between, so that what is in their
backlog is accepted by one or the other. If a new one fails to load, nothing has changed.
"""

from __future__ import annotations

import enum
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import Any

from reactor import READ, Reactor, Timeout
from tao.backoff import Backoff
from tao.processes.child import Child, ChildStatus
from tao.processes.link import ALIVE, LOADED, READY
from tao.processes.listeners import Listeners
from tao.processes.order import Order
from tao.processes.systemd import Notifier

__all__ = ["RESTARTS", "Plan", "Slot", "Supervisor"]

logger: logging.Logger = logging.getLogger("tao")

RESTARTS = Backoff(first=0.5, factor=2.0, maximum=30.0, jitter=0.2, stable=10.0)
"""The pauses before the second start in a row and the later ones. The first is made at once."""

MARGIN = 3.0
"""Seconds beyond its grace after which a worker is ended by force."""

PINGS_PER_WATCHDOG = 4
"""So often is every worker asked within the watchdog's time: an answer may be late once, and one feed be
missed, before the service is taken for dead."""


class Phase(enum.Enum):
    """What the service is doing."""

    STARTING = "starting"
    SERVING = "serving"
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the workers are, and how long things may take. Durations are in seconds."""

    target: str
    """The application: `package.module:server`."""
    workers: int = 1
    """How many processes."""
    grace: float = 10.0
    """What a worker gets to finish in."""
    start_timeout: float = 30.0
    """In which a worker must be ready."""
    app_dir: str = ""
    """The folder to import the application from; empty for none beside Python's own."""
    log_level: str = "info"
    """Of LEVELS, for the workers."""
    tls_certificate: str | None = None
    """The certificate's file, read by each worker, and so again at each reload."""
    tls_key: str | None = None
    """The key's."""
    proxy_protocol: bool = False
    """See `Server.listen`."""
    trusted_proxies: tuple[str, ...] = ()
    """See `Server.listen`; for TCP's addresses."""


@dataclass(slots=True, eq=False)
class Slot:
    """A worker's place: who has it, who is leaving it, and when somebody comes."""

    index: int
    current: Child | None = None
    """The worker that serves, or is about to; None while one has fallen and none is started yet."""
    previous: Child | None = None
    """The one before, which serves until `current` does."""
    falls: int = 0
    """How many workers in a row have not lasted."""
    retry: Timeout | None = None
    """When the next is started."""

    def is_served(self) -> bool:
        """Whether somebody accepts from its sockets whose place this is."""
        return self.previous is not None or (
            self.current is not None and self.current.status is ChildStatus.READY
        )

    def cancel_retry(self) -> None:
        """Start nobody."""
        if self.retry is not None:
            self.retry.cancel()
            self.retry = None


class Supervisor:
    """Runs a Plan until a signal ends it.

    SIGTERM and SIGINT stop it in good order, a second one at once, a third by force. SIGHUP reloads. The
    sockets are closed when it ends. `environment` is what the workers get; `on_serving` is called when
    all of them accept for the first time.
    """

    def __init__(
        self,
        plan: Plan,
        listeners: Listeners,
        *,
        environment: Mapping[str, str],
        notifier: Notifier,
        monitors: Mapping[int, int] | None = None,
        on_serving: Callable[[], object] = lambda: None,
    ) -> None:
        self._plan = plan
        self._listeners = listeners
        self._environment = environment
        self._notifier = notifier
        self._monitors = monitors or {}
        self._on_serving = on_serving
        self._reactor = Reactor()
        self._phase = Phase.STARTING
        self._slots = [Slot(index) for index in range(plan.workers)]
        self._children: set[Child] = set()  # all processes that there are
        self._candidates: list[Child] = []  # of a start or a reload, none of which serves yet
        self._reload_again = False
        self._signals = 0  # that asked for an end
        self._status = 0
        self._failure: str | None = None

    @property
    def failure(self) -> str | None:
        """Why it has ended by itself; None if it was asked to."""
        return self._failure

    def run(self) -> int:
        """Serve until stopped; returns 0, 1 if something failed, or 130 for SIGINT.

        For the main thread, for it handles signals while it runs.
        """
        with self._handling_signals():
            try:
                self._reactor.call_soon(self._load)
                if self._notifier.watchdog is not None:
                    self._reactor.call_every(
                        self._notifier.watchdog / PINGS_PER_WATCHDOG, self._watch
                    )
                self._reactor.run()
            finally:
                for child in self._children:  # none, unless an exception has ended the loop
                    child.kill()
                    child.wait()
                self._listeners.close()
                self._reactor.close()
        return self._status

    @contextmanager
    def _handling_signals(self) -> Iterator[None]:
        def posting(
            function: Callable[..., object], *arguments: object
        ) -> Callable[[int, FrameType | None], None]:
            def handle(_number: int, _frame: FrameType | None) -> None:
                self._reactor.post(partial(function, *arguments))
                self._reactor.wake()

            return handle

        handlers = {
            signal.SIGCHLD: posting(self._reap),
            signal.SIGHUP: posting(self.reload),
            signal.SIGTERM: posting(self.stop, 0),
            signal.SIGINT: posting(self.stop, 128 + signal.SIGINT),
        }
        before: dict[signal.Signals, Any] = {
            number: signal.signal(number, handler) for number, handler in handlers.items()
        }
        # The interpreter runs these when it gets to it. A signal that comes just before the loop goes to
        # sleep would be noticed when something else ends that sleep: a byte of its own does.
        reader, writer = socket.socketpair()
        with reader, writer:
            reader.setblocking(False)
            writer.setblocking(False)
            self._reactor.register(reader, READ, lambda _ready: reader.recv(4096))
            fd_before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
            try:
                yield
            finally:
                signal.set_wakeup_fd(fd_before)
                for number, previous in before.items():
                    signal.signal(number, previous)

    # -- starting and reloading ------------------------------------------------------------------

    def _load(self) -> None:
        """Start a worker for each slot, of which none serves before all have loaded."""
        self._reload_again = False
        try:
            for slot in self._slots:
                self._candidates.append(self._start(slot))
        except OSError as error:
            self._give_up(f"cannot start a process: {error}")

    def _start(self, slot: Slot) -> Child:
        plan = self._plan
        order = Order(
            target=plan.target,
            slot=slot.index,
            control=-1,  # the Child's to fill in
            listeners=self._listeners.of(slot.index),
            spare=self._listeners.beside(slot.index),
            grace=plan.grace,
            log_level=plan.log_level,
            app_dir=plan.app_dir,
            tls_certificate=plan.tls_certificate,
            tls_key=plan.tls_key,
            proxy_protocol=plan.proxy_protocol,
            trusted_proxies=plan.trusted_proxies,
            monitor=self._monitors.get(slot.index),
        )
        child = Child(self._reactor, order, self._environment, self._handle_line)
        self._children.add(child)
        child.set_deadline(plan.start_timeout, partial(self._handle_late_start, child))
        logger.debug("worker %d is process %d", child.slot, child.pid)
        return child

    def _handle_late_start(self, child: Child) -> None:
        logger.error(
            "worker %d (process %d) is not ready after %g s (it is %s): ended by force",
            child.slot,
            child.pid,
            self._plan.start_timeout,
            child.status.value,
        )
        child.kill()

    def _handle_line(self, child: Child, word: str) -> None:
        if word == ALIVE:
            child.answered = True
        elif word == LOADED and child.status is ChildStatus.LOADING:
            child.status = ChildStatus.LOADED
            if child not in self._candidates:
                child.serve()  # in place of one that has fallen
            elif all(each.status is ChildStatus.LOADED for each in self._candidates):
                self._take_over()
        elif word == READY and child.status is ChildStatus.STARTING:
            child.status = ChildStatus.READY
            child.ready_at = self._reactor.time()
            child.clear_deadline()
            self._handle_ready(self._slots[child.slot])

    def _take_over(self) -> None:
        """All have loaded: from here on they are the service, and one that falls is started again."""
        for child in self._candidates:
            slot = self._slots[child.slot]
            slot.cancel_retry()
            if slot.current is not None:
                if slot.previous is not None:  # its successor has not come to serve
                    self._stop(slot.current)
                else:
                    slot.previous = slot.current
            slot.current = child
            child.serve()
        self._candidates.clear()

    def _handle_ready(self, slot: Slot) -> None:
        if slot.previous is not None:
            self._stop(slot.previous)
            slot.previous = None
        for other in self._slots:
            if other.falls > 1 and slot.current is not None and not other.is_served():
                slot.current.adopt(other.index)
        if self._is_settling():
            return
        if self._phase is Phase.STARTING:
            self._phase = Phase.SERVING
            self._on_serving()
        logger.info("serving: processes %s", ", ".join(str(pid) for pid in self._pids()))
        count = len(self._slots)
        self._notifier.ready("1 worker serves" if count == 1 else f"{count} workers serve")
        if self._reload_again:
            self.reload()

    def _is_settling(self) -> bool:
        """Whether a start or a reload is under way."""
        return bool(self._candidates) or any(
            slot.previous is not None
            or slot.current is None
            or slot.current.status is not ChildStatus.READY
            for slot in self._slots
        )

    def _pids(self) -> list[int]:
        return [slot.current.pid for slot in self._slots if slot.current is not None]

    def reload(self) -> None:
        """Replace all workers by new ones. The loop's thread.

        During a start or another reload it is done after that, once: what had been asked for before
        it may have read what has changed since.
        """
        if self._phase is Phase.STOPPING:
            return
        if self._phase is Phase.STARTING or self._candidates:
            self._reload_again = True
            return
        logger.info("reloading")
        self._notifier.reloading()
        self._load()

    # -- the end of a worker ---------------------------------------------------------------------

    def _reap(self) -> None:
        for child in [child for child in self._children if child.has_ended()]:
            self._children.remove(child)
            self._handle_end(child)

    def _handle_end(self, child: Child) -> None:
        slot = self._slots[child.slot]
        if self._phase is Phase.STOPPING:
            self._handle_end_in_stop(child)
        elif child in self._candidates:
            self._candidates.remove(child)
            self._give_up(
                f"worker {child.slot} (process {child.pid}) could not be started: {child.how()}"
            )
        elif child is slot.previous:
            slot.previous = None
            logger.warning("worker %d (process %d) ended: %s", child.slot, child.pid, child.how())
        elif child is not slot.current:
            level = logging.INFO if child.left_well() else logging.WARNING
            logger.log(
                level, "worker %d (process %d) has left: %s", child.slot, child.pid, child.how()
            )
        elif self._phase is Phase.STARTING:
            self._give_up(
                f"worker {child.slot} (process {child.pid}) could not be started: {child.how()}"
            )
        else:
            self._handle_fall(slot, child)

    def _give_up(self, why: str) -> None:
        """A start has failed, and the service with it; or a reload, and everything stays as it was."""
        for child in self._candidates:
            self._stop(child)
        self._candidates.clear()
        if self._phase is Phase.STARTING:
            self._failure = why
            self._begin_stop(0.0)
            self._status = 1
            return
        logger.error("not reloaded, the old workers go on: %s", why)
        self._notifier.ready("the last reload has failed")
        if self._reload_again:
            self.reload()

    def _handle_fall(self, slot: Slot, child: Child) -> None:
        served = self._reactor.time() - child.ready_at if child.ready_at else 0.0
        if served >= RESTARTS.stable:
            slot.falls = 0
        delay = RESTARTS.delay(slot.falls - 1) if slot.falls else 0.0
        slot.falls += 1
        slot.current = None
        logger.error(
            "worker %d (process %d) fell: %s; started again %s",
            child.slot,
            child.pid,
            child.how(),
            f"in {delay:.1f} s" if delay else "at once",
        )
        if delay:
            # Its sockets are open, and the kernel goes on dealing connections to them.
            self._have_adopted(slot)
        slot.retry = self._reactor.call_later(delay, partial(self._start_again, slot))

    def _have_adopted(self, slot: Slot) -> None:
        for other in self._slots:
            if other.current is not None and other.current.status is ChildStatus.READY:
                other.current.adopt(slot.index)

    def _start_again(self, slot: Slot) -> None:
        slot.retry = None
        try:
            slot.current = self._start(slot)
        except OSError as error:
            logger.error("cannot start worker %d: %s", slot.index, error)
            slot.falls += 1
            self._have_adopted(slot)
            delay = RESTARTS.delay(slot.falls)
            slot.retry = self._reactor.call_later(delay, partial(self._start_again, slot))

    # -- stopping --------------------------------------------------------------------------------

    def stop(self, status: int) -> None:
        """Stop in good order; at once the second time, by force the third. The loop's thread."""
        self._signals += 1
        if self._signals == 1 and self._phase is not Phase.STOPPING:
            self._status = status
            self._begin_stop(self._plan.grace)
        elif self._signals <= 2:
            logger.warning("stopping at once")
            for child in self._children:
                self._stop(child, 0.0)
        else:
            for child in self._children:
                child.kill()

    def _begin_stop(self, grace: float) -> None:
        self._phase = Phase.STOPPING
        logger.info("stopping")
        self._notifier.stopping()
        # Who connects from now on is refused, and does not wait for workers that end.
        self._listeners.close()
        self._candidates.clear()
        for slot in self._slots:
            slot.cancel_retry()
        for child in self._children:
            self._stop(child, grace)
        if not self._children:
            self._reactor.stop()

    def _stop(self, child: Child, grace: float | None = None) -> None:
        if grace is None:
            grace = self._plan.grace
        child.stop(grace)
        child.set_deadline(grace + MARGIN, partial(self._handle_late_end, child))

    def _handle_late_end(self, child: Child) -> None:
        logger.error(
            "worker %d (process %d) has not ended within its grace: ended by force",
            child.slot,
            child.pid,
        )
        child.kill()

    def _handle_end_in_stop(self, child: Child) -> None:
        if child.killed:
            self._status = 1
        if not self._children:
            self._reactor.stop()

    # -- the watchdog ----------------------------------------------------------------------------

    def _watch(self) -> None:
        serving = [
            slot.current
            for slot in self._slots
            if slot.current is not None and slot.current.status is ChildStatus.READY
        ]
        if all(child.answered for child in serving):
            self._notifier.alive()
        for child in serving:
            child.ping()

    def __repr__(self) -> str:
        return f"<Supervisor of process {os.getpid()}: {self._phase.value}, {len(self._children)} workers>"
