"""The wire format of the benchmark, and the handler that all peers but the bare one share."""

from struct import Struct

HEADER = Struct("<iI")
MAX_LENGTH = 8 * 1024 * 1024


def echo(number: int, value: bytes) -> bytes:
    """The handler and the encoder: the reply frame to one message."""
    return HEADER.pack(number, len(value)) + value
