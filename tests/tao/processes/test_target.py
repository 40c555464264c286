"""The names of applications."""

from __future__ import annotations

import pytest

from tao.processes.target import TargetError, check_target, load_server
from tests.tao.processes import application

HERE = "tests.tao.processes.application"


@pytest.mark.parametrize(
    "text", ["", ":", "server", "a:", ":b", "a.b", "a b:c", "a:b()", "a:b:c", "a..b:c", "a:b."]
)
def test_what_is_no_name_is_told_how_one_looks(text: str) -> None:
    with pytest.raises(ValueError, match=r"package\.module:server"):
        check_target(text)


def test_a_name_leads_to_a_server() -> None:
    assert load_server(f"{HERE}:server") is application.server
    assert load_server(f"{HERE}:make_server") is application.server


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("tests.nowhere:server", "no module 'tests.nowhere'"),
        ("nowhere.at.all:server", "no module 'nowhere'"),
        (f"{HERE}:other", "there is no 'other'"),
        (f"{HERE}:not_a_server", "is a int"),
        (f"{HERE}:takes_arguments", "without arguments: missing a required argument: 'name'"),
        ("builtins:list", "returned a list"),
    ],
)
def test_a_way_that_ends_elsewhere_says_where(target: str, said: str) -> None:
    with pytest.raises(TargetError, match=said):
        load_server(target)


def test_what_the_application_raises_is_its_own() -> None:
    with pytest.raises(RuntimeError, match="no database"):
        load_server(f"{HERE}:fails_when_called")


def test_a_module_that_is_missing_further_in_has_a_traceback(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    path = f"{tmp_path}/needs_another.py"
    with open(path, "w", encoding="utf-8") as file:
        file.write("import no_such_thing\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_thing"):
        load_server("needs_another:server")
