"""Every public name says what it means, in which units, on which thread, and what it raises."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.docs.api import PACKAGES, Entry, Function, adapters, entries

ENTRIES = {
    f"{package}.{entry.name}": entry
    for package in PACKAGES
    for entry in entries(package)
    if package != "tao" or not entry.module.startswith("reactor.")
}

MEMBERS = {
    f"{name}.{member.name}": (entry, member)
    for name, entry in ENTRIES.items()
    for member in entry.members
    if "TypedDict"
    not in ast.unparse(entry.node).partition(":")[0]  # whose keys another class explains
}

FUNCTIONS = {name: entry for name, entry in ENTRIES.items() if entry.kind == "function"}

TIMES = {"timeout", "interval", "delay", "when", "seconds", "grace", "deadline", "now", "stable"}
"""Names of parameters and attributes that are times."""

SECONDS = re.compile(r"\bseconds?\b|Unix time|\d s\b", re.IGNORECASE)

SIZES = {"size", "max_size", "max_length", "limit", "pending"}
BYTES = re.compile(r"\bbytes?\b|\bmessages?\b", re.IGNORECASE)

VALUES = {"Enum", "Exception", "Protocol", "TypedDict"}


def words(text: str) -> list[str]:
    return re.findall(r"[A-Za-z]+", text)


def check_meaning(name: str, doc: str) -> None:
    """It is a text of its own, and says more than the name does."""
    assert doc, f"{name} has no docstring"
    first = doc.split("\n\n")[0].strip()
    assert first[-1] in ".:", f"{name}: {first!r} is no sentence"
    assert (
        first[0].isupper() or first[0] in "`(0123456789" or first.startswith(("getaddrinfo", "tao"))
    ), f"{name}: {first!r} does not begin like a sentence"
    said = {word.lower() for word in words(first)}
    named = {part.lower() for part in re.findall(r"[A-Z]?[a-z]+", name.rpartition(".")[2])}
    assert said - named - {"the", "a", "an", "of", "it", "is", "this"}, (
        f"{name}: {first!r} says nothing"
    )


@pytest.mark.parametrize("name", ENTRIES)
def test_what_is_public_says_what_it_is(name: str) -> None:
    check_meaning(name, ENTRIES[name].doc)


@pytest.mark.parametrize("name", MEMBERS)
def test_what_a_class_has_says_what_it_is(name: str) -> None:
    entry, member = MEMBERS[name]
    if member.kind == "attribute" and not member.doc:
        # Then the class's own text has it, by its name.
        assert re.search(rf"\b{member.name}\b", entry.doc), f"{name} is not described"
    else:
        check_meaning(name, member.doc)


@pytest.mark.parametrize(("module", "node"), adapters(), ids=[module for module, _ in adapters()])
def test_what_attaches_says_how(module: str, node: Function) -> None:
    doc = ast.get_docstring(node) or ""
    check_meaning(module, doc)
    assert "Raises" in doc
    words_of_threads = ("thread", "loop's")
    assert any(word in doc for word in words_of_threads), f"{module}: on which thread?"


def functions() -> Iterator[tuple[str, Function, str]]:
    """Each public function and method, with all that is said of it."""
    for name, entry in FUNCTIONS.items():
        assert isinstance(entry.node, ast.FunctionDef)
        yield name, entry.node, entry.doc
    for name, (entry, member) in MEMBERS.items():
        if isinstance(member.node, ast.FunctionDef):
            yield name, member.node, f"{member.doc}\n{entry.doc}"
    for name, entry in ENTRIES.items():
        if isinstance(entry.node, ast.ClassDef):
            for statement in entry.node.body:
                if isinstance(statement, ast.FunctionDef) and statement.name in (
                    "__init__",
                    "__post_init__",
                ):
                    yield f"{name}.{statement.name}", statement, entry.doc


ALL_FUNCTIONS = {name: (node, said) for name, node, said in functions()}


def parameters(node: Function) -> set[str]:
    arguments = node.args
    return {each.arg for each in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]}


REFERENCE = re.compile(r"\b[Ss]ee `?\w+|\bAs `|`default_registry\.register`|Raises as")
"""Who says where the rest is said need not say it again."""


@pytest.mark.parametrize("name", ALL_FUNCTIONS)
def test_times_and_sizes_have_units(name: str) -> None:
    node, said = ALL_FUNCTIONS[name]
    if REFERENCE.search(said):
        return
    named = parameters(node)
    if named & TIMES and "float" in ast.unparse(node.args):
        assert SECONDS.search(said), f"{name}({', '.join(sorted(named & TIMES))}): in which unit?"
    if named & SIZES and "int" in ast.unparse(node.args):
        assert BYTES.search(said), f"{name}({', '.join(sorted(named & SIZES))}): in which unit?"


@pytest.mark.parametrize(
    "name", [name for name, (_, member) in MEMBERS.items() if member.kind != "method"]
)
def test_attributes_that_are_times_have_units(name: str) -> None:
    entry, member = MEMBERS[name]
    if member.text.endswith((": float", ": float | None")):
        texts = f"{member.doc}\n{entry.doc}"
        rate = re.search(r"per second|share|factor|probabilit|[Tt]hat ", texts)
        assert SECONDS.search(texts) or rate, f"{name}: in which unit?"


def raised(node: Function) -> set[str]:
    """The names of the exceptions that its own body raises."""
    found = set()
    for statement in ast.walk(node):
        if isinstance(statement, ast.Raise) and statement.exc is not None:
            error = statement.exc.func if isinstance(statement.exc, ast.Call) else statement.exc
            if isinstance(error, ast.Name) and error.id.endswith("Error"):
                found.add(error.id)
    return found - {"AssertionError"}


@pytest.mark.parametrize("name", ALL_FUNCTIONS)
def test_what_is_raised_is_said(name: str) -> None:
    node, said = ALL_FUNCTIONS[name]
    missing = {error for error in raised(node) if error not in said}
    assert not missing or REFERENCE.search(said), f"{name} does not say that it raises {missing}"


def is_value(entry: Entry) -> bool:
    """An enumeration, an exception, a type, or a dataclass that is frozen: of no thread."""
    assert isinstance(entry.node, ast.ClassDef)
    bases = {ast.unparse(base).partition("[")[0] for base in entry.node.bases}
    return (
        bool(bases & VALUES)
        or any(base.endswith(("Error", "Enum", "Tuple")) for base in bases)
        or any("frozen=True" in ast.unparse(each) for each in entry.node.decorator_list)
    )


@pytest.mark.parametrize(
    "name",
    [name for name, entry in ENTRIES.items() if entry.kind == "class" and not is_value(entry)],
)
def test_a_class_says_which_threads_may_use_it(name: str) -> None:
    entry = ENTRIES[name]
    texts = [entry.module_doc, entry.doc, *(member.doc for member in entry.members)]
    assert any("thread" in text.lower() for text in texts), (
        f"{name} does not say for which threads it is"
    )


def test_the_tests_see_what_is_there() -> None:
    """They would pass if they found nothing."""
    assert len(ENTRIES) > 80
    assert len(MEMBERS) > 300
    assert {"tao.Server.listen", "tao.register", "reactor.Reactor.run"} <= set(ALL_FUNCTIONS)
    assert raised(ALL_FUNCTIONS["tao.Server.stop"][0]) == {"ValueError"}


@pytest.mark.parametrize("doc", ["", "close", "Close.", "The close of it.", "closes this."])
def test_a_text_without_meaning_is_found(doc: str) -> None:
    with pytest.raises(AssertionError):
        check_meaning("tao.Server.close", doc)
