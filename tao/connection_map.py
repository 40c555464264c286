"""A map that several threads change: from names to connections, say.

Owns ConnectionMap, and the lock in it. It closes nothing that is put into it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Generic, TypeVar

__all__ = ["ConnectionMap"]

K = TypeVar("K")
V = TypeVar("V")


class ConnectionMap(Generic[K, V]):
    """A dictionary whose every operation is one step for all threads. Any thread.

    None stands for "nothing there" in what the methods return: better not put it in as a value. Whoever
    goes through the map goes through a copy, as it was at that moment; others may change the map
    meanwhile.
    """

    __slots__ = ("_items", "_lock")

    def __init__(self) -> None:
        # Re-entrant: the `__eq__` of a key, or a `__del__` that runs at any moment, may come back here.
        self._lock = threading.RLock()
        self._items: dict[K, V] = {}  # under the lock

    def put(self, key: K, value: V) -> V | None:
        """Put `value` under `key`; returns what was there before."""
        with self._lock:
            before = self._items.get(key)
            self._items[key] = value
            return before

    def put_if_absent(self, key: K, value: V) -> V | None:
        """Put `value` under `key` if nothing is there; returns what was: None, and it has been put."""
        with self._lock:
            if key in self._items:
                return self._items[key]
            self._items[key] = value
            return None

    def replace(self, key: K, value: V) -> V | None:
        """Put `value` under `key` if something is there; returns what was: None, and nothing is put."""
        with self._lock:
            if key not in self._items:
                return None
            before, self._items[key] = self._items[key], value
            return before

    def get(self, key: K) -> V | None:
        """What is under `key`."""
        with self._lock:
            return self._items.get(key)

    def remove(self, key: K) -> V | None:
        """Take `key` out; returns what was there."""
        with self._lock:
            return self._items.pop(key, None)

    def remove_if(self, key: K, value: V) -> bool:
        """Take `key` out if `value` is under it; returns whether it was.

        For who has put something in and does not want to take out what another put there since.
        """
        with self._lock:
            if key not in self._items:
                return False
            found = self._items[key]
            if found is not value and found != value:
                return False
            del self._items[key]
            return True

    def contains(self, key: K) -> bool:
        """Whether something is under `key`."""
        with self._lock:
            return key in self._items

    def size(self) -> int:
        """How many keys there are."""
        with self._lock:
            return len(self._items)

    def is_empty(self) -> bool:
        """Whether there are none."""
        return self.size() == 0

    def clear(self) -> None:
        """Take all of them out."""
        with self._lock:
            # Kept until the lock is free again: the end of a value may run code of the application's.
            _before, self._items = self._items, {}

    def keys(self) -> list[K]:
        """A copy of the keys, in the order in which they came."""
        with self._lock:
            return list(self._items)

    def values(self) -> list[V]:
        """A copy of the values, in the order of their keys."""
        with self._lock:
            return list(self._items.values())

    def items(self) -> list[tuple[K, V]]:
        """A copy of the pairs."""
        with self._lock:
            return list(self._items.items())

    def __contains__(self, key: object) -> bool:
        with self._lock:
            return key in self._items

    def __len__(self) -> int:
        return self.size()

    def __iter__(self) -> Iterator[K]:
        """Over a copy of the keys."""
        return iter(self.keys())

    def __repr__(self) -> str:
        return f"<ConnectionMap of {self.size()}>"
