"""The frames that the peers cut."""

from __future__ import annotations

import pytest

from tests.bench.peers.frames import HEADER, MAX_LENGTH, FrameError, FrameReader, echo

MESSAGES = [(1, b""), (2, b"x"), (1, bytes(range(256))), (1, b"")]
STREAM = b"".join(echo(number, value) for number, value in MESSAGES)


def test_whole() -> None:
    assert FrameReader().feed(STREAM) == MESSAGES


def test_byte_by_byte() -> None:
    reader = FrameReader()
    assert [
        message
        for index in range(len(STREAM))
        for message in reader.feed(STREAM[index : index + 1])
    ] == MESSAGES


@pytest.mark.parametrize("at", range(len(STREAM) + 1))
def test_split_anywhere(at: int) -> None:
    reader = FrameReader()
    assert reader.feed(STREAM[:at]) + reader.feed(STREAM[at:]) == MESSAGES


def test_what_is_incomplete_waits() -> None:
    reader = FrameReader()
    assert reader.feed(STREAM + STREAM[:-1]) == MESSAGES + MESSAGES[:-1]
    assert reader.feed(STREAM[-1:]) == MESSAGES[-1:]


def test_the_longest_and_one_byte_more() -> None:
    reader = FrameReader()
    assert reader.feed(HEADER.pack(1, MAX_LENGTH)) == []
    with pytest.raises(FrameError):
        FrameReader().feed(HEADER.pack(1, MAX_LENGTH + 1))
