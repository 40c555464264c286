"""Buffers against a plain string of bytes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from reactor import ReceiveBuffer, SendQueue, Watermark
from reactor.buffers import BUFFERS_PER_SEND, JOIN_LIMIT, VECTOR_SIZE

SETTINGS = settings(max_examples=60, stateful_step_count=25, deadline=None, database=None)

PIECES = st.one_of(
    st.binary(max_size=8),
    st.binary(min_size=1, max_size=1).map(lambda byte: byte * 1_000),
    # Around the size at which buffers are no longer joined.
    st.builds(
        lambda byte, more: byte * (JOIN_LIMIT + more),
        st.binary(min_size=1, max_size=1),
        st.integers(-2, 2),
    ),
)


class QueueAgainstBytes(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.queue = SendQueue()
        self.model = b""

    @rule(data=PIECES)
    def append(self, data: bytes) -> None:
        self.queue.append(data)
        self.model += data

    @rule(data=PIECES)
    def append_view(self, data: bytes) -> None:
        self.queue.append(memoryview(data))
        self.model += data

    @rule(pieces=st.lists(PIECES, max_size=5))
    def extend(self, pieces: list[bytes]) -> None:
        self.queue.extend(pieces)
        self.model += b"".join(pieces)

    @rule(count=st.integers(1, 200))
    def append_many_small(self, count: int) -> None:
        self.queue.extend([b"x"] * count)
        self.model += b"x" * count

    @precondition(lambda self: self.model)
    @rule(part=st.floats(0, 1))
    def send_some(self, part: float) -> None:
        """As the kernel does: it takes any part of what it is offered."""
        head = self.queue.peek()
        offered = b"".join(head)
        assert offered
        assert self.model.startswith(offered)
        assert len(head) <= BUFFERS_PER_SEND
        sent = round(len(offered) * part)
        self.queue.advance(sent)
        self.model = self.model[sent:]

    @rule()
    def peek(self) -> None:
        """Looking takes nothing away; what it has joined makes room for more to be offered."""
        first = b"".join(self.queue.peek())
        assert b"".join(self.queue.peek()).startswith(first)
        assert bool(first) == bool(self.model)

    @precondition(lambda self: self.model)
    @rule()
    def send_too_much(self) -> None:
        with pytest.raises(ValueError, match="cannot have been sent"):
            self.queue.advance(len(self.model) + 1)

    @rule()
    def clear(self) -> None:
        assert self.queue.clear() == len(self.model)
        self.model = b""

    @invariant()
    def the_size_is_right(self) -> None:
        assert self.queue.size == len(self.model)
        assert bool(self.queue) == bool(self.model)

    def teardown(self) -> None:
        rest = b""
        while self.queue:
            head = b"".join(self.queue.peek())
            rest += head
            self.queue.advance(len(head))
        assert rest == self.model


TestQueueAgainstBytes = QueueAgainstBytes.TestCase
TestQueueAgainstBytes.settings = SETTINGS


def test_small_buffers_are_joined() -> None:
    queue = SendQueue()
    queue.extend([b"one", b"two", b"three"])
    assert queue.peek() == [b"onetwothree"]


def test_a_large_buffer_is_not_copied() -> None:
    queue = SendQueue()
    large = bytes(JOIN_LIMIT + 1)
    queue.append(b"small")
    queue.append(large)
    head = queue.peek()
    assert head[0] == b"small"
    assert head[1] is large

    queue.advance(5 + 100)
    [rest] = queue.peek()
    assert isinstance(rest, memoryview)
    assert rest.obj is large
    assert len(rest) == len(large) - 100


def test_advancing_ends_exactly_between_two_buffers() -> None:
    queue = SendQueue()
    queue.extend([bytes(JOIN_LIMIT), b"a", b"b"])
    queue.advance(JOIN_LIMIT)
    assert queue.size == 2
    assert queue.peek() == [b"ab"]


def test_advancing_backwards_is_refused() -> None:
    queue = SendQueue()
    queue.append(b"abc")
    with pytest.raises(ValueError, match="cannot have been sent"):
        queue.advance(-1)
    assert queue.size == 3


class ReceiveAgainstBytes(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.buffer = ReceiveBuffer()
        self.model = b""
        self.needed = 0
        self.to_skip = 0

    @precondition(lambda self: not self.model and not self.to_skip)
    @rule(size=st.integers(0, 60))
    def skip(self, size: int) -> None:
        self.buffer.skip(size)
        self.to_skip = size

    @precondition(lambda self: not self.model)
    @rule(data=st.binary(max_size=20))
    def pass_over(self, data: bytes) -> None:
        assert self.buffer.pass_over(data) == data[self.to_skip :]
        self.to_skip = max(0, self.to_skip - len(data))

    @precondition(lambda self: not self.model and not self.to_skip)
    @rule(data=st.binary(min_size=1, max_size=20), needed=st.integers(0, 60))
    def put(self, data: bytes, needed: int) -> None:
        self.buffer.put(data, needed)
        self.model, self.needed = data, needed

    @precondition(lambda self: not self.to_skip)
    @rule(data=st.binary(max_size=20))
    def append(self, data: bytes) -> None:
        self.buffer.append(data)
        self.model += data

    @precondition(lambda self: not self.to_skip)
    @rule(data=st.binary(min_size=1, max_size=20))
    def join(self, data: bytes) -> None:
        self.model += data
        joined = self.buffer.join(data)
        if len(self.model) < self.needed:
            assert joined is None
        else:
            assert joined == self.model
            self.model, self.needed = b"", 0

    @precondition(lambda self: not self.to_skip)
    @rule()
    def take(self) -> None:
        assert self.buffer.take() == self.model
        self.model, self.needed = b"", 0

    @invariant()
    def the_sizes_are_right(self) -> None:
        assert self.buffer.size == len(self.model)
        assert self.buffer.needed == self.needed
        assert self.buffer.begun == bool(self.model or self.to_skip)
        assert ("skips" in repr(self.buffer)) == bool(self.to_skip)


TestReceiveAgainstBytes = ReceiveAgainstBytes.TestCase
TestReceiveAgainstBytes.settings = SETTINGS


def test_a_single_chunk_is_handed_out_as_it_came() -> None:
    buffer = ReceiveBuffer()
    data = b"not copied"
    buffer.put(data, 100)
    assert buffer.take() is data


@given(st.integers(-3, 3), st.integers(-3, 3))
@settings(deadline=None, database=None)
def test_a_watermark_is_a_pair_in_order(low: int, high: int) -> None:
    if 0 <= low <= high:
        mark = Watermark(low, high)
        assert (mark.low, mark.high) == (low, high)
        assert mark == Watermark(low, high)
    else:
        with pytest.raises(ValueError, match="0 <= low <= high"):
            Watermark(low, high)


def test_a_watermark_does_not_change() -> None:
    mark = Watermark(1, 2)
    with pytest.raises(AttributeError):
        mark.high = 3  # type: ignore[misc]


def test_a_vector_of_large_buffers_is_long_enough_to_be_worth_its_call() -> None:
    queue = SendQueue()
    queue.extend([bytes(JOIN_LIMIT)] * 10)
    assert sum(map(len, queue.peek())) == VECTOR_SIZE
