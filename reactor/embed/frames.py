"""In the loop of a game or a simulation, which goes round by itself, a fixed number of times a second.

Nothing wakes such a loop, and nothing need: between two frames the reactor waits, and in each frame it has
a budget of time. Handlers on the worker pool go on meanwhile.
"""

from __future__ import annotations

from types import TracebackType

from reactor.loop import Reactor

__all__ = ["Frames", "attach"]

BUDGET = 0.002
"""Seconds: an eighth of a frame at sixty a second."""


def attach(reactor: Reactor, *, budget: float = BUDGET) -> Frames:
    """Have the calling thread drive the reactor, by calling `step` once in each frame.

    Raises ValueError for a budget that is not positive, and as `Reactor.set_host` does.
    """
    return Frames(reactor, budget)


class Frames:
    """A reactor in a loop of frames, until `detach`. For the thread that made it."""

    def __init__(self, reactor: Reactor, budget: float) -> None:
        if not budget > 0.0:
            raise ValueError(f"budget must be a positive number of seconds, not {budget!r}")
        self._reactor = reactor
        self._budget = budget
        reactor.set_host(self)
        self._attached = True

    def step(self, budget: float | None = None) -> int:
        """Do what is due, for `budget` seconds at the most; those of `attach`, if none are given.

        What is left is for the next frame. Never waits. Returns the number of events, time-outs and
        callbacks dealt with; after `detach` it does nothing. Raises as `Reactor.run_once` does.
        """
        if not self._attached:
            return 0
        return self._reactor.run_once(0, budget=self._budget if budget is None else budget)

    @property
    def attached(self) -> bool:
        """Whether `step` still does something. Any thread."""
        return self._attached

    def detach(self) -> None:
        """Drive it no more. Twice is once. Raises WrongThreadError."""
        if self._attached:
            self._reactor.set_host(None)
            self._attached = False

    def handle_sooner(self) -> None:
        """Implements `reactor.Host`: the next frame comes anyway."""

    def handle_close(self) -> None:
        """Implements `reactor.Host`."""
        self.detach()

    def __enter__(self) -> Frames:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.detach()

    def __repr__(self) -> str:
        return f"<Frames with {self._budget:g} s for {self._reactor!r}>"
