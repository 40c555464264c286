"""The timing wheel against a sorted list, and each of its promises by itself. No clock, no socket."""

from __future__ import annotations

import gc
import sys
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)

from reactor import Timeout, TimingWheel
from reactor.timing_wheel import HORIZON, SPARE_SLOTS

# Where one level ends and the next begins, and its neighbours.
BOUNDARIES = sorted(
    {0, 1, 2} | {64**level + offset for level in range(1, 7) for offset in (-1, 0, 1)}
)

DELAYS = st.one_of(
    st.integers(-70, 140),
    st.sampled_from(BOUNDARIES),
    st.integers(0, 5_000),
    st.integers(0, 64**6),
)


class _Entry:
    """What the model knows of one time-out."""

    def __init__(self, tick: int, due: int, number: int) -> None:
        self.tick = tick
        self.key = (due, number)
        self.timeout = Timeout(lambda: None)


class WheelAgainstList(RuleBasedStateMachine):
    """The model is a list, sorted when it matters: by the tick, then by the order of adding."""

    entries = Bundle("entries")

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[_Entry] = []
        self.added = 0

    @initialize(now=st.one_of(st.sampled_from(BOUNDARIES), st.integers(0, 64**6)))
    def make(self, now: int) -> None:
        self.now = now
        self.wheel = TimingWheel(now)

    @rule(target=entries, delay=DELAYS)
    def add(self, delay: int) -> _Entry:
        # What has passed already is due now, behind what was due before.
        entry = _Entry(self.now + delay, self.now + max(0, delay), self.added)
        self.added += 1
        self.wheel.add(entry.timeout, entry.tick)
        self.waiting.append(entry)
        return entry

    @rule(target=entries, delay=DELAYS, count=st.integers(2, 5))
    def add_equal(self, delay: int, count: int) -> object:
        return multiple(*(self.add(delay) for _ in range(count)))

    @rule(entry=consumes(entries))
    def cancel(self, entry: _Entry) -> None:
        waits = entry in self.waiting
        # Handed out and not fired is still to be called off; the loop fires it in vain.
        assert entry.timeout.cancel()
        assert not entry.timeout.active
        assert not entry.timeout.cancel()
        if waits:
            self.waiting.remove(entry)

    @rule(distance=st.one_of(st.just(0), DELAYS.map(abs)))
    def advance(self, distance: int) -> None:
        self.advance_to(self.now + distance)

    @rule()
    def advance_to_next(self) -> None:
        """As the loop does: it sleeps until `next_tick`, which may come before anything is due."""
        tick = self.wheel.next_tick()
        if tick is not None:
            self.advance_to(tick)

    @rule(back=st.integers(1, 100))
    def advance_backwards(self, back: int) -> None:
        """The present stays where it is."""
        before = self.now
        self.advance_to(self.now - back)
        assert self.wheel.now == before

    def advance_to(self, tick: int) -> None:
        due = sorted(
            (entry for entry in self.waiting if entry.key[0] <= tick), key=lambda entry: entry.key
        )
        self.waiting = [entry for entry in self.waiting if entry not in due]
        self.now = max(self.now, tick)

        expired = self.wheel.advance(tick)

        assert expired == [entry.timeout for entry in due]
        assert self.wheel.now == self.now

    @invariant()
    def the_count_is_right(self) -> None:
        assert len(self.wheel) == len(self.waiting)
        assert bool(self.wheel) == bool(self.waiting)

    @invariant()
    def the_next_tick_is_never_too_late(self) -> None:
        tick = self.wheel.next_tick()
        if not self.waiting:
            assert tick is None
            return
        earliest = min(entry.key[0] for entry in self.waiting)
        assert tick is not None
        assert self.now <= tick <= earliest
        if earliest >> 6 == self.now >> 6:
            assert tick == earliest  # exact within the present 64 ticks

    def teardown(self) -> None:
        """Nothing was lost."""
        if self.waiting:
            self.advance_to(max(entry.key[0] for entry in self.waiting))
        assert len(self.wheel) == 0


TestWheelAgainstList = WheelAgainstList.TestCase
TestWheelAgainstList.settings = settings(
    max_examples=80, stateful_step_count=30, deadline=None, database=None
)


def _timeout() -> Timeout:
    return Timeout(lambda: None)


@pytest.mark.parametrize("delay", [tick for tick in BOUNDARIES if tick])
@pytest.mark.parametrize("now", [0, 1, 63, 64, 4_095, 4_096, 5_000])
def test_a_slot_boundary_is_neither_early_nor_late(now: int, delay: int) -> None:
    wheel = TimingWheel(now)
    timeout = _timeout()
    wheel.add(timeout, now + delay)

    assert wheel.advance(now + delay - 1) == []
    assert wheel.next_tick() == now + delay
    assert wheel.advance(now + delay) == [timeout]
    assert wheel.next_tick() is None


@pytest.mark.parametrize("delay", [tick for tick in BOUNDARIES if tick])
def test_sleeping_until_the_next_tick_takes_few_steps(delay: int) -> None:
    """One step a level at the most: the loop wakes to move a time-out down, not to count."""
    wheel = TimingWheel(3)
    wheel.add(_timeout(), 3 + delay)
    expired: list[Timeout] = []
    steps = 0
    while (tick := wheel.next_tick()) is not None:
        expired += wheel.advance(tick)
        steps += 1
    assert len(expired) == 1
    assert wheel.now == 3 + delay
    assert steps <= 8


def test_an_empty_wheel_has_no_next_tick() -> None:
    wheel = TimingWheel()
    assert wheel.next_tick() is None
    assert wheel.advance(1_000_000) == []
    assert wheel.now == 1_000_000
    assert not wheel


@pytest.mark.parametrize("delay", [-5, 0, 1, 63, 64, 65, 4_096, 300_000])
def test_equal_ticks_come_in_the_order_of_adding(delay: int) -> None:
    wheel = TimingWheel(10)
    timeouts = [_timeout() for _ in range(50)]
    for timeout in timeouts:
        wheel.add(timeout, 10 + delay)
    assert wheel.advance(10 + max(0, delay)) == timeouts


def test_equal_ticks_keep_their_order_when_added_at_different_times() -> None:
    """The first lies in a coarse slot, and moves to the fine one before the second is put there."""
    wheel = TimingWheel()
    first, second, third = _timeout(), _timeout(), _timeout()
    wheel.add(first, 5_000)
    wheel.advance(4_100)
    wheel.add(second, 5_000)
    wheel.advance(4_995)
    wheel.add(third, 5_000)
    assert wheel.advance(5_000) == [first, second, third]


def test_one_advance_hands_out_in_the_order_of_the_ticks() -> None:
    wheel = TimingWheel()
    ticks = [4_097, 1, 64, 63, 300_000, 4_096, 65, 2, 4_095]
    for tick in ticks:
        wheel.add(_timeout(), tick)
    assert [timeout.tick for timeout in wheel.advance(300_000)] == sorted(ticks)


def test_what_is_handed_out_is_handed_out_once() -> None:
    wheel = TimingWheel()
    wheel.add(_timeout(), 5)
    assert len(wheel.advance(5)) == 1
    assert wheel.advance(5) == []
    assert wheel.advance(10_000) == []


@pytest.mark.parametrize("tick", [0, 1, 5, 63, 64, 4_096, 300_000])
def test_cancelling_the_last_of_a_slot_leaves_nothing_to_wake_for(tick: int) -> None:
    wheel = TimingWheel()
    first, second = _timeout(), _timeout()
    wheel.add(first, tick)
    wheel.add(second, tick)

    assert first.cancel()
    assert wheel.next_tick() is not None
    assert second.cancel()
    assert wheel.next_tick() is None
    assert len(wheel) == 0
    assert wheel.advance(tick) == []


def test_cancelling_after_a_move_to_a_finer_slot_clears_that_slot() -> None:
    wheel = TimingWheel()
    timeout = _timeout()
    wheel.add(timeout, 4_100)
    wheel.advance(4_097)
    assert wheel.next_tick() == 4_100
    timeout.cancel()
    assert wheel.next_tick() is None


def _slots_of(wheel: TimingWheel) -> int:
    return sum(isinstance(held, dict) for held in gc.get_referrers(wheel))


@pytest.mark.parametrize("distance", [1, 4_000, 300_000])
@pytest.mark.parametrize("cancelled", [False, True])
def test_slots_that_are_not_needed_any_more_are_not_kept(distance: int, *, cancelled: bool) -> None:
    """A loop with a time-out a millisecond has had one in each after four seconds."""
    wheel = TimingWheel()
    for tick in range(distance, 5_000 + distance):
        timeout = _timeout()
        wheel.add(timeout, tick)
        if cancelled and tick % 2:
            timeout.cancel()
        wheel.advance(tick - distance + 1)
    wheel.advance(5_000 + distance)
    assert len(wheel) == 0
    assert 0 < _slots_of(wheel) <= SPARE_SLOTS + 1  # and that for what is due at once


def test_a_slot_that_is_kept_has_not_the_memory_of_those_that_were_in_it() -> None:
    wheel = TimingWheel()
    many = [_timeout() for _ in range(10_000)]
    for timeout in many:
        wheel.add(timeout, 5)
    for timeout in many:
        timeout.cancel()
    slots = [held for held in gc.get_referrers(wheel) if isinstance(held, dict)]
    assert slots
    assert all(sys.getsizeof(slot) < 1000 for slot in slots)


class _Owner:
    def __init__(self) -> None:
        self.calls = 0

    def call(self) -> None:
        self.calls += 1


@pytest.mark.parametrize("tick", [0, 3, 100_000])
def test_cancel_releases_the_callback_at_once(tick: int) -> None:
    """Though the handle lives on, and without the help of the collector of cycles."""
    wheel = TimingWheel()
    owner = _Owner()
    timeout = Timeout(owner.call)
    wheel.add(timeout, tick)
    gone = weakref.ref(owner)
    del owner
    assert gone() is not None

    gc.disable()
    try:
        timeout.cancel()
        assert gone() is None
    finally:
        gc.enable()


def test_firing_releases_the_callback() -> None:
    owner = _Owner()
    timeout = Timeout(owner.call)
    gone = weakref.ref(owner)
    timeout.fire()
    assert owner.calls == 1
    del owner
    assert gone() is None


def test_a_time_out_fires_once() -> None:
    owner = _Owner()
    timeout = Timeout(owner.call)
    active = [timeout.active]
    timeout.fire()
    timeout.fire()
    active.append(timeout.active)
    assert owner.calls == 1
    assert active == [True, False]
    assert not timeout.cancel()


def test_it_is_not_active_inside_its_own_callback() -> None:
    seen = []
    timeout = Timeout(lambda: seen.append((timeout.active, timeout.cancel())))
    timeout.fire()
    assert seen == [(False, False)]


def test_a_cancelled_one_that_was_handed_out_does_not_fire() -> None:
    wheel = TimingWheel()
    owner = _Owner()
    timeout = Timeout(owner.call)
    wheel.add(timeout, 1)
    [handed_out] = wheel.advance(1)
    assert handed_out.cancel()
    handed_out.fire()
    assert owner.calls == 0
    assert len(wheel) == 0


@pytest.mark.parametrize("now", [0, 12_345])
def test_beyond_the_horizon_there_is_no_room(now: int) -> None:
    wheel = TimingWheel(now)
    timeout = _timeout()
    with pytest.raises(OverflowError):
        wheel.add(timeout, now + HORIZON)
    assert len(wheel) == 0
    assert wheel.next_tick() is None

    wheel.add(timeout, HORIZON - 1)
    assert wheel.advance(HORIZON - 2) == []
    assert wheel.advance(HORIZON - 1) == [timeout]


@settings(deadline=None, database=None, max_examples=50)
@given(st.lists(st.integers(0, HORIZON - 1), min_size=1, max_size=20))
def test_huge_ticks_are_found_one_after_the_other(ticks: list[int]) -> None:
    wheel = TimingWheel()
    for tick in ticks:
        wheel.add(_timeout(), tick)
    found = []
    while (tick_or_none := wheel.next_tick()) is not None:
        for timeout in wheel.advance(tick_or_none):
            assert wheel.now == timeout.tick
            found.append(timeout.tick)
    assert found == sorted(ticks)
