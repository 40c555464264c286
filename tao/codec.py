"""From bytes to frames and from messages to bytes.

Contents: Frame, Header, Codec, TypeLengthValueCodec.

A codec knows how frames are told apart on the wire and which message number each carries. What a
frame's value means is the registry's affair. It does no I/O and keeps nothing of a stream between two
calls, so that one codec serves any number of connections, on any threads at once.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Protocol, TypeAlias

from tao.errors import FrameTooLargeError
from tao.message import Message
from tao.proxy_protocol import unasked_hint

__all__ = [
    "INT32_MAX",
    "INT32_MIN",
    "Codec",
    "Frame",
    "Header",
    "TypeLengthValueCodec",
    "check_number",
]

INT32_MIN, INT32_MAX = -(1 << 31), (1 << 31) - 1

MAX_LENGTH = 1 << 23
"""Bytes in a value unless it is set otherwise: 8 MiB, as in Tao 1.6."""

Frame: TypeAlias = tuple[int, bytes, int]
"""The message number, the value, and the offset in the data at which the frame ends."""

Header: TypeAlias = tuple[int, int, int]
"""The message number, the size of the frame's header, and that of its value, in bytes."""


class Codec(Protocol):
    """How messages stand on the wire."""

    def encode(self, message: Message) -> bytes:
        """The whole frame. Called on the thread that writes.

        Raises FrameTooLargeError or ValueError for what cannot be sent; the writer gets it.
        """
        ...

    def decode(self, data: bytes) -> Iterable[Frame]:
        """Every whole frame at the beginning of `data`, in order; stop before an incomplete one.

        What is left comes again, with more behind it. Called on the loop's thread. An exception means
        that nothing after the last frame can be understood: the connection is closed with it as the
        reason. Best a generator: a handler may change the codec between two frames, and what has been
        decoded beyond it is decoded again. One frame that is all of `data`, in a tuple, is handled fastest.
        """
        ...

    def header(self, data: bytes) -> Header | None:
        """What can be said of the frame that begins `data`, which is not whole; None: nothing yet.

        With it a long frame is refused before it is received, and looked at again only when it is
        whole.
        """
        ...


def check_number(number: int) -> int:
    """`number`, if it can be a message's. Raises ValueError, or TypeError for what is no int."""
    if not isinstance(number, int):
        raise TypeError(f"a message number is an int, not {number!r}")
    if not INT32_MIN <= number <= INT32_MAX:
        raise ValueError(
            f"a message number must fit an int32 ({INT32_MIN} to {INT32_MAX}), not {number}"
        )
    return number


class TypeLengthValueCodec:
    """The default: the type as an int32, the length as a uint32, both little-endian, then the value.

    `max_length` is the largest value, in bytes, that is taken from the peer or sent to it. Raises
    ValueError for one that the length on the wire cannot say. Any thread.
    """

    __slots__ = ("_max_length",)

    HEADER = struct.Struct("<iI")

    def __init__(self, max_length: int = MAX_LENGTH) -> None:
        if not 0 <= max_length < 1 << 32:
            raise ValueError(
                f"max_length must be from 0 to {(1 << 32) - 1} bytes, not {max_length!r}"
            )
        self._max_length = max_length

    @property
    def max_length(self) -> int:
        """Bytes in the largest value."""
        return self._max_length

    def encode(self, message: Message) -> bytes:
        """Raises FrameTooLargeError for a long value, ValueError for a number that is no int32."""
        value = message.serialize()
        size = len(value)
        if size > self._max_length:
            raise FrameTooLargeError(size, self._max_length)
        try:
            return _pack(message.message_number, size) + value
        except struct.error:
            check_number(message.message_number)
            raise

    def decode(self, data: bytes) -> Iterable[Frame]:
        """Raises FrameTooLargeError as soon as a header announces a value over the limit."""
        size = len(data)
        if size >= 8:
            number, length = _unpack(data)
            if length == size - 8 and length <= self._max_length:
                # One whole frame, as requests come: without a generator, 3 in 100 of an echo.
                return ((number, data[8:], size),)
        return self._decode(data)

    def _decode(self, data: bytes) -> Iterator[Frame]:
        unpack, limit, size = _unpack, self._max_length, len(data)
        start = 0
        while size - start >= 8:
            number, length = unpack(data, start)
            if length > limit:
                raise FrameTooLargeError(length, limit, hint=unasked_hint(data[start : start + 8]))
            start += 8
            end = start + length
            if end > size:
                return
            yield number, data[start:end], end
            start = end

    def header(self, data: bytes) -> Header | None:
        """Known from the first eight bytes on."""
        if len(data) < 8:
            return None
        number, length = _unpack(data)
        return number, 8, length

    def __repr__(self) -> str:
        return f"TypeLengthValueCodec(max_length={self._max_length})"


# Module constants: two attribute look-ups fewer for every message.
_pack = TypeLengthValueCodec.HEADER.pack
_unpack = TypeLengthValueCodec.HEADER.unpack_from
