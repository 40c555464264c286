"""tao.line_codec: by itself, under a server, and with nc at the other end."""

from __future__ import annotations

import shutil
import struct
import subprocess
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tao import (
    CloseCause,
    CloseReason,
    Codec,
    Context,
    FrameTooLargeError,
    Heartbeat,
    HeartBeatMessage,
    MessageRegistry,
    Server,
    ServerConn,
    WriteCloser,
)
from tao.line_codec import LineCodec
from tests.support import DEADLINE, LOCAL, Calls, Peer, Sample, as_bytes
from tests.tao.streams import cut, feed, one_by_one

LINES = [b"one", b"", b"and three", "Grüße".encode(), b"\r in the middle"]
STREAM = b"one\n\nand three\n" + "Grüße".encode() + b"\n\r in the middle\n"
TELNET = STREAM.replace(b"\n", b"\r\n")


def as_codec(codec: Codec) -> Codec:
    """For the type checker: that it is one."""
    return codec


def test_encodes_the_value_then_a_newline() -> None:
    codec = as_codec(LineCodec())
    assert b"".join(codec.encode(Sample(1, line)) for line in LINES) == STREAM


def test_decodes_lines_with_their_ends() -> None:
    codec = LineCodec(message_number=7)
    assert list(codec.decode(b"one\n\nthree\r\nrest")) == [
        (7, b"one", 4),
        (7, b"", 5),
        (7, b"three", 12),
    ]


@pytest.mark.parametrize("stream", [STREAM, TELNET], ids=["newline", "telnet"])
def test_split_anywhere(stream: bytes) -> None:
    for place in range(len(stream) + 1):
        assert feed(LineCodec(), cut(stream, [place])) == (LINES, b"")


@pytest.mark.parametrize("stream", [STREAM, TELNET], ids=["newline", "telnet"])
def test_byte_by_byte(stream: bytes) -> None:
    assert feed(LineCodec(), one_by_one(stream)) == (LINES, b"")


@pytest.mark.parametrize("trailing", [b"", b"r", b"rest", b"rest\r", b"\r"])
def test_trailing_data_is_left(trailing: bytes) -> None:
    assert feed(LineCodec(), [STREAM + trailing]) == (LINES, trailing)


def test_one_carriage_return_belongs_to_the_end() -> None:
    assert feed(LineCodec(), [b"a\r\r\n\r\n\r\r\n"]) == ([b"a\r", b"", b"\r"], b"")


def test_an_empty_line_takes_no_carriage_return_from_elsewhere() -> None:
    assert list(LineCodec().decode(b"\r\n\n")) == [(1, b"", 2), (1, b"", 3)]
    # Nothing stands before the first line; what stands at the end of the data is not before it.
    assert list(LineCodec().decode(b"\nrest\r")) == [(1, b"", 1)]


def test_another_delimiter_strips_nothing() -> None:
    assert feed(LineCodec(b";"), [b"a\r;b\n;"]) == ([b"a\r", b"b\n"], b"")
    assert feed(LineCodec(b"\r\n"), [b"a\n\r\nb\r\r\n"]) == ([b"a\n", b"b\r"], b"")


@pytest.mark.parametrize("delimiter", [b";", b"\r\n", b"--", b"\x00", b"END", b"aab"])
def test_any_delimiter(delimiter: bytes) -> None:
    codec = LineCodec(delimiter)
    values = [b"one", b"", b"three"]
    stream = b"".join(value + delimiter for value in values)
    assert b"".join(codec.encode(Sample(1, value)) for value in values) == stream
    for place in range(len(stream) + 1):
        assert feed(codec, cut(stream, [place])) == (values, b"")
    assert feed(codec, one_by_one(stream + b"re")) == (values, b"re")


@pytest.mark.parametrize(
    ("delimiter", "value"),
    [
        (b"\n", b"\n"),
        (b"\n", b"two\nlines"),
        (b"\n", b"at the end\n"),
        (b"\r\n", b"two\r\nlines"),
        (b"--", b"a--b"),
        (b"--", b"a-"),  # followed by the delimiter it would end a byte too early
        (b"aab", b"aab"),
        (b"abab", b"xab"),
    ],
)
def test_a_value_with_the_delimiter_is_not_sent(delimiter: bytes, value: bytes) -> None:
    with pytest.raises(ValueError, match="delimiter"):
        LineCodec(delimiter).encode(Sample(1, value))


def test_a_part_of_the_delimiter_may_be_sent() -> None:
    for delimiter, value in [
        (b"\r\n", b"a\rb\n"),
        (b"\r\n", b"a\r"),
        (b"aab", b"a"),
        (b"\n", b"\r."),
    ]:
        codec = LineCodec(delimiter)
        assert feed(codec, [codec.encode(Sample(1, value))]) == ([value], b"")


def test_a_value_that_would_lose_its_carriage_return_is_not_sent() -> None:
    with pytest.raises(ValueError, match="without it"):
        LineCodec().encode(Sample(1, b"a\r"))


def test_a_heartbeat_is_not_sent_as_something_else() -> None:
    with pytest.raises(ValueError, match="heartbeat"):
        LineCodec().encode(HeartBeatMessage())
    frame = LineCodec(b"END", message_number=0).encode(HeartBeatMessage(5))
    assert frame == struct.pack("<q", 5) + b"END"


def test_any_other_number_is_not_looked_at() -> None:
    assert LineCodec(message_number=7).encode(Sample(3, b"x")) == b"x\n"
    assert LineCodec(message_number=7).message_number == 7


# -- the limit -----------------------------------------------------------------------------------


@pytest.mark.parametrize("delimiter", [b"\n", b";", b"\r\n", b"END"])
@pytest.mark.parametrize("limit", [1, 2, 10])
def test_a_line_of_exactly_the_limit(delimiter: bytes, limit: int) -> None:
    codec = LineCodec(delimiter, limit)
    value = b"x" * limit
    line = codec.encode(Sample(1, value))
    assert line == value + delimiter
    assert feed(codec, one_by_one(line + line)) == ([value, value], b"")
    if delimiter == b"\n":
        assert feed(codec, one_by_one(value + b"\r\n")) == ([value], b"")


@pytest.mark.parametrize("delimiter", [b"\n", b";", b"\r\n", b"END"])
@pytest.mark.parametrize("limit", [1, 2, 10])
def test_a_line_over_the_limit(delimiter: bytes, limit: int) -> None:
    codec = LineCodec(delimiter, limit)
    value = b"x" * (limit + 1)
    refused: list[Callable[[], object]] = [
        lambda: list(codec.decode(value + delimiter)),
        lambda: list(codec.decode(value)),  # before it ends
        lambda: codec.encode(Sample(1, value)),
    ]
    for refuse in refused:
        with pytest.raises(FrameTooLargeError) as caught:
            refuse()
        assert (caught.value.size, caught.value.limit) == (limit + 1, limit)


@pytest.mark.parametrize(
    ("delimiter", "begun", "still", "no_more"),
    [
        (b"\n", b"\r", b"\n", b"x"),
        (b"\n", b"\r", b"\n", b"\r"),
        (b"\r\n", b"\r", b"\n", b"\r"),
        (b"END", b"E", b"ND", b"E"),
        (b"END", b"EN", b"D", b"E"),
        (b"aab", b"aa", b"b", b"x"),
    ],
)
def test_what_may_be_the_delimiter_s_beginning_is_waited_for(
    delimiter: bytes, begun: bytes, still: bytes, no_more: bytes
) -> None:
    codec = LineCodec(delimiter, 3)
    assert list(codec.decode(b"xyz" + begun)) == []
    assert feed(codec, [b"xyz" + begun, still]) == ([b"xyz"], b"")
    with pytest.raises(FrameTooLargeError):
        list(codec.decode(b"xyz" + begun + no_more))


def test_lines_before_a_long_one_are_decoded() -> None:
    lines = LineCodec(max_length=3).decode(b"one\ntwo\nthree")
    assert [next(lines)[1], next(lines)[1]] == [b"one", b"two"]
    with pytest.raises(FrameTooLargeError, match="unfinished line of 5 bytes"):
        next(lines)


def test_the_limit_is_for_each_line() -> None:
    assert feed(LineCodec(max_length=3), [b"one\n" * 100]) == ([b"one"] * 100, b"")


def test_the_limit_unless_set() -> None:
    assert LineCodec().max_length == 65_536
    assert list(LineCodec().decode(b"x" * 65_536)) == []
    with pytest.raises(FrameTooLargeError):
        list(LineCodec().decode(b"x" * 65_537))


@pytest.mark.parametrize("data", [b"", b"x", b"half a line", b"half a line\r"])
def test_a_part_of_a_line_says_nothing(data: bytes) -> None:
    assert LineCodec().header(data) is None


@pytest.mark.parametrize(
    ("arguments", "error", "what"),
    [
        ({"delimiter": b""}, ValueError, "delimiter must be at least one byte"),
        ({"delimiter": "\n"}, TypeError, "delimiter must be bytes, such as"),
        ({"delimiter": None}, TypeError, "delimiter"),
        ({"max_length": 0}, ValueError, "max_length must be at least 1"),
        ({"max_length": -1}, ValueError, "max_length"),
        ({"max_length": 10.0}, TypeError, "max_length"),
        ({"max_length": True}, TypeError, "max_length"),
        ({"message_number": 1 << 31}, ValueError, "int32"),
        ({"message_number": "1"}, TypeError, "message number"),
    ],
)
def test_arguments_that_make_no_sense(
    arguments: dict[str, Any], error: type[Exception], what: str
) -> None:
    with pytest.raises(error, match=what):
        LineCodec(**arguments)


def test_its_repr_says_how_it_was_made() -> None:
    codec = LineCodec(b";", 5, 3)
    assert repr(codec) == "LineCodec(delimiter=b';', max_length=5, message_number=3)"
    assert codec.delimiter == b";"


# Few letters, so that values run into delimiters.
letters = st.lists(st.sampled_from([b"a", b"b", b"\r", b"\n"]), max_size=8).map(b"".join)


@settings(deadline=None, database=None)
@given(
    letters.filter(bool) | st.just(b"\n"),
    st.lists(letters | st.binary(max_size=20), max_size=8),
    st.lists(st.integers(0, 200), max_size=12),
)
def test_what_is_sent_arrives_under_any_chunking(
    delimiter: bytes, values: list[bytes], places: list[int]
) -> None:
    codec = LineCodec(delimiter, max_length=20)
    sent, stream = [], b""
    for value in values:
        try:
            stream += codec.encode(Sample(1, value))
        except ValueError:
            # It has no place on the wire: alone, it would be read as something else.
            assert feed(LineCodec(delimiter), [value + delimiter]) != ([value], b"")
        else:
            sent.append(value)
    assert feed(codec, cut(stream, places)) == (sent, b"")


@settings(deadline=None, database=None)
@given(st.binary(max_size=200).map(lambda data: data.replace(b"\x01", b"\n")))
def test_any_bytes_are_lines_or_refused(data: bytes) -> None:
    expected = []
    *lines, rest = data.split(b"\n")
    too_long = False
    for line in lines:
        value = line.removesuffix(b"\r")
        if too_long := len(value) > 16:
            break
        expected.append(value)
    found = []
    refused = False
    try:
        for _, value, _ in LineCodec(max_length=16).decode(data):
            found.append(value)
    except FrameTooLargeError:
        refused = True
    assert found == expected
    assert refused == (too_long or len(rest.removesuffix(b"\r")) > 16)


# -- under a server ------------------------------------------------------------------------------


def echo(context: Context[bytes], conn: WriteCloser) -> Sample:
    return Sample(1, context.message)


def echo_server(
    codec: Codec | None = None,
    *,
    heartbeat: Heartbeat | None = None,
    reasons: Calls[CloseReason] | None = None,
) -> Server:
    registry = MessageRegistry()
    registry.register(1, as_bytes, echo)

    def on_close(_conn: ServerConn, reason: CloseReason) -> None:
        if reasons is not None:
            reasons.add(reason)

    return Server(
        registry=registry, codec=codec or LineCodec(), heartbeat=heartbeat, on_close=on_close
    )


def test_a_server_and_a_person_with_telnet() -> None:
    with echo_server().running(LOCAL) as address, Peer(address) as peer:
        peer.send(b"Is anybody here?\r\n")
        assert peer.receive(17) == b"Is anybody here?\n"
        peer.send(b"ha")
        peer.send(b"lf\n\nthree ")
        assert peer.receive(6) == b"half\n\n"
        peer.send(b"at once\r\nfour\n")
        peer.finish_sending()
        assert peer.receive_to_end() == b"three at once\nfour\n"


def test_a_server_byte_by_byte() -> None:
    with echo_server().running(LOCAL) as address, Peer(address) as peer:
        for byte in one_by_one(TELNET):
            peer.send(byte)
        assert peer.receive(len(STREAM)) == STREAM


def test_a_server_with_another_delimiter() -> None:
    with echo_server(LineCodec(b"\x00\x00")).running(LOCAL) as address, Peer(address) as peer:
        peer.send(b"one\n\x00\x00two\r\n\x00")
        assert peer.receive(6) == b"one\n\x00\x00"
        peer.send(b"\x00")
        assert peer.receive(7) == b"two\r\n\x00\x00"


def test_a_server_refuses_a_line_that_does_not_end() -> None:
    reasons: Calls[CloseReason] = Calls()
    server = echo_server(LineCodec(max_length=10), reasons=reasons)
    with server.running(LOCAL) as address, Peer(address) as peer:
        peer.send(b"short\n" + b"x" * 11)  # and then it would wait for ever
        assert peer.receive_to_end() == b"short\n"
    (reason,) = reasons.items
    assert reason.cause is CloseCause.FAILED
    assert isinstance(reason.error, FrameTooLargeError)


def test_a_line_without_an_end_is_not_handled() -> None:
    reasons: Calls[CloseReason] = Calls()
    with echo_server(reasons=reasons).running(LOCAL) as address, Peer(address) as peer:
        peer.send(b"whole\nhalf")
        peer.finish_sending()
        assert peer.receive_to_end() == b"whole\n"
    (reason,) = reasons.items
    assert reason.undecoded == len(b"half")


def test_a_silent_peer_is_given_up_though_no_heartbeat_can_be_sent() -> None:
    """The codec refuses heartbeats; what the other half of `heartbeat=` does holds all the same."""
    reasons: Calls[CloseReason] = Calls()
    server = echo_server(heartbeat=Heartbeat(interval=0.02, timeout=0.3), reasons=reasons)
    with server.running(LOCAL) as address, Peer(address) as peer:
        peer.send(b"hello\n")
        assert peer.receive(6) == b"hello\n"
        assert peer.is_cut_off()
    (reason,) = reasons.items
    assert reason.cause is CloseCause.EXPIRED


@pytest.mark.skipif(shutil.which("nc") is None, reason="NOT TESTED WITH nc: it is not installed")
def test_a_server_and_nc() -> None:
    with (
        echo_server().running(LOCAL) as (host, port),
        # It does not end with its input everywhere: it is ended here when the answer has come.
        subprocess.Popen(
            ["nc", host, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as nc,
    ):
        assert nc.stdin is not None
        assert nc.stdout is not None
        too_late = threading.Timer(DEADLINE, nc.kill)
        too_late.start()
        try:
            nc.stdin.write(b"hello\nworld\r\n")
            nc.stdin.flush()
            assert [nc.stdout.readline(), nc.stdout.readline()] == [b"hello\n", b"world\n"]
        finally:
            too_late.cancel()
            nc.kill()
