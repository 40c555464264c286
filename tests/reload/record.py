"""The record of all messages that the workers have handled: a file of fixed pieces, in the order of time.

Owns its form. A message is a client's number and the message's own.
"""

from __future__ import annotations

import struct
from collections import Counter
from pathlib import Path

__all__ = ["RECORD_FILE", "handled", "message", "record_of"]

RECORD_FILE = "TAO_RELOAD_RECORD"
"""The variable with the name of the file."""

_MESSAGE = struct.Struct("<II")


def message(client: int, number: int) -> bytes:
    """A message's value."""
    return _MESSAGE.pack(client, number)


def record_of(value: bytes) -> bytes:
    """What is written of a message: itself."""
    assert len(value) == _MESSAGE.size
    return value


def handled(path: Path) -> Counter[bytes]:
    """How often each message was handled."""
    data = path.read_bytes()
    assert len(data) % _MESSAGE.size == 0
    return Counter(data[i : i + _MESSAGE.size] for i in range(0, len(data), _MESSAGE.size))
