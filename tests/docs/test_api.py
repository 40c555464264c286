"""The page of the API is the one that the code makes."""

from __future__ import annotations

import reactor
from tests.docs.api import PACKAGES, PAGE, adapters, entries, page
from tests.examples.support import ROOT


def test_the_page_is_in_step_with_the_code() -> None:
    assert PAGE.read_text("utf-8") == page(), "run python -m tests.docs, and commit docs/api.md"


def test_all_public_names_are_on_it() -> None:
    headings = [line[4:] for line in page().splitlines() if line.startswith("### ")]
    names = [name for package in PACKAGES.values() for name in package.__all__]
    assert headings == [*names, "attach"]  # the adapters, each in a module of its own
    assert {"reactor.embed.asyncio", "reactor.embed.frames"} <= {module for module, _ in adapters()}


def test_what_it_shows_can_be_found() -> None:
    """Of a method, a property and an attribute, one each, as they were written."""
    lines = page().splitlines()
    assert "- `connection(net_id: int) -> ServerConn`: The connection with that id." in "\n".join(
        lines
    )
    assert any(
        line.startswith("- `connection_count: int`: Connections that there") for line in lines
    )
    assert any(
        line.startswith("- `drained: int`: Connections that ended in good") for line in lines
    )
    wait_closed = (
        "- `wait_closed(timeout: None=None) -> CloseReason`, `wait_closed(timeout: float) -> "
    )
    assert any(line.startswith(wait_closed.replace("None=None", "None = None")) for line in lines)


def test_the_states_are_drawn_on_it() -> None:
    assert f"```mermaid\n{reactor.diagram()}\n```" in page()


def test_every_class_is_found_with_its_members() -> None:
    members = {entry.name: {each.name for each in entry.members} for entry in entries("tao")}
    assert {"write", "run_every", "remote_address", "net_id"} <= members["ServerConn"]
    assert {"wait_connected", "set_context_value", "name"} <= members["ClientConn"]
    assert {"message", "value", "remaining"} <= members["Context"]


def test_the_front_page_leads_to_it() -> None:
    assert "(docs/api.md)" in (ROOT / "README.md").read_text("utf-8")
