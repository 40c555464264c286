"""What waits for its turn on a connection.

Contents: Item, MESSAGE_COST, NO_MESSAGE, call, owed, as_item, held_by.

Owns the form in which a message waits, and all else that has its turn among a connection's messages: a
timer, a callback, the report of an error. It does not own the line in which they stand, nor say whose
turn it is: `tao.session` does. Items are made on the loop's thread; mostly a worker runs them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from tao.context import Context
from tao.interfaces import WriteCloser
from tao.registry import Handler

__all__ = ["MESSAGE_COST", "NO_MESSAGE", "Item", "as_item", "call", "held_by", "owed"]

Item: TypeAlias = tuple[Handler[Any], bool, Any, bytes, int, int]
"""A handler, whether it runs inline, the message for it; then the data in which the frame stood, and
where it begins and ends there: as long as it has not been handled, another codec may read it again."""

MESSAGE_COST = 512
"""Bytes that a message which waits is charged for beside those that it had on the wire: its objects, and
its place in the queue."""


def call(context: Context[Callable[[], object]], _conn: WriteCloser) -> None:
    """The handler of what is no message: a timer, a callback. What it is given is the call."""
    context.message()


def owed(context: Context[Callable[[], object]], _conn: WriteCloser) -> None:
    """As `call`, for what is run even if the connection has ended: the report of an error."""
    context.message()


NO_MESSAGE = (call, owed)
"""The handlers of what is no message: it is not counted as handled, nor told of as unhandled."""


def as_item(function: Callable[[], object], *, is_owed: bool = False) -> Item:
    """Something that is no message; `is_owed`: it is run even if the connection has ended."""
    return (owed if is_owed else call, False, function, b"", 0, 0)


def held_by(items: Iterable[Item]) -> int:
    """Bytes for which the ledger is charged."""
    return sum(item[5] - item[4] + MESSAGE_COST for item in items)
