"""tao.waiting: what stands in a connection's line, and what it is charged for."""

from __future__ import annotations

from typing import Any

import pytest

from tao import Context, ServerConn
from tao.waiting import MESSAGE_COST, NO_MESSAGE, Item, as_item, call, held_by, owed


def run(item: Item) -> object:
    """As a worker does."""
    session: Any = None
    return item[0](Context(item[2], session), ServerConn())


@pytest.mark.parametrize(("is_owed", "handler"), [(False, call), (True, owed)])
def test_a_function_has_its_turn_like_a_message(is_owed: bool, handler: object) -> None:
    seen: list[str] = []
    item = as_item(lambda: seen.append("run"), is_owed=is_owed)

    assert item[0] is handler
    assert not item[1], "it would run on the loop, which it may block"
    assert seen == []
    assert run(item) is None, "what the function returns is no reply"
    assert seen == ["run"]


def test_what_is_no_message_can_be_told_from_what_is() -> None:
    assert all(as_item(print, is_owed=is_owed)[0] in NO_MESSAGE for is_owed in (False, True))
    assert print not in NO_MESSAGE


def test_what_waits_is_charged_for_its_bytes_and_its_objects() -> None:
    data = b"two frames"
    items: list[Item] = [(print, False, "one", data, 0, 4), (print, True, "two", data, 4, 10)]

    assert held_by([]) == 0
    assert held_by(items) == len(data) + 2 * MESSAGE_COST
    assert held_by([as_item(print)]) == MESSAGE_COST
