"""Headers of the PROXY protocol, made by hand from its specification; they owe nothing to `tao`."""

from __future__ import annotations

import socket
import struct

__all__ = ["SIGNATURE", "line", "proxied", "tlv", "v2"]

SIGNATURE = b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a"


def line(text: str) -> bytes:
    """Version 1: what stands behind its first word."""
    return f"PROXY {text}\r\n".encode("ascii")


def v2(command: int, family: int, block: bytes = b"", length: int | None = None) -> bytes:
    """Version 2, with whatever it is given."""
    size = len(block) if length is None else length
    return SIGNATURE + struct.pack("!BBH", command, family, size) + block


def tlv(kind: int, value: bytes) -> bytes:
    """What may stand behind the addresses."""
    return struct.pack("!BH", kind, len(value)) + value


def proxied(version: int, host: str, port: int, to: str = "192.0.2.1", to_port: int = 443) -> bytes:
    """A header that says that `host` is the client."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    if family == socket.AF_INET6 and ":" not in to:
        to = "2001:db8::1"
    if version == 1:
        return line(f"TCP{6 if ':' in host else 4} {host} {to} {port} {to_port}")
    block = socket.inet_pton(family, host) + socket.inet_pton(family, to)
    block += struct.pack("!HH", port, to_port)
    return v2(0x21, 0x21 if ":" in host else 0x11, block)
