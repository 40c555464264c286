"""What every example's server does, whatever it serves."""

from __future__ import annotations

import signal
import socket
import sys

import pytest

from tests.examples.support import Peer, Program, example

NAMES = ["chat", "echo", "pingpong", "timer"]

SIGNALS = [signal.SIGINT, signal.SIGTERM]

on_posix = pytest.mark.skipif(sys.platform == "win32", reason="no such signals between processes")


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        assert isinstance(port, int)
        return port


def expect_one_line(program: Program, status: int, *words: str) -> None:
    """It ends with that status, and with one line that has those words in it."""
    assert program.wait() == status, program.errors
    assert program.errors.count("\n") == 1, program.errors
    for word in words:
        assert word in program.errors


@on_posix
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("number", SIGNALS)
def test_ends_in_good_order_on_a_signal(name: str, number: signal.Signals) -> None:
    with example(name, "server", "--port", "0") as server:
        server.address()
        # Announced before it serves: the signal may come at any moment after the line.
        server.signal(number)
        assert server.wait() == 0
        assert "Stopped" in server.output
        assert server.errors == ""


@on_posix
@pytest.mark.parametrize("number", SIGNALS)
def test_drains_what_was_under_way(number: signal.Signals) -> None:
    with example("echo", "server", "--port", "0") as server, Peer(server.address()) as peer:
        peer.send(1, b"before")
        assert peer.receive() == (1, b"before")
        server.signal(number)
        assert peer.at_end()
        peer.close()
        assert server.wait() == 0
        assert "Connections drained: 1, cut off: 0." in server.output
        assert server.errors == ""


@on_posix
@pytest.mark.parametrize("name", NAMES)
def test_is_server_by_default_and_takes_the_port_it_is_given(name: str) -> None:
    port = free_port()
    with example(name, "--host", "127.0.0.1", "--port", str(port)) as server:
        assert server.address() == ("127.0.0.1", port)
        Peer(("127.0.0.1", port)).close()
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


@pytest.mark.parametrize("name", NAMES)
def test_port_in_use(name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with example(name, "server", "--port", str(port)) as server:
            expect_one_line(server, 1, f"tao.examples.{name}", "cannot listen", str(port))
            assert server.output == ""


@pytest.mark.parametrize("name", NAMES)
def test_connection_refused(name: str) -> None:
    with example(name, "client", "--port", str(free_port())) as client:
        expect_one_line(client, 1, f"tao.examples.{name}", "not connected", "127.0.0.1")


@pytest.mark.parametrize("name", NAMES)
def test_help(name: str) -> None:
    with example(name, "--help") as program:
        assert program.wait() == 0
        for word in ["server", "client", "demo", "--host", "--port", "12345"]:
            assert word in program.output
        assert program.errors == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["server", "--port", "65536"],
        ["server", "--port", "-1"],
        ["server", "--port", "http"],
        ["client", "--port", "0"],
        ["sever"],
        ["server", "--prot", "0"],
    ],
    ids=" ".join,
)
def test_a_bad_command_line_is_one_line(arguments: list[str]) -> None:
    with example("echo", *arguments) as program:
        expect_one_line(program, 2, "tao.examples.echo:", "--help")
        assert program.output == ""


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("pingpong", "--count", "0"),
        ("pingpong", "--count", "many"),
        ("timer", "--interval", "0"),
        ("timer", "--interval", "nan"),
        ("timer", "--interval", "soon"),
        ("timer", "--count", "-1"),
    ],
)
def test_a_bad_option_is_one_line(name: str, option: str, value: str) -> None:
    with example(name, "demo", option, value) as program:
        expect_one_line(program, 2, option, value)


@pytest.mark.parametrize("command", ["server", "client"])
def test_a_host_that_can_be_no_name(command: str) -> None:
    with example("echo", command, "--host", "a..b", "--port", "12345") as program:
        expect_one_line(program, 1, "tao.examples.echo")
