"""Each codec against the reference.

Contents: CodecInput, codec_inputs, check_codec; and pieces, streams, cut, which the server's fuzzer uses
too.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from tao import Codec, FrameTooLargeError
from tests.fuzz.reference import Dialect, LineDialect, PrefixDialect, TypedDialect
from tests.support import Sample

__all__ = ["CodecInput", "check_codec", "codec_inputs", "cut", "pieces"]

INT32 = st.integers(-(1 << 31), (1 << 31) - 1)


@dataclass(frozen=True)
class CodecInput:
    """A stream, and where it is cut."""

    dialect: Dialect
    stream: bytes
    cuts: tuple[int, ...]
    message: tuple[int, bytes]
    """One to be sent there and back."""


def dialects(kind: str) -> SearchStrategy[Dialect]:
    """Of one kind, with all sorts of limits."""
    limits = st.integers(0, 40)
    if kind == "type, length, value":
        return st.builds(TypedDialect, limits)
    if kind == "length, value":
        orders = st.sampled_from(["big", "little"])
        return st.builds(PrefixDialect, st.sampled_from([1, 2, 4]), orders, limits)
    delimiters = st.sampled_from([b"\n", b"\0", b"\r\n", b"--", b"aab", b"abab"])
    return st.builds(LineDialect, delimiters, st.integers(1, 40))


def pieces(dialect: Dialect, numbers: SearchStrategy[int], longest: int) -> SearchStrategy[bytes]:
    """What streams are made of: whole frames mostly, damaged ones, and anything at all."""
    # Few letters, so that delimiters, and parts of them, come up in values.
    values = st.one_of(st.binary(max_size=longest), st.text("ab-\r\n\0").map(str.encode))
    frames = st.builds(lambda number, value: dialect.frame(number, value) or b"", numbers, values)
    damaged = st.builds(
        lambda frame, place, bits: (
            frame[: place % (len(frame) or 1)] + bits + frame[place % (len(frame) or 1) + 1 :]
        ),
        frames,
        st.integers(0, 60),
        st.binary(max_size=2),
    )
    return st.one_of(frames, frames, frames, damaged, st.binary(max_size=12), st.just(b"\xff" * 8))


@st.composite
def codec_inputs(draw: st.DrawFn, kind: str) -> CodecInput:
    """Streams for codecs of one kind."""
    dialect = draw(dialects(kind))
    parts = draw(st.lists(pieces(dialect, INT32, 48), max_size=8))
    return CodecInput(
        dialect,
        b"".join(parts),
        tuple(draw(st.lists(st.integers(0, 400), max_size=12))),
        (draw(st.integers(1, 100)), draw(st.binary(max_size=48))),
    )


def cut(stream: bytes, places: Sequence[int]) -> list[bytes]:
    """In pieces that end at those places, as far as the stream has them."""
    edges = [0, *sorted({place % (len(stream) + 1) for place in places}), len(stream)]
    return [stream[begin:end] for begin, end in itertools.pairwise(edges)]


def _decode(codec: Codec, data: bytes) -> tuple[list[tuple[int, bytes]], int, bool]:
    """The frames, where the last of them ends, and whether what is behind it was refused."""
    frames: list[tuple[int, bytes]] = []
    position = 0
    try:
        for number, value, end in codec.decode(data):
            assert position < end <= len(data), "a frame has bytes, and they are in the data"
            frames.append((number, value))
            position = end
    except FrameTooLargeError:
        return frames, position, True
    return frames, position, False


def _feed(codec: Codec, chunks: Sequence[bytes]) -> tuple[list[tuple[int, bytes]], bytes, bool]:
    """As a session does it: what is left over comes again, with more behind it."""
    frames: list[tuple[int, bytes]] = []
    rest = b""
    for chunk in chunks:
        rest += chunk
        found, used, refused = _decode(codec, rest)
        frames += found
        rest = rest[used:]
        if refused:
            return frames, rest, True
    return frames, rest, False


def check_codec(example: CodecInput) -> None:
    """Raises AssertionError where the codec and the reference disagree."""
    dialect, codec = example.dialect, example.dialect.codec()
    expected = dialect.parse(example.stream)

    found, used, refused = _decode(codec, example.stream)
    assert (found, refused) == (expected.frames, expected.refused)
    assert example.stream[used:] == expected.rest

    # However it is cut: the same frames and the same verdict; a stream that is refused may be so
    # before all of what is wrong with it has come.
    found, rest, refused = _feed(codec, cut(example.stream, example.cuts))
    assert (found, refused) == (expected.frames, expected.refused)
    assert rest == expected.rest if not refused else expected.rest.startswith(rest)

    header = codec.header(expected.rest)
    announced = dialect.announced(expected.rest)
    assert (header is None) == (announced is None)
    if header is not None and announced is not None:
        number, header_size, size = header
        assert (number, size) == announced
        assert expected.refused or len(expected.rest) < header_size + size

    _check_there_and_back(codec, dialect, example.message)


def _check_there_and_back(codec: Codec, dialect: Dialect, message: tuple[int, bytes]) -> None:
    number, value = message
    frame = dialect.frame(number, value)
    fits = frame is not None and not dialect.parse(frame).refused
    try:
        encoded = codec.encode(Sample(number, value))
    except (FrameTooLargeError, ValueError):
        assert not fits
        return
    assert encoded == frame
    assert dialect.parse(encoded).frames == _decode(codec, encoded)[0]
