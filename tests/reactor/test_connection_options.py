"""What a connection's numbers must be."""

from __future__ import annotations

from typing import Any

import pytest

from reactor import ConnectionOptions, Watermark


def test_the_limit_must_not_be_below_the_watermark() -> None:
    with pytest.raises(ValueError, match="output_limit"):
        ConnectionOptions(output=Watermark(10, 100), output_limit=99)
    ConnectionOptions(output=Watermark(10, 100), output_limit=100)


@pytest.mark.parametrize("name", ["drain_timeout", "linger_timeout"])
@pytest.mark.parametrize("value", [-1.0, float("nan")])
def test_a_time_must_be_one(name: str, value: float) -> None:
    options: dict[str, Any] = {name: value}
    with pytest.raises(ValueError, match=name):
        ConnectionOptions(**options)
