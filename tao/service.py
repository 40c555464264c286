"""What is the same for all connections of one server, or of one client.

Owns Service: a value with what every session of that owner works with, and whom it tells of its opening and
its end. It is made once, and not for each connection, of which there may be many thousands. It does nothing
by itself, and ends nothing: reactor and pool are the owner's to close. Any thread may read it; which thread
may use what stands in it is said there.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from reactor import CloseReason, Environment, Ledger, Reactor, WorkerPool
from tao.context import Context
from tao.interfaces import MessageServer, WriteCloser
from tao.metrics import Metrics
from tao.registry import Handler, MessageRegistry
from tao.session_options import Callbacks, SessionOptions

__all__ = ["Service"]

C = TypeVar("C", bound=WriteCloser)
S = TypeVar("S")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Service(Generic[C, S]):
    """Shared by sessions of the type `S`, whose callbacks are given a `C`."""

    reactor: Reactor
    pool: WorkerPool
    """Where handlers run that are not inline."""
    registry: MessageRegistry
    callbacks: Callbacks[C]
    options: SessionOptions
    ledger: Ledger
    """What they hold together."""
    on_gone: Callable[[S, CloseReason], object]
    """Called on the loop's thread when on_close has returned."""
    on_open: Callable[[S], object] | None = None
    """Called on the loop's thread."""
    server: MessageServer | None = None
    """What handlers find in their context; a client has none."""
    pause_on_output: bool = True
    """See `reactor.Environment`: of two ends, one must read on."""
    metrics: Metrics = field(default_factory=Metrics)
    context: contextvars.Context = field(default_factory=contextvars.copy_context)
    """What each connection's handlers begin with: a copy, which costs the same however much is in it."""
    on_message: Handler[object] | None = field(init=False)
    """The callback as the handler of what is registered without one."""

    monotonic: Callable[[], float] = field(init=False)
    """The loop's time, in seconds."""
    environment: Environment = field(init=False)
    """The same for what is below the sessions."""

    def __post_init__(self) -> None:
        environment = Environment(
            self.reactor,
            self.options.connection,
            waker=self.pool,
            pause_on_output=self.pause_on_output,
            ledger=self.ledger,
        )
        object.__setattr__(self, "monotonic", self.reactor.clock.monotonic)
        object.__setattr__(self, "environment", environment)
        object.__setattr__(self, "on_message", _handler_of(self.callbacks.on_message))


def _handler_of(on_message: Callable[[object, Any], object] | None) -> Handler[object] | None:
    if on_message is None:
        return None

    def handle(context: Context[object], conn: WriteCloser) -> None:
        on_message(context.message, conn)

    return handle
