"""Streams that break off, come in pieces, or are no frames at all: over real sockets, at a server."""

from __future__ import annotations

import random
import threading
import tracemalloc
from contextlib import ExitStack

import pytest

from tao import (
    CloseCause,
    Codec,
    FrameTooLargeError,
    LengthPrefixedCodec,
    LineCodec,
    TypeLengthValueCodec,
    WouldBlockError,
)
from tests.faults.support import ALL_ONES, INLINE, POOLED, Watched, check_alive, header
from tests.support import LOCAL, Peer, Sample, frame, wait_until

BOTH = pytest.mark.parametrize("number", [POOLED, INLINE], ids=["pooled", "inline"])


# -- that break off ------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("size", [1, 7, 8, 9, 11], ids=lambda size: f"{size} bytes of 12")
def test_a_reset_inside_a_frame(number: int, size: int) -> None:
    """What came before it has been answered; what came of it is counted; nobody else is disturbed."""
    watched = Watched()
    with watched.server.running(LOCAL) as address, Peer(address) as other:
        peer = Peer(address)
        own = peer.sock.getsockname()
        peer.send_frame(number, b"whole")
        assert peer.receive_frame() == (POOLED, b"whole")
        before = watched.server.metrics().bytes_in
        peer.send(frame(number, b"part")[:size])
        assert wait_until(lambda: watched.server.metrics().bytes_in == before + size)
        peer.reset()
        [(address_of_it, reason)] = watched.reasons.wait()
        assert address_of_it == own
        assert reason.cause is CloseCause.FAILED
        assert isinstance(reason.error, ConnectionResetError)
        assert reason.by_peer
        assert (reason.undecoded, reason.unhandled, reason.unsent) == (size, 0, 0)
        check_alive(other)
        assert len(watched.reasons) == 1
        assert len(watched.errors) == 0


CODECS: list[tuple[str, Codec, bytes, bytes, list[int]]] = [
    # A codec, a whole frame, an unfinished one, and where the latter ends: in its header or its body.
    ("type, length, value", TypeLengthValueCodec(), frame(1, b"whole"), frame(1, b"part"), [4, 10]),
    ("length, value", LengthPrefixedCodec(), b"\0\0\0\5whole", b"\0\0\0\4part", [2, 6]),
    ("lines", LineCodec(), b"whole\n", b"part\n", [4]),
]
ENDS = [
    pytest.param(codec, whole, part[:size], id=f"{name}, {size} of {len(part)}")
    for name, codec, whole, part, sizes in CODECS
    for size in sizes
]


@pytest.mark.parametrize(("codec", "whole", "part"), ENDS)
def test_an_end_inside_a_frame(codec: Codec, whole: bytes, part: bytes) -> None:
    """In its header or in its body, for each codec. The whole one before it is answered."""
    watched = Watched(codec=codec)
    with watched.server.running(LOCAL) as address, Peer(address) as peer:
        peer.send(whole + part)
        peer.finish_sending()
        assert peer.receive_to_end() == whole
        reason = watched.only_reason()
        assert (reason.cause, reason.error) == (CloseCause.PEER_CLOSED, None)
        assert (reason.undecoded, reason.clean) == (len(part), False)


@BOTH
def test_a_half_close_behind_more_than_the_buffers_hold(number: int) -> None:
    """The server has had to pause for want of room, and has the FIN behind it: every answer comes."""
    sent = [b"%06d" % index * 500 for index in range(700)]
    watched = Watched(buffer_size=8)
    with watched.server.running(LOCAL) as address, Peer(address) as peer:

        def say_all() -> None:
            peer.send(b"".join(frame(number, value) for value in sent))
            peer.finish_sending()

        # On a thread: past the watermark the server stops reading, and the peer has to wait.
        thread = threading.Thread(target=say_all)
        thread.start()
        received = peer.receive_to_end()
        thread.join()
        assert received == b"".join(frame(POOLED, value) for value in sent)
        assert watched.only_reason().clean


# -- that come in pieces -------------------------------------------------------------------------


@BOTH
def test_byte_by_byte_both_ways(number: int) -> None:
    """As slow as a stream can be written and read."""
    values = [b"", b"a", b"value" * 5]
    data = b"".join(frame(number, value) for value in values)
    with Watched().server.running(LOCAL) as address, Peer(address) as peer:
        for index in range(len(data)):
            peer.send(data[index : index + 1])
        expected = b"".join(frame(POOLED, value) for value in values)
        assert b"".join(peer.receive(1) for _ in expected) == expected


# -- that are no frames --------------------------------------------------------------------------

GARBAGE = {
    "all ones": ALL_ONES * 4,
    "HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a TLS hello": bytes.fromhex("1603010200010001fc0303") + bytes(506),
    "SSH": b"SSH-2.0-OpenSSH_9.6\r\n",
    "noise": random.Random(5).randbytes(5000),
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_garbage_ends_its_connection_with_a_typed_reason(garbage: bytes) -> None:
    """What was sensible before it is answered; who hears of it are `on_error` and `on_close`."""
    watched = Watched()
    with watched.server.running(LOCAL) as address, Peer(address) as peer, Peer(address) as other:
        peer.send(frame(INLINE, b"before") + frame(POOLED, b"garbage") + garbage)
        assert peer.receive_to_end() == frame(POOLED, b"before") + frame(POOLED, b"garbage")
        own = peer.sock.getsockname()
        peer.close()
        [(address_of_it, reason)] = watched.reasons.wait()
        assert address_of_it == own
        assert reason.cause is CloseCause.FAILED
        assert isinstance(reason.error, FrameTooLargeError)
        assert watched.errors.items == [(own, reason.error)]
        check_alive(other)


ALL_ONES_PREFIXES = [
    pytest.param(TypeLengthValueCodec(), ALL_ONES, id="type, length, value"),
    pytest.param(LengthPrefixedCodec(), b"\xff" * 4, id="length, value"),
    pytest.param(LengthPrefixedCodec(byteorder="little"), b"\xff" * 4, id="little-endian"),
    pytest.param(LengthPrefixedCodec(size=2, max_length=65_534), b"\xff" * 2, id="two bytes"),
]


@pytest.mark.parametrize(("codec", "prefix"), ALL_ONES_PREFIXES)
def test_a_length_of_all_ones_is_refused_from_the_header(codec: Codec, prefix: bytes) -> None:
    """No byte of a value is ever sent."""
    watched = Watched(codec=codec)
    with watched.server.running(LOCAL) as address, Peer(address) as peer:
        peer.send(prefix)
        assert peer.is_cut_off()
        peer.close()
        error = watched.only_reason().error
        assert isinstance(error, FrameTooLargeError)
        assert error.size == (1 << 8 * min(4, len(prefix))) - 1


def test_a_length_that_is_allowed_costs_nothing_before_its_bytes_come() -> None:
    """Four gigabytes are announced on each of many connections: no memory is set aside for them."""
    count, longest = 32, 0xFFFFFFFF
    watched = Watched(codec=TypeLengthValueCodec(max_length=longest))
    with watched.server.running(LOCAL) as address, ExitStack() as stack:
        other = stack.enter_context(Peer(address))
        check_alive(other)
        tracemalloc.start()
        try:
            for _ in range(count):
                stack.enter_context(Peer(address)).send(header(POOLED, longest) + b"x" * 100)
            expected = 28 + count * 108
            assert wait_until(lambda: watched.server.metrics().bytes_in == expected)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        check_alive(other)
        assert peak < 16 << 20  # of 128 GiB that were announced
        assert len(watched.reasons) == 0


# -- that nobody reads ---------------------------------------------------------------------------


def test_a_reader_that_has_stopped_costs_its_own_budget_only() -> None:
    """Its send buffer is full, then ours; the write that is refused has queued nothing."""
    watched = Watched()
    with (
        watched.server.running(LOCAL) as address,
        Peer(address, receive_buffer=4096) as peer,
        Peer(address) as other,
    ):
        check_alive(peer)
        own = peer.sock.getsockname()
        [conn] = [conn for conn in watched.server.connections() if conn.remote_address == own]
        value = bytes(500_000)
        written = 0
        try:
            while written < 1000:
                conn.write(Sample(POOLED, value))
                written += 1
        except WouldBlockError:
            pass
        assert 0 < written < 1000
        check_alive(other)
        for _ in range(written):
            assert peer.receive_frame() == (POOLED, value)
        assert wait_until(lambda: conn.pending == 0)
        check_alive(peer)
