"""Messages: the unit of the application.

Owns the Message protocol and the one message that the framework sends by itself, the heartbeat.
"""

from __future__ import annotations

import struct
import time
from typing import Protocol, runtime_checkable

__all__ = ["HEARTBEAT", "HeartBeatMessage", "Message"]

HEARTBEAT = 0
"""The message number of the heartbeat."""

_NANOSECONDS = struct.Struct("<q")


@runtime_checkable
class Message(Protocol):
    """What can be sent: anything with a number and a `serialize`. No base class is needed."""

    @property
    def message_number(self) -> int:
        """Which kind of message it is: an int32, the same at both ends.

        A class attribute will do: `message_number = 1`. Leave an annotation out: pyright takes a `ClassVar`
        for something else than the property that stands here, and a dataclass anything but a `ClassVar`
        for a field.
        """
        ...

    def serialize(self) -> bytes:
        """The message's value as bytes, without any header. Called on the thread that writes."""
        ...


class HeartBeatMessage:
    """A sign of life, with the sender's Unix time in nanoseconds (an int64, little-endian).

    The time is for people who read captures: nothing trusts the peer's clock. Any thread.
    """

    __slots__ = ("timestamp",)
    message_number = HEARTBEAT

    def __init__(self, timestamp: int | None = None) -> None:
        self.timestamp: int = time.time_ns() if timestamp is None else timestamp
        """Nanoseconds since 1970, by the sender's clock."""

    def serialize(self) -> bytes:
        """Eight bytes."""
        return _NANOSECONDS.pack(self.timestamp)

    @classmethod
    def deserialize(cls, data: bytes) -> HeartBeatMessage:
        """Raises ValueError unless there are eight bytes."""
        if len(data) != _NANOSECONDS.size:
            raise ValueError(f"a heartbeat's value must have 8 bytes, not {len(data)}")
        return cls(_NANOSECONDS.unpack(data)[0])

    def __eq__(self, other: object) -> bool:
        if isinstance(other, HeartBeatMessage):
            return self.timestamp == other.timestamp
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self.timestamp)

    def __repr__(self) -> str:
        return f"HeartBeatMessage(timestamp={self.timestamp})"
