"""tao.length_prefixed_codec: by itself, and under a server."""

from __future__ import annotations

import itertools
import struct
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tao import (
    Codec,
    Context,
    FrameTooLargeError,
    HeartBeatMessage,
    MessageRegistry,
    Server,
    WriteCloser,
)
from tao.codec import INT32_MAX
from tao.length_prefixed_codec import LengthPrefixedCodec
from tests.support import LOCAL, Calls, Peer, Sample, as_bytes
from tests.tao.streams import cut, feed, one_by_one

Order = Literal["big", "little"]

SIZES = (1, 2, 4)
ORDERS: tuple[Order, Order] = ("big", "little")
SHAPES = list(itertools.product(SIZES, ORDERS))

VALUES = [b"one", b"", b"\x00" * 20]

every_shape = pytest.mark.parametrize(("size", "order"), SHAPES)


def on_wire(size: int, order: Order, value: bytes) -> bytes:
    """By hand: what the codec should write."""
    return len(value).to_bytes(size, order) + value


def stream_of(size: int, order: Order) -> bytes:
    return b"".join(on_wire(size, order, value) for value in VALUES)


def as_codec(codec: Codec) -> Codec:
    """For the type checker: that it is one."""
    return codec


@every_shape
def test_encodes_the_length_then_the_value(size: int, order: Order) -> None:
    codec = as_codec(LengthPrefixedCodec(size, order))
    for value in VALUES:
        assert codec.encode(Sample(1, value)) == on_wire(size, order, value)


def test_is_four_bytes_in_network_order_unless_set() -> None:
    assert LengthPrefixedCodec().encode(Sample(1, b"ab")) == b"\x00\x00\x00\x02ab"


def test_the_order_makes_a_difference() -> None:
    assert LengthPrefixedCodec(2, "big").encode(Sample(1, b"x" * 258)).startswith(b"\x01\x02x")
    assert LengthPrefixedCodec(2, "little").encode(Sample(1, b"x" * 258)).startswith(b"\x02\x01x")


@every_shape
def test_decodes_many_with_their_ends(size: int, order: Order) -> None:
    codec = LengthPrefixedCodec(size, order, message_number=7)
    ends = list(itertools.accumulate(size + len(value) for value in VALUES))
    assert list(codec.decode(stream_of(size, order))) == [
        (7, value, end) for value, end in zip(VALUES, ends, strict=True)
    ]


@every_shape
def test_split_anywhere(size: int, order: Order) -> None:
    stream = stream_of(size, order)
    for place in range(len(stream) + 1):
        assert feed(LengthPrefixedCodec(size, order), cut(stream, [place])) == (VALUES, b"")


@every_shape
def test_byte_by_byte(size: int, order: Order) -> None:
    stream = stream_of(size, order)
    assert feed(LengthPrefixedCodec(size, order), one_by_one(stream)) == (VALUES, b"")


@every_shape
def test_trailing_data_is_left(size: int, order: Order) -> None:
    last = on_wire(size, order, b"rest")
    for length in range(1, len(last)):
        stream = stream_of(size, order) + last[:length]
        assert feed(LengthPrefixedCodec(size, order), [stream]) == (VALUES, last[:length])


def test_nothing_to_decode() -> None:
    assert list(LengthPrefixedCodec().decode(b"")) == []


@every_shape
@pytest.mark.parametrize("limit", [0, 1, 100])
def test_the_limit(size: int, order: Order, limit: int) -> None:
    codec = LengthPrefixedCodec(size, order, limit)
    value = b"x" * limit
    assert codec.encode(Sample(1, value)) == on_wire(size, order, value)
    assert feed(codec, [on_wire(size, order, value)]) == ([value], b"")
    with pytest.raises(FrameTooLargeError) as sent:
        codec.encode(Sample(1, value + b"x"))
    with pytest.raises(FrameTooLargeError) as received:
        list(codec.decode((limit + 1).to_bytes(size, order)))  # from its length alone
    for caught in (sent, received):
        assert (caught.value.size, caught.value.limit) == (limit + 1, limit)


@pytest.mark.parametrize(("size", "limit"), [(1, 255), (2, 65_535), (4, 1 << 23)])
def test_the_limit_unless_set(size: int, limit: int) -> None:
    assert LengthPrefixedCodec(size).max_length == limit
    assert LengthPrefixedCodec(max_length=(1 << 32) - 1).max_length == (1 << 32) - 1


@pytest.mark.parametrize(("size", "largest"), [(1, 255), (2, 65_535)])
def test_the_largest_value_that_a_length_can_say(size: int, largest: int) -> None:
    codec = LengthPrefixedCodec(size)
    value = b"x" * largest
    assert feed(codec, [codec.encode(Sample(1, value))]) == ([value], b"")
    with pytest.raises(FrameTooLargeError):
        codec.encode(Sample(1, value + b"x"))


def test_what_comes_before_a_bad_frame_is_decoded() -> None:
    frames = LengthPrefixedCodec(1, max_length=20).decode(stream_of(1, "big") + b"\x15")
    assert [next(frames)[1] for _ in VALUES] == VALUES
    with pytest.raises(FrameTooLargeError):
        next(frames)


@every_shape
def test_the_header_is_known_as_soon_as_the_length_is(size: int, order: Order) -> None:
    codec = LengthPrefixedCodec(size, order, message_number=9)
    data = on_wire(size, order, b"value")
    for length in range(size):
        assert codec.header(data[:length]) is None
    for length in range(size, len(data)):
        assert codec.header(data[:length]) == (9, size, 5)


def test_a_length_has_no_sign() -> None:
    assert LengthPrefixedCodec().header(b"\xff\xff\xff\xff") == (1, 4, (1 << 32) - 1)


@pytest.mark.parametrize("number", [-5, 0, INT32_MAX])
def test_every_message_comes_under_the_one_number(number: int) -> None:
    codec = LengthPrefixedCodec(message_number=number)
    assert codec.message_number == number
    assert list(codec.decode(codec.encode(Sample(number, b"x")))) == [(number, b"x", 5)]
    # What is sent may have another one: it is not on the wire.
    assert codec.encode(Sample(3, b"x")) == b"\x00\x00\x00\x01x"


def test_a_heartbeat_is_not_sent_as_something_else() -> None:
    with pytest.raises(ValueError, match="heartbeat"):
        LengthPrefixedCodec().encode(HeartBeatMessage())
    frame = LengthPrefixedCodec(message_number=0).encode(HeartBeatMessage(5))
    assert frame == b"\x00\x00\x00\x08" + struct.pack("<q", 5)


@pytest.mark.parametrize(
    ("arguments", "error", "what"),
    [
        ({"size": 3}, ValueError, "size is .* 1, 2 or 4, not 3"),
        ({"size": 8}, ValueError, "size"),
        ({"size": True}, ValueError, "size"),
        ({"size": 4.0}, ValueError, "size"),
        ({"byteorder": "network"}, ValueError, "byteorder must be 'big' or 'little'"),
        ({"byteorder": ">"}, ValueError, "byteorder"),
        ({"max_length": -1}, ValueError, "max_length"),
        ({"max_length": 1 << 32}, ValueError, "max_length must be from 0 to 4294967295"),
        ({"size": 1, "max_length": 256}, ValueError, "max_length must be from 0 to 255"),
        ({"max_length": "1"}, TypeError, "max_length"),
        ({"max_length": 1.0}, TypeError, "max_length"),
        ({"message_number": 1 << 31}, ValueError, "int32"),
        ({"message_number": "1"}, TypeError, "message number"),
    ],
)
def test_arguments_that_make_no_sense(
    arguments: dict[str, Any], error: type[Exception], what: str
) -> None:
    with pytest.raises(error, match=what):
        LengthPrefixedCodec(**arguments)


def test_its_repr_says_how_it_was_made() -> None:
    codec = LengthPrefixedCodec(2, "little", 5, 3)
    assert repr(codec) == (
        "LengthPrefixedCodec(size=2, byteorder='little', max_length=5, message_number=3)"
    )


@settings(deadline=None, database=None)
@given(
    st.sampled_from(SHAPES),
    st.lists(st.binary(max_size=255), max_size=8),
    st.lists(st.integers(0, 600), max_size=12),
)
def test_round_trip_under_any_chunking(
    shape: tuple[int, Order], values: list[bytes], places: list[int]
) -> None:
    codec = LengthPrefixedCodec(*shape)
    stream = b"".join(codec.encode(Sample(1, value)) for value in values)
    assert feed(codec, cut(stream, places)) == (values, b"")


@settings(deadline=None, database=None)
@given(st.sampled_from(SHAPES), st.binary(max_size=200))
def test_any_bytes_are_frames_or_refused(shape: tuple[int, Order], data: bytes) -> None:
    size, order = shape
    position = 0
    refused = False
    try:
        for _, value, end in LengthPrefixedCodec(size, order, 64).decode(data):
            assert data[position:end] == on_wire(size, order, value)
            position = end
    except FrameTooLargeError:
        refused = True
    rest = data[position:]
    length = int.from_bytes(rest[:size], order) if len(rest) >= size else 0
    assert refused == (length > 64)
    assert refused or len(rest) < size + length or len(rest) < size


# -- under a server ------------------------------------------------------------------------------


def echo(context: Context[bytes], conn: WriteCloser) -> Sample:
    return Sample(1, context.message)


def echo_server(codec: Codec, errors: Calls[BaseException] | None = None) -> Server:
    registry = MessageRegistry()
    registry.register(1, as_bytes, echo)
    return Server(
        registry=registry,
        codec=codec,
        on_error=None if errors is None else (lambda _conn, error: errors.add(error)),
    )


@every_shape
def test_a_server_echoes_what_comes_in_pieces(size: int, order: Order) -> None:
    stream = stream_of(size, order)
    with (
        echo_server(LengthPrefixedCodec(size, order)).running(LOCAL) as address,
        Peer(address) as peer,
    ):
        for piece in one_by_one(stream):
            peer.send(piece)
        assert peer.receive(len(stream)) == stream


def test_a_server_refuses_a_long_frame_from_its_length() -> None:
    errors: Calls[BaseException] = Calls()
    server = echo_server(LengthPrefixedCodec(2, max_length=10), errors)
    with server.running(LOCAL) as address, Peer(address) as peer:
        peer.send(b"\x00\x02ok" + b"\x00\x0b")
        assert peer.receive_to_end() == b"\x00\x02ok"
    (error,) = errors.items
    assert isinstance(error, FrameTooLargeError)
    assert (error.size, error.limit) == (11, 10)
