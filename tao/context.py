"""What a handler is told about the message in hand.

Owns Context: made for each message, lives as long as its handler. It belongs to the thread that runs
the handler, but may be handed on to others.
"""

from __future__ import annotations

import math
from typing import Generic, Protocol, TypeAlias, TypeVar, overload

from tao.context_key import ContextKey, PlainKey
from tao.interfaces import MessageServer

__all__ = ["Context", "ContextSource"]

M_co = TypeVar("M_co", covariant=True)
T = TypeVar("T")

_Values: TypeAlias = "tuple[object, object, _Values] | None"
"""A key, what is kept under it, and the pairs before."""

_DEADLINE = ContextKey[float]("deadline")
"""The key under which `with_timeout` keeps the monotonic time of the deadline."""


class ContextSource(Protocol):
    """What a context needs of the connection's session."""

    @property
    def net_id(self) -> int: ...
    @property
    def server(self) -> MessageServer | None: ...
    @property
    def cancelled(self) -> bool: ...
    def wait_cancelled(self, timeout: float | None = None) -> bool: ...
    def monotonic(self) -> float:
        """The time that deadlines are in, in seconds."""
        ...


class Context(Generic[M_co]):
    """A message, where it came from, and whether its handler is still wanted."""

    __slots__ = ("_session", "_values", "message")

    def __init__(
        self,
        message: M_co,
        session: ContextSource,
        values: _Values = None,
    ) -> None:
        self.message: M_co = message
        """What the peer sent, decoded."""
        self._session = session
        self._values = values  # immutable, so it may be shared

    @property
    def net_id(self) -> int:
        """The id of the connection that it came by."""
        return self._session.net_id

    @property
    def server(self) -> MessageServer:
        """The server that it came to. Raises LookupError in a client's handler."""
        server = self._session.server
        if server is None:
            raise LookupError(
                "this message came to a client, so there is no server here; use conn, which both ends have"
            )
        return server

    @overload
    def value(self, key: ContextKey[T]) -> T | None: ...
    @overload
    def value(self, key: object) -> object: ...
    def value(self, key: object) -> object:
        """What `with_value` has put under `key`, here or further out; None if nothing has.

        Under a ContextKey it is known of which type that is.
        """
        pairs = self._values
        while pairs is not None:
            if pairs[0] == key:
                return pairs[1]
            pairs = pairs[2]
        return None

    def with_value(self, key: ContextKey[T] | PlainKey, value: T) -> Context[M_co]:
        """A context for the same message in which `key` has `value`. This one does not change."""
        return Context(self.message, self._session, (key, value, self._values))

    @property
    def cancelled(self) -> bool:
        """Whether the answer is no longer wanted: the connection has been closed, the server stops, or
        the deadline has passed.

        A peer that has only finished sending still wants its answers.
        """
        return self._session.cancelled or self.remaining == 0.0

    def with_timeout(self, seconds: float) -> Context[M_co]:
        """A context for the same message that is cancelled in `seconds`, if not before.

        A deadline that is nearer already stays. Raises ValueError for a number that is not finite.
        """
        if not math.isfinite(seconds):
            raise ValueError(f"a time-out is a finite number of seconds, not {seconds!r}")
        deadline = self._session.monotonic() + seconds
        before = self.value(_DEADLINE)
        return self.with_value(_DEADLINE, deadline if before is None else min(before, deadline))

    @property
    def remaining(self) -> float | None:
        """Seconds until the deadline, 0.0 when it has passed; None when there is none."""
        deadline = self.value(_DEADLINE)
        return None if deadline is None else max(0.0, deadline - self._session.monotonic())

    def wait_cancelled(self, timeout: float | None = None) -> bool:
        """Sleep until `cancelled`, for `timeout` seconds at the most; returns `cancelled`.

        For handlers that wait anyway: they end early when nobody wants them any more. Never call it
        in an inline handler, which would hold the loop.
        """
        remaining = self.remaining
        if remaining is not None:
            timeout = remaining if timeout is None else min(timeout, remaining)
        self._session.wait_cancelled(timeout)
        return self.cancelled

    def __repr__(self) -> str:
        return f"<Context of {self.message!r} on connection {self.net_id}>"
