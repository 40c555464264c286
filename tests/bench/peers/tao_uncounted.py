"""Echo by the framework with its counting cut out: what it costs to count.

The framework has no switch for that, and needs none. Here the methods that a message passes through are
compiled again without the statements that count, and without the samples of how long handlers take;
all else in them stays as it is written. The program ends with an error where a counter is not
found: then the framework has changed, and this list has to follow it.
"""

import __future__

import ast
import inspect
import textwrap
from collections.abc import Callable
from types import FunctionType
from typing import Any

from reactor import Connection, Reactor
from tao.session import Session
from tests.bench.peers import tao_server

COUNTERS = {
    # messages and their handlers
    "messages_in",
    "handled",
    # bytes
    "bytes_received",
    "bytes_sent",
    # what the loop has done, and how long its last pass took
    "_events",
    "_fired",
    "_callbacks",
    "pass_seconds",
}
# A conditional expression with this in its condition asks whether handlers are to be timed now.
SAMPLING = "SAMPLING_MASK"
COUNTING: tuple[type[Any], ...] = (Session, Connection, Reactor)


class Cutter(ast.NodeTransformer):
    """Takes the counting out of a syntax tree; `found` is what it has met."""

    def __init__(self) -> None:
        self.found: set[str] = set()

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        return self._without(node, node.target)

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        if len(node.targets) == 1:
            return self._without(node, node.targets[0])
        return self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        if any(isinstance(part, ast.Name) and part.id == SAMPLING for part in ast.walk(node.test)):
            self.found.add(SAMPLING)
            return node.body  # not now
        return self.generic_visit(node)

    def _without(self, node: ast.stmt, target: ast.expr) -> ast.AST:
        if isinstance(target, ast.Attribute) and target.attr in COUNTERS:
            self.found.add(target.attr)
            return ast.copy_location(ast.Pass(), node)
        return self.generic_visit(node)


def without_counting(function: FunctionType) -> tuple[Callable[..., Any], set[str]]:
    """The function compiled again, and what was found in it; itself where that is nothing."""
    cutter = Cutter()
    tree = cutter.visit(ast.parse(textwrap.dedent(inspect.getsource(function))))
    if not cutter.found:
        return function, cutter.found
    if function.__code__.co_freevars:
        raise SystemExit(f"{function.__qualname__} is a closure: it cannot be compiled on its own")
    ast.increment_lineno(tree, function.__code__.co_firstlineno - 1)  # for tracebacks
    # As it was compiled: its annotations are not for evaluating.
    flags = __future__.annotations.compiler_flag
    code = compile(tree, inspect.getfile(function), "exec", flags, dont_inherit=True)
    names: dict[str, Any] = {}
    exec(code, function.__globals__, names)
    return names[function.__name__], cutter.found


def cut_counting() -> None:
    """In the classes themselves, for all of this process. Ends it when a counter is nowhere."""
    found: set[str] = set()
    for owner in COUNTING:
        for name, member in list(vars(owner).items()):
            # What a counter begins with is no counting.
            if isinstance(member, FunctionType) and name != "__init__":
                function, cut = without_counting(member)
                setattr(owner, name, function)
                found |= cut
    missing = (COUNTERS | {SAMPLING}) - found
    if missing:
        raise SystemExit(f"no longer counted, or elsewhere: {', '.join(sorted(missing))}")


def main() -> None:
    cut_counting()
    tao_server.main()


if __name__ == "__main__":
    main()
