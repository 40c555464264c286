"""tao.atomic: what each operation returns, where it wraps around, and that no thread's is lost."""

from __future__ import annotations

from itertools import chain
from typing import TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tao.atomic import AtomicBoolean, AtomicInt32, AtomicInt64
from tests.tao.stress import THREADS, at_once

AtomicInt: TypeAlias = AtomicInt32 | AtomicInt64
Kind: TypeAlias = type[AtomicInt32] | type[AtomicInt64]

KINDS: list[Kind] = [AtomicInt32, AtomicInt64]
WIDTHS: dict[Kind, int] = {AtomicInt32: 32, AtomicInt64: 64}

ROUNDS = 1500

both = pytest.mark.parametrize("kind", KINDS)


@both
def test_begins_with_what_it_is_given(kind: Kind) -> None:
    assert kind().get() == 0
    assert kind(-7).get() == -7
    assert int(kind(5)) == 5


@both
def test_operations_say_the_value_before_or_after(kind: Kind) -> None:
    number = kind(10)
    assert number.add_and_get(5) == 15
    assert number.get_and_add(-20) == 15
    assert number.get() == -5
    assert number.increment_and_get() == -4
    assert number.get_and_increment() == -4
    assert number.get() == -3
    assert number.decrement_and_get() == -4
    assert number.get_and_decrement() == -4
    assert number.get() == -5
    assert number.get_and_set(8) == -5
    assert number.get() == 8
    number.set(9)
    assert number.get() == 9


@both
def test_compare_and_set(kind: Kind) -> None:
    number = kind(1)
    assert not number.compare_and_set(2, 3)
    assert number.get() == 1
    assert number.compare_and_set(1, 3)
    assert number.get() == 3


@both
def test_wraps_around_at_both_ends(kind: Kind) -> None:
    lowest, highest = -(1 << (WIDTHS[kind] - 1)), (1 << (WIDTHS[kind] - 1)) - 1
    number = kind(highest)
    assert number.get() == highest
    assert number.increment_and_get() == lowest
    assert number.decrement_and_get() == highest
    assert number.get_and_increment() == highest
    assert number.get_and_decrement() == lowest
    assert number.get_and_add(1) == highest
    assert number.get() == lowest


@both
@given(start=st.integers(), delta=st.integers())
def test_keeps_the_low_bits(kind: Kind, start: int, delta: int) -> None:
    width = WIDTHS[kind]

    def wrapped(value: int) -> int:
        """By way of the bytes of its low bits."""
        low = (value % (1 << width)).to_bytes(width // 8, "little")
        return int.from_bytes(low, "little", signed=True)

    number = kind(start)
    assert number.get() == wrapped(start)
    assert number.add_and_get(delta) == wrapped(start + delta)
    assert number.compare_and_set(start + delta, start)
    assert number.get_and_set(delta) == wrapped(start)
    assert number.get() == wrapped(delta)


@both
@pytest.mark.parametrize("value", [1.5, "1", None])
def test_takes_integers_only(kind: Kind, value: int) -> None:
    number = kind(4)
    for operation in (kind, number.set, number.add_and_get, number.get_and_add, number.get_and_set):
        with pytest.raises(TypeError):
            operation(value)
    with pytest.raises(TypeError):
        number.compare_and_set(4, value)
    assert number.get() == 4


def test_reprs() -> None:
    assert repr(AtomicInt32(-1)) == "AtomicInt32(-1)"
    assert repr(AtomicInt64(1)) == "AtomicInt64(1)"
    assert repr(AtomicBoolean(True)) == "AtomicBoolean(True)"


@pytest.mark.parametrize("thing", [AtomicInt32(), AtomicInt64(), AtomicBoolean()], ids=repr)
def test_there_may_be_thousands(thing: object) -> None:
    assert not hasattr(thing, "__dict__")


def test_boolean() -> None:
    flag = AtomicBoolean()
    assert flag.get() is False
    assert not flag
    flag.set(True)
    assert flag.get() is True
    assert flag
    assert flag.get_and_set(False) is True
    assert flag.get_and_set(True) is False
    assert not flag.compare_and_set(False, False)
    assert flag.get() is True
    assert flag.compare_and_set(True, False)
    assert flag.get() is False


# -- threads -------------------------------------------------------------------------------------


@both
def test_no_addition_is_lost(kind: Kind) -> None:
    number = kind()

    def add(_index: int) -> None:
        for _ in range(ROUNDS):
            number.increment_and_get()
            number.get_and_add(3)
            number.get_and_decrement()

    at_once(add)
    assert number.get() == THREADS * ROUNDS * 3


@both
def test_every_thread_gets_numbers_of_its_own(kind: Kind) -> None:
    number = kind()
    taken: list[list[int]] = [[] for _ in range(THREADS)]

    def take(index: int) -> None:
        for _ in range(ROUNDS):
            taken[index].append(number.get_and_increment())

    at_once(take)
    assert sorted(chain.from_iterable(taken)) == list(range(THREADS * ROUNDS))


@both
def test_one_alone_succeeds_in_setting(kind: Kind) -> None:
    number = kind()
    won: list[list[int]] = [[] for _ in range(THREADS)]

    def climb(index: int) -> None:
        for step in range(ROUNDS):
            if number.compare_and_set(step, step + 1):
                won[index].append(step)

    at_once(climb)
    steps = sorted(chain.from_iterable(won))
    assert steps == list(range(len(steps))), "a step was won twice, or not by its winner"
    assert number.get() == len(steps)


@both
def test_what_is_exchanged_is_neither_lost_nor_doubled(kind: Kind) -> None:
    number = kind(-1)
    found: list[list[int]] = [[] for _ in range(THREADS)]

    def exchange(index: int) -> None:
        for step in range(ROUNDS):
            found[index].append(number.get_and_set(index * ROUNDS + step))

    at_once(exchange)
    assert sorted([*chain.from_iterable(found), number.get()]) == list(range(-1, THREADS * ROUNDS))


def test_one_alone_raises_a_flag() -> None:
    flags = [AtomicBoolean() for _ in range(ROUNDS)]
    raised = AtomicInt64()
    lowered = AtomicInt64()

    def raise_all(_index: int) -> None:
        for flag in flags:
            if not flag.get_and_set(True):
                raised.increment_and_get()

    def lower_all(_index: int) -> None:
        for flag in flags:
            if flag.compare_and_set(True, False):
                lowered.increment_and_get()

    at_once(raise_all)
    at_once(lower_all)
    assert raised.get() == lowered.get() == ROUNDS
