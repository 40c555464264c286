"""tao.counts: what is a number of things, and enough of them."""

from __future__ import annotations

from typing import Any

import pytest

from tao.counts import check_count


@pytest.mark.parametrize(("value", "least"), [(1, 1), (7, 1), (0, 0), (100, 100), (1 << 80, 1)])
def test_enough(value: int, least: int) -> None:
    check_count("worker_size", value, "handlers", least=least)


@pytest.mark.parametrize(("value", "least"), [(0, 1), (-1, 1), (-1, 0), (99, 100)])
def test_too_few(value: int, least: int) -> None:
    with pytest.raises(
        ValueError,
        match=f"worker_size is the number of handlers: it must be at least {least}, not {value}",
    ):
        check_count("worker_size", value, "handlers", least=least)


@pytest.mark.parametrize("value", [True, 1.0, "1", None])
def test_no_count(value: Any) -> None:
    with pytest.raises(TypeError, match="worker_size is the number of handlers: an int, not"):
        check_count("worker_size", value, "handlers")
