"""An echo server: every message comes back as it was.

One kind of message: number 1, its value any bytes. The handler returns what it got, and what a
handler returns is the reply. It never blocks, so it runs inline, on the loop's thread.
"""

from __future__ import annotations

import argparse
import queue
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tao import ClientConn, Context, MessageRegistry, Server, WriteCloser
from tao.address import format_address
from tao.examples import _common
from tao.terminal import say, typed_lines

COMMANDS = {
    "server": "sends back what it gets (the default)",
    "client": "sends each line you type and prints what comes back; ends with the input",
    "demo": "a server and a client in this one process; ends by itself",
}


@dataclass(frozen=True, slots=True)
class EchoMessage:
    """Bytes that mean nothing to the server."""

    data: bytes
    message_number = 1

    def serialize(self) -> bytes:
        """The value is the bytes themselves."""
        return self.data

    @classmethod
    def deserialize(cls, data: bytes) -> EchoMessage:
        """Whatever comes is right."""
        return cls(data)


def make_server() -> Server:
    """A server whose only handler gives back what it is given."""
    registry = MessageRegistry()

    @registry.handler(EchoMessage, inline=True)
    def echo(ctx: Context[EchoMessage], _conn: WriteCloser) -> EchoMessage:
        return ctx.message

    return Server(registry=registry)


def run_server(options: argparse.Namespace) -> int:
    """Serve until Ctrl-C."""
    return _common.serve(make_server(), options, "echo")


def run_client(options: argparse.Namespace) -> int:
    """Echo what is typed."""
    try:
        return echo_lines((options.host, options.port), typed_lines())
    except KeyboardInterrupt:
        return 0


def echo_lines(address: tuple[str, int], lines: Iterable[str]) -> int:
    """Send a line, wait for its echo, print it, and so on. Returns the exit status."""
    # The handler runs on the client's worker. A queue takes what it gets to the thread that waits;
    # None in it says that nothing will come any more.
    answers: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    registry = MessageRegistry()

    @registry.handler(EchoMessage)
    def hear(ctx: Context[EchoMessage], _conn: WriteCloser) -> None:
        answers.put(ctx.message.data)

    with ClientConn(
        address, registry=registry, on_close=lambda _conn, _reason: answers.put(None)
    ) as client:
        for line in lines:
            client.write(EchoMessage(line.encode()))
            answer = answers.get()
            if answer is None:
                say("The server has closed the connection.")
                return 1
            say(answer.decode(errors="replace"))
    return 0


def run_demo(_options: argparse.Namespace) -> int:
    """Both ends in one process."""
    with make_server().running(("127.0.0.1", 0)) as address:
        say(f"The echo server listens on {format_address(address)}.")
        return echo_lines(address, ["Is there an echo here?", "There is.", "Grüß Gott."])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = _common.command_line(
        "echo", "An echo server: every message comes back as it was.", COMMANDS
    )
    commands = {"server": run_server, "client": run_client, "demo": run_demo}
    return _common.run(parser, commands, arguments)


if __name__ == "__main__":
    sys.exit(main())
