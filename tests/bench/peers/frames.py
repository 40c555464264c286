"""The wire format of the benchmark, and the handler that all peers but the bare one share."""

from struct import Struct
from typing import Final

HEADER = Struct("<iI")
MAX_LENGTH = 8 * 1024 * 1024
ECHO_TYPE: Final = 1
SLOW_TYPE: Final = 2  # one that handlers may be slow for


class FrameError(ValueError):
    """The peer announced a frame that is too long."""


def echo(number: int, value: bytes) -> bytes:
    """The handler and the encoder: the reply frame to one message."""
    return HEADER.pack(number, len(value)) + value


class FrameReader:
    """Cuts the bytes of one connection into messages."""

    __slots__ = ("_tail",)

    def __init__(self) -> None:
        self._tail = bytearray()  # an incomplete frame

    def feed(self, data: bytes | bytearray) -> list[tuple[int, bytes]]:
        """Type and value of each message that `data` completes. Raises FrameError."""
        tail = self._tail
        if not tail:  # the common case: no copy
            messages, used = _split(data)
            if used < len(data):
                tail += memoryview(data)[used:]
            return messages
        tail += data
        messages, used = _split(tail)
        del tail[:used]
        return messages


def _split(data: bytes | bytearray) -> tuple[list[tuple[int, bytes]], int]:
    """The messages of all whole frames, and how many bytes those took."""
    header_size, unpack = HEADER.size, HEADER.unpack_from
    messages = []
    start, size = 0, len(data)
    while size - start >= header_size:
        number, length = unpack(data, start)
        if length > MAX_LENGTH:
            raise FrameError(f"a frame of {length} bytes; at most {MAX_LENGTH} are allowed")
        end = start + header_size + length
        if end > size:
            break
        messages.append((number, bytes(data[start + header_size : end])))
        start = end
    return messages, start
