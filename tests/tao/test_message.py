"""tao.message: what a message is, and the heartbeat."""

from __future__ import annotations

import struct
import time

import pytest

from tao import HeartBeatMessage, Message
from tests.support import Sample


def test_a_message_needs_no_base_class() -> None:
    assert isinstance(Sample(1), Message)
    assert isinstance(HeartBeatMessage(), Message)


def test_what_cannot_serialize_is_no_message() -> None:
    assert not isinstance(object(), Message)


def test_the_heartbeat_is_type_zero() -> None:
    assert HeartBeatMessage.message_number == 0


@pytest.mark.parametrize("timestamp", [0, 1, -1, 1_700_000_000_000_000_000, -(1 << 63)])
def test_its_value_is_an_int64(timestamp: int) -> None:
    value = HeartBeatMessage(timestamp).serialize()
    assert value == struct.pack("<q", timestamp)
    assert HeartBeatMessage.deserialize(value).timestamp == timestamp


def test_its_time_is_now_unless_it_is_told() -> None:
    before = time.time_ns()
    timestamp = HeartBeatMessage().timestamp
    assert before <= timestamp <= time.time_ns()


@pytest.mark.parametrize("size", [0, 7, 9])
def test_other_sizes_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match="8 bytes"):
        HeartBeatMessage.deserialize(b"x" * size)


def test_equality_and_hash_go_by_the_time() -> None:
    assert HeartBeatMessage(5) == HeartBeatMessage(5)
    assert HeartBeatMessage(5) != HeartBeatMessage(6)
    assert hash(HeartBeatMessage(5)) == hash(HeartBeatMessage(5))
    assert HeartBeatMessage(5) != 5


def test_its_repr() -> None:
    assert repr(HeartBeatMessage(5)) == "HeartBeatMessage(timestamp=5)"
