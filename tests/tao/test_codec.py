"""tao.codec: from bytes to frames and back, without any socket."""

from __future__ import annotations

import struct
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tao import Codec, FrameTooLargeError, TypeLengthValueCodec
from tao.codec import INT32_MAX, INT32_MIN, check_number
from tests.support import Sample, frame

numbers = st.integers(INT32_MIN, INT32_MAX)
messages = st.lists(st.tuples(numbers, st.binary(max_size=40)), max_size=8)

THREE = [(1, b"one"), (-2, b""), (3, b"\x00" * 20)]
STREAM = b"".join(frame(number, value) for number, value in THREE)


def feed(codec: Codec, chunks: Iterable[bytes]) -> tuple[list[tuple[int, bytes]], bytes]:
    """Decode a stream that comes in chunks; what was found, and what is left over."""
    found: list[tuple[int, bytes]] = []
    rest = b""
    for chunk in chunks:
        rest += chunk
        used = 0
        for number, value, end in codec.decode(rest):
            found.append((number, value))
            used = end
        rest = rest[used:]
    return found, rest


def test_encodes_as_the_wire_format_says() -> None:
    codec = TypeLengthValueCodec()
    assert codec.encode(Sample(1, b"ab")) == b"\x01\x00\x00\x00\x02\x00\x00\x00ab"
    assert codec.encode(Sample(-1)) == b"\xff\xff\xff\xff\x00\x00\x00\x00"


def test_decodes_what_the_wire_format_says() -> None:
    found = list(TypeLengthValueCodec().decode(b"\xfe\xff\xff\xff\x02\x00\x00\x00ab"))
    assert found == [(-2, b"ab", 10)]


def test_many_in_one_chunk() -> None:
    assert feed(TypeLengthValueCodec(), [STREAM]) == (THREE, b"")


def test_ends_are_offsets_in_the_data() -> None:
    ends = [end for _, _, end in TypeLengthValueCodec().decode(STREAM)]
    assert ends == [11, 19, len(STREAM)]


@pytest.mark.parametrize("split", range(len(STREAM) + 1))
def test_split_anywhere(split: int) -> None:
    assert feed(TypeLengthValueCodec(), [STREAM[:split], STREAM[split:]]) == (THREE, b"")


def test_byte_by_byte() -> None:
    chunks = [STREAM[index : index + 1] for index in range(len(STREAM))]
    assert feed(TypeLengthValueCodec(), chunks) == (THREE, b"")


@pytest.mark.parametrize("size", range(1, len(frame(9, b"rest"))))
def test_trailing_data_is_left(size: int) -> None:
    trailing = frame(9, b"rest")[:size]
    assert feed(TypeLengthValueCodec(), [STREAM + trailing]) == (THREE, trailing)


def test_nothing_to_decode() -> None:
    assert list(TypeLengthValueCodec().decode(b"")) == []


def test_a_zero_length_value() -> None:
    assert list(TypeLengthValueCodec().decode(frame(5))) == [(5, b"", 8)]


@pytest.mark.parametrize("limit", [0, 1, 100])
def test_a_value_of_exactly_the_limit(limit: int) -> None:
    codec = TypeLengthValueCodec(max_length=limit)
    encoded = codec.encode(Sample(1, b"x" * limit))
    assert list(codec.decode(encoded)) == [(1, b"x" * limit, 8 + limit)]


@pytest.mark.parametrize("limit", [0, 1, 100])
def test_a_value_over_the_limit_is_refused_from_its_header(limit: int) -> None:
    header = struct.pack("<iI", 1, limit + 1)
    with pytest.raises(FrameTooLargeError) as caught:
        list(TypeLengthValueCodec(max_length=limit).decode(header))
    assert (caught.value.size, caught.value.limit) == (limit + 1, limit)


def test_the_limit_is_eight_mebibytes_unless_set() -> None:
    codec = TypeLengthValueCodec()
    assert codec.max_length == 1 << 23
    assert list(codec.decode(struct.pack("<iI", 1, 1 << 23))) == []
    with pytest.raises(FrameTooLargeError):
        list(codec.decode(struct.pack("<iI", 1, (1 << 23) + 1)))


def test_what_comes_before_a_bad_frame_is_decoded() -> None:
    codec = TypeLengthValueCodec(max_length=20)
    frames = iter(codec.decode(STREAM + struct.pack("<iI", 1, 21)))
    assert [next(frames)[:2] for _ in THREE] == THREE
    with pytest.raises(FrameTooLargeError):
        next(frames)


def test_a_length_has_no_sign() -> None:
    codec = TypeLengthValueCodec(max_length=(1 << 32) - 1)
    assert codec.header(b"\x01\x00\x00\x00\xff\xff\xff\xff") == (1, 8, (1 << 32) - 1)


@pytest.mark.parametrize("number", [INT32_MIN, -1, 0, 1, INT32_MAX])
def test_numbers_that_fit(number: int) -> None:
    codec = TypeLengthValueCodec()
    assert list(codec.decode(codec.encode(Sample(number)))) == [(number, b"", 8)]
    assert check_number(number) == number


@pytest.mark.parametrize("number", [INT32_MIN - 1, INT32_MAX + 1, 1 << 64])
def test_numbers_that_do_not_fit(number: int) -> None:
    with pytest.raises(ValueError, match="int32"):
        TypeLengthValueCodec().encode(Sample(number))
    with pytest.raises(ValueError, match="int32"):
        check_number(number)


@pytest.mark.parametrize("number", ["1", 1.0, None])
def test_what_is_no_number_at_all(number: int) -> None:
    with pytest.raises(TypeError, match="int"):
        TypeLengthValueCodec().encode(Sample(number))
    with pytest.raises(TypeError, match="int"):
        check_number(number)


def test_a_value_too_long_to_send() -> None:
    codec = TypeLengthValueCodec(max_length=4)
    assert codec.encode(Sample(1, b"1234")) == frame(1, b"1234")
    with pytest.raises(FrameTooLargeError) as caught:
        codec.encode(Sample(1, b"12345"))
    assert (caught.value.size, caught.value.limit) == (5, 4)


@pytest.mark.parametrize("max_length", [-1, 1 << 32])
def test_limits_that_no_header_can_express(max_length: int) -> None:
    with pytest.raises(ValueError, match="max_length"):
        TypeLengthValueCodec(max_length)


@pytest.mark.parametrize("size", range(8))
def test_a_part_of_a_header_says_nothing(size: int) -> None:
    assert TypeLengthValueCodec().header(frame(7, b"value")[:size]) is None


@pytest.mark.parametrize("size", [8, 9, 12])
def test_a_header_says_all(size: int) -> None:
    assert TypeLengthValueCodec().header(frame(7, b"value")[:size]) == (7, 8, 5)


def test_its_repr_names_the_limit() -> None:
    assert repr(TypeLengthValueCodec(5)) == "TypeLengthValueCodec(max_length=5)"


@settings(deadline=None, database=None)
@given(messages, st.lists(st.integers(0, 400), max_size=12), st.binary(max_size=7))
def test_round_trip_under_any_chunking(
    sent: list[tuple[int, bytes]], cuts: list[int], trailing: bytes
) -> None:
    codec = TypeLengthValueCodec()
    stream = b"".join(codec.encode(Sample(*message)) for message in sent) + trailing
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    chunks = [stream[edges[i] : edges[i + 1]] for i in range(len(edges) - 1)]
    assert feed(codec, chunks) == (sent, trailing)


@settings(deadline=None, database=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_frames_or_refused(data: bytes) -> None:
    """Whatever comes: frames that lie end to end, then an incomplete one or an error."""
    position = 0
    refused: int | None
    try:
        for number, value, end in TypeLengthValueCodec(max_length=64).decode(data):
            assert data[position:end] == frame(number, value)
            position = end
    except FrameTooLargeError as error:
        refused = error.size
    else:
        refused = None
    if refused is not None:
        assert struct.unpack_from("<iI", data, position)[1] == refused > 64
        return
    header = TypeLengthValueCodec().header(data[position:])
    if header is None:
        assert len(data) - position < 8
    else:
        assert len(data) - position < header[1] + header[2]
