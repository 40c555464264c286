"""JSON lines: the codec, its server and its demo."""

from __future__ import annotations

import json
import signal
import socket
import sys
from types import TracebackType
from typing import Any

import pytest

from tao import Codec, FrameTooLargeError, HeartBeatMessage
from tao.examples.json_lines import JsonLinesCodec, Total
from tests.examples.support import DEADLINE, Program, example

on_posix = pytest.mark.skipif(sys.platform == "win32", reason="ends its server by a signal")


class Lines:
    """A plain socket that writes and reads lines."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._socket = socket.create_connection(address, timeout=DEADLINE)
        self._answers = self._socket.makefile("rb")

    def send(self, data: bytes) -> None:
        """As it is."""
        self._socket.sendall(data)

    def receive(self) -> Any:
        """The next line's JSON; None at the end."""
        line = self._answers.readline()
        return json.loads(line) if line else None

    def ask(self, **fields: Any) -> Any:
        """Send an object, and say what comes back."""
        self.send(json.dumps(fields).encode() + b"\n")
        return self.receive()

    def __enter__(self) -> Lines:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._answers.close()
        self._socket.close()


def end(server: Program) -> None:
    server.signal(signal.SIGTERM)
    assert server.wait() == 0


def as_codec(codec: Codec) -> Codec:
    """For the type checker: that it is one."""
    return codec


# -- the codec -----------------------------------------------------------------------------------


def test_puts_the_type_into_the_object() -> None:
    assert as_codec(JsonLinesCodec()).encode(Total(5)) == b'{"type": 4, "total": 5}\n'


def test_takes_the_number_from_the_type() -> None:
    stream = b'{"type": 1, "name": "x"}\r\n{"type":-2}\n{"type": 3'
    frames = list(JsonLinesCodec().decode(stream))
    assert frames == [(1, b'{"type": 1, "name": "x"}', 26), (-2, b'{"type":-2}', 38)]
    assert JsonLinesCodec().header(stream[38:]) is None


def test_round_trip_split_anywhere() -> None:
    line = JsonLinesCodec().encode(Total(5))
    for place in range(len(line)):
        assert list(JsonLinesCodec().decode(line[:place])) == []
    assert list(JsonLinesCodec().decode(line + line[:9])) == [(4, line[:-1], len(line))]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"hello",
        b"[1]",
        b"1",
        b"{}",
        b'{"type": "1"}',
        b'{"type": true}',
        b'{"type": 1.0}',
        b"\xff",
    ],
)
def test_what_is_no_message_is_refused_behind_what_is(line: bytes) -> None:
    frames = JsonLinesCodec().decode(b'{"type": 1}\n' + line + b"\n")
    assert next(frames)[0] == 1
    with pytest.raises(ValueError):
        next(frames)


def test_a_long_line_is_refused() -> None:
    with pytest.raises(FrameTooLargeError):
        list(JsonLinesCodec(max_length=10).decode(b"x" * 11))


def test_a_heartbeat_has_no_place_in_it() -> None:
    with pytest.raises(ValueError):
        JsonLinesCodec().encode(HeartBeatMessage())


# -- the program ---------------------------------------------------------------------------------


@on_posix
def test_greets_and_adds_up() -> None:
    with example("json_lines", "--port", "0") as server:
        with Lines(server.address()) as peer:
            assert peer.ask(type=1, name="Ännchen") == {"type": 2, "text": "Hello, Ännchen!"}
            assert peer.ask(type=3, numbers=[1, 2, 39]) == {"type": 4, "total": 42}
            assert peer.ask(type=3, numbers=[]) == {"type": 4, "total": 0}
            peer.send(b'{"type": 3, "num')
            peer.send(b'bers": [7]}\r\n{"type": 1, "name": "Bob"}\r\n')
            assert peer.receive() == {"type": 4, "total": 7}
            assert peer.receive() == {"type": 2, "text": "Hello, Bob!"}
        end(server)
        assert server.errors == ""


@on_posix
def test_says_what_is_wrong_and_goes_on() -> None:
    with example("json_lines", "--port", "0") as server:
        with Lines(server.address()) as peer:
            wrong: list[tuple[dict[str, Any], str]] = [
                ({"type": 3, "numbers": "all"}, "numbers"),
                ({"type": 3, "numbers": [1, "2"]}, "numbers"),
                ({"type": 1}, "name"),
                ({"type": 77}, "77"),
            ]
            for question, word in wrong:
                answer = peer.ask(**question)
                assert answer["type"] == 5
                assert word in answer["problem"]
            assert peer.ask(type=1, name="Ann") == {"type": 2, "text": "Hello, Ann!"}
        end(server)


@on_posix
@pytest.mark.parametrize("line", [b"hello", b'{"name": "Ann"}', b"[" * 60_000])
def test_takes_its_leave_of_who_speaks_something_else(line: bytes) -> None:
    with example("json_lines", "--port", "0") as server:
        with Lines(server.address()) as peer:
            peer.send(b'{"type": 1, "name": "Ann"}\n' + line + b"\n")
            assert peer.receive() == {"type": 2, "text": "Hello, Ann!"}
            assert peer.receive()["type"] == 5
            assert peer.receive() is None
        with Lines(server.address()) as peer:
            assert peer.ask(type=1, name="Bob") == {"type": 2, "text": "Hello, Bob!"}
        end(server)


@on_posix
def test_takes_the_host_and_the_port_it_is_given() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with example("json_lines", "--host", "127.0.0.1", "--port", port) as server:
            assert server.wait() == 1
            assert port in server.errors
            assert server.errors.count("\n") == 1


def test_help() -> None:
    with example("json_lines", "--help") as program:
        assert program.wait() == 0
        for word in ["server", "demo", "--host", "--port"]:
            assert word in program.output


def test_demo() -> None:
    with example("json_lines", "demo") as demo:
        assert demo.wait() == 0
        assert demo.output.count("-> ") == demo.output.count("<- {") == 3
        assert "Hello, Ann!" in demo.output
        assert '"total": 42' in demo.output
        assert demo.errors == ""
