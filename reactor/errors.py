"""What the reactor raises.

Owns the exceptions of misuse (a wrong thread, a closed loop, an event that a state does not have).
Failures of the network are not here: they are `OSError`, as the system gives them. What a peer does wrong
has one: PrefaceError, for the layer above to say what it has not understood.
"""

from __future__ import annotations

__all__ = [
    "ForkError",
    "HostError",
    "IllegalTransitionError",
    "PrefaceError",
    "ReactorClosedError",
    "ReactorError",
    "ReentrancyError",
    "WrongThreadError",
]


class ReactorError(Exception):
    """Base of everything that the reactor raises by itself."""


class WrongThreadError(ReactorError):
    """A method of the loop's thread was called from another one; use `call_soon_threadsafe`."""


class ReentrancyError(ReactorError):
    """The loop was asked to run from inside one of its own callbacks."""


class ReactorClosedError(ReactorError):
    """The reactor, or the pool that serves it, has been closed."""


class ForkError(ReactorError):
    """A reactor was used in a process that was forked from the one that made it.

    The child shares the parent's kernel objects: what it unregisters is unregistered for the parent.
    """


class HostError(ReactorError):
    """A reactor that a host drives was given another one, or its host cannot do what is needed."""


class PrefaceError(ReactorError):
    """What came first on a connection is not what must come first; see `Preface`. It ends with this."""


class IllegalTransitionError(ReactorError):
    """An event arrived that the connection's state does not have. The state has not changed."""

    def __init__(self, state: object, event: object) -> None:
        super().__init__(
            f"a connection in {state} has no event {event}; see `reactor.TRANSITIONS` for those that it has"
        )
        self.state = state
        self.event = event
