"""tao.monitor.timing: one message of a kind is timed, and nothing else is changed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from tao.conditions import Phase
from tao.context import Context
from tao.message import HEARTBEAT
from tao.monitor.timing import ARMED_AT_A_TIME, WINDOW, HandlerTimer, HandlerTimes, Sample
from tao.registry import Entry, MessageRegistry
from tests.support import as_bytes

SERVER, OTHER = object(), object()
CONN: Any = None


@dataclass
class Source:
    """What a context comes from."""

    server: Any
    net_id: int = 1
    cancelled: bool = False

    def wait_cancelled(self, timeout: float | None = None) -> bool:
        return self.cancelled

    def monotonic(self) -> float:
        return 0.0


@dataclass
class Heard:
    """A listener."""

    samples: list[tuple[int, object]] = field(default_factory=list)

    def __call__(self, entry: Entry[object], message: object, sample: Sample) -> None:
        assert sample.seconds >= 0.0
        self.samples.append((entry.number, message))


def registry_of(*numbers: int, **options: Any) -> MessageRegistry:
    """Handlers that return their message's number."""
    registry = MessageRegistry()
    for number in numbers:
        handler: Any = lambda context, conn, number=number: number  # noqa: E731
        registry.register(number, as_bytes, handler, **options)
    return registry


def timer_of(registry: MessageRegistry) -> tuple[HandlerTimer, Heard]:
    """With a listener for SERVER."""
    timer, heard = HandlerTimer(registry), Heard()
    timer.listeners = {SERVER: heard}
    return timer, heard


def come(registry: MessageRegistry, number: int, server: object = SERVER) -> object:
    """A message comes: what its handler gives."""
    entry = registry.find(number)
    assert entry is not None
    message = entry.deserialize(b"hello")
    assert entry.handler is not None
    return entry.handler(Context(message, Source(server)), CONN)


def test_one_message_is_timed_and_then_all_is_as_before() -> None:
    registry = registry_of(1, 2)
    usual = {number: registry.find(number) for number in (HEARTBEAT, 1, 2)}
    timer, heard = timer_of(registry)
    timer.arm()
    assert registry.find_open(1) is registry.find(1) is not usual[1]
    assert registry.find(HEARTBEAT) is usual[HEARTBEAT]

    assert come(registry, 1) == 1
    assert registry.find_open(1) is registry.find(1) is usual[1]
    assert come(registry, 1) == 1
    assert heard.samples == [(1, b"hello")]

    timer.arm()
    assert (come(registry, 2), come(registry, 1)) == (2, 1)
    assert [number for number, _ in heard.samples] == [1, 2, 1]
    timer.arm()
    timer.disarm()
    assert {number: registry.find(number) for number in usual} == usual
    assert come(registry, 1) == 1
    assert len(heard.samples) == 3


def test_it_stays_what_it_was_but_for_the_time() -> None:
    registry = registry_of(1, inline=True, max_size=7)
    usual = registry.find(1)
    timer, _ = timer_of(registry)
    timer.arm()
    stand_in = registry.find(1)
    assert usual is not None
    assert stand_in is not None
    assert (stand_in.number, stand_in.inline, stand_in.max_size) == (1, True, 7)
    with pytest.raises(ValueError, match="registered already"):
        registry.register(1, as_bytes)


def test_guarded_messages_are_timed_and_stay_guarded() -> None:
    registry = registry_of(1, phases=Phase.AFTER)
    timer, heard = timer_of(registry)
    timer.arm()
    assert registry.find_open(1) is None
    assert come(registry, 1) == 1
    assert registry.find_open(1) is None
    assert len(heard.samples) == 1


def test_what_is_not_a_handler_of_its_own_is_left_alone() -> None:
    registry = MessageRegistry()
    registry.register(1, as_bytes)
    usual = registry.find(1)
    timer, _ = timer_of(registry)
    timer.arm()
    assert registry.find(1) is usual


@pytest.mark.parametrize("server", [OTHER, None], ids=["another server's", "a client's"])
def test_messages_to_others_are_nobodys_business(server: object) -> None:
    registry = registry_of(1)
    timer, heard = timer_of(registry)
    timer.arm()
    assert come(registry, 1, server) == 1
    assert heard.samples == []


def test_a_handler_that_raises_is_timed_and_raises() -> None:
    registry = MessageRegistry()

    def fail(_context: Context[bytes], _conn: object) -> None:
        raise ZeroDivisionError

    registry.register(1, as_bytes, fail)
    timer, heard = timer_of(registry)
    timer.arm()
    with pytest.raises(ZeroDivisionError):
        come(registry, 1)
    assert len(heard.samples) == 1


def test_a_number_that_is_unregistered_meanwhile_stays_so() -> None:
    registry = registry_of(1)
    timer, _ = timer_of(registry)
    timer.arm()
    entry = registry.find(1)
    assert entry is not None
    registry.unregister(1)
    entry.deserialize(b"")  # it was on its way
    timer.disarm()
    assert 1 not in registry
    assert registry.find_open(1) is None


def test_a_handler_that_is_registered_anew_is_the_one_that_is_timed() -> None:
    registry = registry_of(1)
    timer, heard = timer_of(registry)
    timer.arm()
    registry.unregister(1)
    again: Any = lambda context, conn: "again"  # noqa: E731
    registry.register(1, as_bytes, again)
    assert come(registry, 1) == "again"
    assert heard.samples == []
    timer.arm()
    assert come(registry, 1) == "again"
    assert len(heard.samples) == 1


def test_two_may_watch_the_same_registry() -> None:
    registry = registry_of(1)
    usual = registry.find(1)
    (first, heard), (second, also_heard) = timer_of(registry), timer_of(registry)
    for _ in range(3):
        first.arm()
        second.arm()
        assert come(registry, 1) == 1
    assert len(heard.samples) == len(also_heard.samples) == 3
    first.arm()
    second.arm()
    first.disarm()
    second.disarm()
    come(registry, 1)
    assert registry.find(1) is usual


def test_many_kinds_take_turns() -> None:
    numbers = range(1, 2 * ARMED_AT_A_TIME + 2)
    registry = registry_of(*numbers)
    timer, heard = timer_of(registry)
    for _ in range(3):
        timer.arm()
        for number in numbers:
            come(registry, number)
    timed = [number for number, _ in heard.samples]
    assert set(timed) == set(numbers)
    assert len(timed) <= 3 * ARMED_AT_A_TIME


def test_only_the_last_minute_counts() -> None:
    times = HandlerTimes(1, "on_chat", "Chat", False)
    for when, seconds in [(10.0, 9.0), (50.0, 0.2), (60.0, 0.1)]:
        times.samples.append(Sample(when, seconds))
    assert times.recent(40.0 + WINDOW) == [0.1, 0.2]
    assert times.recent(61.0 + WINDOW) == []
