"""The echo server, its client and its demo."""

from __future__ import annotations

import signal
import sys

import pytest

from tests.examples.support import Peer, example

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="ends its server by a signal")


def test_sends_back_what_it_gets() -> None:
    values = [b"", b"x", bytes(range(256)), b"y" * 100_000]
    with example("echo", "server", "--port", "0") as server:
        with Peer(server.address()) as peer:
            for value in values:
                peer.send(1, value)
            assert [peer.receive() for _ in values] == [(1, value) for value in values]
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


def test_says_what_it_does_not_understand_and_goes_on() -> None:
    with example("echo", "server", "--port", "0") as server:
        with Peer(server.address()) as peer:
            peer.send(2, b"what is this?")
            peer.send(1, b"still there?")
            assert peer.receive() == (1, b"still there?")
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert "message number 2 is not registered" in server.errors


def test_client_prints_the_echo_of_each_line() -> None:
    with example("echo", "server", "--port", "0") as server:
        with example("echo", "client", "--port", str(server.address()[1])) as client:
            client.enter("one\n\nGrüße\n")
            client.end_input()
            assert client.wait() == 0
            assert client.output == "one\n\nGrüße\n"
            assert client.errors == ""
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


def test_client_says_when_the_server_has_gone() -> None:
    with (
        example("echo", "server", "--port", "0") as server,
        example("echo", "client", "--port", str(server.address()[1])) as client,
    ):
        client.enter("one\n")
        client.wait_for("one\n")
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        client.enter("two\n")
        assert client.wait() == 1
        assert "Traceback" not in client.errors


def test_demo() -> None:
    with example("echo", "demo") as demo:
        assert demo.wait() == 0
        assert demo.output.endswith("Is there an echo here?\nThere is.\nGrüß Gott.\n")
        assert demo.errors == ""
