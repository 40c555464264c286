"""What the framework raises, and reports to `on_error`.

Owns the exceptions, and nothing else.
"""

from __future__ import annotations

from reactor import PrefaceError
from tao.conditions import Objection, Refusal

__all__ = [
    "AdmissionError",
    "ConnectionClosedError",
    "FrameTooLargeError",
    "NotRegisteredError",
    "ProxyProtocolError",
    "TaoError",
    "UndefinedMessageError",
    "WouldBlockError",
]


class TaoError(Exception):
    """Base of everything that the framework raises by itself."""


class ConnectionClosedError(TaoError):
    """The connection is closing or closed, or not connected yet: nothing was queued."""


class WouldBlockError(TaoError):
    """So much waits to be sent that no more is taken: nothing was queued. Wait, or give the peer up."""


class FrameTooLargeError(TaoError):
    """A frame is longer than the codec, or the message's registration, allows."""

    def __init__(
        self, size: int, limit: int, what: str = "a frame's value", hint: str = ""
    ) -> None:
        super().__init__(f"{what} of {size} bytes is over the limit of {limit}{hint}")
        self.size = size
        self.limit = limit


class UndefinedMessageError(TaoError):
    """A message arrived whose number is not registered. It was skipped."""

    def __init__(self, number: int) -> None:
        super().__init__(
            f"message number {number} is not registered; the message was skipped. If it is to be "
            f"understood, register it in the registry of this end"
        )
        self.number = number


class NotRegisteredError(TaoError):
    """There is nothing under that name: no handler for a message, no connection with an id."""


class AdmissionError(TaoError):
    """A message arrived that its registration, or the server's `frame_rate`, does not let in.

    One that is larger than its `max_size` is a FrameTooLargeError instead, if it costs the connection.
    """

    def __init__(self, number: int, objection: Objection, refusal: Refusal) -> None:
        super().__init__(f"message number {number} {objection}; {refusal}")
        self.number = number
        self.objection = objection
        """Why."""
        self.refusal = refusal
        """What was done."""


class ProxyProtocolError(TaoError, PrefaceError):
    """What came first on a connection is no header of the PROXY protocol, which was asked for."""
