"""The wire formats once more: slow, short, and with no knowledge of the codecs that they check.

Contents: Parsed, Dialect, TypedDialect, PrefixDialect, LineDialect.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

from tao import Codec, LengthPrefixedCodec, LineCodec, TypeLengthValueCodec

__all__ = ["Dialect", "LineDialect", "Parsed", "PrefixDialect", "TypedDialect"]


@dataclass
class Parsed:
    """What a stream consists of."""

    frames: list[tuple[int, bytes]] = field(default_factory=list)
    """Numbers and values, in order, up to the damage or to the end."""
    refused: bool = False
    """Whether behind them stands something that is too long."""
    rest: bytes = b""
    """What is behind them otherwise: the beginning of a frame."""


class Dialect(Protocol):
    """A wire format with its limits."""

    def codec(self) -> Codec:
        """The codec to be checked."""
        ...

    def frame(self, number: int, value: bytes) -> bytes | None:
        """A frame; None for what the format cannot express. Nothing is said of the limit."""
        ...

    def parse(self, stream: bytes) -> Parsed:
        """What the stream says."""
        ...

    def announced(self, rest: bytes) -> tuple[int, int] | None:
        """The number and the size of the value that `rest` begins; None where they are not known."""
        ...


@dataclass(frozen=True)
class TypedDialect:
    """A type, a length, a value."""

    max_length: int

    def codec(self) -> Codec:
        """As this says."""
        return TypeLengthValueCodec(max_length=self.max_length)

    def frame(self, number: int, value: bytes) -> bytes | None:
        """Four bytes, four bytes, and the value."""
        head = number.to_bytes(4, "little", signed=True) + len(value).to_bytes(4, "little")
        return head + value

    def announced(self, rest: bytes) -> tuple[int, int] | None:
        """From eight bytes on."""
        if len(rest) < 8:
            return None
        number = int.from_bytes(rest[:4], "little", signed=True)
        return number, int.from_bytes(rest[4:8], "little")

    def parse(self, stream: bytes) -> Parsed:
        """Frame after frame."""
        parsed = Parsed(rest=stream)
        while (head := self.announced(parsed.rest)) is not None:
            number, size = head
            if size > self.max_length:
                parsed.refused = True
                return parsed
            if len(parsed.rest) < 8 + size:
                return parsed
            parsed.frames.append((number, parsed.rest[8 : 8 + size]))
            parsed.rest = parsed.rest[8 + size :]
        return parsed


@dataclass(frozen=True)
class PrefixDialect:
    """A length, a value."""

    size: int
    byteorder: Literal["big", "little"]
    max_length: int

    def codec(self) -> Codec:
        """As this says."""
        return LengthPrefixedCodec(self.size, self.byteorder, self.max_length)

    def frame(self, number: int, value: bytes) -> bytes | None:
        """Nothing of the number is said."""
        if len(value) >= 1 << 8 * self.size:
            return None
        return len(value).to_bytes(self.size, self.byteorder) + value

    def announced(self, rest: bytes) -> tuple[int, int] | None:
        """As soon as the length is whole."""
        if len(rest) < self.size:
            return None
        return 1, int.from_bytes(rest[: self.size], self.byteorder)

    def parse(self, stream: bytes) -> Parsed:
        """Frame after frame."""
        parsed = Parsed(rest=stream)
        while (head := self.announced(parsed.rest)) is not None:
            if head[1] > self.max_length:
                parsed.refused = True
                return parsed
            end = self.size + head[1]
            if len(parsed.rest) < end:
                return parsed
            parsed.frames.append((1, parsed.rest[self.size : end]))
            parsed.rest = parsed.rest[end:]
        return parsed


@dataclass(frozen=True)
class LineDialect:
    """A value, a delimiter."""

    delimiter: bytes
    max_length: int

    def codec(self) -> Codec:
        """As this says."""
        return LineCodec(self.delimiter, self.max_length)

    def frame(self, number: int, value: bytes) -> bytes | None:
        """None for a value that would come out as something else."""
        parsed = LineDialect(self.delimiter, 1 << 30).parse(value + self.delimiter)
        return value + self.delimiter if parsed.frames == [(1, value)] else None

    def announced(self, rest: bytes) -> tuple[int, int] | None:
        """How long a line is shows at its end."""
        return None

    def parse(self, stream: bytes) -> Parsed:
        """Line after line."""
        parsed = Parsed(rest=stream)
        while self.delimiter in parsed.rest:
            line, _, rest = parsed.rest.partition(self.delimiter)
            if self.delimiter == b"\n" and line.endswith(b"\r"):
                line = line[:-1]
            if len(line) > self.max_length:
                parsed.refused = True
                return parsed
            parsed.frames.append((1, line))
            parsed.rest = rest
        # It is too long if nothing that could follow would make it short enough: what may already be
        # the beginning of the line's end does not count.
        ends = [b"\r"] if self.delimiter == b"\n" else []
        ends += [self.delimiter[:size] for size in range(1, len(self.delimiter))]
        most = max([len(end) for end in ends if parsed.rest.endswith(end)], default=0)
        parsed.refused = len(parsed.rest) - most > self.max_length
        return parsed
