"""tao.proxy_protocol: headers whole, split, with bytes behind them, wrong and too long; no sockets."""

from __future__ import annotations

import ipaddress
import struct
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tao import ProxyProtocolError
from tao.proxy_protocol import (
    MAX_HEADER,
    MAX_LINE,
    ProxyHeader,
    ProxyHeaderReader,
    TrustedProxies,
    crc32c,
    parse_proxy_header,
    unasked_hint,
)
from tests.tao.proxied import SIGNATURE, line, proxied, tlv, v2

CLIENT, FRONT = ("203.0.113.7", 56324), ("192.0.2.1", 443)
CLIENT6, FRONT6 = ("2001:db8::7", 56324, 0, 0), ("2001:db8::1", 443, 0, 0)

TCP4 = bytes([203, 0, 113, 7, 192, 0, 2, 1]) + struct.pack("!HH", 56324, 443)
TCP6 = (
    bytes.fromhex("20010db8000000000000000000000007")
    + bytes.fromhex("20010db8000000000000000000000001")
    + struct.pack("!HH", 56324, 443)
)
PATHS = b"/run/client".ljust(108, b"\0") + b"/run/front".ljust(108, b"\0")
ABSTRACT = b"\0client".ljust(108, b"\0") + bytes(108)


def with_checksum(header: bytes, before: bytes = b"", behind: bytes = b"") -> bytes:
    """The header with a checksum between other extensions; by the bits of the polynomial, not a table."""
    block = header[16:] + before + tlv(3, bytes(4)) + behind
    whole = header[:14] + struct.pack("!H", len(block)) + block
    crc = 0xFFFFFFFF
    for byte in whole:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    place = len(header) + len(before) + 3
    return whole[:place] + struct.pack("!I", crc ^ 0xFFFFFFFF) + whole[place + 4 :]


GOOD: dict[str, tuple[bytes, ProxyHeader]] = {
    "line of IPv4": (
        line("TCP4 203.0.113.7 192.0.2.1 56324 443"),
        ProxyHeader(1, CLIENT, FRONT),
    ),
    "line of IPv6": (
        line("TCP6 2001:db8::7 2001:db8::1 56324 443"),
        ProxyHeader(1, CLIENT6, FRONT6),
    ),
    "line of IPv6 at length": (
        line("TCP6 2001:DB8:0:0:0:0:0:7 2001:db8::1 56324 443"),
        ProxyHeader(1, CLIENT6, FRONT6),
    ),
    "line with the least and the highest port": (
        line("TCP4 203.0.113.7 192.0.2.1 0 65535"),
        ProxyHeader(1, (CLIENT[0], 0), (FRONT[0], 65535)),
    ),
    "line of an unknown": (line("UNKNOWN"), ProxyHeader(1)),
    "longest line that the specification has": (
        line("UNKNOWN " + " ".join(["f" * 4 + ":ffff" * 7] * 2) + " 65535 65535"),
        ProxyHeader(1),
    ),
    "line of an unknown with anything": (line("UNKNOWN what ever \t"), ProxyHeader(1)),
    "IPv4": (v2(0x21, 0x11, TCP4), ProxyHeader(2, CLIENT, FRONT)),
    "IPv6": (v2(0x21, 0x21, TCP6), ProxyHeader(2, CLIENT6, FRONT6)),
    "Unix": (v2(0x21, 0x31, PATHS), ProxyHeader(2, "/run/client", "/run/front")),
    "abstract Unix": (v2(0x21, 0x31, ABSTRACT), ProxyHeader(2, "\0client", "")),
    "path of full length": (
        v2(0x21, 0x31, b"x" * 216),
        ProxyHeader(2, "x" * 108, "x" * 108),
    ),
    "unspecified": (v2(0x21, 0x00), ProxyHeader(2)),
    "unspecified with bytes": (v2(0x21, 0x00, b"\xff" * 9), ProxyHeader(2)),
    "datagrams of IPv4": (v2(0x21, 0x12, TCP4), ProxyHeader(2)),
    "datagrams of IPv6": (v2(0x21, 0x22, TCP6), ProxyHeader(2)),
    "datagrams of Unix": (v2(0x21, 0x32, PATHS), ProxyHeader(2)),
    "local": (v2(0x20, 0x00), ProxyHeader(2)),
    "local with an address": (v2(0x20, 0x11, TCP4), ProxyHeader(2)),
    "local with nonsense": (v2(0x20, 0xEE, b"\xff" * 50), ProxyHeader(2)),
    "extensions": (
        v2(0x21, 0x11, TCP4 + tlv(2, b"example.org") + tlv(0xEA, b"") + tlv(4, bytes(300))),
        ProxyHeader(2, CLIENT, FRONT),
    ),
    "checksum": (with_checksum(v2(0x21, 0x11, TCP4)), ProxyHeader(2, CLIENT, FRONT)),
    "checksum among others": (
        with_checksum(v2(0x21, 0x21, TCP6), tlv(1, b"h2"), tlv(5, b"id")),
        ProxyHeader(2, CLIENT6, FRONT6),
    ),
    "longest": (
        v2(0x21, 0x11, TCP4 + tlv(4, bytes(MAX_HEADER - 16 - 12 - 3))),
        ProxyHeader(2, CLIENT, FRONT),
    ),
}

WRONG: dict[str, tuple[bytes, str]] = {
    "something else": (b"\x01\0\0\0\x04\0\0\0", "begin with either"),
    "HTTP": (b"GET / HTTP/1.1\r\n", "begin with either"),
    "TLS": (b"\x16\x03\x01", "begin with either"),
    "lower case": (b"proxy TCP4", "begin with either"),
    "first letters of another word": (b"PROXIED", "begin with either"),
    "signature with another byte": (SIGNATURE[:-1] + b"\r", "begin with either"),
    "no carriage return": (b"PROXY TCP4 203.0.113.7 192.0.2.1 1 2\n", "carriage return"),
    "no end": (b"PROXY " + b"x" * 200, f"in {MAX_LINE} bytes"),
    "no end, unknown": (b"PROXY UNKNOWN " + b"x" * 200, f"in {MAX_LINE} bytes"),
    "one byte too long": (line("UNKNOWN".ljust(MAX_LINE - 7, "x")), f"in {MAX_LINE} bytes"),
    "nothing": (line(""), "five words"),
    "another family": (line("UDP4 203.0.113.7 192.0.2.1 1 2"), "five words"),
    "a word too few": (line("TCP4 203.0.113.7 192.0.2.1 1"), "five words"),
    "a word too many": (line("TCP4 203.0.113.7 192.0.2.1 1 2 3"), "five words"),
    "two spaces": (line("TCP4  203.0.113.7 192.0.2.1 1 2"), "five words"),
    "a space behind it": (line("TCP4 203.0.113.7 192.0.2.1 1 2 "), "five words"),
    "a name": (line("TCP4 localhost 192.0.2.1 1 2"), "none of IPv4"),
    "IPv4 that is too large": (line("TCP4 203.0.113.256 192.0.2.1 1 2"), "none of IPv4"),
    "IPv4 with zeros": (line("TCP4 203.000.113.007 192.0.2.1 1 2"), "none of IPv4"),
    "IPv6 for IPv4": (line("TCP4 2001:db8::7 192.0.2.1 1 2"), "none of IPv4"),
    "IPv4 for IPv6": (line("TCP6 2001:db8::7 192.0.2.1 1 2"), "none of IPv6"),
    "IPv6 with a scope": (line("TCP6 fe80::1%eth0 ::1 1 2"), "a scope"),
    "a byte that is no letter": (b"PROXY TCP4 203.0.113.\xb2 192.0.2.1 1 2\r\n", "none of IPv4"),
    "a port above all": (line("TCP4 203.0.113.7 192.0.2.1 65536 2"), "above 65535"),
    "a port of many figures": (line("TCP4 203.0.113.7 192.0.2.1 1 100000"), "decimal"),
    "a port with zeros": (line("TCP4 203.0.113.7 192.0.2.1 01 2"), "decimal"),
    "a port with a sign": (line("TCP4 203.0.113.7 192.0.2.1 +1 2"), "decimal"),
    "a port of nothing": (line("TCP4 203.0.113.7 192.0.2.1 1 "), "decimal"),
    "version 1 in version 2": (v2(0x11, 0x11, TCP4), "0x11"),
    "version 3": (v2(0x31, 0x11, TCP4), "0x31"),
    "another command": (v2(0x22, 0x11, TCP4), "0x22"),
    "another family in version 2": (v2(0x21, 0x41, TCP4), "0x41"),
    "another transport": (v2(0x21, 0x13, TCP4), "0x13"),
    "a family without a transport": (v2(0x21, 0x10, TCP4), "0x10"),
    "too short for IPv4": (v2(0x21, 0x11, TCP4[:-1]), "11 bytes and need 12"),
    "too short for IPv6": (v2(0x21, 0x21, TCP4), "12 bytes and need 36"),
    "too short for Unix": (v2(0x21, 0x31, PATHS[:-1]), "215 bytes and need 216"),
    "too long": (v2(0x21, 0x11, length=MAX_HEADER - 15), f"{MAX_HEADER + 1} bytes long"),
    "far too long": (v2(0x20, 0x00, length=65535), "65551 bytes long"),
    "half an extension": (v2(0x21, 0x11, TCP4 + b"\x04\x00"), "longer than the header"),
    "an extension that is too long": (
        v2(0x21, 0x11, TCP4 + b"\x04\x00\x02x"),
        "longer than the header",
    ),
    "a wrong checksum": (v2(0x21, 0x11, TCP4 + tlv(3, b"abcd")), "checksum is wrong"),
    "a checksum of three bytes": (v2(0x21, 0x11, TCP4 + tlv(3, b"abc")), "of 4 bytes"),
    "two checksums": (
        with_checksum(v2(0x21, 0x11, TCP4), behind=tlv(3, bytes(4))),
        "there twice",
    ),
}


class Reading:
    """One reader, and what it has said."""

    def __init__(self) -> None:
        self.headers: list[ProxyHeader] = []
        self.reader = ProxyHeaderReader(self.headers.append)


@pytest.mark.parametrize(("data", "header"), GOOD.values(), ids=GOOD)
class TestGood:
    """What is a header."""

    def test_whole(self, data: bytes, header: ProxyHeader) -> None:
        assert parse_proxy_header(data) == (header, len(data))

    def test_with_bytes_behind_it(self, data: bytes, header: ProxyHeader) -> None:
        for behind in (b"x", b"\r\n", b"PROXY ", SIGNATURE, bytes(10_000)):
            assert parse_proxy_header(data + behind) == (header, len(data))
            reading = Reading()
            assert reading.reader.feed(data + behind) == behind
            assert reading.headers == [header]

    def test_cut_off_anywhere(self, data: bytes, header: ProxyHeader) -> None:
        for end in range(len(data)):
            assert parse_proxy_header(data[:end]) is None

    def test_split_anywhere(self, data: bytes, header: ProxyHeader) -> None:
        for split in range(1, len(data)):
            reading = Reading()
            assert reading.reader.feed(data[:split]) is None
            assert f"{split} bytes" in repr(reading.reader)
            assert not reading.headers
            assert reading.reader.feed(data[split:] + b"behind") == b"behind"
            assert reading.headers == [header]

    def test_byte_by_byte(self, data: bytes, header: ProxyHeader) -> None:
        reading = Reading()
        for byte in data[:-1]:
            assert reading.reader.feed(bytes([byte])) is None
        assert reading.reader.feed(data[-1:]) == b""
        assert reading.headers == [header]


@pytest.mark.parametrize(("data", "why"), WRONG.values(), ids=WRONG)
class TestWrong:
    """What is none."""

    def test_whole(self, data: bytes, why: str) -> None:
        with pytest.raises(ProxyProtocolError, match=why) as caught:
            parse_proxy_header(data)
        assert repr(data[:8])[2:-1] in str(caught.value)

    def test_byte_by_byte(self, data: bytes, why: str) -> None:
        """Sooner or later, and for the same reason."""
        reading = Reading()

        def feed_all() -> None:
            for byte in data:
                assert reading.reader.feed(bytes([byte])) is None

        with pytest.raises(ProxyProtocolError, match=why):
            feed_all()
        assert not reading.headers


@pytest.mark.parametrize(
    ("data", "wrong_at"),
    [
        (b"GET /", 0),
        (b"PROXz", 4),
        (b"\r\n\r\n\r", 4),
        (SIGNATURE + b"\x22", 12),
        (SIGNATURE + b"\x21\x11\xff\xff", 15),
        (SIGNATURE + b"\x21\x11\x00\x0b", 15),
    ],
)
def test_it_is_refused_with_its_first_wrong_byte(data: bytes, wrong_at: int) -> None:
    """Nobody has to be waited for who cannot put it right any more."""
    assert parse_proxy_header(data[:wrong_at]) is None
    with pytest.raises(ProxyProtocolError):
        parse_proxy_header(data[: wrong_at + 1])


def test_the_checksum_is_castagnoli_s() -> None:
    """RFC 3720, B.4."""
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E


@given(position=st.integers(0, 15 + 12 + 7), bit=st.integers(0, 7))
def test_with_a_checksum_no_flipped_bit_tells_another_address(position: int, bit: int) -> None:
    data = bytearray(with_checksum(v2(0x21, 0x11, TCP4)))
    data[position] ^= 1 << bit
    try:
        found = parse_proxy_header(bytes(data) + bytes(70_000))
    except ProxyProtocolError:
        return
    assert found is not None
    assert found[0].source in (None, CLIENT)  # None: the bit made it a LOCAL or an UNSPEC


ports = st.integers(0, 65535)


@given(
    st.sampled_from([1, 2]),
    st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)),
    ports,
    st.binary(max_size=50),
)
def test_any_address_comes_through(version: int, host: Any, port: int, behind: bytes) -> None:
    header = proxied(version, str(host), port)
    found = parse_proxy_header(header + behind)
    assert found is not None
    assert found[0].source is not None
    assert ipaddress.ip_address(found[0].source[0]) == host
    assert found[0].source[1] == port
    assert found[1] == len(header)


@given(
    st.one_of(
        st.binary(max_size=300),
        st.binary(max_size=120).map(lambda data: b"PROXY " + data),
        st.binary(max_size=400).map(lambda data: SIGNATURE + data),
        st.binary(max_size=400).map(lambda data: SIGNATURE + b"\x21\x11" + data),
    ),
    st.lists(st.integers(0, 400), max_size=5),
)
def test_any_bytes_are_understood_or_refused_however_they_are_split(
    data: bytes, cuts: list[int]
) -> None:
    def outcome(pieces: list[bytes]) -> object:
        reading = Reading()
        for index, piece in enumerate(pieces):
            try:
                rest = reading.reader.feed(piece)
            except ProxyProtocolError:
                return "refused"
            if rest is not None:
                return reading.headers, rest + b"".join(pieces[index + 1 :])
        return None

    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[at:end] for at, end in pairwise(places)]
    assert outcome(pieces) == outcome([data])


# -- who is believed -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("networks", "address", "trusted"),
    [
        ([], ("203.0.113.7", 1), True),
        (["10.0.0.0/8"], ("10.1.2.3", 1), True),
        (["10.0.0.0/8"], ("11.0.0.1", 1), False),
        (["10.0.0.0/8"], ("::ffff:10.1.2.3", 1, 0, 0), True),
        (["10.0.0.0/8"], ("::ffff:11.1.2.3", 1, 0, 0), False),
        (["127.0.0.1", "::1"], ("::1", 1, 0, 0), True),
        (["127.0.0.1", "::1"], ("127.0.0.1", 1), True),
        (["127.0.0.1", "::1"], ("127.0.0.2", 1), False),
        (["fe80::/10"], ("fe80::1%eth0", 1, 0, 2), True),
        (["fd00::/8"], ("10.0.0.1", 1), False),
        (["10.0.0.0/8"], "", True),
        (["10.0.0.0/8"], b"\0name", True),
    ],
)
def test_who_is_trusted(networks: list[str], address: Any, trusted: bool) -> None:
    assert TrustedProxies(networks).trusts(address) is trusted


@pytest.mark.parametrize(
    "text", ["localhost", "10.0.0.1/8", "10.0.0.0/33", "", "10.0.0.0-10.0.0.9"]
)
def test_what_is_no_network(text: str) -> None:
    with pytest.raises(ValueError, match=r"such as '10.0.0.0/8'"):
        TrustedProxies([text])


@pytest.mark.parametrize("networks", ["10.0.0.0/8", [10], [None]])
def test_networks_are_texts(networks: Any) -> None:
    with pytest.raises(TypeError, match="trusted"):
        TrustedProxies(networks)


def test_they_are_told_apart_in_a_log() -> None:
    assert (
        repr(TrustedProxies(["10.0.0.0/8", "::1"])) == "TrustedProxies(['10.0.0.0/8', '::1/128'])"
    )


# -- where nobody asked for it -------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"PROXY TC", b"PROXY UN", SIGNATURE[:8], SIGNATURE])
def test_its_beginning_is_recognised(data: bytes) -> None:
    assert "proxy_protocol=True" in unasked_hint(data)


@pytest.mark.parametrize("data", [b"", b"PROX", b"GET / HT", SIGNATURE[:7], bytes(8)])
def test_nothing_is_said_of_other_bytes(data: bytes) -> None:
    assert unasked_hint(data) == ""
