"""Putting defects into the framework: what the simulation must find, or it is worth nothing.

Contents: Edit, Defect, planted, Found, first_found.

A defect is a function of the framework with a few words of it changed. It is compiled under its own file's
name and at its own lines, so that threads are interrupted in it as in the original. One whose words are
no longer there cannot be put in, and says so: then look for its like in what has taken their place.
"""

from __future__ import annotations
import __future__

import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import FunctionType
from typing import Any
from unittest import mock

from reactor.testing import Entry
from tests.simulate.scenario import Run

__all__ = ["Defect", "Edit", "Found", "first_found", "planted"]


@dataclass(frozen=True, slots=True)
class Edit:
    """In the function `where`, as "module:Class.function", `old`, which is there once, becomes `new`."""

    where: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Defect:
    """What is wrong, and what makes it so."""

    name: str
    edits: tuple[Edit, ...]


@contextmanager
def planted(defect: Defect) -> Iterator[None]:
    """It is in the framework while the block runs. Raises LookupError where it cannot be put in."""
    with ExitStack() as stack:
        texts: dict[str, str] = {}
        for edit in defect.edits:
            text = texts.get(edit.where) or _source(edit.where)
            if text.count(edit.old) != 1:
                raise LookupError(f"{edit.where} has {text.count(edit.old)} times {edit.old!r}")
            texts[edit.where] = text.replace(edit.old, edit.new)
        for where, text in texts.items():
            owner, name = _owner(where)
            stack.enter_context(mock.patch.object(owner, name, _compiled(where, text)))
        yield


def _owner(where: str) -> tuple[Any, str]:
    module_name, _, path = where.partition(":")
    owner: Any = importlib.import_module(module_name)
    *classes, name = path.split(".")
    for part in classes:
        owner = getattr(owner, part)
    return owner, name


def _function(where: str) -> FunctionType:
    owner, name = _owner(where)
    function = owner.__dict__[name]
    assert isinstance(function, FunctionType)
    return function


def _source(where: str) -> str:
    return textwrap.indent(textwrap.dedent(inspect.getsource(_function(where))), "    ")


def _compiled(where: str, text: str) -> FunctionType:
    original = _function(where)
    # As the body of a block, so that the indentation stays; at the lines where it is in the file.
    lines = original.__code__.co_firstlineno
    code = compile(
        "\n" * (lines - 2) + "if True:\n" + text,
        original.__code__.co_filename,
        "exec",
        flags=__future__.annotations.compiler_flag,
        dont_inherit=True,
    )
    namespace: dict[str, Any] = {}
    exec(code, original.__globals__, namespace)
    made = namespace[original.__name__]
    assert isinstance(made, FunctionType)
    return made


@dataclass(frozen=True, slots=True)
class Found:
    """The first run that has failed, and the trace of it up to there."""

    seed: int
    message: str
    trace: list[Entry]


def first_found(seeds: range) -> Found | None:
    """The first of these seeds whose run fails."""
    for seed in seeds:
        run = Run(seed)
        try:
            run.play()
        except Exception as error:
            # Where an object lies in memory is nothing that a seed decides.
            message = re.sub(r"\b0x[0-9a-f]+", "0x...", f"{type(error).__name__}: {error}")
            return Found(seed, message, run.simulation.trace)
    return None
