"""What a simulated loop sleeps in.

Owns the interest in descriptors of one loop. Implements `reactor.poller.Poller`, more strictly than the
system does: what is not registered cannot be modified.
"""

from __future__ import annotations

from reactor.poller import ALL, READ
from reactor.testing.network import Network, SimulatedPipe
from reactor.testing.scheduler import Task

__all__ = ["SimulatedPoller"]


class SimulatedPoller:
    """Level-triggered, in any order; and not always right, as select(2) has it in its notes."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._scheduler = network.scheduler
        self._interest: dict[int, int] = {}
        self._sleeper: Task | None = None
        self._closed = False
        network.watchers.append(self._look_at)

    @property
    def asleep(self) -> bool:
        """Whether a loop sleeps in here, and nothing has ended that yet."""
        return self._sleeper is not None and not self._sleeper.ready

    @property
    def interest(self) -> dict[int, int]:
        """The mask of each descriptor that is registered. A copy."""
        return dict(self._interest)

    def register(self, fd: int, events: int) -> None:
        """Raises KeyError if it is registered, ValueError if it is not open."""
        if fd in self._interest:
            raise KeyError(f"descriptor {fd} is registered already; modify it instead")
        if fd not in self._network.open:
            raise ValueError(f"descriptor {fd} is not open; register it before it is closed")
        self._interest[fd] = events

    def modify(self, fd: int, events: int) -> None:
        """Raises KeyError if it is not registered."""
        if fd not in self._interest:
            raise KeyError(f"descriptor {fd} is not registered; register it first")
        self._interest[fd] = events

    def unregister(self, fd: int) -> None:
        """Raises KeyError if it is not registered."""
        del self._interest[fd]

    def _ready(self, fd: int) -> int:
        owner = self._network.open.get(fd)
        return 0 if owner is None else owner.ready() & self._interest.get(fd, 0)

    def _look_at(self, fd: int) -> None:
        if self._sleeper is not None and self._ready(fd):
            self._scheduler.wake(self._sleeper)

    def poll(self, timeout: float | None, most: int = ALL) -> list[tuple[int, int]]:
        """Sleep in the simulation's time."""
        scheduler = self._scheduler
        # Before others may come in between: who is held up for long must not sleep for longer.
        until = None if timeout is None else scheduler.after(timeout)
        scheduler.point()
        while not (found := self._found()) and (until is None or scheduler.now < until):
            self._sleeper = scheduler.current
            try:
                scheduler.wait("its poller", until)
            finally:
                self._sleeper = None
        return found[:most]

    def _found(self) -> list[tuple[int, int]]:
        scheduler, faults = self._scheduler, self._scheduler.faults
        found = [(fd, mask) for fd in self._interest if (mask := self._ready(fd))]
        if len(found) > 1:
            scheduler.random.shuffle(found)
            told = [item for item in found if not scheduler.chance(faults.late_report)]
            found = told or found[:1]
        if self._interest and scheduler.chance(faults.spurious):
            fd = scheduler.random.choice(list(self._interest))
            if self._interest[fd] & READ and not self._ready(fd):
                found.append((fd, READ))
        return found

    def events_of(self, mask: int) -> int:
        """They are READ and WRITE already."""
        return mask

    def fileno(self) -> int | None:
        """None: nobody else could wait for it."""
        return None

    def close(self) -> None:
        """Forget all."""
        if not self._closed:
            self._closed = True
            self._interest.clear()
            self._network.watchers.remove(self._look_at)

    def left(self) -> dict[int, int]:
        """What is registered beside wake-up pipes."""
        return {
            fd: mask
            for fd, mask in self._interest.items()
            if not isinstance(self._network.open.get(fd), SimulatedPipe)
        }
