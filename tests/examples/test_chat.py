"""The chat: its room, its client on a terminal, and its demo."""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
from collections.abc import Iterator

import pytest

from tests.examples.support import Peer, Program, example

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="ends its server by a signal")


@contextlib.contextmanager
def room() -> Iterator[tuple[Program, tuple[str, int]]]:
    """A chat server, which must end in good order and without a complaint."""
    with example("chat", "server", "--port", "0") as server:
        yield server, server.address()
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert server.errors == ""


def client(address: tuple[str, int], *arguments: str) -> Program:
    return example("chat", "client", "--port", str(address[1]), *arguments)


def test_peers_hear_each_other_and_not_themselves() -> None:
    with room() as (_, address), Peer(address) as first, Peer(address) as second:
        # Whoever came first is in the room when the second is heard.
        second.send(1, b"one")
        assert first.receive() == (1, b"one")
        first.send(1, "zwölf".encode())
        assert second.receive() == (1, "zwölf".encode())
        second.send(1, b"")
        assert first.receive() == (1, b"")


def test_says_who_comes_and_goes() -> None:
    with room() as (server, address):
        with Peer(address):
            server.wait_for(r"\+ 127\.0\.0\.1:\d+ has come\n")
        server.wait_for(r"- 127\.0\.0\.1:\d+ has left: closed by the peer\n")


def test_one_that_leaves_does_not_disturb_the_others() -> None:
    with room() as (server, address), Peer(address) as first, Peer(address) as second:
        with Peer(address) as third:
            third.send(1, b"hello")
            assert first.receive() == second.receive() == (1, b"hello")
        server.wait_for("has left")
        second.send(1, b"it has gone")
        assert first.receive() == (1, b"it has gone")


def test_text_that_is_no_utf_8_costs_its_sender_the_connection() -> None:
    with example("chat", "server", "--port", "0") as server:
        address = server.address()
        with Peer(address) as first, Peer(address) as second:
            second.send(1, b"\xff")
            assert second.at_end()
        with Peer(address) as other:
            server.wait_for(r"has left: failed: UnicodeDecodeError")
            first.close()
            other.close()
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


def test_clients_on_terminals_talk() -> None:
    with room() as (server, address), client(address) as ann, client(address) as bob:
        for program in (ann, bob):
            program.wait_for("Connected")
        server.wait_for(r"(?s)has come.*has come")
        ann.enter("Hello!\nIs anybody there? Grüße.\n")
        bob.wait_for(r"Hello!\nIs anybody there\? Grüße\.\n")
        bob.enter("I am.\n")
        ann.wait_for(r"I am\.\n")
        ann.enter("bye\n")
        bob.end_input()
        for program in (ann, bob):
            assert program.wait() == 0
            assert program.output.endswith("Goodbye.\n")
            assert program.errors == ""
        assert "Hello!" not in ann.output, "it has heard itself"
        assert "\nbye" not in bob.output, "that word is for the client, not for the others"


def test_what_was_typed_before_the_end_arrives() -> None:
    lines = [f"line {number}" for number in range(1000)]
    with room() as (server, address), Peer(address) as peer:
        server.wait_for("has come")
        with client(address, "--name", "Ann") as ann:
            ann.enter("".join(line + "\n" for line in lines))
            ann.end_input()
            heard = [peer.receive() for _ in lines]
            assert ann.wait() == 0
        assert heard == [(1, f"Ann: {line}".encode()) for line in lines]


def test_client_ends_by_itself_when_the_server_does() -> None:
    with example("chat", "server", "--port", "0") as server, client(server.address()) as ann:
        server.wait_for("has come")
        ann.wait_for("Connected")  # the server may have seen the connection before this end has
        server.signal(signal.SIGTERM)
        # Nobody types anything, and its input stays open.
        assert ann.wait() == 0
        assert "The connection is over: closed by the peer." in ann.output
        assert ann.errors == ""
        assert server.wait() == 0


def test_client_says_when_the_server_is_lost() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, client(listener.getsockname()) as ann:
        sock, _ = listener.accept()
        ann.wait_for("Connected")
        # A linger time of nothing: the close sends RST.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.close()
        assert ann.wait() == 1
        assert "The connection is over: failed: ConnectionResetError" in ann.output
        assert ann.errors == ""


def test_client_leaves_on_ctrl_c() -> None:
    with room() as (server, address), client(address) as ann:
        server.wait_for("has come")
        ann.wait_for("Connected")
        ann.enter("x\n")  # that it has come this far is known
        ann.signal(signal.SIGINT)
        assert ann.wait() == 0
        assert ann.output.endswith("Goodbye.\n")
        assert ann.errors == ""


def test_demo_is_a_conversation() -> None:
    with example("chat", "demo") as demo:
        assert demo.wait() == 0
        assert demo.errors == ""
    said = [line.split(" says: ") for line in demo.output.splitlines() if " says: " in line]
    assert len(said) >= 3
    for name, text in said:
        assert demo.output.count(f"hears: {name}: {text}") == 2, "both of the others hear it"


def test_demo_stops_what_it_has_started() -> None:
    with example("chat", "demo") as demo:
        host, port = demo.address()
        assert port != 12345
        assert demo.wait() == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, port), timeout=10.0)
