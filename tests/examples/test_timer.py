"""The clock: its server, its client and its demo."""

from __future__ import annotations

import signal
import struct
import sys
import time

import pytest

from tests.examples.support import Peer, example

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="ends its server by a signal")


def test_tells_each_client_the_time() -> None:
    before = time.time()
    with example("timer", "server", "--port", "0", "--interval", "0.05") as server:
        with Peer(server.address()) as first, Peer(server.address()) as second:
            for peer in (first, second):
                frames = [peer.receive() for _ in range(3)]
                assert {number for number, _ in frames} == {1}
                times = [struct.unpack("<d", value)[0] for _, value in frames]
                assert times == sorted(times)
                # An hour either way: that it is the time of day, not that the clock is even.
                assert before - 3600 < times[0] < times[-1] < before + 3600
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert server.errors == ""


def test_client_prints_so_many_and_ends() -> None:
    with example("timer", "server", "--port", "0", "--interval", "0.05") as server:
        port = str(server.address()[1])
        with example("timer", "client", "--port", port, "--count", "2") as client:
            assert client.wait() == 0
            assert client.output.count("It is ") == 2
            assert client.errors == ""
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


@pytest.mark.parametrize("who", ["client", "server"])
def test_client_goes_on_until_either_is_ended(who: str) -> None:
    with example("timer", "server", "--port", "0", "--interval", "0.05") as server:
        with example("timer", "client", "--port", str(server.address()[1])) as client:
            client.wait_for(r"(?s)It is .*It is ")
            (client if who == "client" else server).signal(signal.SIGINT)
            assert client.wait() == 0
            assert ("The connection is over: closed by the peer." in client.output) == (
                who == "server"
            )
            assert client.errors == ""
        if who == "client":
            server.signal(signal.SIGINT)
        assert server.wait() == 0
        assert server.errors == ""


def test_demo() -> None:
    with example("timer", "demo") as demo:
        assert demo.wait() == 0
        assert demo.output.count("It is ") == 5
        assert demo.errors == ""
