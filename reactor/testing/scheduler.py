"""Threads that take turns, in a time of their own.

Contents: SimulationError, Entry, Task, Alarm, Scheduler.

Owns the baton. Every thread of a simulation is a real one, but only that which holds the baton runs; it
hands it over when it waits, and at points (`Scheduler.point`) where a real thread could be interrupted
by another. Whose turn it is next is decided by dice whose seed is given: the same seed is the same run.
Nothing waits for real time: when nobody can run, time jumps to the next thing that is to happen.

What every other object of a simulation has in common follows from that: it needs no lock of the real
kind, as nobody else runs while it is used; and it must not be used by a thread that the simulation does
not know.
"""

from __future__ import annotations

import heapq
import logging
import random
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any, NamedTuple, TypeAlias, TypeVar

from reactor.testing.clock import ManualClock, microseconds
from reactor.testing.faults import Faults

__all__ = ["Alarm", "Entry", "Scheduler", "SimulationError", "Task"]

T = TypeVar("T")

TraceFunction: TypeAlias = Callable[[FrameType, str, Any], Any]

MOST_STEPS_AT_ONCE = 100_000
"""Points that may be passed while the clock stands still; more is a loop that spins."""

PATIENCE = 20.0
"""Real seconds after which a thread that has the baton, and does not hand it on, is said to wait for
something that is not simulated: a lock that another one holds, a socket, a sleep."""

OVERSLEPT = 0.005
"""Seconds that nobody may sleep while he has something to do. The worker pool relies on one millisecond
and a tick, after which the loop looks by itself."""


class SimulationError(Exception):
    """A simulated run cannot go on, or something happened that must not happen in any."""


class _Ended(BaseException):
    """Raised in a thread whose simulation is over, to end it."""


class Entry(NamedTuple):
    """A line of the trace."""

    microseconds: int
    """The simulation's monotonic time."""
    task: str
    """The thread that did it, or to which it was done; or the network."""
    what: str

    def __str__(self) -> str:
        return f"{self.microseconds / 1e6:.6f} {self.task}: {self.what}"


class Task:
    """A thread of the simulation."""

    __slots__ = (
        "ended",
        "gate",
        "joining",
        "killed",
        "name",
        "ready",
        "seen",
        "waits_for",
        "woken",
    )

    def __init__(self, name: str) -> None:
        self.name: str = name
        self.gate: threading.Lock = (
            threading.Lock()
        )  # released by who hands the baton to this thread
        self.gate.acquire()
        self.ready: bool = False  # it could run, and does not
        self.waits_for: str = ""  # what, in words, if it waits
        self.woken: bool = False
        self.ended: bool = False
        self.killed: bool = False
        self.joining: list[Task] = []
        self.seen: int = -1  # the moment in which it last found everything quiet

    def __repr__(self) -> str:
        if self.ended:
            state = "ended"
        elif self.waits_for:
            state = f"waits for {self.waits_for}"
        else:
            state = "can run" if self.ready else "runs"
        return f"<{self.name} {state}>"


class Alarm:
    """Something that happens at a moment, and the means to call it off."""

    __slots__ = ("action",)

    def __init__(self, action: Callable[[], object]) -> None:
        self.action: Callable[[], object] | None = action

    def cancel(self) -> None:
        """It does not happen any more."""
        self.action = None


class Scheduler:
    """Whose turn it is, and what time. The thread that makes it is its first, and has the baton."""

    def __init__(
        self, seed: int, clock: ManualClock, faults: Faults, interruptible: Iterable[str] = ()
    ) -> None:
        self.seed = seed
        self.random: random.Random = random.Random(seed)
        """The dice. Whoever has the baton may throw them; each throw is part of the run."""
        self.clock = clock
        self.faults = faults
        self.trace: list[Entry] = []
        """What has happened so far."""
        self.failure: BaseException | None = None
        """What the first thread is told instead of going on."""
        self.broken: bool = False
        """Whether it has been told so."""
        self.main: Task = Task("main")
        self._current = self.main
        self._all = [self.main]
        self._tasks = {threading.get_ident(): self.main}
        self._ready: list[Task] = []
        self._quiet: list[Task] = []  # they want to know when nobody can run
        self._alarms: list[tuple[int, int, Alarm]] = []  # a heap, by time and then by age
        self._alarms_set = 0
        self._moment = 0  # counts what has happened, for `_quiet`
        self._steps = 0
        self._handed_over = 0
        self._names: dict[str, int] = {}
        # What each has said last, and for how many microseconds.
        self._sleepers: dict[Callable[[], str | None], tuple[str | None, int]] = {}
        self._in_alarm = False
        self._over = False
        self._interruptible = frozenset(interruptible) if faults.interrupt else frozenset()
        self._lines_left = self._lines_to_interruption()

    # -- whose turn it is ------------------------------------------------------------------------

    @property
    def now(self) -> int:
        """The monotonic time in microseconds."""
        return self.clock.microseconds

    @property
    def current(self) -> Task:
        """The thread that has the baton, which must be the caller's."""
        task = self._tasks.get(threading.get_ident())
        if task is not self._current or task is None:
            raise SimulationError(
                "a thread that the simulation has not started uses what belongs to it: threads, and "
                "executors, must be its own"
            )
        return task

    def note(self, what: str) -> None:
        """Enter something in the trace."""
        who = "network" if self._in_alarm else self._current.name
        self.trace.append(Entry(self.clock.microseconds, who, what))

    def chance(self, probability: float) -> bool:
        """Throw the dice. What cannot happen costs no throw."""
        return probability > 0.0 and self.random.random() < probability

    def point(self) -> None:
        """Here the thread may be interrupted."""
        if self._over or self._in_alarm:
            return
        task = self.current
        self._check(task)
        self._steps += 1
        if self._steps > MOST_STEPS_AT_ONCE:
            self._steps = 0
            self.fail(self._error("the clock stands still, and it goes on and on"))
        if self.failure is not None or (self._ready and self.chance(self.faults.switch)):
            self._interrupt(task)

    def _interrupt(self, task: Task) -> None:
        task.ready = True
        self._ready.append(task)
        self._hand_over(task)

    def wait(self, what: str, until: int | None = None) -> bool:
        """Let others run, until `wake` or until that time, in microseconds. Returns whether woken."""
        task = self.current
        self._check(task)
        task.woken = False
        task.waits_for = what
        alarm = None if until is None else self.at(until, lambda: self._make_ready(task))
        self._hand_over(task)
        if alarm is not None:
            alarm.cancel()
        return task.woken

    def wait_quiet(self, until: int) -> None:
        """Let others run until none of them can without time passing; the next time, until that again
        holds and something has happened; or until that time."""
        task = self.current
        self._quiet.append(task)
        self.wait("all to be quiet", until)
        if task in self._quiet:
            self._quiet.remove(task)

    def wake(self, task: Task) -> None:
        """End its wait; nothing if it does not wait."""
        if task.waits_for and not task.ready:
            task.woken = True
            self._make_ready(task)

    def _make_ready(self, task: Task) -> None:
        if task.waits_for and not task.ready:
            task.ready = True
            self._ready.append(task)

    def _hand_over(self, task: Task) -> None:
        """To whomever the dice choose, and wait for one's next turn; for none if one has ended."""
        following = self._choose()
        following.ready = False
        following.waits_for = ""
        if following is not task:
            self._current = following
            self._handed_over += 1
            self.note("goes on")
            following.gate.release()
            if task.ended:
                return
            if task is self.main:
                self._wait_watchfully(task)
            else:
                task.gate.acquire()
        self._check(task)

    def _wait_watchfully(self, task: Task) -> None:
        """For the baton; and see that it goes round meanwhile."""
        handed_over = -1
        while not task.gate.acquire(timeout=PATIENCE):
            if self._handed_over == handed_over:
                self.broken = True
                raise self._stuck(self._current)
            handed_over = self._handed_over

    def _check(self, task: Task) -> None:
        if task.killed:
            raise _Ended
        if self.failure is not None and task is self.main:
            failure, self.failure = self.failure, None
            self.broken = True
            raise failure

    def _choose(self) -> Task:
        while True:
            if self.failure is not None:
                if self.main in self._ready:
                    self._ready.remove(self.main)
                return self.main
            if self._ready:
                if self.chance(self.faults.slowness):
                    pause = self.random.randint(0, microseconds(self.faults.longest_pause))
                    self._pass_time(self.clock.microseconds + pause)
                return self._ready.pop(self.random.randrange(len(self._ready)))
            for task in self._quiet:
                if task.seen != self._moment:
                    task.seen = self._moment
                    return task
            while self._alarms and self._alarms[0][2].action is None:
                heapq.heappop(self._alarms)
            if not self._alarms:
                self.fail(self._error("nothing can happen any more"))
                continue
            self._look_at_sleepers(self._alarms[0][0])
            self._pass_time(self._alarms[0][0])

    # -- between any two lines -------------------------------------------------------------------

    def _lines_to_interruption(self) -> int:
        if not self._interruptible:
            return 0
        return 1 + int(self.random.expovariate(self.faults.interrupt))

    def _trace_call(self, frame: FrameType, event: str, argument: object) -> TraceFunction | None:
        """For `sys.settrace`: a function is called."""
        return self._trace_line if frame.f_code.co_filename in self._interruptible else None

    def _trace_line(self, frame: FrameType, event: str, argument: object) -> TraceFunction:
        if event == "line":
            self._lines_left -= 1
            if self._lines_left <= 0:
                self._lines_left = self._lines_to_interruption()
                task = self.current
                if not (self._over or self._in_alarm or task.killed or _is_logging(frame)):
                    self._interrupt(task)
        return self._trace_line

    # -- time ------------------------------------------------------------------------------------

    def at(self, when: int, action: Callable[[], object]) -> Alarm:
        """Have `action` called at that time, in microseconds; it must not wait, nor pass a point."""
        alarm = Alarm(action)
        self._alarms_set += 1
        heapq.heappush(self._alarms, (max(when, self.now), self._alarms_set, alarm))
        return alarm

    def after(self, seconds: float) -> int:
        """The time in microseconds, so many seconds from now."""
        return self.now + microseconds(seconds)

    def sleep(self, seconds: float) -> None:
        """Let so much time pass, in which others run."""
        self.wait(f"{seconds:g} s to pass", self.after(seconds))

    def _pass_time(self, until: int) -> None:
        alarms = self._alarms
        self._moment += 1
        while alarms and alarms[0][0] <= until:
            when, _, alarm = heapq.heappop(alarms)
            if alarm.action is not None:
                self._set_time(when)
                self._call(alarm.action)
        self._set_time(until)

    def _call(self, action: Callable[[], T]) -> T | None:
        """On whichever thread hands the baton over; it is not that thread's doing."""
        self._in_alarm = True
        try:
            return action()
        except BaseException as error:
            self.fail(error)
            return None
        finally:
            self._in_alarm = False

    def _set_time(self, when: int) -> None:
        if when > self.clock.microseconds:
            self.clock.microseconds = when
            self._steps = 0

    # -- those that sleep when they should not -----------------------------------------------------

    def add_sleeper(self, look: Callable[[], str | None]) -> None:
        """`look` says, when nobody can run, who sleeps although he has something to do; or None.

        As long as it says the same, it is the same sleep. What it raises ends the run.
        """
        self._sleepers[look] = (None, 0)

    def _look_at_sleepers(self, until: int) -> None:
        # One that was interrupted after it had reckoned how long it may sleep, sleeps for longer.
        excuse = 10 * self.faults.longest_pause if self._interruptible else 0.0
        longest = microseconds(OVERSLEPT + excuse)
        for look, (before, overslept) in self._sleepers.items():
            text = self._call(look)
            so_far = overslept if text == before else 0
            in_vain = 0 if text is None else so_far + until - self.now
            self._sleepers[look] = text, in_vain
            if in_vain > longest:
                self.fail(self._error(f"a wake-up was lost: {text}"))

    # -- threads ---------------------------------------------------------------------------------

    def add(self, name: str) -> Task:
        """A thread that is about to be started. It can run from now on."""
        number = self._names[name] = self._names.get(name, 0) + 1
        task = Task(f"{name}-{number}")
        task.ready = True
        self._ready.append(task)
        self._all = [other for other in self._all if not other.ended]
        self._all.append(task)
        return task

    def run(self, task: Task, target: Callable[[], object]) -> None:
        """On the thread itself: all that it does."""
        task.gate.acquire()
        self._tasks[threading.get_ident()] = task
        try:
            if not task.killed:
                if self._interruptible:
                    sys.settrace(self._trace_call)
                target()
        except _Ended:
            pass
        except BaseException as error:
            error.add_note(f"in the simulated thread {task.name}")
            self.fail(error)
        finally:
            sys.settrace(None)
            del self._tasks[threading.get_ident()]
            task.ended = True
            for waiting in task.joining:
                self.wake(waiting)
            if not task.killed:
                self._hand_over(task)

    def join(self, task: Task, until: int | None = None) -> bool:
        """Let others run until it has ended, or until that time; returns whether it has."""
        while not task.ended:
            task.joining.append(self.current)
            if not self.wait(f"the end of {task.name}", until) and until is not None:
                break
        return task.ended

    def fail(self, error: BaseException) -> None:
        """Tell the first thread, as soon as it has the baton: it is the next. The first error counts."""
        if self.failure is None:
            self.failure = error

    def _error(self, what: str) -> SimulationError:
        states = "".join(f"\n  {task!r}" for task in self._all if not task.ended)
        return SimulationError(f"{what}, at {self.now / 1e6:.6f} s:{states}")

    def kill(self, task: Task, thread: threading.Thread) -> None:
        """End a thread by force, wherever it is. The first thread, when all is over."""
        if not task.ended:
            task.killed = True
            self._current = task
            task.gate.release()
            threading.Thread.join(thread, PATIENCE)
            self._current = self.main
        if thread.is_alive():
            raise self._stuck(task)

    def _stuck(self, task: Task) -> SimulationError:
        threads = {other: number for number, other in self._tasks.items()}
        frame = sys._current_frames().get(threads.get(task, 0))
        where = "" if frame is None else "".join(traceback.format_stack(frame))
        return SimulationError(f"{task.name} waits for something that is not simulated:\n{where}")

    @property
    def in_hand(self) -> bool:
        """Whether the first thread has the baton: not if it was interrupted while it waited for it."""
        return self._current is self.main

    def end(self) -> None:
        """From now on nothing waits, and nobody is interrupted."""
        self._over = True

    @property
    def over(self) -> bool:
        """Whether `end` has been called."""
        return self._over


def _is_logging(frame: FrameType | None) -> bool:
    """Whether it was called to make a log's text: the log's lock, which is real, is held meanwhile."""
    while frame is not None:
        if frame.f_code.co_filename == logging.__file__:
            return True
        frame = frame.f_back
    return False
