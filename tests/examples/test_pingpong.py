"""Ping-pong: its server, its client and its demo."""

from __future__ import annotations

import signal
import socket
import struct
import sys

import pytest

from tests.examples.support import Peer, example

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="ends its server by a signal")


def test_answers_a_ping_with_a_pong() -> None:
    with example("pingpong", "server", "--port", "0") as server:
        with Peer(server.address()) as peer:
            for number in (1, 2, -1):
                peer.send(1, struct.pack("<q", number))
                assert peer.receive() == (2, struct.pack("<q", number))
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert server.errors == ""


def test_refuses_a_ping_that_is_too_long() -> None:
    with example("pingpong", "server", "--port", "0") as server:
        with Peer(server.address()) as peer:
            peer.send(1, bytes(9))
            assert peer.at_end()
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert "9 bytes is over the limit of 8" in server.errors


def test_client_plays_its_rounds_and_ends() -> None:
    with example("pingpong", "server", "--port", "0") as server:
        port = str(server.address()[1])
        with example("pingpong", "client", "--port", port, "--count", "3") as client:
            assert client.wait() == 0
            rounds = [line.split(":")[0] for line in client.output.splitlines()]
            assert rounds == ["Round 1", "Round 2", "Round 3"]
            assert client.errors == ""
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


def test_client_says_when_the_server_leaves_the_game() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        example("pingpong", "client", "--port", str(listener.getsockname()[1])) as client,
    ):
        sock, _ = listener.accept()
        with sock:
            assert sock.recv(16, socket.MSG_WAITALL) == struct.pack("<iIq", 1, 8, 1)
        assert client.wait() == 1
        assert "The connection is over: closed by the peer." in client.output
        assert client.errors == ""


def test_demo() -> None:
    with example("pingpong", "demo", "--count", "2") as demo:
        assert demo.wait() == 0
        assert demo.output.count("ping, pong") == 2
        assert demo.errors == ""
