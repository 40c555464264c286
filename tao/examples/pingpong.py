"""Ping-pong: a conversation between two handlers, with no thread that waits for an answer.

Two kinds of message, each a round's number (an int64, little-endian): number 1, Ping, from the
client, and number 2, Pong, the server's reply. The client's handler of a Pong sends the next Ping
with what it returns, and closes the connection after the last.
"""

from __future__ import annotations

import argparse
import struct
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tao import ClientConn, CloseCause, Context, MessageRegistry, Server, WriteCloser
from tao.address import format_address
from tao.examples import _common
from tao.terminal import count, say

COMMANDS = {
    "server": "answers each ping with a pong (the default)",
    "client": "plays --count rounds and says how long each took",
    "demo": "a server and a client in this one process; ends by itself",
}

_ROUND = struct.Struct("<q")


@dataclass(frozen=True, slots=True)
class Ping:
    """From the client."""

    round: int
    message_number = 1

    def serialize(self) -> bytes:
        """Eight bytes."""
        return _ROUND.pack(self.round)

    @classmethod
    def deserialize(cls, data: bytes) -> Ping:
        """Raises struct.error unless there are eight bytes."""
        return cls(*_ROUND.unpack(data))


@dataclass(frozen=True, slots=True)
class Pong:
    """From the server."""

    round: int
    message_number = 2

    def serialize(self) -> bytes:
        """Eight bytes."""
        return _ROUND.pack(self.round)

    @classmethod
    def deserialize(cls, data: bytes) -> Pong:
        """Raises struct.error unless there are eight bytes."""
        return cls(*_ROUND.unpack(data))


def make_server() -> Server:
    """A server that answers."""
    registry = MessageRegistry()

    @registry.handler(Ping, max_size=_ROUND.size)
    def on_ping(ctx: Context[Ping], _conn: WriteCloser) -> Pong:
        return Pong(ctx.message.round)

    return Server(registry=registry)


def run_server(options: argparse.Namespace) -> int:
    """Serve until Ctrl-C."""
    return _common.serve(make_server(), options, "ping-pong")


def run_client(options: argparse.Namespace) -> int:
    """Play."""
    try:
        return play((options.host, options.port), options.count)
    except KeyboardInterrupt:
        return 0


def play(address: tuple[str, int], rounds: int) -> int:
    """Play that many rounds; returns the exit status."""
    registry = MessageRegistry()
    sent_at = 0.0

    @registry.handler(Pong, max_size=_ROUND.size)
    def on_pong(ctx: Context[Pong], conn: WriteCloser) -> Ping | None:
        nonlocal sent_at
        now = time.perf_counter()
        say(f"Round {ctx.message.round}: ping, pong; {(now - sent_at) * 1000:.2f} ms.")
        if ctx.message.round == rounds:
            conn.close()  # does not wait: a handler may close its own connection
            return None
        sent_at = time.perf_counter()
        return Ping(ctx.message.round + 1)

    with ClientConn(address, registry=registry) as client:
        sent_at = time.perf_counter()
        client.write(Ping(1))
        reason = client.wait_closed()
    if reason.cause is not CloseCause.CLOSED:
        say(f"The connection is over: {reason}.")
        return 1
    return 0


def run_demo(options: argparse.Namespace) -> int:
    """Both ends in one process."""
    with make_server().running(("127.0.0.1", 0)) as address:
        say(f"The ping-pong server listens on {format_address(address)}.")
        return play(address, options.count)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = _common.command_line(
        "pingpong", "Ping-pong: a conversation between two handlers.", COMMANDS
    )
    parser.add_argument(
        "--count",
        type=count,
        default=5,
        help="client, demo: rounds to play; default: %(default)s",
    )
    commands = {"server": run_server, "client": run_client, "demo": run_demo}
    return _common.run(parser, commands, arguments)


if __name__ == "__main__":
    sys.exit(main())
