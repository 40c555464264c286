"""Typed keys for what is kept with a context or with a connection.

Owns ContextKey and nothing that is kept under one. Any thread.
"""

from __future__ import annotations

from enum import Enum
from typing import Generic, TypeAlias, TypeVar

__all__ = ["ContextKey", "PlainKey"]

T = TypeVar("T")

PlainKey: TypeAlias = str | int | bytes | tuple[object, ...] | Enum | type[object] | None
"""What serves as a key without a type for its value; what is got out is an `object` to a type checker."""


class ContextKey(Generic[T]):
    """A key that knows the type of what is kept under it: `USER = ContextKey[User]("user")`.

    `conn.set_context_value(USER, value)` then takes nothing but a User, and `conn.context_value(USER)` is
    a User, or None; a type checker holds both. Two keys are two, whatever their names: make one, in a
    module, and import it. Any thread.
    """

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name: str = name
        """For people, in a log."""

    def __repr__(self) -> str:
        return f"ContextKey({self.name!r})"
