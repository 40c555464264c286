"""What a connection needs of those around it.

Contents: ConnectionHandler, LoopWaker.

Owns the two interfaces through which `reactor.connection` calls what it does not import: the layer above,
which knows what the bytes mean, and whoever may end its loop's sleep.
"""

from __future__ import annotations

from typing import Protocol

from reactor.close_reason import CloseReason

__all__ = ["ConnectionHandler", "LoopWaker"]


class ConnectionHandler(Protocol):
    """What a connection needs of the layer above. All of it is called on the loop's thread."""

    def handle_open(self) -> None:
        """The state is OPEN. Reading begins when this returns."""

    def handle_data(self, data: bytes) -> bytes | None:
        """Bytes came. What is returned is sent, behind all that was written before this returned."""

    def handle_draining(self) -> None:
        """The state is DRAINING, or LINGERING already, if nothing was left to be sent. Call
        `Connection.check_drained` whenever `is_idle` turns true. It may come twice."""

    def handle_writable(self) -> None:
        """So much has been sent that the low watermark is reached again."""

    def handle_closed(self, reason: CloseReason) -> None:
        """The state is CLOSED and the descriptor is gone. The last call, and the only of its kind."""

    def is_idle(self) -> bool:
        """Whether nothing is under way that may still write."""


class LoopWaker(Protocol):
    """What a connection needs of whoever may end its loop's sleep."""

    def wake(self) -> None:
        """Something was posted to the loop. Any thread; never blocks."""
        ...
