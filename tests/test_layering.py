"""Who may import whom, read from the sources."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import reactor
import tao

PACKAGES = {"reactor": reactor, "tao": tao}


@dataclass(frozen=True)
class Import:
    """One import statement's module, and where it stands."""

    module: str
    line: int
    in_function: bool
    for_types_only: bool


class _Imports(ast.NodeVisitor):
    def __init__(self, module: str, is_package: bool) -> None:
        self.found: list[Import] = []
        self._module = module
        self._is_package = is_package
        self._functions = 0
        self._type_checking = 0

    def _visit_function(self, node: ast.AST) -> None:
        self._functions += 1
        self.generic_visit(node)
        self._functions -= 1

    visit_FunctionDef = visit_AsyncFunctionDef = visit_Lambda = _visit_function

    def visit_If(self, node: ast.If) -> None:
        hidden = "TYPE_CHECKING" in ast.dump(node.test)
        self._type_checking += hidden
        self.generic_visit(node)
        self._type_checking -= hidden

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._add(alias.name, node.lineno)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = node.module or ""
        if node.level:
            parts = self._module.split(".")
            kept = len(parts) - node.level + self._is_package
            module = ".".join([*parts[:kept], *([module] if module else [])])
        for alias in node.names:
            # "from package import module" names a module as well.
            name = f"{module}.{alias.name}"
            self._add(name if name in MODULES else module, node.lineno)

    def _add(self, module: str, line: int) -> None:
        self.found.append(Import(module, line, self._functions > 0, self._type_checking > 0))


def _paths() -> dict[str, Path]:
    found = {}
    for name, package in PACKAGES.items():
        assert package.__file__ is not None
        root = Path(package.__file__).parent
        for path in root.rglob("*.py"):
            parts = [name, *path.relative_to(root).with_suffix("").parts]
            if parts[-1] == "__init__":
                parts.pop()
            found[".".join(parts)] = path
    return found


MODULES = _paths()


def _imports_of_source(source: str, module: str, is_package: bool) -> list[Import]:
    finder = _Imports(module, is_package)
    finder.visit(ast.parse(source))
    return finder.found


IMPORTS = {
    module: _imports_of_source(path.read_text("utf-8"), module, path.name == "__init__.py")
    for module, path in sorted(MODULES.items())
}


def _top(module: str) -> str:
    return module.partition(".")[0]


def _is_program(module: str) -> bool:
    """Whether it is run and not imported; an example imports what a user would."""
    return module.endswith("__main__") or ".examples" in module


HOSTS = {
    "reactor.embed.gevent": "gevent",
    "reactor.embed.glib": "gi",
    "reactor.embed.qt": "PySide6",
    "reactor.embed.trio": "trio",
    "tao.examples.in_gevent": "gevent",
    "tao.examples.in_glib": "gi",
    "tao.examples.in_qt": "PySide6",
    "tao.examples.in_trio": "trio",
}
"""What the module of a host, and the example for it, may import besides: the host. The others' are in the
standard library, or are handed in."""


def _foreign(package: str, allowed: set[str]) -> list[tuple[str, Import]]:
    return [
        (module, found)
        for module, imports in IMPORTS.items()
        if _top(module) == package
        for found in imports
        if _top(found.module) not in sys.stdlib_module_names | allowed
        and HOSTS.get(module) != _top(found.module)
    ]


def test_reactor_imports_the_standard_library_and_itself() -> None:
    assert _foreign("reactor", {"reactor"}) == []


def test_a_host_is_imported_in_its_own_module_only() -> None:
    """And that one by nobody: who has no such host can use all the rest."""
    adapters = {module for module in MODULES if module.startswith("reactor.embed.")} - {
        "reactor.embed.embedding",
        "reactor.embed.waiter",
    }
    imported = {
        found.module
        for module, imports in IMPORTS.items()
        if not _is_program(module)
        for found in imports
    }
    assert not imported & adapters


def test_tao_imports_the_standard_library_reactor_and_itself() -> None:
    """What is optional is imported where it is used, inside a function."""
    foreign = _foreign("tao", {"reactor", "tao"})
    assert [(module, found) for module, found in foreign if not found.in_function] == []


def test_only_the_extras_are_optional() -> None:
    foreign = {_top(found.module) for _, found in _foreign("tao", {"reactor", "tao"})}
    assert foreign <= {"prometheus_client", "redis", "rich"}


def test_a_name_within_a_package_comes_from_its_own_module() -> None:
    """A module that imports its own package's `__init__` imports all of the package: a cycle."""
    assert [
        (module, found)
        for module, imports in IMPORTS.items()
        for found in imports
        if found.module == _top(module) != module and not _is_program(module)
    ] == []


def _cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """One cycle for each edge that closes one."""
    found: list[list[str]] = []
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> None:
        if module in path:
            found.append([*path[path.index(module) :], module])
        elif module not in done:
            for target in sorted(graph.get(module, ())):
                visit(target, [*path, module])
            done.add(module)

    for module in graph:
        visit(module, [])
    return found


def _graph(*, with_types: bool) -> dict[str, set[str]]:
    return {
        module: {
            found.module
            for found in imports
            if found.module in MODULES
            and not found.in_function
            and (with_types or not found.for_types_only)
        }
        for module, imports in IMPORTS.items()
    }


def test_no_cycles_at_module_level() -> None:
    assert _cycles(_graph(with_types=False)) == []


def test_type_checking_hides_no_cycle() -> None:
    assert _cycles(_graph(with_types=True)) == []


def test_the_search_for_cycles_finds_them() -> None:
    assert _cycles({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == [["a", "b", "c", "a"]]
    assert _cycles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import tao.server", Import("tao.server", 1, False, False)),
        ("from . import server", Import("tao.server", 1, False, False)),
        ("from .server import Server", Import("tao.server", 1, False, False)),
        ("from tao.server import Server", Import("tao.server", 1, False, False)),
        ("def f(): import redis", Import("redis", 1, True, False)),
        ("if TYPE_CHECKING: import tao.codec", Import("tao.codec", 1, False, True)),
        ("if typing.TYPE_CHECKING: import tao.codec", Import("tao.codec", 1, False, True)),
    ],
)
def test_the_search_for_imports_finds_them(source: str, expected: Import) -> None:
    assert _imports_of_source(source, "tao.client", is_package=False) == [expected]


# -- __all__ -------------------------------------------------------------------------------------


def _rank(name: str) -> tuple[int, str]:
    """CONSTANTS, then Classes, then functions; each in the order of the alphabet."""
    kind = 0 if name.isupper() else 1 if name.lstrip("_")[:1].isupper() else 2
    return kind, name


def _defined(path: Path) -> Iterator[str]:
    """The names that a module's top level imports, and its classes and functions."""
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                yield (alias.asname or alias.name).partition(".")[0]


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_exports_what_it_imports(name: str) -> None:
    package = PACKAGES[name]
    imported = {bound for bound in _defined(MODULES[name]) if not bound.startswith("_")}
    assert set(package.__all__) == imported - {"annotations"}


@pytest.mark.parametrize("module", [name for name in MODULES if not _is_program(name)])
def test_all_is_sorted_and_true(module: str) -> None:
    if module in HOSTS:
        pytest.importorskip(HOSTS[module], reason=f"{HOSTS[module]} is not installed")
    loaded = importlib.import_module(module)
    names = loaded.__all__

    assert len(set(names)) == len(names)
    assert list(names) == sorted(names, key=_rank)
    assert [name for name in names if not hasattr(loaded, name)] == []
