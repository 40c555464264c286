"""The front page is true: its code is files that run, its commands and pictures are the real ones."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import reactor
import tao
from tests.examples.support import ROOT, Peer, Program

README = (ROOT / "README.md").read_text(encoding="utf-8")

# A note for tests in a comment, if there is one, then a fenced block.
_BLOCK = re.compile(
    r"(?:^<!-- (?P<note>[^\n]+) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)

PROGRAMS = [
    "tao/examples/readme_chat.py",
    "tao/examples/readme_client.py",
    "tao/examples/readme_embedding.py",
]

COMMANDS = ["try", "test", "bench"]


@dataclass(frozen=True)
class Block:
    """A fenced block of the page, and what is noted before it."""

    note: str | None
    language: str
    text: str


BLOCKS = [
    Block(found["note"], found["language"], found["text"]) for found in _BLOCK.finditer(README)
]


def block(note: str) -> str:
    """The text of the one block with that note."""
    (found,) = [block for block in BLOCKS if block.note == note]
    return found.text


def command(name: str) -> str:
    """A command that the page tells people to type: one line."""
    text = block(f"command: {name}")
    assert text.count("\n") == 1
    return text.rstrip("\n")


def python_arguments(text: str) -> list[str]:
    """What the virtual environment's Python is given at the end of a command."""
    found = re.search(r"\.venv/bin/python (-m [\w. ]+)$", text)
    assert found is not None, text
    return shlex.split(found[1])


def test_every_block_is_one_that_a_test_knows() -> None:
    assert README.count("\n```") == 2 * len(BLOCKS)
    expected = [f"file: {name}" for name in PROGRAMS] + [f"command: {name}" for name in COMMANDS]
    noted = [block.note for block in BLOCKS if block.language != "text"]
    assert sorted(map(str, noted)) == sorted([*expected, "diagram"])


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_code_is_the_file(name: str) -> None:
    assert block(f"file: {name}") == (ROOT / name).read_text(encoding="utf-8")


def test_the_diagram_is_the_generated_one() -> None:
    assert block("diagram") == reactor.diagram() + "\n"


def test_the_chat_server_is_short() -> None:
    assert len(block("file: tao/examples/readme_chat.py").splitlines()) <= 50


def printed(name: str, folder: Path) -> Path:
    """A program copied from the page into an empty folder, as a reader would."""
    path = folder / Path(name).name
    path.write_text(block(f"file: {name}"), encoding="utf-8")
    return path


@pytest.mark.skipif(sys.platform == "win32", reason="ends the server by a signal")
def test_the_chat_server_passes_on_what_plain_sockets_say(tmp_path: Path) -> None:
    path = printed("tao/examples/readme_chat.py", tmp_path)
    with Program([str(path), "0"], cwd=tmp_path) as server:
        address = server.address()
        with Peer(address) as first, Peer(address) as second:
            # Whoever came first is in the room when the second is heard.
            second.send(1, b"hello")
            assert first.receive() == (1, b"hello")
            first.send(1, "Grüße".encode())
            assert second.receive() == (1, "Grüße".encode())
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert server.errors == ""


@pytest.mark.skipif(sys.platform == "win32", reason="ends the server by a signal")
def test_the_client_talks_to_the_chat_server(tmp_path: Path) -> None:
    server_path = printed("tao/examples/readme_chat.py", tmp_path)
    client_path = printed("tao/examples/readme_client.py", tmp_path)
    with Program([str(server_path), "0"], cwd=tmp_path) as server:
        address = server.address()
        with Peer(address) as peer, Program([str(client_path), str(address[1])]) as client:
            client.enter("Is anybody here?\n")
            assert peer.receive() == (1, b"Is anybody here?")
            peer.send(1, b"I am.")
            client.wait_for(r"^I am\.\n")
            client.end_input()
            assert client.wait() == 0
            assert client.errors == ""
        server.signal(signal.SIGINT)
        assert server.wait() == 0
        assert server.errors == ""


@pytest.mark.skipif(sys.platform == "win32", reason="selectors takes only sockets there")
def test_the_server_runs_in_a_loop_of_ones_own(tmp_path: Path) -> None:
    path = printed("tao/examples/readme_embedding.py", tmp_path)
    with Program([str(path)], cwd=tmp_path) as program:
        with Peer(program.address()) as peer:
            for value in (b"one", b"two"):
                peer.send(1, value)
                assert peer.receive() == (1, value)
            program.enter("\n")
            assert peer.at_end()
        assert program.wait() == 0
        assert program.errors == ""


def test_the_command_to_try_it_works() -> None:
    arguments = python_arguments(command("try"))
    assert arguments == ["-m", "tao.examples.chat", "demo"]
    with Program(arguments) as program:
        assert program.wait() == 0
        assert " says: " in program.output
        assert " hears: " in program.output


def test_the_commands_need_nothing_but_python() -> None:
    for name in ("try", "test"):
        assert command(name).startswith("python3 -m venv .venv && .venv/bin/pip install ")
    assert python_arguments(command("test")) == ["-m", "pytest"]


def test_the_benchmark_is_there() -> None:
    arguments = python_arguments(command("bench"))
    result = subprocess.run(
        [sys.executable, *arguments, "--help"], cwd=ROOT, capture_output=True, check=False
    )
    assert result.returncode == 0
    assert README.count("\n<!-- bench -->\n") == 1


def test_continuous_integration_takes_its_commands_from_the_page() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for name in ("try", "test"):
        assert f"readme_command {name}" in script
    assert "pytest" not in script
    assert "tao.examples" not in script


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    for link in links:
        assert (ROOT / link).exists(), link


def test_the_names_on_the_page_are_public() -> None:
    named = set(re.findall(r"`(?:tao\.|reactor\.)?([A-Z][a-z]+[A-Z]\w+)\b", README))
    assert {"MessageRegistry", "ConnectionClosedError", "CloseReason"} <= named
    builtin = {"ValueError", "TypeError"}
    unknown = named - set(tao.__all__) - set(reactor.__all__) - builtin
    assert not unknown
