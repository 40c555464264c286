"""The PROXY protocol: what a proxy says first of the client that it connects for.

Contents: ProxyHeader, parse_proxy_header, ProxyHeaderReader, TrustedProxies, unasked_hint.

Owns the reading of the header, versions 1 and 2, and the question who is to be believed. It is given bytes
and never sees a socket; when the bytes are had, and for how long, is `reactor.connection`'s affair, and
what follows from the address is the server's.

Source: "The PROXY protocol, versions 1 & 2", www.haproxy.org/download/2.6/doc/proxy-protocol.txt. The
numbers of sections below are its own.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from reactor import SocketAddress
from tao.errors import ProxyProtocolError

__all__ = [
    "ProxyHeader",
    "ProxyHeaderReader",
    "TrustedProxies",
    "parse_proxy_header",
    "unasked_hint",
]

MAX_HEADER = 4096
"""Bytes of the longest header that is taken. The addresses need 232 at the most, and what else a proxy may
tell, such as the name in a client's certificate, some hundreds; the length on the wire could say 64 KiB."""

MAX_LINE = 107
"""Bytes of the longest line of version 1, its end included (2.1)."""

SHOWN = 24
"""Bytes of what came that an error shows."""

_V1 = b"PROXY "
_V2 = b"\r\n\r\n\0\r\nQUIT\n"
_V2_HEADER = struct.Struct("!12sBBH")

_LOCAL, _PROXY = 0x20, 0x21  # version 2 in the high half, the command in the low one

# The second byte of version 2: family and transport (2.2). Those for datagrams say nothing of a stream.
_TCP4, _TCP6, _UNIX_STREAM = 0x11, 0x21, 0x31
_ADDRESS_SIZES = {0x00: 0, 0x11: 12, 0x12: 12, 0x21: 36, 0x22: 36, 0x31: 216, 0x32: 216}

_CRC32C, _CRC_SIZE = 0x03, 4


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """What a proxy has said."""

    version: int
    """1 or 2."""
    source: SocketAddress | None = None
    """The client's address, as the socket module would give it. None: the proxy speaks for itself, as in a
    check of whether the server lives, or does not know; then the socket's own addresses hold."""
    destination: SocketAddress | None = None
    """Where the client has connected to; None together with `source`."""


def parse_proxy_header(data: bytes) -> tuple[ProxyHeader, int] | None:
    """The header that begins `data`, and how many bytes it has; None if it is not whole yet.

    Which it is the more bytes do not change: what is no header is refused with its first wrong byte, and
    what is too long from what it says of its length. Raises ProxyProtocolError. Any thread.
    """
    if data[: len(_V1)] == _V1[: len(data)]:
        return _parse_line(data)
    if data[: len(_V2)] == _V2[: len(data)]:
        return _parse_binary(data)
    raise _wrong(data, "it does not begin with either signature")


def _wrong(data: bytes, why: str) -> ProxyProtocolError:
    return ProxyProtocolError(
        f"the peer sent no header of the PROXY protocol: {why}. It began with {data[:SHOWN]!r}; if it is "
        f"no proxy, see that it cannot connect here"
    )


def _parse_line(data: bytes) -> tuple[ProxyHeader, int] | None:
    """Version 1 (2.1)."""
    end = data.find(b"\n", 0, MAX_LINE)
    if end < 0:
        if len(data) >= MAX_LINE:
            raise _wrong(data, f"its line does not end in {MAX_LINE} bytes")
        return None
    if data[end - 1 : end] != b"\r":
        raise _wrong(data, "its line ends without a carriage return")
    words = data[: end - 1].split(b" ")
    if words[1] == b"UNKNOWN":  # whatever comes behind it
        return ProxyHeader(1), end + 1
    version = {b"TCP4": 4, b"TCP6": 6}.get(words[1])
    if version is None or len(words) != 6:
        raise _wrong(data, "its line is not of five words that make sense")
    _, _, source, destination, source_port, destination_port = words
    header = ProxyHeader(
        1,
        _address_of_words(version, source, source_port, data),
        _address_of_words(version, destination, destination_port, data),
    )
    return header, end + 1


def _address_of_words(version: int, host: bytes, port: bytes, data: bytes) -> SocketAddress:
    if not port.isdigit() or len(port) > 5 or (port[:1] == b"0" and port != b"0"):
        raise _wrong(data, "a port of it is no decimal number, or has zeros before it")
    number = int(port)
    if number > 65535:
        raise _wrong(data, "a port of it is above 65535")
    try:
        text = host.decode("ascii")
        if version == 4:
            return str(ipaddress.IPv4Address(text)), number
        address = ipaddress.IPv6Address(text)
    except ValueError:
        raise _wrong(data, f"an address of it is none of IPv{version}") from None
    if address.scope_id is not None:
        raise _wrong(data, "an address of it has a scope, which is another machine's")
    return str(address), number, 0, 0


def _parse_binary(data: bytes) -> tuple[ProxyHeader, int] | None:
    """Version 2 (2.2)."""
    if len(data) > 12 and data[12] not in (_LOCAL, _PROXY):
        raise _wrong(data, f"its version and command are {data[12]:#04x}")
    if len(data) < _V2_HEADER.size:
        return None
    _, command, family, length = _V2_HEADER.unpack_from(data)
    end = _V2_HEADER.size + length
    if end > MAX_HEADER:
        raise _wrong(data, f"it is {end} bytes long, and {MAX_HEADER} are taken")
    if command == _PROXY:
        size = _ADDRESS_SIZES.get(family)
        if size is None:
            raise _wrong(data, f"its family and transport are {family:#04x}")
        if size > length:
            raise _wrong(data, f"its addresses have {length} bytes and need {size}")
    if len(data) < end:
        return None
    # What the proxy says of itself is to be skipped, its family unread, and so is what has no family.
    if command == _LOCAL or family == 0:
        return ProxyHeader(2), end
    header = data[:end]
    block = header[_V2_HEADER.size :]
    _check_extensions(header, _V2_HEADER.size + _ADDRESS_SIZES[family])
    if family == _TCP4:
        source, destination, source_port, destination_port = struct.unpack_from("!4s4sHH", block)
        return ProxyHeader(2, _ipv4(source, source_port), _ipv4(destination, destination_port)), end
    if family == _TCP6:
        source, destination, source_port, destination_port = struct.unpack_from("!16s16sHH", block)
        return ProxyHeader(2, _ipv6(source, source_port), _ipv6(destination, destination_port)), end
    if family == _UNIX_STREAM:
        return ProxyHeader(2, _path(block[:108]), _path(block[108:216])), end
    return ProxyHeader(2), end


def _ipv4(host: bytes, port: int) -> SocketAddress:
    return socket.inet_ntoa(host), port


def _ipv6(host: bytes, port: int) -> SocketAddress:
    return str(ipaddress.IPv6Address(host)), port, 0, 0


def _path(field: bytes) -> SocketAddress:
    """Up to its zero byte; an abstract name begins with one, and ends with the zeros that fill it up."""
    if field[0]:
        return os.fsdecode(field.partition(b"\0")[0])
    return os.fsdecode(field.rstrip(b"\0"))


def _check_extensions(header: bytes, start: int) -> None:
    """Walk over what comes behind the addresses (2.2.1 on), and check the checksum if there is one."""
    checked = False
    while start < len(header):
        value = start + 3
        size = int.from_bytes(header[start + 1 : value], "big")
        if value + size > len(header):
            raise _wrong(header, "an extension of it is longer than the header")
        if header[start] == _CRC32C:
            if checked or size != _CRC_SIZE:
                raise _wrong(header, "its checksum is there twice, or not of 4 bytes")
            checked = True
            zeroed = header[:value] + bytes(_CRC_SIZE) + header[value + _CRC_SIZE :]
            if crc32c(zeroed) != int.from_bytes(header[value : value + _CRC_SIZE], "big"):
                raise _wrong(header, "its checksum is wrong")
        start = value + size


def _crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return tuple(table)


_CRC_TABLE = _crc_table()


def crc32c(data: bytes) -> int:
    """Castagnoli's checksum (RFC 3720, B.4). Once for a connection whose proxy sends one."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


class ProxyHeaderReader:
    """Gathers one header, and says who it is about. Implements `reactor.Preface`; the loop's thread.

    `on_header` is called once, with the header, before the bytes behind it are given back.
    """

    __slots__ = ("_data", "_on_header")

    what = "the header of the PROXY protocol"

    def __init__(self, on_header: Callable[[ProxyHeader], object]) -> None:
        self._data = b""
        self._on_header = on_header

    def feed(self, data: bytes) -> bytes | None:
        """More of what came; the bytes behind the header, if it is whole. Raises ProxyProtocolError."""
        data = self._data + data if self._data else data
        found = parse_proxy_header(data)
        if found is None:
            self._data = data  # shorter than MAX_HEADER
            return None
        header, size = found
        self._on_header(header)
        return data[size:]

    def __repr__(self) -> str:
        return f"<ProxyHeaderReader {len(self._data)} bytes>"


class TrustedProxies:
    """Networks that proxies connect from. None of them: everybody who reaches the address is one.

    Raises ValueError for what is no network, TypeError for what is no text. Any thread.
    """

    __slots__ = ("_networks",)

    def __init__(self, networks: Iterable[str] = ()) -> None:
        if isinstance(networks, str):
            raise TypeError(
                f"trusted_proxies is a list of networks, such as [{networks!r}]; not a text"
            )
        self._networks = tuple(map(_network, networks))

    def trusts(self, address: SocketAddress) -> bool:
        """Whether who connects from there is a proxy. Of a Unix socket the file's mode has said so."""
        if not self._networks or not isinstance(address, tuple):
            return True
        host = ipaddress.ip_address(address[0].partition("%")[0])
        if isinstance(host, ipaddress.IPv6Address) and host.ipv4_mapped is not None:
            host = host.ipv4_mapped
        return any(host in network for network in self._networks)

    def __bool__(self) -> bool:
        return bool(self._networks)

    def __repr__(self) -> str:
        return f"TrustedProxies({[str(network) for network in self._networks]})"


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    if not isinstance(text, str):
        raise TypeError(f"a trusted proxy is a text such as '10.0.0.0/8' or '::1', not {text!r}")
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(
            f"a trusted proxy is an address or a network, such as '10.0.0.0/8' or '::1', not {text!r}: "
            f"{error}"
        ) from None


def unasked_hint(data: bytes) -> str:
    """What to say of bytes that make no sense as a frame, if they look like a header; else nothing."""
    if data.startswith((_V1[:5], _V2[:8])):
        return (
            "; its first bytes are those of the PROXY protocol: if a proxy sends them, listen with "
            "proxy_protocol=True, or have it leave them out"
        )
    return ""
