"""A codec of one's own: a line of JSON for each message. It greets, and it adds up.

A line is a JSON object whose "type" is the message number; the rest are the message's own fields:

    {"type": 1, "name": "Ann"}            ->  {"type": 2, "text": "Hello, Ann!"}
    {"type": 3, "numbers": [1, 2, 39]}    ->  {"type": 4, "total": 42}
    {"type": 3, "numbers": "all"}         ->  {"type": 5, "problem": "..."}

So there is no client in here: `nc 127.0.0.1 12345` and a keyboard are one. Read in this order:
JsonLinesCodec, the messages, make_server.
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tao import (
    Context,
    LineCodec,
    Message,
    MessageRegistry,
    Server,
    ServerConn,
    TaoError,
    WriteCloser,
)
from tao.address import format_address
from tao.codec import Frame, Header
from tao.examples import _common
from tao.terminal import say

COMMANDS = {
    "server": "answers each line (the default)",
    "demo": "a server, and a plain socket that talks to it, in this one process; ends by itself",
}

CONVERSATION = [
    b'{"type": 1, "name": "Ann"}',
    b'{"type": 3, "numbers": [1, 2, 39]}',
    b'{"type": 77}',
]

DEMO_TIMEOUT = 10.0
"""Seconds; the demo needs far less, and must not hang where something is wrong."""


class JsonLinesCodec:
    """What a Codec is: `encode`, `decode` and `header`. No base class is needed.

    Where lines end is LineCodec's affair; this one knows only what is in them. A codec does no I/O and
    keeps nothing of a stream between two calls, so one object serves all connections, on any thread.
    """

    def __init__(self, max_length: int = 65_536) -> None:
        self._lines = LineCodec(max_length=max_length)

    def encode(self, message: Message) -> bytes:
        """The message's fields as it serializes them, with its number in front.

        Raises ValueError for a message that does not serialize to a JSON object: a heartbeat, say.
        """
        fields = _object(message.serialize())
        line = json.dumps({"type": message.message_number, **fields})
        return self._lines.encode(_Line(line.encode()))

    def decode(self, data: bytes) -> Iterator[Frame]:
        """The number of each whole line, the line itself, and where it ends in `data`.

        What raises here ends the connection, after all that came before has been answered: whoever
        does not speak JSON will not be understood later either.
        """
        for _, line, end in self._lines.decode(data):
            yield _type_of(line), line, end

    def header(self, data: bytes) -> Header | None:
        """Nothing can be said of a line before it has ended."""
        return self._lines.header(data)


@dataclass(frozen=True, slots=True)
class _Line:
    """What the LineCodec is to encode."""

    text: bytes
    message_number = 1

    def serialize(self) -> bytes:
        """The text; the newline is the codec's."""
        return self.text


def _object(line: bytes) -> dict[str, Any]:
    """Raises ValueError unless it is one; what is no JSON or no UTF-8 raises subclasses of it."""
    fields = json.loads(line)
    if not isinstance(fields, dict):
        raise ValueError(f"a line must be a JSON object, such as {{}}, not {line[:40]!r}")
    return fields


def _type_of(line: bytes) -> int:
    number = _object(line).get("type")
    if type(number) is not int:  # True is an int as well, for Python
        raise ValueError(f'a line needs a "type", which is a number; got {line[:40]!r}')
    return number


@dataclass(frozen=True, slots=True)
class Name:
    """Somebody introduces himself."""

    name: str
    message_number = 1

    @classmethod
    def deserialize(cls, data: bytes) -> Name:
        """`data` is the whole line. Raises ValueError for fields that are not as they should be."""
        name = _object(data).get("name")
        if not isinstance(name, str):
            raise ValueError('"name" must be a text')
        return cls(name)


@dataclass(frozen=True, slots=True)
class Numbers:
    """To be added up."""

    numbers: list[int]
    message_number = 3

    @classmethod
    def deserialize(cls, data: bytes) -> Numbers:
        """As Name's."""
        numbers = _object(data).get("numbers")
        if not isinstance(numbers, list) or not all(type(number) is int for number in numbers):
            raise ValueError('"numbers" must be a list of whole numbers')
        return cls(numbers)


@dataclass(frozen=True, slots=True)
class Greeting:
    """The answer to a Name."""

    text: str
    message_number = 2

    def serialize(self) -> bytes:
        """Without the type, which the codec puts in."""
        return json.dumps({"text": self.text}).encode()


@dataclass(frozen=True, slots=True)
class Total:
    """The answer to Numbers."""

    total: int
    message_number = 4

    def serialize(self) -> bytes:
        """Without the type, which the codec puts in."""
        return json.dumps({"total": self.total}).encode()


@dataclass(frozen=True, slots=True)
class Problem:
    """The answer to what was not understood."""

    problem: str
    message_number = 5

    def serialize(self) -> bytes:
        """Without the type, which the codec puts in."""
        return json.dumps({"problem": self.problem}).encode()


def make_server() -> Server:
    """A server that says what is wrong, and bears with wrong fields; not with what is no JSON."""
    registry = MessageRegistry()

    @registry.handler(Name, inline=True)
    def greet(ctx: Context[Name], _conn: WriteCloser) -> Greeting:
        return Greeting(f"Hello, {ctx.message.name}!")

    @registry.handler(Numbers, inline=True)
    def add(ctx: Context[Numbers], _conn: WriteCloser) -> Total:
        return Total(sum(ctx.message.numbers))

    return Server(registry=registry, codec=JsonLinesCodec(), on_error=explain, close_on_error=False)


def explain(conn: ServerConn, error: BaseException) -> None:
    """Called in the connection's order, so the answer stands where that to the line would be."""
    try:
        conn.write(Problem(str(error)))
    except TaoError:
        pass  # it has gone, or does not read: there is nobody to explain it to


def run_server(options: argparse.Namespace) -> int:
    """Serve until Ctrl-C."""
    return _common.serve(make_server(), options, "JSON lines")


def run_demo(_options: argparse.Namespace) -> int:
    """The other end knows nothing of Tao: any program that can write lines will do."""
    with make_server().running(("127.0.0.1", 0)) as address:
        say(f"The JSON lines server listens on {format_address(address)}.")
        with (
            socket.create_connection(address, timeout=DEMO_TIMEOUT) as sock,
            sock.makefile("rb") as answers,
        ):
            for line in CONVERSATION:
                sock.sendall(line + b"\n")
                say(f"-> {line.decode()}")
                say(f"<- {answers.readline().decode().rstrip()}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = _common.command_line(
        "json_lines", "A line of JSON for each message: a codec of one's own.", COMMANDS
    )
    return _common.run(parser, {"server": run_server, "demo": run_demo}, arguments)


if __name__ == "__main__":
    sys.exit(main())
