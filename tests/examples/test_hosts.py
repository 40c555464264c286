"""The examples in other loops: each ends by itself, and has had its conversation."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from tests.display import lacks_display, open_display
from tests.examples.support import ROOT, example

NEEDS = {
    "in_gevent": "gevent",
    "in_glib": "gi.repository.GLib",
    "in_qt": "PySide6.QtCore",
    "in_tk": "tkinter",
    "in_trio": "trio",
    "in_twisted": "twisted.internet",
}

NAMES = sorted(path.stem for path in Path(ROOT, "tao", "examples").glob("in_*.py"))


def test_there_is_one_for_each_host() -> None:
    adapters = {path.stem for path in Path(ROOT, "reactor", "embed").glob("[a-z]*.py")}
    assert {f"in_{name}" for name in adapters - {"embedding", "waiter"}} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_it_has_its_conversation(name: str) -> None:
    if name in NEEDS:
        try:
            importlib.import_module(NEEDS[name])
        except ImportError as error:
            pytest.skip(f"NOT TESTED: {error}")
    if name == "in_tk":
        lack = lacks_display()
        if lack is not None:
            pytest.skip(f"NOT TESTED: Tk needs a display, and {lack}")
        open_display()
    with example(name) as program:
        assert program.wait() == 0, program.errors
        assert program.output.splitlines() == [
            "The echo says: Hello.",
            "The echo says: Is this your loop?",
            "The echo says: Goodbye.",
        ]
        assert program.errors == ""
