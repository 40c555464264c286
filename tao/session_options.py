"""What one says once for all connections of a server or a client.

Contents: Callbacks, SessionOptions, FRAME_TIMEOUT.

Owns values, and the checks of what makes sense; what follows from them is `tao.session`'s. Any thread.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from reactor import CloseReason, ConnectionOptions
from tao.heartbeat import Heartbeat
from tao.interfaces import WriteCloser

__all__ = ["FRAME_TIMEOUT", "Callbacks", "SessionOptions"]

FRAME_TIMEOUT = 60.0
"""Seconds for a frame unless it is set otherwise: for the largest, of 8 MiB, over a line of 1.2 Mbit/s."""

C = TypeVar("C", bound=WriteCloser)


@dataclass(slots=True)
class Callbacks(Generic[C]):
    """The application's, for the connections of one server or client."""

    on_connect: Callable[[C], bool | None] | None = None
    on_message: Callable[[object, C], object] | None = None
    on_close: Callable[[C, CloseReason], object] | None = None
    on_error: Callable[[C, BaseException], object] | None = None

    def __post_init__(self) -> None:
        for name in self.__slots__:
            callback = getattr(self, name)
            if callback is not None and not callable(callback):
                raise TypeError(f"{name} must be a function, not {callback!r}")


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """What may wait, and what an error costs."""

    buffer_size: int = 256
    """Messages that may wait for a worker on one connection before reading from it pauses."""
    close_on_error: bool = True
    """Whether a decoder or a handler that raises costs the connection."""
    heartbeat: Heartbeat | None = None
    frame_timeout: float | None = FRAME_TIMEOUT
    """Seconds from a frame's first byte to its last; None: as long as it likes."""
    first_message_timeout: float | None = None
    """Seconds from the opening to the end of the first frame; likewise."""
    connection: ConnectionOptions = field(default_factory=ConnectionOptions)

    def __post_init__(self) -> None:
        if self.buffer_size < 1:
            raise ValueError(f"buffer_size must be at least 1 message, not {self.buffer_size!r}")
        for name in ("frame_timeout", "first_message_timeout"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a positive number of seconds, not {value!r}")
