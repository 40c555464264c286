"""Numbers and flags that several threads change.

Contents: AtomicInt32, AtomicInt64, AtomicBoolean.

Each has a lock of its own, so that nothing here relies on what an interpreter does between two
instructions. The locks are not re-entrant: not for signal handlers, nor for a `__del__`, which may
interrupt an operation of the same thread and would wait for it for ever.
"""

from __future__ import annotations

import threading
from typing import ClassVar

__all__ = ["AtomicBoolean", "AtomicInt32", "AtomicInt64"]


class _AtomicInt:
    """What the two widths share. What does not fit wraps around, in two's complement."""

    __slots__ = ("_lock", "_value")

    _BITS: ClassVar[int]

    def __init__(self, value: int = 0) -> None:
        self._lock = threading.Lock()
        self._value = self._wrap(value)  # under the lock

    @classmethod
    def _wrap(cls, value: int) -> int:
        """The number of this width with the same low bits: as a Java cast, or Go's conversion."""
        half = 1 << (cls._BITS - 1)
        return ((value + half) & ((half << 1) - 1)) - half

    def get(self) -> int:
        """The value now."""
        with self._lock:
            return self._value

    def set(self, value: int) -> None:
        """Make it `value`."""
        wrapped = self._wrap(value)
        with self._lock:
            self._value = wrapped

    def add_and_get(self, delta: int) -> int:
        """Add; returns the value after that."""
        with self._lock:
            self._value = value = self._wrap(self._value + delta)
            return value

    def get_and_add(self, delta: int) -> int:
        """Add; returns the value before that."""
        with self._lock:
            value = self._value
            self._value = self._wrap(value + delta)
            return value

    def increment_and_get(self) -> int:
        """Add 1; returns the value after that."""
        return self.add_and_get(1)

    def get_and_increment(self) -> int:
        """Add 1; returns the value before that."""
        return self.get_and_add(1)

    def decrement_and_get(self) -> int:
        """Subtract 1; returns the value after that."""
        return self.add_and_get(-1)

    def get_and_decrement(self) -> int:
        """Subtract 1; returns the value before that."""
        return self.get_and_add(-1)

    def get_and_set(self, value: int) -> int:
        """Make it `value`; returns the value before that."""
        wrapped = self._wrap(value)
        with self._lock:
            before, self._value = self._value, wrapped
            return before

    def compare_and_set(self, expected: int, value: int) -> bool:
        """Make it `value` if it is `expected`; returns whether it was."""
        expected, wrapped = self._wrap(expected), self._wrap(value)
        with self._lock:
            if self._value != expected:
                return False
            self._value = wrapped
            return True

    def __int__(self) -> int:
        return self.get()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.get()})"


class AtomicInt32(_AtomicInt):
    """An integer from -2**31 to 2**31 - 1; beyond either end it wraps around. Any thread."""

    __slots__ = ()
    _BITS = 32


class AtomicInt64(_AtomicInt):
    """An integer from -2**63 to 2**63 - 1; beyond either end it wraps around. Any thread."""

    __slots__ = ()
    _BITS = 64


class AtomicBoolean:
    """True or False. Any thread."""

    __slots__ = ("_lock", "_value")

    def __init__(self, value: bool = False) -> None:
        self._lock = threading.Lock()
        self._value = bool(value)  # under the lock

    def get(self) -> bool:
        """The value now."""
        with self._lock:
            return self._value

    def set(self, value: bool) -> None:
        """Make it `value`."""
        flag = bool(value)
        with self._lock:
            self._value = flag

    def get_and_set(self, value: bool) -> bool:
        """Make it `value`; returns the value before that. Of all that set it, one alone gets False."""
        flag = bool(value)
        with self._lock:
            before, self._value = self._value, flag
            return before

    def compare_and_set(self, expected: bool, value: bool) -> bool:
        """Make it `value` if it is `expected`; returns whether it was."""
        wanted, flag = bool(expected), bool(value)
        with self._lock:
            if self._value is not wanted:
                return False
            self._value = flag
            return True

    def __bool__(self) -> bool:
        return self.get()

    def __repr__(self) -> str:
        return f"AtomicBoolean({self.get()})"
