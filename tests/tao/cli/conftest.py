"""The environment is not that of whoever runs the tests."""

from __future__ import annotations

import pytest

from tests.tao.cli.support import variables


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in variables():
        monkeypatch.delenv(name)
