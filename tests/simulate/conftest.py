"""Simulated runs take less time on one processor."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.simulate.processor import on_one_processor


@pytest.fixture(scope="package", autouse=True)
def one_processor() -> Iterator[None]:
    with on_one_processor():
        yield
