"""The table of states: every pair of a state and an event, generated from the table itself."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import reactor
import tao
from reactor import (
    TRANSITIONS,
    ConnectionEvent,
    ConnectionState,
    IllegalTransitionError,
    StateMachine,
    diagram,
)

PAIRS = [(state, event) for state in ConnectionState for event in ConnectionEvent]
LEGAL = [(state, event) for state, event in PAIRS if event in TRANSITIONS[state]]
ILLEGAL = [pair for pair in PAIRS if pair not in LEGAL]


def _name(value: object) -> str:
    return str(value)


def test_every_state_has_a_row() -> None:
    assert set(TRANSITIONS) == set(ConnectionState)


@pytest.mark.parametrize(("state", "event"), LEGAL, ids=_name)
def test_a_legal_event_moves(state: ConnectionState, event: ConnectionEvent) -> None:
    machine = StateMachine(state)

    assert machine.accepts(event)
    assert machine.change_state(event) is TRANSITIONS[state][event]
    assert machine.state is TRANSITIONS[state][event]


@pytest.mark.parametrize(("state", "event"), ILLEGAL, ids=_name)
def test_an_illegal_event_raises_and_changes_nothing(
    state: ConnectionState, event: ConnectionEvent
) -> None:
    machine = StateMachine(state)

    assert not machine.accepts(event)
    with pytest.raises(IllegalTransitionError) as caught:
        machine.change_state(event)
    assert machine.state is state
    assert (caught.value.state, caught.value.event) == (state, event)
    assert str(state) in str(caught.value)
    assert str(event) in str(caught.value)


def test_closed_is_final() -> None:
    assert not TRANSITIONS[ConnectionState.CLOSED]


def test_every_state_can_be_reached_and_can_end() -> None:
    reached = {ConnectionState.CONNECTING}
    while new := {to for state in reached for to in TRANSITIONS[state].values()} - reached:
        reached |= new
    assert reached == set(ConnectionState)

    for state in set(ConnectionState) - {ConnectionState.CLOSED}:
        assert ConnectionState.CLOSED in TRANSITIONS[state].values(), f"no end to {state}"


def test_every_event_happens_somewhere() -> None:
    assert {event for _, event in LEGAL} == set(ConnectionEvent)


@pytest.mark.parametrize("event", [ConnectionEvent.ABORT, ConnectionEvent.FAIL], ids=_name)
def test_abort_and_fail_end_whatever_has_not_ended(event: ConnectionEvent) -> None:
    for state in set(ConnectionState) - {ConnectionState.CLOSED}:
        assert TRANSITIONS[state][event] is ConnectionState.CLOSED


def test_the_table_cannot_be_written() -> None:
    table: Any = TRANSITIONS
    with pytest.raises(TypeError):
        table[ConnectionState.CLOSED] = {}
    with pytest.raises(TypeError):
        table[ConnectionState.CLOSED][ConnectionEvent.CLOSE] = ConnectionState.OPEN


def test_the_diagram_names_each_arrow() -> None:
    first, *lines = diagram().splitlines()
    assert first == "stateDiagram-v2"

    drawn = set()
    ends = []
    for line in lines:
        arrow, _, events = line.strip().partition(": ")
        source, target = arrow.split(" --> ")
        if "[*]" in (source, target):
            ends.append((source, target))
        else:
            drawn |= {(source, event, target) for event in events.split(", ")}

    assert ends == [("[*]", "CONNECTING"), ("CLOSED", "[*]")]
    assert drawn == {(str(s), str(e), str(TRANSITIONS[s][e])) for s, e in LEGAL}


# -- nobody else writes a state ------------------------------------------------------------------


class _StateWrites(ast.NodeVisitor):
    """Finds assignments to an attribute `state`, and what class each stands in."""

    def __init__(self) -> None:
        self.found: list[tuple[str, int]] = []
        self._classes: list[str] = []

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._classes.append(node.name)
        self.generic_visit(node)
        self._classes.pop()

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if node.attr == "state" and isinstance(node.ctx, ast.Store | ast.Del):
            self.found.append((".".join(self._classes), node.lineno))
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        writers = ("setattr", "__setattr__")
        called = getattr(node.func, "id", None) or getattr(node.func, "attr", None)
        if called in writers and any(
            isinstance(argument, ast.Constant) and argument.value == "state"
            for argument in node.args
        ):
            self.found.append((".".join(self._classes), node.lineno))
        self.generic_visit(node)


def _sources() -> Iterator[Path]:
    for package in (reactor, tao):
        assert package.__file__ is not None
        yield from sorted(Path(package.__file__).parent.rglob("*.py"))


def _writes_in(source: str) -> list[tuple[str, int]]:
    finder = _StateWrites()
    finder.visit(ast.parse(source))
    return finder.found


def test_only_the_state_machine_writes_a_state() -> None:
    elsewhere = {
        (path.name, owner)
        for path in _sources()
        for owner, _ in _writes_in(path.read_text("utf-8"))
    }
    assert elsewhere == {
        ("state.py", "StateMachine"),
        ("errors.py", "IllegalTransitionError"),  # its own, about the machine that refused
    }


@pytest.mark.parametrize(
    "source",
    ["m.state = x", "a.m.state, b = x", "setattr(m, 'state', x)", "del m.state", "m.state += 1"],
)
def test_the_search_for_writes_finds_them(source: str) -> None:
    assert _writes_in(source) == [("", 1)]
