"""No Any in a public signature: whatever goes in or comes out has a type."""

from __future__ import annotations

import ast
import importlib
import inspect
import typing
from collections.abc import Iterator

import pytest

import tao
from tao.testing import ClientArguments, ServerArguments
from tests.docs.api import PACKAGES, Function, entries


def mentions_any(kind: object) -> bool:
    """Any itself, or something with Any in it, however deep."""
    if kind is typing.Any:
        return True
    if isinstance(kind, list | tuple):
        return any(map(mentions_any, kind))
    if isinstance(kind, typing.ForwardRef):
        return "Any" in kind.__forward_arg__
    if isinstance(kind, typing.TypeVar):
        return mentions_any(kind.__bound__)
    return any(map(mentions_any, typing.get_args(kind)))


def annotations_of(node: ast.AST) -> Iterator[str]:
    """Those of a function's parameters and result, or of an attribute."""
    if isinstance(node, Function):
        arguments = node.args
        for argument in (
            *arguments.posonlyargs,
            *arguments.args,
            *arguments.kwonlyargs,
            *filter(None, (arguments.vararg, arguments.kwarg)),
        ):
            if argument.annotation is not None:
                yield ast.unparse(argument.annotation)
        if node.returns is not None:
            yield ast.unparse(node.returns)
    elif isinstance(node, ast.AnnAssign):
        yield ast.unparse(node.annotation)


def signatures() -> Iterator[tuple[str, str, str]]:
    """By name: the module in whose words each annotation is written, and the annotation."""
    for package in PACKAGES:
        for entry in entries(package):
            nodes = [(entry.name, entry.module, entry.node)]
            if isinstance(entry.node, ast.ClassDef):
                for member in entry.members:
                    name = f"{entry.name}.{member.name}"
                    nodes.append((name, member.module, member.node))
                for statement in entry.node.body:
                    overloaded = isinstance(statement, Function) and statement.name[0] != "_"
                    if overloaded or getattr(statement, "name", "") == "__init__":
                        nodes.append((f"{entry.name}.init", entry.module, statement))
            for name, module, node in nodes:
                for annotation in annotations_of(node):
                    yield f"{package}.{name}", module, annotation


SIGNATURES = sorted(set(signatures()))


@pytest.mark.parametrize(("name", "module", "annotation"), SIGNATURES)
def test_no_signature_has_any(name: str, module: str, annotation: str) -> None:
    """With what the names in it stand for."""
    words = {**vars(typing), **vars(importlib.import_module(module))}
    words["staticmethod"] = (
        typing.Callable
    )  # which it is to a type checker, and cannot be written so
    kind = eval(annotation.lstrip("*"), words)
    assert not mentions_any(kind), f"{name}: {annotation}"


def test_the_search_for_any_finds_it() -> None:
    assert mentions_any(typing.Any)
    assert mentions_any(dict[str, list[typing.Any]])
    assert mentions_any(typing.Callable[[int, typing.Any], None])
    assert mentions_any(typing.TypeVar("T", bound=list[typing.Any]))
    assert not mentions_any(dict[str, list[object]])
    assert len(SIGNATURES) > 500


@pytest.mark.parametrize(
    ("owner", "arguments", "seen_to"),
    [
        (tao.Server, ServerArguments, {"worker_size", "executor", "reactor"}),
        (tao.ClientConn, ClientArguments, {"address", "executor", "reactor"}),
    ],
)
def test_a_simulation_passes_on_all_arguments(
    owner: type, arguments: type, seen_to: set[str]
) -> None:
    """With the types that they have there."""
    expected = {
        name: parameter.annotation
        for name, parameter in inspect.signature(owner).parameters.items()
        if name not in seen_to
    }
    found = {
        name: annotation.__forward_arg__ for name, annotation in arguments.__annotations__.items()
    }
    assert found == expected
