"""What is public, read from the sources, and the page that is made of it.

Contents: Member, Entry, entries (what is public), page (all of it, in Markdown).

Signatures and texts come from the syntax trees: as they were written, with the texts that stand below
attributes, and the same on every Python.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field, is_dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

import reactor
import reactor.embed
import tao
import tao.testing

__all__ = ["PACKAGES", "PAGE", "Entry", "Function", "Member", "adapters", "entries", "page"]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "api.md"

PACKAGES: dict[str, ModuleType] = {
    "tao": tao,
    "tao.testing": tao.testing,
    "reactor": reactor,
    "reactor.embed": reactor.embed,
}

Function = ast.FunctionDef | ast.AsyncFunctionDef

WIDTH = 96
"""Characters in the longest line of a signature that stands by itself."""

_INTRODUCTION = """\
# The API

Every public name, with what its docstring says first; the docstrings say the rest. What threads may call
something, and in what units it counts, stands there too: durations are in seconds, sizes in bytes.
`python -m tests.docs` makes this page, and a test holds it to the code. For a way in, see the
[README](../README.md).
"""


@dataclass(frozen=True)
class Member:
    """A method, a property, or an attribute."""

    name: str
    kind: str
    """`method`, `property` or `attribute`."""
    module: str
    """Where it stands, in whose words its text is."""
    text: str
    doc: str
    node: ast.AST


@dataclass(frozen=True)
class Entry:
    """One of the names in a package's `__all__`."""

    package: str
    name: str
    kind: str
    """`class`, `function` or `value`."""
    module: str
    text: str
    doc: str
    module_doc: str
    node: ast.AST
    members: list[Member] = field(default_factory=list)


@cache
def _tree(path: str) -> ast.Module:
    return ast.parse(Path(path).read_text("utf-8"))


def _modules() -> Iterator[tuple[str, ast.Module]]:
    root = PAGE.parents[1]
    for package in ("reactor", "tao"):
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            if "examples" not in parts and parts[-1] != "__init__":
                yield ".".join(parts), _tree(str(path))


def _statements(body: list[ast.stmt]) -> Iterator[tuple[ast.stmt, str]]:
    """Each statement, with the text that stands below it if that is an attribute's."""
    for statement, following in zip(body, [*body[1:], None], strict=True):
        doc = ""
        if (
            isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
            and isinstance(following.value.value, str)
        ):
            doc = inspect.cleandoc(following.value.value)
        yield statement, doc


def _target(statement: ast.stmt) -> ast.expr | None:
    if isinstance(statement, ast.AnnAssign):
        return statement.target
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        return statement.targets[0]
    return None


@cache
def _definitions() -> dict[tuple[str, str], tuple[ast.stmt, str, str]]:
    """By module and name: where it is defined, the text below it, and its module's text."""
    found: dict[tuple[str, str], tuple[ast.stmt, str, str]] = {}
    for module, tree in _modules():
        module_doc = ast.get_docstring(tree) or ""
        for statement, below in _statements(tree.body):
            if isinstance(statement, ast.ClassDef | ast.FunctionDef):
                doc = ast.get_docstring(statement) or ""
                found[module, statement.name] = (statement, doc, module_doc)
            elif isinstance(target := _target(statement), ast.Name):
                found[module, target.id] = (statement, below, module_doc)
    return found


def _defined(package: str, name: str) -> tuple[str, ast.stmt, str, str]:
    """Where it is defined, which is where the package has it from: directly, or by another package."""
    module = package
    while (module, name) not in _definitions():
        tree = _tree(str(inspect.getsourcefile(importlib.import_module(module))))
        (module,) = [
            statement.module
            for statement in tree.body
            if isinstance(statement, ast.ImportFrom) and statement.module is not None
            for alias in statement.names
            if name == (alias.asname or alias.name)
        ]
    return (module, *_definitions()[module, name])


def _parameters(node: Function, *, bound: bool) -> list[str]:
    """As they were written; of a method that is bound, the first is left out."""
    arguments = node.args
    parts: list[str] = []
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults))
    defaults += arguments.defaults
    for index, (argument, default) in enumerate(zip(positional, defaults, strict=True)):
        if not (bound and index == 0):
            parts.append(_argument(argument, default))
        if arguments.posonlyargs and index == len(arguments.posonlyargs) - 1:
            parts.append("/")
    if arguments.vararg is not None:
        parts.append(f"*{_argument(arguments.vararg, None)}")
    elif arguments.kwonlyargs:
        parts.append("*")
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        parts.append(_argument(argument, default))
    if arguments.kwarg is not None:
        parts.append(f"**{_argument(arguments.kwarg, None)}")
    return parts


def _call(name: str, parameters: list[str], result: str = "") -> str:
    arrow = f" -> {result}" if result else ""
    line = f"{name}({', '.join(parameters)}){arrow}"
    if len(line) <= WIDTH:
        return line
    return "\n".join([f"{name}(", *(f"    {parameter}," for parameter in parameters), f"){arrow}"])


def _signature(node: Function, *, bound: bool) -> str:
    """On one line."""
    result = "" if node.returns is None else ast.unparse(node.returns)
    arrow = "" if result in ("", "None") else f" -> {result}"
    return f"{node.name}({', '.join(_parameters(node, bound=bound))}){arrow}"


def _argument(argument: ast.arg, default: ast.expr | None) -> str:
    text = argument.arg
    if argument.annotation is not None:
        text += f": {ast.unparse(argument.annotation)}"
    if default is not None:
        text += f"{' = ' if argument.annotation is not None else '='}{ast.unparse(default)}"
    return text


def _decorators(node: Function) -> set[str]:
    return {ast.unparse(decorator).partition("(")[0] for decorator in node.decorator_list}


def _members(node: ast.ClassDef, module: str) -> Iterator[Member]:
    """What stands in a class's body, and what its `__init__` sets, if it is public."""
    overloads: dict[str, list[str]] = {}
    for statement in node.body:
        if isinstance(statement, ast.FunctionDef) and "overload" in _decorators(statement):
            signature = _signature(statement, bound=True)
            overloads.setdefault(statement.name, []).append(signature)
    for statement, below in _statements(node.body):
        if isinstance(statement, ast.FunctionDef):
            decorators = _decorators(statement)
            if statement.name == "__init__":
                yield from _attributes(statement, module)
            elif not statement.name.startswith("_") and "overload" not in decorators:
                doc = ast.get_docstring(statement) or ""
                if "property" in decorators:
                    assert statement.returns is not None
                    text = f"{statement.name}: {ast.unparse(statement.returns)}"
                    yield Member(statement.name, "property", module, text, doc, statement)
                else:
                    bound = "staticmethod" not in decorators
                    text = _signature(statement, bound=bound)
                    if statement.name in overloads:  # then it is they that can be called
                        text = "`, `".join(overloads[statement.name])
                    yield Member(statement.name, "method", module, text, doc, statement)
        elif isinstance(target := _target(statement), ast.Name) and not target.id.startswith("_"):
            text = target.id
            if isinstance(statement, ast.AnnAssign):
                text += f": {ast.unparse(statement.annotation)}"
            elif not below:
                continue  # a constant of the class's own, for itself
            yield Member(target.id, "attribute", module, text, below, statement)


def _attributes(node: ast.FunctionDef, module: str) -> Iterator[Member]:
    for statement, below in _statements(node.body):
        target = _target(statement)
        if (
            isinstance(target, ast.Attribute)
            and isinstance(target.value, ast.Name)
            and target.value.id == "self"
            and not target.attr.startswith("_")
            and isinstance(statement, ast.AnnAssign)
        ):
            text = f"{target.attr}: {ast.unparse(statement.annotation)}"
            yield Member(target.attr, "attribute", module, text, below, statement)


def _class_text(name: str, value: type, node: ast.ClassDef) -> str:
    for kind in value.__mro__:
        if (kind.__module__, kind.__name__) not in _definitions():
            break
        statement = _definitions()[kind.__module__, kind.__name__][0]
        assert isinstance(statement, ast.ClassDef)
        for inner in statement.body:
            if isinstance(inner, ast.FunctionDef) and inner.name == "__init__":
                return _call(name, _parameters(inner, bound=True))
    if not is_dataclass(value):
        return name
    fields = [ast.unparse(item) for item in node.body if isinstance(item, ast.AnnAssign)]
    if any("kw_only=True" in ast.unparse(decorator) for decorator in node.decorator_list):
        fields.insert(0, "*")
    return _call(name, fields)


def _all_members(value: type) -> list[Member]:
    """Its own, then those of the classes that it comes from, as far as they are of these packages."""
    found: dict[str, Member] = {}
    for kind in value.__mro__:
        definition = _definitions().get((kind.__module__, kind.__name__))
        if definition is not None and isinstance(definition[0], ast.ClassDef):
            for member in _members(definition[0], kind.__module__):
                found.setdefault(member.name, member)
    return list(found.values())


@cache
def entries(package: str) -> list[Entry]:
    """All that `package.__all__` names."""
    found = []
    for name in PACKAGES[package].__all__:
        value = getattr(PACKAGES[package], name)
        module, node, doc, module_doc = _defined(package, name)
        if isinstance(node, ast.ClassDef):
            text = _class_text(name, value, node)
            members = _all_members(value)
            found.append(
                Entry(package, name, "class", module, text, doc, module_doc, node, members)
            )
        elif isinstance(node, ast.FunctionDef):
            result = "" if node.returns is None else ast.unparse(node.returns)
            text = _call(name, _parameters(node, bound=False), result)
            found.append(Entry(package, name, "function", module, text, doc, module_doc, node))
        else:
            annotation = node.annotation if isinstance(node, ast.AnnAssign) else None
            text = name if annotation is None else f"{name}: {ast.unparse(annotation)}"
            found.append(Entry(package, name, "value", module, text, doc, module_doc, node))
    return found


def adapters() -> list[tuple[str, Function]]:
    """The `attach` of each module of `reactor.embed`, by the module's name: they import their hosts."""
    return [
        (module, statement)
        for (module, name), (statement, _, _) in _definitions().items()
        if module.startswith("reactor.embed.") and name == "attach"
        if isinstance(statement, ast.FunctionDef)
    ]


# -- the page ------------------------------------------------------------------------------------


def _first(doc: str) -> str:
    """The first paragraph, on one line."""
    return " ".join(doc.split("\n\n")[0].split())


def _entry_lines(entry: Entry, elsewhere: set[str]) -> Iterator[str]:
    yield f"### {entry.name}"
    yield ""
    if entry.name in elsewhere:
        yield f"See [{entry.name}](#{entry.name.lower()}) of `reactor`."
        yield ""
        return
    if entry.text != entry.name:
        yield "```python"
        yield entry.text
        yield "```"
        yield ""
    yield entry.doc
    yield ""
    listed = [member for member in entry.members if member.doc]
    for member in listed:
        yield f"- `{member.text}`: {_first(member.doc)}"
    if listed:
        yield ""
    if entry.name == "ConnectionState":
        yield "```mermaid"
        yield reactor.diagram()
        yield "```"
        yield ""


def page() -> str:
    """All of docs/api.md."""
    lines = [_INTRODUCTION]
    in_reactor = {entry.name for entry in entries("reactor")}
    for package in PACKAGES:
        doc = inspect.getdoc(PACKAGES[package]) or ""
        names = [f"[{entry.name}](#{entry.name.lower()})" for entry in entries(package)]
        lines += [f"## {package}", "", _first(doc), "", ", ".join(names) + ".", ""]
        for entry in entries(package):
            lines += _entry_lines(entry, set() if package == "reactor" else in_reactor)
        if package == "reactor.embed":
            lines += ["### attach", ""]
            for module, node in adapters():
                doc = ast.get_docstring(node) or ""
                lines.append(f"- `{module}`, `{_signature(node, bound=False)}`: {_first(doc)}")
    return "\n".join(lines).rstrip("\n") + "\n"
