"""The table of faults in tests/README.md: every test that it names is there, and no fault is without."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PAGE = (TESTS / "README.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| ([^|`]+) \| (.+) \|$", PAGE[PAGE.index("## Faults") :], re.MULTILINE)[2:]


def _tests_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


@pytest.mark.parametrize(("fault", "tests"), ROWS, ids=[fault for fault, _ in ROWS])
def test_every_fault_has_tests_that_exist(fault: str, tests: str) -> None:
    names = re.findall(r"`([^`]+)`", tests)
    assert names
    assert ", ".join(f"`{name}`" for name in names) == tests, "names, commas, and nothing else"
    for name in names:
        file, _, test = name.partition("::")
        assert test in _tests_of(TESTS / file), f"{name} is no test"


def test_every_test_of_a_fault_stands_in_the_table() -> None:
    """For what is in here, that is; elsewhere there are others, too."""
    named = set(re.findall(r"`faults/(test_\w+\.py::test_\w+)`", PAGE))
    there = {
        f"{path.name}::{test}"
        for path in TESTS.glob("faults/test_*.py")
        if path.name != Path(__file__).name
        for test in _tests_of(path)
    }
    assert there == named


def test_the_commands_that_the_page_shows_are_there() -> None:
    modules = re.findall(r"^python -m tests\.(\w+) ", PAGE, re.MULTILINE)
    assert modules == ["simulate", "simulate", "fuzz", "soak", "reload"]
    for module in modules:
        assert (TESTS / module / "__main__.py").exists()
