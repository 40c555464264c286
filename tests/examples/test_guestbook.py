"""The guestbook: what it remembers across a restart, its client and its demo."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from tests.examples.support import Peer, Program, example

on_posix = pytest.mark.skipif(sys.platform == "win32", reason="ends its server by a signal")


def guestbook(path: Path) -> Program:
    return example("guestbook", "--port", "0", "--database", str(path))


def end(server: Program) -> None:
    """In good order, and with nothing left open: warnings are errors in it."""
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    assert server.errors == ""


def hear(peer: Peer, count: int) -> list[str]:
    """The next entries that it gets."""
    frames = [peer.receive() for _ in range(count)]
    assert {number for number, _ in frames} <= {1}
    return [value.decode() for _, value in frames]


def say(peer: Peer, *texts: str) -> None:
    for text in texts:
        peer.send(1, text.encode())


@on_posix
def test_what_was_said_survives_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "guests.db"
    said = [f"Grüße, number {number}" for number in range(12)]
    with guestbook(path) as server:
        with Peer(server.address()) as peer:
            say(peer, *said)
            assert hear(peer, 12) == said
        end(server)
    with guestbook(path) as server:
        with Peer(server.address()) as peer:
            assert hear(peer, 10) == said[2:]
            say(peer, "still here")
            assert hear(peer, 1) == ["still here"]
        end(server)
    with guestbook(path) as server:
        with Peer(server.address()) as peer:
            assert hear(peer, 10) == [*said[3:], "still here"]
        end(server)


@on_posix
def test_an_empty_book_says_nothing(tmp_path: Path) -> None:
    with guestbook(tmp_path / "guests.db") as server:
        with Peer(server.address()) as peer:
            say(peer, "the first")
            assert hear(peer, 1) == ["the first"]
        end(server)


@on_posix
def test_all_who_are_there_hear_the_same(tmp_path: Path) -> None:
    with guestbook(tmp_path / "guests.db") as server:
        address = server.address()
        with Peer(address) as ann, Peer(address) as bob:
            say(ann, "I am Ann")
            assert hear(ann, 1) == hear(bob, 1) == ["I am Ann"]
            say(bob, "I am Bob")
            assert hear(bob, 1) == hear(ann, 1) == ["I am Bob"]
            with Peer(address) as eve:
                assert hear(eve, 2) == ["I am Ann", "I am Bob"]
                say(ann, "Who is there?")
                assert hear(ann, 1) == hear(bob, 1) == hear(eve, 1) == ["Who is there?"]
            say(bob, "She has left")
            assert hear(ann, 1) == ["She has left"]
        end(server)


@on_posix
def test_who_comes_while_others_speak_gets_each_entry_once(tmp_path: Path) -> None:
    count = 8  # all of them fit into the history
    with guestbook(tmp_path / "guests.db") as server:
        address = server.address()
        with Peer(address) as speaker:
            guests = []
            try:
                for number in range(count):
                    say(speaker, str(number))
                    guests.append(Peer(address))
                assert hear(speaker, count) == [str(number) for number in range(count)]
                for guest in guests:
                    assert sorted(hear(guest, count)) == [str(number) for number in range(count)]
                say(speaker, "the end")
                for guest in guests:
                    assert hear(guest, 1) == ["the end"]
            finally:
                for guest in guests:
                    guest.close()
        end(server)


@on_posix
def test_what_cannot_be_written_down_costs_the_connection(tmp_path: Path) -> None:
    with guestbook(tmp_path / "guests.db") as server:
        address = server.address()
        with Peer(address) as peer:
            say(peer, "x" * 4096, "x" * 4097)
            assert hear(peer, 1) == ["x" * 4096]
            assert peer.at_end()
        with Peer(address) as peer:
            assert hear(peer, 1) == ["x" * 4096]
            peer.send(1, b"\xff\xff")  # no UTF-8
            assert peer.at_end()
        with Peer(address) as peer:
            assert hear(peer, 1) == ["x" * 4096]
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


@on_posix
def test_the_chat_s_client_will_do(tmp_path: Path) -> None:
    with guestbook(tmp_path / "guests.db") as server:
        with Peer(server.address()) as peer:
            say(peer, "an old entry")
            assert hear(peer, 1) == ["an old entry"]
            port = str(server.address()[1])
            with example("guestbook", "client", "--port", port) as client:
                client.wait_for("an old entry\n")
                say(peer, "a new one")
                client.wait_for("a new one\n")
                client.end_input()
                assert client.wait() == 0
                assert client.errors == ""
        end(server)


@pytest.mark.parametrize("kind", ["directory", "not a database", "no such directory"])
def test_a_book_that_cannot_be_opened_is_one_line(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "book"
    if kind == "directory":
        path.mkdir()
    elif kind == "not a database":
        path.write_text("Dear diary, " * 100)
    else:
        path = path / "guests.db"
    with guestbook(path) as server:
        assert server.wait() == 1
        assert server.output == ""
        assert server.errors.count("\n") == 1
        assert "cannot open the book" in server.errors
        assert "guests.db" in server.errors or "book'" in server.errors


def test_help() -> None:
    with example("guestbook", "--help") as program:
        assert program.wait() == 0
        for word in ["server", "client", "demo", "--host", "--port", "--database", "guestbook.db"]:
            assert word in program.output


def test_demo() -> None:
    with example("guestbook", "demo") as demo:
        assert demo.wait() == 0
        reads = [line.strip() for line in demo.output.splitlines() if " reads: " in line]
        assert reads == [
            "Ann reads: Ann was here.",
            "Bob reads: Ann was here.",
            "Bob reads: Bob was here.",
        ]
        assert demo.errors == ""
