"""What threads are made of and wait with, in a simulation.

Contents: SimulatedLock, SimulatedReentrantLock, SimulatedQueue, SimulatedCondition, SimulatedEvent,
SimulatedThread, SimulatedExecutor, Waiters.

Each behaves as its namesake of the standard library; who waits hands the baton over instead (see
`reactor.testing.scheduler`), and time-outs are in the simulation's time. Where a thread gets or releases
something, another may come in between.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from reactor.testing.scheduler import Scheduler, Task

__all__ = [
    "SimulatedCondition",
    "SimulatedEvent",
    "SimulatedExecutor",
    "SimulatedLock",
    "SimulatedQueue",
    "SimulatedReentrantLock",
    "SimulatedThread",
    "Waiters",
]

T = TypeVar("T")
P = ParamSpec("P")


class Waiters:
    """Tasks that wait for the same thing. `len()` is how many."""

    __slots__ = ("_scheduler", "_tasks")

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._tasks: list[Task] = []

    def wait(self, what: str, until: int | None) -> bool:
        """Wait for `wake`; False if it has not come by that time, in microseconds."""
        task = self._scheduler.current
        self._tasks.append(task)
        try:
            return self._scheduler.wait(what, until)
        finally:
            if task in self._tasks:
                self._tasks.remove(task)

    def __len__(self) -> int:
        return len(self._tasks)

    def wake(self, count: int | None = None) -> None:
        """The first `count` of them, or all."""
        woken = self._tasks[:count]
        del self._tasks[: len(woken)]
        for task in woken:
            self._scheduler.wake(task)


class SimulatedLock:
    """As `threading.Lock`."""

    __slots__ = ("_held", "_scheduler", "_waiters")

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._waiters = Waiters(scheduler)
        self._held = False

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Whether it has been got."""
        scheduler = self._scheduler
        scheduler.point()
        if self._held and not scheduler.over:
            if not blocking:
                return False
            until = None if timeout < 0 else scheduler.after(timeout)
            while self._held:
                if not self._waiters.wait("a lock", until) and until is not None:
                    return False
        self._held = True
        return True

    def release(self) -> None:
        """Raises RuntimeError if it is not held."""
        if not self._held:
            raise RuntimeError("release unlocked lock")
        self._held = False
        self._waiters.wake()  # whichever of them is first; another may yet be faster than all
        self._scheduler.point()

    def locked(self) -> bool:
        """Whether somebody holds it."""
        return self._held

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


class SimulatedReentrantLock:
    """As `threading.RLock`."""

    __slots__ = ("_count", "_lock", "_owner")

    def __init__(self, scheduler: Scheduler) -> None:
        self._lock = SimulatedLock(scheduler)
        self._owner = 0
        self._count = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Whether it has been got; by who holds it, always."""
        me = threading.get_ident()
        if self._owner != me:
            if not self._lock.acquire(blocking, timeout):
                return False
            self._owner = me
        self._count += 1
        return True

    def release(self) -> None:
        """Raises RuntimeError unless the caller holds it."""
        if self._owner != threading.get_ident():
            raise RuntimeError("cannot release un-acquired lock")
        self._count -= 1
        if not self._count:
            self._owner = 0
            self._lock.release()

    def release_all(self) -> int:
        """As often as it was got; returns that number, for `acquire_again`."""
        count, self._count = self._count, 1
        self.release()
        return count

    def acquire_again(self, count: int) -> None:
        """Undo `release_all`."""
        self.acquire()
        self._count = count

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


class SimulatedQueue(deque[T]):
    """As `collections.deque`: what two threads do with it at once, they do in either order, and between
    one thing that is done with it and the next another thread may come."""

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__()
        self._scheduler = scheduler

    def append(self, item: T, /) -> None:
        """Behind the others."""
        super().append(item)
        self._scheduler.point()

    def popleft(self) -> T:
        """Raises IndexError when it is empty."""
        self._scheduler.point()
        return super().popleft()


class SimulatedCondition(threading.Condition):
    """As `threading.Condition`."""

    def __init__(self, scheduler: Scheduler, lock: SimulatedReentrantLock) -> None:
        self._scheduler = scheduler
        self._own = lock
        self._those_waiting = Waiters(scheduler)

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Get the lock."""
        return self._own.acquire(blocking, timeout)

    def release(self) -> None:
        """Give the lock back."""
        self._own.release()

    def __enter__(self) -> bool:
        return self._own.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._own.release()

    def wait(self, timeout: float | None = None) -> bool:
        """Whether it was notified in time."""
        scheduler = self._scheduler
        until = None if timeout is None else scheduler.after(timeout)
        # No point between the release and the wait: the two are one step.
        count, self._own._count = self._own._count, 0
        self._own._owner = 0
        self._own._lock._held = False
        self._own._lock._waiters.wake()
        try:
            return self._those_waiting.wait("a condition", until)
        finally:
            self._own.acquire_again(count)

    def wait_for(self, predicate: Callable[[], T], timeout: float | None = None) -> T:
        """What the predicate says in the end."""
        scheduler = self._scheduler
        until = None if timeout is None else scheduler.after(timeout)
        result = predicate()
        while not result:
            if until is None:
                self.wait()
            elif scheduler.now >= until:
                break
            else:
                self.wait((until - scheduler.now) / 1e6)
            result = predicate()
        return result

    def notify(self, n: int = 1) -> None:
        """Wake so many of those that wait."""
        self._those_waiting.wake(n)

    def notify_all(self) -> None:
        """Wake all that wait."""
        self._those_waiting.wake()

    def __repr__(self) -> str:
        return "<SimulatedCondition>"


class SimulatedEvent(threading.Event):
    """As `threading.Event`."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._waiters = Waiters(scheduler)
        self._is_set = False

    def is_set(self) -> bool:
        """Whether `set` has been called."""
        return self._is_set

    def set(self) -> None:
        """Wake all that wait, and those that come."""
        self._is_set = True
        self._waiters.wake()
        self._scheduler.point()

    @property
    def awaited(self) -> bool:
        """Whether somebody waits for it."""
        return len(self._waiters) > 0

    def clear(self) -> None:
        """Undo `set`."""
        self._is_set = False

    def wait(self, timeout: float | None = None) -> bool:
        """Whether it is set in the end."""
        self._scheduler.point()
        if not self._is_set:
            until = None if timeout is None else self._scheduler.after(timeout)
            while not self._waiters.wait("an event", until) and until is None:
                pass
        return self._is_set

    def __repr__(self) -> str:
        return f"<SimulatedEvent {'set' if self._is_set else 'unset'}>"


class SimulatedThread(threading.Thread):
    """As `threading.Thread`. What it raises fails the simulation."""

    def __init__(
        self, scheduler: Scheduler, target: Callable[[], object], name: str, started: list[Any]
    ) -> None:
        # A daemon, so that one which waits for something real cannot hold up the end of the program.
        super().__init__(name=name, daemon=True)
        self._scheduler = scheduler
        self._action = target
        self._started_threads = started  # the simulation's, to end them
        self.task: Task | None = None

    def start(self) -> None:
        """It can run from now on."""
        self.task = self._scheduler.add(self.name)
        self._started_threads.append(self)
        super().start()
        self._scheduler.point()

    def run(self) -> None:
        """For the thread itself."""
        assert self.task is not None
        self._scheduler.run(self.task, self._action)

    def join(self, timeout: float | None = None) -> None:
        """Wait until it has ended, for so many seconds of the simulation at the most."""
        if self.task is None:
            raise RuntimeError("cannot join thread before it is started")
        until = None if timeout is None else self._scheduler.after(timeout)
        if self._scheduler.over or self._scheduler.join(self.task, until):
            super().join()

    def is_alive(self) -> bool:
        """Whether it has still to end."""
        return self.task is not None and not self.task.ended


class _SimulatedFuture(Future[T]):
    """As `concurrent.futures.Future`: who waits for its result lets others run."""

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__()
        self._condition = SimulatedCondition(scheduler, SimulatedReentrantLock(scheduler))


class SimulatedExecutor(Executor):
    """As `concurrent.futures.ThreadPoolExecutor`, on simulated threads, which end with `shutdown`."""

    def __init__(
        self,
        scheduler: Scheduler,
        max_workers: int,
        new_thread: Callable[[Callable[[], object]], threading.Thread],
    ) -> None:
        if max_workers < 1:
            raise ValueError(f"max_workers must be at least 1, not {max_workers!r}")
        self._scheduler = scheduler
        self._max_workers = max_workers
        self._new_thread = new_thread
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._queue: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._waiters = Waiters(scheduler)
        self._shut_down = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Raises RuntimeError after `shutdown`."""
        if self._shut_down:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future: Future[T] = _SimulatedFuture(self._scheduler)
        self._queue.append((future, lambda: fn(*args, **kwargs)))
        if self._idle >= len(self._queue):
            self._waiters.wake(1)
        elif len(self._threads) < self._max_workers:
            thread = self._new_thread(self._work)
            self._threads.append(thread)
            thread.start()
        self._scheduler.point()
        return future

    def _work(self) -> None:
        while True:
            while not self._queue:
                if self._shut_down:
                    return
                self._idle += 1
                self._waiters.wait("work", None)
                self._idle -= 1
            future, call = self._queue.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = call()
            except Exception as error:
                future.set_exception(error)
            else:
                future.set_result(result)
            self._scheduler.point()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take nothing more; what was submitted is still run, unless it is to be cancelled."""
        self._shut_down = True
        waiting: Iterable[tuple[Future[Any], object]] = list(self._queue) if cancel_futures else []
        for future, _ in waiting:
            future.cancel()
        self._waiters.wake()
        if wait:
            for thread in self._threads:
                thread.join()
