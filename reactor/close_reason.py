"""Why a connection ended.

Owns the value that `on_close` is given. Immutable; any thread.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

__all__ = ["CloseCause", "CloseReason"]


class CloseCause(enum.Enum):
    """Who ended a connection, or what."""

    CLOSED = "closed by this side"
    """`close()` was called."""
    PEER_CLOSED = "closed by the peer"
    """The peer sent its FIN, and was answered to the end."""
    ABORTED = "aborted by this side"
    """`abort()` was called."""
    STOPPED = "the server stopped"
    """`stop()` was called: by the end of its grace, if the error says so."""
    REFUSED = "refused"
    """`on_connect` returned False; or, with a proxy's word for who the peer is, a limit of its address."""
    FAILED = "failed"
    """The error says how: the network, the protocol, or a handler that raised."""
    EXPIRED = "timed out"
    """The error says what took too long."""

    # Members are single; Enum's own is written in Python.
    __hash__: ClassVar[Callable[[object], int]] = object.__hash__

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class CloseReason:
    """Who ended the connection, why, and what was lost by it.

    Truth value and equality are those of any value; `str()` is a line for a log.
    """

    cause: CloseCause
    """What set the end in motion; what happened after that does not change it."""
    error: BaseException | None = None
    """What went wrong, if something did, be it before or during the end."""
    unsent: int = 0
    """Bytes that `write` accepted and the kernel never took."""
    dropped: int = 0
    """Messages that `write` accepted and that have made room for younger ones, by that policy."""
    unhandled: int = 0
    """Messages that were decoded and whose handler was never begun."""
    undecoded: int = 0
    """Bytes that were received and never became a message; an unfinished frame, mostly."""

    @property
    def by_peer(self) -> bool:
        """Whether the peer ended it, in good order or by a reset."""
        return self.cause is CloseCause.PEER_CLOSED or isinstance(self.error, ConnectionResetError)

    @property
    def clean(self) -> bool:
        """Whether nothing went wrong and nothing was lost."""
        return self.error is None and not (
            self.unsent or self.dropped or self.unhandled or self.undecoded
        )

    def __str__(self) -> str:
        parts = [self.cause.value]
        if self.error is not None:
            parts.append(f": {type(self.error).__name__}: {self.error}")
        lost = [
            f"{count} {what}"
            for count, what in (
                (self.unsent, "bytes unsent"),
                (self.dropped, "messages dropped"),
                (self.unhandled, "messages unhandled"),
                (self.undecoded, "bytes undecoded"),
            )
            if count
        ]
        if lost:
            parts.append(f" ({', '.join(lost)})")
        return "".join(parts)
