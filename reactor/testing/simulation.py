"""A system that is not there.

Contents: Simulation.

Owns everything that is simulated, and ends it. It is a `reactor.System`: a reactor that is made with it
sleeps, tells the time, opens sockets and starts threads in the simulation, and so does everything that
runs on that reactor.
"""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from functools import partial
from types import TracebackType
from typing import Self, TypeVar

from reactor.clock import Clock
from reactor.loop import Reactor
from reactor.system import Accept, AddressInfo, SocketAddress
from reactor.testing.clock import ManualClock
from reactor.testing.faults import Faults
from reactor.testing.network import Network, SimulatedSocket
from reactor.testing.poller import SimulatedPoller
from reactor.testing.scheduler import Entry, Scheduler, SimulationError
from reactor.testing.threads import (
    SimulatedCondition,
    SimulatedEvent,
    SimulatedExecutor,
    SimulatedLock,
    SimulatedQueue,
    SimulatedReentrantLock,
    SimulatedThread,
)
from reactor.waker import Lock, Waker

__all__ = ["Simulation"]

SETTLING = 0.01
"""Seconds that are given, at the end, to what looks once more whether it is needed: the worker pool does
so a millisecond after it has been used."""

T = TypeVar("T")


class _Clock(ManualClock):
    """To read the time is a point at which another thread may come in between."""

    def __init__(self) -> None:
        super().__init__()
        self.point: Callable[[], object] | None = None

    def monotonic(self) -> float:
        if self.point is not None:
            self.point()
        return self.microseconds / 1e6


class Simulation:
    """Loops, threads and a network that `seed` alone decides about. Implements `reactor.System`.

    Use it in a `with` statement, on one thread, which is the simulation's first: what it waits for, by any
    method of the simulation's or of what runs in it, happens meanwhile, and without waiting for real time.
    At the end all loops and threads are ended. An exception that leaves the block is told the seed,
    with which the same happens again.

    Other threads must come from `spawn`, `thread` or `executor`. Code that waits for something real, such
    as a lock that another simulated thread holds while it waits, holds up all, and is reported after
    a while; the simulation's own `sleep`, `lock` and so on let others run.

    Threads are interrupted where the framework gets at the system: reads the time, takes a lock, sends,
    hands something to another thread by a queue.
    With `Faults.interrupt` and `interruptible`, the paths of source files without locks of their own, they
    are between any two lines of those files as well; that uses `sys.settrace`, and takes its time.
    """

    def __init__(
        self, seed: int = 0, faults: Faults | None = None, *, interruptible: Iterable[str] = ()
    ) -> None:
        self.seed = seed
        self.faults: Faults = Faults() if faults is None else faults
        """What is done to those who run in it."""
        self._clock = _Clock()
        self.scheduler: Scheduler = Scheduler(seed, self._clock, self.faults, interruptible)
        """Whose turn it is, and what has happened."""
        self.network: Network = Network(self.scheduler)
        """What connects the sockets: names, hosts that do not answer, descriptors."""
        self._clock.point = self.scheduler.point
        self._threads: list[SimulatedThread] = []
        self._loops: list[tuple[Reactor, SimulatedPoller, threading.Thread]] = []
        self._pollers: list[SimulatedPoller] = []
        self._executors: list[SimulatedExecutor] = []
        self.scheduler.add_sleeper(self._look_for_sleepers)

    # -- reactor.System --------------------------------------------------------------------------

    @property
    def clock(self) -> Clock:
        """The simulation's time."""
        return self._clock

    def open_poller(self) -> SimulatedPoller:
        """For a Reactor."""
        self._pollers.append(SimulatedPoller(self.network))
        return self._pollers[-1]

    def open_waker(self) -> Waker:
        """For a Reactor: the real one, over a simulated pipe."""
        return Waker(self.network.pipe(), self.lock())

    def open_socket(self, family: socket.AddressFamily) -> SimulatedSocket:
        """One that blocks. Raises OSError, EMFILE."""
        return self.network.socket(family)

    def accepting(self, listener: socket.socket, *, bare: bool = False) -> Accept:
        """What accepts the connections of one of the simulation's own."""

        def accept() -> tuple[socket.socket, SocketAddress]:
            sock, address = listener.accept()
            sock.setblocking(False)
            return sock, address

        return accept

    def open_spare(self) -> int | None:
        """A descriptor; None if there are none left."""
        try:
            return self.network.give(None)
        except OSError:
            return None

    def close_spare(self, fd: int) -> None:
        """Give it back."""
        self.network.take_back(fd)

    def addresses(self, host: str, port: int) -> list[AddressInfo]:
        """What `network.names` says. Raises socket.gaierror."""
        return self.network.addresses(host, port)

    def lock(self) -> Lock:
        """As `threading.Lock()`."""
        return SimulatedLock(self.scheduler)

    def reentrant_lock(self) -> AbstractContextManager[object]:
        """As `threading.RLock()`."""
        return SimulatedReentrantLock(self.scheduler)

    def queue(self) -> deque[T]:
        """As `collections.deque()`."""
        return SimulatedQueue(self.scheduler)

    def condition(self, lock: AbstractContextManager[object]) -> threading.Condition:
        """As `threading.Condition(lock)`, over one of this simulation's."""
        assert isinstance(lock, SimulatedReentrantLock)
        return SimulatedCondition(self.scheduler, lock)

    def event(self) -> threading.Event:
        """As `threading.Event()`."""
        return SimulatedEvent(self.scheduler)

    def thread(
        self, target: Callable[[], object], *, name: str = "thread", daemon: bool = False
    ) -> threading.Thread:
        """As `threading.Thread(...)`: still to be started."""
        return SimulatedThread(self.scheduler, target, name, self._threads)

    def uniform(self, low: float, high: float) -> float:
        """A number that the dice choose."""
        return self.scheduler.random.uniform(low, high)

    # -- what runs -------------------------------------------------------------------------------

    def reactor(self) -> Reactor:
        """One that runs, on a thread of its own, until the simulation ends."""
        made = Reactor(system=self)
        poller = self._pollers[-1]
        thread = self.spawn(made.run, name="loop")
        self._loops.append((made, poller, thread))
        return made

    def executor(self, max_workers: int = 4) -> SimulatedExecutor:
        """Worker threads, for `executor=`; ended with the simulation, if not before."""
        made = SimulatedExecutor(self.scheduler, max_workers, partial(self.thread, name="worker"))
        self._executors.append(made)
        return made

    def spawn(self, target: Callable[[], object], *, name: str = "thread") -> threading.Thread:
        """Run it on a thread. What it raises ends the simulation, and is raised by the first thread."""
        thread = self.thread(target, name=name)
        thread.start()
        return thread

    def connect(self, address: tuple[str, int], timeout: float | None = None) -> SimulatedSocket:
        """A bare socket that is connected, and blocks, `timeout` seconds at the most: a peer by hand.

        Raises OSError.
        """
        sock = self.network.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
        sock.settimeout(timeout)
        try:
            sock.connect(address)
        except OSError:
            sock.close()
            raise
        return sock

    @property
    def reactors(self) -> list[Reactor]:
        """Those that `reactor` has made."""
        return [reactor for reactor, _, _ in self._loops]

    # -- waiting ---------------------------------------------------------------------------------

    def sleep(self, seconds: float) -> None:
        """Let so much time pass. Any thread of the simulation's; in a handler, what takes long."""
        self.scheduler.sleep(seconds)

    def wait(self, condition: Callable[[], T], timeout: float = 60.0) -> T:
        """Let things happen until it holds; returns what it says then.

        It is asked whenever nobody can run without time passing. Raises SimulationError when it has not
        come to hold in so many seconds of the simulation's. The first thread.
        """
        scheduler = self.scheduler
        until = scheduler.after(timeout)
        while not (result := condition()):
            if scheduler.now >= until:
                raise SimulationError(f"what was waited for has not happened in {timeout:g} s")
            scheduler.wait_quiet(until)
        return result

    @property
    def time(self) -> float:
        """Seconds, as `clock.monotonic()` says them."""
        return self._clock.microseconds / 1e6

    def step_wall_clock(self, seconds: float) -> None:
        """Put the time of day forward, or back."""
        self._clock.step(seconds)

    @property
    def trace(self) -> list[Entry]:
        """All that has happened, in order. Two runs of one seed have the same."""
        return self.scheduler.trace

    def note(self, what: str) -> None:
        """Enter something of one's own in the trace."""
        self.scheduler.note(what)

    # -- the end ---------------------------------------------------------------------------------

    def _look_for_sleepers(self) -> str | None:
        for reactor, poller, thread in self._loops:
            if poller.asleep and reactor.timeout() == 0.0:
                return f"{thread.name} sleeps, and something was posted to it"
        return None

    def close(self) -> None:
        """End loops, executors and threads in good order, then check that nothing is left.

        Raises SimulationError for threads that do not end and descriptors, interest in descriptors or
        time-outs that nobody has given up; whoever made them is still to close them before.
        """
        if self.scheduler.broken:
            self._end()  # it has been told to who runs it
            return
        left = []
        self.sleep(SETTLING)
        for reactor, poller, thread in self._loops:
            statistics = reactor.statistics()
            if poller.left() or statistics.channels:
                left.append(f"{statistics.channels} channels of {thread.name}")
            reactor.stop()
            thread.join()
            if statistics.timeouts_waiting:
                left.append(f"{statistics.timeouts_waiting} time-outs of {thread.name}")
            reactor.close()
        for executor in self._executors:
            executor.shutdown()
        threads = [thread.name for thread in self._threads if thread.is_alive()]
        if threads:
            left.append(f"the threads {', '.join(threads)}")
        if self.network.open:
            left.append(f"the descriptors {self.network.open}")
        if left:
            raise SimulationError(f"the simulation is over, and there are still {'; '.join(left)}")
        self._end()

    def _end(self) -> None:
        if self.scheduler.in_hand and not self.scheduler.over:
            for thread in self._threads:
                assert thread.task is not None
                self.scheduler.kill(thread.task, thread)
            self.scheduler.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self.close()
        except BaseException as failure:
            failure.add_note(self._seed_note())
            raise
        finally:
            self._end()
            if error is not None:
                error.add_note(self._seed_note())

    def _seed_note(self) -> str:
        return f"the simulation's seed is {self.seed}: with it, the same happens again"

    def __repr__(self) -> str:
        return f"<Simulation of seed {self.seed} at {self.time:.6f} s>"
