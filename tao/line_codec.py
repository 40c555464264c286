"""Frames that end at a delimiter: lines.

Owns LineCodec: for people with telnet or nc, and for protocols made of lines of text.
"""

from __future__ import annotations

from collections.abc import Iterator

from tao.codec import Frame, Header, check_number
from tao.errors import FrameTooLargeError
from tao.message import HEARTBEAT, Message

__all__ = ["LineCodec"]

CARRIAGE_RETURN = 0x0D


class LineCodec:
    """A value, then the delimiter, which the value does not contain.

    - `delimiter`: one or more bytes. For the default, a newline, a carriage return before it is
      dropped: telnet ends a line with both (RFC 854).
    - `max_length`: bytes in the largest value, without the delimiter, in either direction.
    - `message_number`: what each message that arrives is registered under. The number of a message
      that is sent is not looked at, except for the heartbeat's: a peer could not tell one from other
      lines, so `encode` refuses it.

    Nothing is kept between two calls, so a line that has not ended is searched from its beginning
    whenever more of it comes: O(n) for each piece, with n the bytes that there are of it. `max_length`
    bounds n, and so what a peer that sends a long line byte by byte can cost; set it no higher than the
    protocol needs.

    Raises TypeError or ValueError for arguments that make no sense. Any thread.
    """

    __slots__ = ("_delimiter", "_max_length", "_number", "_partial_ends", "_strips_return")

    def __init__(
        self, delimiter: bytes = b"\n", max_length: int = 65_536, message_number: int = 1
    ) -> None:
        if not isinstance(delimiter, bytes):
            raise TypeError(f"delimiter must be bytes, such as b'\\n', not {delimiter!r}")
        if not delimiter:
            raise ValueError("delimiter must be at least one byte: an empty one ends no line")
        if type(max_length) is not int:
            raise TypeError(f"max_length is a number of bytes: an int, not {max_length!r}")
        if max_length < 1:
            raise ValueError(f"max_length must be at least 1 byte, not {max_length}")
        self._delimiter = delimiter
        self._max_length = max_length
        self._number = check_number(message_number)
        self._strips_return = delimiter == b"\n"
        # With what a line may break off and yet have all of its value: the longest first.
        if self._strips_return:
            self._partial_ends = [b"\r"]
        else:
            self._partial_ends = [delimiter[:size] for size in range(len(delimiter) - 1, 0, -1)]

    @property
    def delimiter(self) -> bytes:
        """What ends a line."""
        return self._delimiter

    @property
    def max_length(self) -> int:
        """Bytes in the largest value."""
        return self._max_length

    @property
    def message_number(self) -> int:
        """What every message that arrives is registered under."""
        return self._number

    def encode(self, message: Message) -> bytes:
        """Raises FrameTooLargeError for a long value, ValueError for one that would come out changed.

        That is one which contains the delimiter, or ends so that it would be found too early, or ends
        with the carriage return that the peer drops; and a heartbeat.
        """
        if message.message_number == HEARTBEAT != self._number:
            raise ValueError(
                "a heartbeat cannot be sent as a line, which a peer could not tell from others: "
                "use a codec that sends message numbers, or none of our own heartbeats"
            )
        value = message.serialize()
        size = len(value)
        if size > self._max_length:
            raise FrameTooLargeError(size, self._max_length, "a line")
        line = value + self._delimiter
        # In the whole: a delimiter such as b"--" is found too early behind a value that ends in b"-".
        if line.find(self._delimiter) != size:
            raise ValueError(
                f"a value with the delimiter {self._delimiter!r} in it would arrive in pieces: "
                f"escape it, or choose a codec that sends lengths"
            )
        if self._strips_return and value.endswith(b"\r"):
            raise ValueError("a value that ends with b'\\r' would arrive without it: leave it out")
        return line

    def decode(self, data: bytes) -> Iterator[Frame]:
        """Raises FrameTooLargeError for a line over the limit, whether it has ended or not."""
        number, limit, delimiter = self._number, self._max_length, self._delimiter
        strips_return, delimiter_size = self._strips_return, len(delimiter)
        start = 0
        while (stop := data.find(delimiter, start)) >= 0:
            end = stop + delimiter_size
            if strips_return and stop > start and data[stop - 1] == CARRIAGE_RETURN:
                stop -= 1
            if stop - start > limit:
                raise FrameTooLargeError(stop - start, limit, "a line")
            yield number, data[start:stop], end
            start = end
        if len(data) - start > limit:
            self._check_open_line(data[start:])

    def _check_open_line(self, line: bytes) -> None:
        """`line` has not ended: see whether it still can within the limit."""
        size = len(line)
        for end in self._partial_ends:
            if line.endswith(end):
                size -= len(end)
                break
        if size > self._max_length:
            raise FrameTooLargeError(size, self._max_length, "an unfinished line")

    def header(self, data: bytes) -> Header | None:
        """Never known: how long a line is shows at its end only."""
        return None

    def __repr__(self) -> str:
        return (
            f"LineCodec(delimiter={self._delimiter!r}, max_length={self._max_length}, "
            f"message_number={self._number})"
        )
