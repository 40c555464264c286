"""The front page is true: its code is files that run, its commands and pictures are the real ones."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import logging
import operator
import re
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import reactor
import reactor.embed.asyncio
import tao
import tao.cli
import tao.testing
from tao.budget import default_memory_limit
from tests.examples.support import DEADLINE, ROOT, Peer, Program, example
from tests.pictures import PICTURES
from tests.redis_support import RedisServer, needs_redis
from tests.support import frame
from tests.tao.cli.support import serving
from tests.test_layering import IMPORTS
from tests.tls_support import Certificates, peer_context, shake_hands

README = (ROOT / "README.md").read_text(encoding="utf-8")

# A note for tests in a comment, if there is one, then a fenced block.
_BLOCK = re.compile(
    r"(?:^<!-- (?P<note>[^\n]+) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)

PROGRAMS = [
    "tao/examples/in_asyncio.py",
    "tao/examples/readme_addresses.py",
    "tao/examples/readme_asyncio.py",
    "tao/examples/readme_chat.py",
    "tao/examples/readme_client.py",
    "tao/examples/readme_cluster.py",
    "tao/examples/readme_embedding.py",
    "tao/examples/readme_from_asyncio.py",
    "tao/examples/readme_monitor.py",
    "tao/examples/readme_protocol.py",
    "tao/examples/readme_serve.py",
    "tao/examples/readme_testing.py",
    "tao/examples/readme_tls.py",
]

COMMANDS = ["try", "test", "serve", "send", "load", "bench", "certificate", "hosts"]


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
    assert sorted(map(str, noted)) == sorted([*expected, "diagram", "layers"])


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_code_is_the_file(name: str) -> None:
    assert block(f"file: {name}") == (ROOT / name).read_text(encoding="utf-8")


def test_the_diagram_is_the_generated_one() -> None:
    assert block("diagram") == reactor.diagram() + "\n"


def test_the_chat_server_is_short() -> None:
    assert len(block("file: tao/examples/readme_chat.py").splitlines()) <= 50


def test_the_tls_program_is_short() -> None:
    assert len(block("file: tao/examples/readme_tls.py").splitlines()) < 40


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


@needs_redis
def test_two_chat_servers_are_one_chat(tmp_path: Path) -> None:
    path = printed("tao/examples/readme_cluster.py", tmp_path)
    with RedisServer() as redis:
        arguments = [str(path), "0", redis.url]
        with Program(arguments, cwd=tmp_path) as one, Program(arguments, cwd=tmp_path) as two:
            with Peer(one.address()) as first, Peer(two.address()) as second:
                # Who hears itself is in the room.
                for peer, text in ((first, b"I am here."), (second, b"So am I.")):
                    peer.send(1, text)
                    while peer.receive() != (1, text):
                        pass  # what the other has said before
                assert first.receive() == (1, b"So am I.")
                first.send(1, "Grüße".encode())
                assert first.receive() == (1, "Grüße".encode())
                while second.receive() != (1, "Grüße".encode()):
                    pass  # it may have heard what was said before it came
            for server in (one, two):
                server.signal(signal.SIGTERM)
                assert server.wait() == 0
                assert set(server.errors.splitlines()) == {
                    "connected: there is a link to send by",
                    "connected: there is a link to read by",
                }


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


def test_the_program_in_asyncio_awaits_its_replies(tmp_path: Path) -> None:
    path = printed("tao/examples/in_asyncio.py", tmp_path)
    with Program([str(path)], cwd=tmp_path) as program:
        assert program.wait() == 0
        assert program.output.count("The echo says: ") == 3
        assert program.errors == ""


def test_the_tests_of_hosts_are_where_the_command_looks() -> None:
    paths = command("hosts").partition("-m pytest ")[2].split()
    assert len(paths) == 3
    assert all((ROOT / path).exists() for path in paths)


@pytest.mark.parametrize("extra", ["gevent", "glib", "qt", "trio", "twisted", "uvloop", "hosts"])
def test_the_extras_of_hosts_are_there(extra: str) -> None:
    assert re.search(rf"^{extra} = \[", (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    assert f"`{extra}`" in README or f",{extra}]" in README


def test_the_test_of_a_server_passes(tmp_path: Path) -> None:
    path = printed("tao/examples/readme_testing.py", tmp_path)
    with Program([str(path)], cwd=tmp_path) as program:
        assert program.wait() == 0
        assert program.output == "a hundred seeds have passed\n"
        assert program.errors == ""


@pytest.mark.skipif(sys.platform == "win32", reason="ends the server by a signal")
def test_the_protocol_of_ones_own_is_spoken(tmp_path: Path) -> None:
    path = printed("tao/examples/readme_protocol.py", tmp_path)
    with Program([str(path), "0"], cwd=tmp_path) as server:
        address = server.address()
        with Peer(address) as peer, Peer(address) as other:
            for sensor, value, mean in [(1, 2.0, (1, 2.0)), (2, 9.0, (1, 9.0)), (1, 4.0, (2, 3.0))]:
                peer.send(10, struct.pack("<Hd", sensor, value))
                assert peer.receive() == (11, struct.pack("<Id", *mean))
            other.send(10, struct.pack("<Hd", 1, 5.0))  # each has its own
            assert other.receive() == (11, struct.pack("<Id", 1, 5.0))
            other.send(10, b"too short")
            assert other.at_end()
            peer.send(10, bytes(11))  # too long
            assert peer.at_end()
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert "FrameTooLargeError" not in server.output


@pytest.mark.skipif(sys.platform == "win32", reason="ends the server by a signal")
def test_the_monitored_server_can_be_watched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = printed("tao/examples/readme_monitor.py", tmp_path)
    with Program([str(path), "0", "0"], cwd=tmp_path) as server:
        address = server.address()
        port = server.wait_for(r"watched at (\d+)")[1]
        with Peer(address) as peer:
            peer.send(1, b"hello")
            assert peer.receive() == (1, b"hello")
            assert tao.cli.main(["monitor", f"127.0.0.1:{port}", "--once"]) == 0
            text = capsys.readouterr().out
            assert text.startswith("echo  up ")
            assert "OPEN" in text
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert server.errors == ""


def test_the_pictures_of_the_monitor_are_there_and_small() -> None:
    shown = re.findall(r"(?:src|srcset)=\"(docs/[^\"]+)\"", README)
    assert shown == [f"docs/{name}" for name in reversed(PICTURES)]
    for name in shown:
        data = (ROOT / name).read_bytes()
        assert data.startswith(b"\x89PNG")
        assert len(data) < 200_000


@pytest.mark.skipif(sys.platform == "win32", reason="ends the server by a signal")
@pytest.mark.parametrize("name", ["readme_asyncio", "readme_from_asyncio"])
def test_the_two_servers_side_by_side_do_the_same(name: str, tmp_path: Path) -> None:
    path = printed(f"tao/examples/{name}.py", tmp_path)
    texts = ["hello", "", "Grüße", "x" * 1000]
    requests = b"".join(len(text.encode()).to_bytes(4, "big") + text.encode() for text in texts)
    replies = b"".join(
        len(text.upper().encode()).to_bytes(4, "big") + text.upper().encode() for text in texts
    )
    with Program([str(path), "0"], cwd=tmp_path) as server:
        address = server.address()
        with socket.create_connection(address, timeout=DEADLINE) as peer:
            for start in range(0, len(requests), 7):
                peer.sendall(requests[start : start + 7])
            received = b""
            while len(received) < len(replies):
                received += peer.recv(4096)
            assert received == replies
            peer.sendall((1001).to_bytes(4, "big"))  # too long
            assert peer.recv(1) == b""
        server.signal(signal.SIGTERM)
        server.wait()


def test_the_table_for_those_who_come_from_asyncio_is_of_what_there_is() -> None:
    """What stands on its left is asyncio's, and is spelt as there."""
    start = README.index("| with asyncio | here |")
    rows = README[start:].split("\n\n", 1)[0].splitlines()[2:]
    names = {name for row in rows for name in re.findall(r"asyncio((?:\.\w+)+)", row)}
    assert len(names) >= 8
    for name in names:
        assert operator.attrgetter(name[1:])(asyncio)


# -- addresses -----------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="has Unix sockets, and ends by a signal")
def test_the_server_at_every_address_says_who_calls(tmp_path: Path) -> None:
    path = printed("tao/examples/readme_addresses.py", tmp_path)
    arguments = ["127.0.0.1:0", "proxied:127.0.0.1:0", "unix:who"]
    with Program([str(path), *arguments], cwd=tmp_path) as server:
        server.wait_for("listening on who\n")
        ports = [int(port) for port in re.findall(r":(\d+)\n", server.output)]
        plain, proxied = (("127.0.0.1", port) for port in ports)
        with Peer(plain) as peer:
            peer.send(1, b"")
            number, name = peer.receive()
            assert (number, name[:10]) == (1, b"127.0.0.1:")
        with socket.create_connection(proxied, DEADLINE) as sock:
            sock.sendall(b"PROXY TCP4 203.0.113.7 192.0.2.1 56324 443\r\n" + frame(1))
            assert sock.recv(100) == frame(1, b"203.0.113.7:56324")
        with example("echo", "client", "--address", f"unix:{tmp_path / 'who'}") as client:
            client.enter("\n")
            client.wait_for("unix:who\n")
            client.end_input()
            assert client.wait() == 0
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert server.errors == ""
    assert not (tmp_path / "who").exists()


# -- TLS -----------------------------------------------------------------------------------------


def tls_program(path: Path, *arguments: str | Path) -> Program:
    return Program([str(path), *map(str, arguments)], cwd=path.parent)


@pytest.mark.skipif(sys.platform == "win32", reason="ends the server by a signal")
def test_the_tls_client_comes_back_to_a_server_that_was_gone(tmp_path: Path) -> None:
    path = printed("tao/examples/readme_tls.py", tmp_path)
    certificates = Certificates(tmp_path)
    key, certificate = certificates.key_and_certificate("127.0.0.1")
    with tls_program(path, "serve", "0", certificate, key) as server:
        port = str(server.address()[1])
        with tls_program(path, "talk", port, certificates.ca_file) as client:
            client.enter("one\n")
            client.wait_for("one")
            server.signal(signal.SIGTERM)
            assert server.wait() == 0
            assert server.errors == ""
            client.wait_for(r"closed by the peer\n")
            client.enter("two\n")  # while nobody listens
            with tls_program(path, "serve", port, certificate, key) as second:
                client.wait_for("two")
                client.enter("three\n")
                client.wait_for("three")
                client.end_input()
                assert client.wait() == 0
                assert client.output.count("closed by the peer") == 1
                assert client.output.endswith("closed by this side\n")
                second.signal(signal.SIGTERM)
                assert second.wait() == 0
                assert second.errors == ""


@pytest.mark.skipif(sys.platform == "win32", reason="ends the server by a signal")
def test_the_tls_server_speaks_tls_and_nothing_else(tmp_path: Path) -> None:
    path = printed("tao/examples/readme_tls.py", tmp_path)
    certificates = Certificates(tmp_path)
    key, certificate = certificates.key_and_certificate("localhost")
    with tls_program(path, "serve", "0", certificate, key) as server:
        address = server.address()
        with Peer(address) as plain:
            plain.send(1, b"hello")
            with pytest.raises((AssertionError, ConnectionError)):
                plain.receive()
        with shake_hands(address, peer_context(certificates)) as peer:
            peer.send_frame(1, b"hello")
            assert peer.receive_frame() == (1, b"hello")
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the program openssl")
def test_the_command_for_a_certificate_makes_one(tmp_path: Path) -> None:
    arguments = shlex.split(command("certificate"))
    subprocess.run(arguments, cwd=tmp_path, check=True, capture_output=True, timeout=60)
    files = ["cert.pem", "key.pem"]
    assert sorted(path.name for path in tmp_path.iterdir()) == files
    server_tls = tao.load_server_tls(*(tmp_path / name for name in files))
    registry = tao.MessageRegistry()
    with (
        tao.Server(registry=registry, tls=server_tls).running(("127.0.0.1", 0)) as address,
        tao.ClientConn(address, registry=registry, tls=tao.load_client_tls(tmp_path / files[0])),
    ):
        pass  # it is trusted, and made out to this address
    serve, talk = re.findall(r"`python -m tao\.examples\.readme_tls (\w+ \d+ [^`]+)`", README)
    assert serve.split()[0::2] == ["serve", "cert.pem"]
    assert serve.split()[2:] == files
    assert talk.split() == ["talk", serve.split()[1], "cert.pem"]


# -- commands ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["send", "load"])
def test_the_commands_for_a_server_work(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    program, *arguments = shlex.split(command(name))
    assert program == ".venv/bin/tao"
    with serving() as address:
        arguments[arguments.index("localhost:12345")] = address
        assert tao.cli.main(arguments) == 0
    expected = {
        "send": r"^Hello!\n$",
        "load": r"replies +20,000 in .*\n(.*\n)*latency, from sending\n",
    }
    assert re.search(expected[name], capsys.readouterr().out)


@pytest.mark.skipif(sys.platform == "win32", reason="processes share sockets on POSIX")
def test_the_command_for_all_processors_serves_the_program(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TAO_BIND", "127.0.0.1:0")
    program, *arguments = shlex.split(command("serve"))
    assert program == ".venv/bin/tao"
    with Program(["-m", "tao", *arguments]) as service:
        address = "{}:{}".format(*service.address())
        asked = re.search(r"^`tao (send [^`]+)` asks it", README, re.MULTILINE)
        assert asked is not None
        words = [address if "localhost" in word else word for word in asked[1].split()]
        assert tao.cli.main(words) == 0
        assert re.fullmatch(r"process \d+: 71 \* 839 \* 1471 \* 6857\n", capsys.readouterr().out)
        service.signal(signal.SIGTERM)
        assert service.wait() == 0


def test_the_table_of_commands_is_of_what_there_is() -> None:
    names = re.findall(r"^\| `tao (\w+) ", README, re.MULTILINE)
    commands = importlib.import_module("tao.cli.main").COMMANDS
    assert sorted(names) == sorted(each.NAME for each in commands)


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
    for name in ("try", "test", "hosts"):
        assert f"readme_command {name}" in script
    assert "pytest" not in script
    assert "tao.examples" not in script


def test_all_examples_are_named() -> None:
    folder = ROOT / "tao" / "examples"
    examples = {path.stem for path in folder.glob("[a-z]*.py") if "readme" not in path.stem}
    paragraph = README[README.index("The [examples]") : README.index("## What it does")]
    assert examples <= set(re.findall(r"\w+", paragraph))


# -- what the text says --------------------------------------------------------------------------


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert links
    headings = re.findall(r"^#+ (.+)$", README, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    for link in links:
        if link.startswith("#"):
            assert link[1:] in anchors
        elif not link.startswith("https://"):
            assert (ROOT / link).exists(), link


MODULE = re.compile(r"\b(\w+)\.py\b")


def test_the_picture_of_the_layers_is_how_modules_import() -> None:
    picture = block("layers")
    box_of = {}  # module -> its box
    package = ""
    for line in picture.splitlines():
        if found := re.match(r' *subgraph \w+\["(\w+):', line):
            package = found[1]
        elif found := re.match(r' *(\w+)\["(.+)"\]$', line):
            for name in MODULE.findall(found[2]):
                box_of[f"{package}.{name}"] = found[1]
    assert len(box_of) == len(MODULE.findall(picture))
    assert set(box_of) <= set(IMPORTS)

    below: dict[str, set[str]] = {}  # box -> those that an arrow leads to
    for line in picture.splitlines():
        boxes = line.strip().split(" --> ")
        for upper, lower in pairwise(boxes):
            below.setdefault(upper, set()).add(lower)

    def reachable(box: str) -> set[str]:
        return {box}.union(*(reachable(lower) for lower in below.get(box, ())))

    for module, box in box_of.items():
        for found_import in IMPORTS[module]:
            target = box_of.get(found_import.module)
            assert target is None or target in reachable(box), (module, found_import)


# What stands for what in the text.
OBJECTS = {
    "client": tao.ClientConn,
    "conn": tao.ServerConn,
    "ctx": tao.Context,
    "db": tao.DataSource,
    "monitor": tao.Monitor,
    "reason": tao.CloseReason,
    "registry": tao.MessageRegistry,
    "server": tao.Server,
    "simulation": tao.testing.Simulation,
    "CloseCause": tao.CloseCause,
    "ConnectionState": tao.ConnectionState,
}


def code_spans() -> Iterator[str]:
    """What stands between backticks, blocks aside; of the first cells of the last table but the names
    of the other framework's are left out."""
    text = _BLOCK.sub("", README)
    start = text.index("| Tao 1.6 | here |")
    rows, rest = text[start:].split("\n\n", 1)
    ours = "\n".join(row.split(" | ", 1)[1] for row in rows.splitlines()[2:])
    for part in (text[:start], ours, rest):
        yield from re.findall(r"`([^`\n]+)`", part)


def test_the_table_for_those_who_come_from_go_is_there() -> None:
    rows = README[README.index("| Tao 1.6 | here |") :].split("\n\n", 1)[0].splitlines()
    assert len(rows) == 2 + 19
    assert all(row.count(" | ") == 1 for row in rows[2:])


def test_the_names_on_the_page_are_public() -> None:
    spans = list(code_spans())
    named = {
        name
        for span in spans
        for name in re.findall(r"(?<![\w.])([A-Z][a-z]+[A-Z]\w+)", span)
        if not span.startswith("Total")  # expvar's
    }
    assert {"MessageRegistry", "ConnectionClosedError", "CloseReason"} <= named
    builtin = {"ValueError", "TypeError", "TimeoutError"}
    unknown = named - set(tao.__all__) - set(reactor.__all__) - builtin - {"SSLContext"}
    assert not unknown


def test_the_attributes_on_the_page_exist() -> None:
    found = {
        (name, attribute)
        for span in code_spans()
        for name, attribute in re.findall(r"(?<![\w.])(\w+)\.(\w+)", span)
        if name in OBJECTS
    }
    assert {("server", "set_tls"), ("ctx", "remaining"), ("conn", "run_every")} <= found
    missing = {
        (name, attribute) for name, attribute in found if not hasattr(OBJECTS[name], attribute)
    }
    assert not missing - {("db", "close")}


def parameters(function: Any) -> set[str]:
    return set(inspect.signature(function).parameters)


def test_the_arguments_on_the_page_exist() -> None:
    public = [getattr(tao, name) for name in tao.__all__] + [
        reactor.Reactor,
        reactor.embed.asyncio.attach,
        tao.testing.Simulation,
        pytest.fixture,
    ]
    known = set(tao.ListenOptions.__annotations__)
    for item in public:
        if isinstance(item, type):
            for name, member in inspect.getmembers(item, inspect.isfunction):
                if name == "__init__" or not name.startswith("_"):
                    known |= parameters(member)
        elif callable(item):
            known |= parameters(item)
    named = {name for span in code_spans() for name in re.findall(r"\b([a-z_]+)=(?!=)", span)}
    assert {"heartbeat", "reconnect", "when_full", "keep", "data_source"} <= named
    assert not named - known


def amount(text: str) -> object:
    """A default as the table of limits has it, as the code has it."""
    if text == "none":
        return None
    if ", " in text:
        low, high = map(amount, text.split(", "))
        assert isinstance(low, int)
        assert isinstance(high, int)
        return tao.Watermark(low, high)
    number, _, unit = text.partition(" ")
    return (
        float(number)
        if unit == "s"
        else int(number) * {"": 1, "KiB": 1 << 10, "MiB": 1 << 20}[unit]
    )


def test_the_limits_are_those_of_the_code() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (`[^|]+) \| ([^|]+) \| [^|]+ \|$", README, re.MULTILINE)
    assert len(rows) == 20
    for name, owners, default in rows:
        for owner in re.findall(r"`(\w+)`", owners):
            parameter = inspect.signature(getattr(tao, owner)).parameters[name]
            if name == "output":  # made anew for each: the signature has a placeholder
                assert tao.ConnectionOptions().output == amount(default)
            elif name == "memory_limit":  # depends on another
                least, each = re.findall(r"\d+ [KM]iB", default)
                assert default_memory_limit(1000) == amount(least)
                assert default_memory_limit(1_000_000) / 1_000_000 == amount(each)
            else:
                assert parameter.default == amount(default), (owner, name)


def test_the_fields_of_the_log_are_there(caplog: pytest.LogCaptureFixture) -> None:
    told = threading.Event()
    server = tao.Server(registry=tao.MessageRegistry(), on_error=lambda conn, error: told.set())
    with (
        caplog.at_level(logging.INFO, "tao"),
        server.running(("127.0.0.1", 0)) as address,
        Peer(address) as peer,
    ):
        peer.send(7, b"")
        assert told.wait(DEADLINE)
    fields = {
        record.levelname: (vars(record).get("net_id"), vars(record).get("peer"))
        for record in caplog.records
    }
    assert fields["WARNING"] == fields["INFO"]  # of the error, and, the last, of the end
    assert fields["WARNING"][0] == 1
    assert str(fields["WARNING"][1]).startswith("127.0.0.1:")
