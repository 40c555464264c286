"""tao.connection_map: what each operation does, that loops go over copies, and that no update is lost."""

from __future__ import annotations

import gc
import weakref
from itertools import chain

import pytest

from tao.connection_map import ConnectionMap
from tests.tao.stress import THREADS, at_once

ROUNDS = 1000


@pytest.fixture
def names() -> ConnectionMap[int, str]:
    """With two in it."""
    names: ConnectionMap[int, str] = ConnectionMap()
    names.put(1, "Ann")
    names.put(2, "Bob")
    return names


def test_begins_empty() -> None:
    names: ConnectionMap[int, str] = ConnectionMap()
    assert names.is_empty()
    assert (names.size(), len(names), list(names)) == (0, 0, [])
    assert names.get(1) is None


def test_put_and_get() -> None:
    names: ConnectionMap[int, str] = ConnectionMap()
    assert names.put(1, "Ann") is None
    assert names.get(1) == "Ann"
    assert names.put(1, "Anna") == "Ann"
    assert names.get(1) == "Anna"
    assert not names.is_empty()
    assert (names.size(), len(names)) == (1, 1)


def test_contains(names: ConnectionMap[int, str]) -> None:
    assert names.contains(1)
    assert 1 in names
    assert not names.contains(3)
    assert 3 not in names
    assert "Ann" not in names  # a value is no key


def test_remove(names: ConnectionMap[int, str]) -> None:
    assert names.remove(1) == "Ann"
    assert names.remove(1) is None
    assert names.keys() == [2]


def test_put_if_absent(names: ConnectionMap[int, str]) -> None:
    assert names.put_if_absent(1, "Eve") == "Ann"
    assert names.get(1) == "Ann"
    assert names.put_if_absent(3, "Eve") is None
    assert names.get(3) == "Eve"


def test_replace(names: ConnectionMap[int, str]) -> None:
    assert names.replace(1, "Anna") == "Ann"
    assert names.get(1) == "Anna"
    assert names.replace(3, "Eve") is None
    assert 3 not in names


def test_remove_if(names: ConnectionMap[int, str]) -> None:
    assert not names.remove_if(1, "Bob")
    assert names.get(1) == "Ann"
    assert not names.remove_if(3, "Ann")
    assert names.remove_if(1, "Ann")
    assert names.keys() == [2]


def test_remove_if_knows_what_is_the_same_though_not_equal() -> None:
    not_a_number = float("nan")
    numbers: ConnectionMap[int, float] = ConnectionMap()
    numbers.put(1, not_a_number)
    assert numbers.remove_if(1, not_a_number)


def test_clear(names: ConnectionMap[int, str]) -> None:
    names.clear()
    assert names.is_empty()
    assert 1 not in names
    names.put(3, "Eve")
    assert names.items() == [(3, "Eve")]


def test_views_are_copies_in_order(names: ConnectionMap[int, str]) -> None:
    keys, values, items = names.keys(), names.values(), names.items()
    names.put(3, "Eve")
    names.remove(1)
    assert keys == [1, 2]
    assert values == ["Ann", "Bob"]
    assert items == [(1, "Ann"), (2, "Bob")]
    assert (names.keys(), names.values()) == ([2, 3], ["Bob", "Eve"])


def test_may_change_while_somebody_goes_through_it(names: ConnectionMap[int, str]) -> None:
    seen = []
    for key in names:
        seen.append(key)
        names.remove(key)
        names.put(key + 10, "new")
    assert seen == [1, 2]
    assert names.keys() == [11, 12]


def test_its_repr_says_how_many(names: ConnectionMap[int, str]) -> None:
    assert repr(names) == "<ConnectionMap of 2>"


class Leaver:
    """Goes to the map once more when it ends."""

    def __init__(self, others: ConnectionMap[int, object]) -> None:
        self.others = others

    def __eq__(self, other: object) -> bool:
        return self.others.size() > 0 and self is other

    __hash__ = None  # type: ignore[assignment]

    def __del__(self) -> None:
        self.others.put(99, "gone")


def test_what_ends_or_compares_may_come_back() -> None:
    things: ConnectionMap[int, object] = ConnectionMap()
    things.put(1, Leaver(things))
    assert not things.remove_if(1, Leaver(things))
    things.clear()
    gc.collect()
    assert things.get(99) == "gone"


def test_keeps_nothing_that_was_taken_out() -> None:
    class Value:
        pass

    things: ConnectionMap[int, Value] = ConnectionMap()
    references = []
    for key in range(3):
        value = Value()
        references.append(weakref.ref(value))
        things.put(key, value)
    del value
    things.remove(0)
    things.replace(1, Value())
    things.clear()
    gc.collect()
    assert [reference() for reference in references] == [None, None, None]


# -- threads -------------------------------------------------------------------------------------


def test_one_alone_puts_and_one_alone_removes() -> None:
    owners: ConnectionMap[int, int] = ConnectionMap()
    put: list[list[int]] = [[] for _ in range(THREADS)]
    removed: list[list[int]] = [[] for _ in range(THREADS)]

    def claim(index: int) -> None:
        for key in range(ROUNDS):
            if owners.put_if_absent(key, index) is None:
                put[index].append(key)

    def give_up(index: int) -> None:
        for key in range(ROUNDS):
            if owners.remove(key) is not None:
                removed[index].append(key)

    at_once(claim)
    assert sorted(chain.from_iterable(put)) == list(range(ROUNDS))
    assert all(owners.get(key) == index for index in range(THREADS) for key in put[index])
    at_once(give_up)
    assert sorted(chain.from_iterable(removed)) == list(range(ROUNDS))
    assert owners.is_empty()


def test_nobody_removes_what_another_has_put() -> None:
    owners: ConnectionMap[str, int] = ConnectionMap()

    def hold(index: int) -> None:
        for _ in range(ROUNDS):
            if owners.put_if_absent("it", index) is None:
                assert owners.get("it") == index
                assert owners.replace("it", index) == index
                assert owners.remove_if("it", index)
            else:
                assert not owners.remove_if("it", index)

    at_once(hold)
    assert owners.is_empty()


def test_what_is_exchanged_is_neither_lost_nor_doubled() -> None:
    values: ConnectionMap[str, int] = ConnectionMap()
    values.put("it", -1)
    found: list[list[int]] = [[] for _ in range(THREADS)]

    def exchange(index: int) -> None:
        operation = values.put if index % 2 else values.replace
        for step in range(ROUNDS):
            before = operation("it", index * ROUNDS + step)
            assert before is not None
            found[index].append(before)

    at_once(exchange)
    last = values.get("it")
    assert last is not None
    assert sorted([*chain.from_iterable(found), last]) == list(range(-1, THREADS * ROUNDS))


def test_copies_are_taken_while_others_write() -> None:
    squares: ConnectionMap[int, int] = ConnectionMap()

    def run(index: int) -> None:
        if index < THREADS // 2:
            for key in range(index, ROUNDS, THREADS // 2):
                squares.put(key, key * key)
        else:
            for _ in range(ROUNDS // 20):
                assert all(value == key * key for key, value in squares.items())
                assert all(key in squares for key in squares)
                assert len(squares.keys()) <= len(squares.values()) <= squares.size() <= ROUNDS

    at_once(run)
    assert squares.size() == ROUNDS
