"""Frames of a length and a value, with no message number on the wire.

Owns LengthPrefixedCodec: for peers that say how long a message is, and not of which kind.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Literal

from tao.codec import MAX_LENGTH, Frame, Header, check_number
from tao.errors import FrameTooLargeError
from tao.message import HEARTBEAT, Message
from tao.proxy_protocol import unasked_hint

__all__ = ["LengthPrefixedCodec"]

_FORMATS = {1: "B", 2: "H", 4: "I"}
_ORDERS = {"big": ">", "little": "<"}


class LengthPrefixedCodec:
    """The value's length in bytes, unsigned, then the value.

    - `size`: bytes in the length: 1, 2 or 4. The length does not count itself.
    - `byteorder`: "big", which is the network's, or "little".
    - `max_length`: the largest value, in bytes, that is taken from the peer or sent to it; unless set,
      the largest that the length can say, but not over 8 MiB.
    - `message_number`: what each message that arrives is registered under. The number of a message
      that is sent is not looked at, except for the heartbeat's: a peer could not tell one from other
      messages, so `encode` refuses it.

    Raises TypeError or ValueError for arguments that make no sense. Any thread.
    """

    __slots__ = ("_byteorder", "_max_length", "_number", "_prefix")

    def __init__(
        self,
        size: int = 4,
        byteorder: Literal["big", "little"] = "big",
        max_length: int | None = None,
        message_number: int = 1,
    ) -> None:
        if type(size) is not int or size not in _FORMATS:
            raise ValueError(f"size is the number of bytes in the length: 1, 2 or 4, not {size!r}")
        if byteorder not in ("big", "little"):
            raise ValueError(f"byteorder must be 'big' or 'little', not {byteorder!r}")
        largest = (1 << 8 * size) - 1
        if max_length is None:
            max_length = min(largest, MAX_LENGTH)
        if type(max_length) is not int:
            raise TypeError(f"max_length is a number of bytes: an int, not {max_length!r}")
        if not 0 <= max_length <= largest:
            raise ValueError(
                f"max_length must be from 0 to {largest}, which is all that a length of size={size} "
                f"can say, not {max_length}"
            )
        self._byteorder = byteorder
        self._max_length = max_length
        self._number = check_number(message_number)
        self._prefix = struct.Struct(_ORDERS[byteorder] + _FORMATS[size])

    @property
    def max_length(self) -> int:
        """Bytes in the largest value."""
        return self._max_length

    @property
    def message_number(self) -> int:
        """What every message that arrives is registered under."""
        return self._number

    def encode(self, message: Message) -> bytes:
        """Raises FrameTooLargeError for a long value, ValueError for a heartbeat."""
        if message.message_number == HEARTBEAT != self._number:
            raise ValueError(
                "a heartbeat cannot be sent without its number, for a peer could not tell it from "
                "other messages: use a codec that sends numbers, or none of our own heartbeats"
            )
        value = message.serialize()
        size = len(value)
        if size > self._max_length:
            raise FrameTooLargeError(size, self._max_length)
        return self._prefix.pack(size) + value

    def decode(self, data: bytes) -> Iterator[Frame]:
        """Raises FrameTooLargeError as soon as a length is over the limit."""
        number, limit, prefix = self._number, self._max_length, self._prefix
        prefix_size, size = prefix.size, len(data)
        start = 0
        while size - start >= prefix_size:
            (length,) = prefix.unpack_from(data, start)
            if length > limit:
                raise FrameTooLargeError(length, limit, hint=unasked_hint(data[start : start + 8]))
            start += prefix_size
            end = start + length
            if end > size:
                return
            yield number, data[start:end], end
            start = end

    def header(self, data: bytes) -> Header | None:
        """Known as soon as the length is."""
        if len(data) < self._prefix.size:
            return None
        (length,) = self._prefix.unpack_from(data)
        return self._number, self._prefix.size, length

    def __repr__(self) -> str:
        return (
            f"LengthPrefixedCodec(size={self._prefix.size}, byteorder={self._byteorder!r}, "
            f"max_length={self._max_length}, message_number={self._number})"
        )
