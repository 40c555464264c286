"""A chat room: what one client says, all the others hear.

One kind of message: number 1, its value the text in UTF-8. The server passes it on; who speaks is
part of the text. Read in this order: ChatMessage, make_server, run_client.
"""

from __future__ import annotations

import argparse
import queue
import ssl
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tao import (
    ClientConn,
    CloseCause,
    CloseReason,
    ConnectionClosedError,
    Context,
    MessageRegistry,
    Server,
    ServerConn,
    TaoError,
    WouldBlockError,
    WriteCloser,
)
from tao.address import format_address
from tao.examples import _common
from tao.terminal import printable, say, typed_lines

COMMANDS = {
    "server": "the room (the default)",
    "client": "sends each line you type; ends on `bye` or at the end of the input",
    "demo": "a server and three clients in this one process; ends by itself",
}

CONVERSATION = [
    ("Ann", "Hello! Is anybody here?"),
    ("Bob", "I am. Hello, Ann."),
    ("Eve", "So am I. Nothing that is said here is private."),
    ("Ann", "Grüß Gott, Eve. It does speak UTF-8, then."),
    ("Bob", "See you tomorrow."),
]

DEMO_TIMEOUT = 10.0
"""Seconds; the demo needs far less, and must not hang where something is wrong."""


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """A message is any class with a number and a `serialize`; reading it back is `deserialize`."""

    text: str
    message_number = 1

    def serialize(self) -> bytes:
        """The value, without the header: that is the codec's."""
        return self.text.encode()

    @classmethod
    def deserialize(cls, data: bytes) -> ChatMessage:
        """Raises UnicodeDecodeError for what is no UTF-8: it costs the sender the connection."""
        return cls(data.decode())


def make_server(
    on_connect: Callable[[ServerConn], None],
    on_close: Callable[[ServerConn, CloseReason], None],
    *,
    tls: ssl.SSLContext | None = None,
) -> Server:
    """A room in which nobody is yet. The callbacks learn who comes and goes."""
    registry = MessageRegistry()
    server = Server(registry=registry, on_connect=on_connect, on_close=on_close, tls=tls)

    @registry.handler(ChatMessage)
    def pass_on(ctx: Context[ChatMessage], conn: WriteCloser) -> None:
        # One client's messages come here one at a time and in order; other clients' at the same
        # time, on other workers. `write` only queues, so nobody waits for a slow reader.
        for other in server.connections():
            if other.net_id == conn.net_id:
                continue
            try:
                other.write(ctx.message)
            except (ConnectionClosedError, WouldBlockError):
                pass  # it is leaving, or has stopped reading: no reason to fail the one who speaks

    return server


def run_server(options: argparse.Namespace) -> int:
    """Serve where the command line says."""
    return open_room((options.host, options.port))


def open_room(address: tuple[str, int] | str, *, tls: ssl.SSLContext | None = None) -> int:
    """Serve until Ctrl-C; returns the exit status."""

    def on_connect(conn: ServerConn) -> None:
        say(f"+ {conn.name} has come")

    def on_close(conn: ServerConn, reason: CloseReason) -> None:
        say(f"- {conn.name} has left: {reason}")

    return _common.serve_at(make_server(on_connect, on_close, tls=tls), address, "chat")


def run_client(options: argparse.Namespace) -> int:
    """Join the room that the command line names."""
    return join_room((options.host, options.port), options.name)


def join_room(
    address: tuple[str, int] | str,
    name: str | None,
    *,
    tls: ssl.SSLContext | None = None,
    server_hostname: str | None = None,
) -> int:
    """Talk and listen at the same time: each on a thread of its own. Returns the exit status."""
    registry = MessageRegistry()

    @registry.handler(ChatMessage)
    def hear(ctx: Context[ChatMessage], _conn: WriteCloser) -> None:
        say(printable(ctx.message.text))  # whoever speaks does not get at our terminal

    prefix = f"{name}: " if name else ""
    try:
        with ClientConn(
            address, registry=registry, tls=tls, server_hostname=server_hostname
        ) as client:
            say(f"Connected to {client.name}. Type; `bye` ends.")
            # A daemon: should the server go first, the program ends though nobody types anything.
            threading.Thread(target=talk, args=(client, prefix), daemon=True).start()
            reason = client.wait_closed()
    except KeyboardInterrupt:
        reason = None  # leaving the `with` block has closed the connection
    if reason is None or reason.cause is CloseCause.CLOSED:
        say("Goodbye.")
        return 0
    say(f"The connection is over: {reason}.")
    return 0 if reason.clean else 1


def talk(client: ClientConn, prefix: str) -> None:
    """Send each line that is typed, then close: what was sent before that still arrives."""
    try:
        for line in typed_lines():
            if line == "bye":
                break
            if not client.write(ChatMessage(prefix + line)):
                time.sleep(0.05)  # the server is slow: let it catch up before piling up more
    except ConnectionClosedError:
        pass  # the server was first, and run_client says so
    except TaoError as error:
        say(f"Not sent: {error}.")
    finally:
        client.close()


def run_demo(_options: argparse.Namespace) -> int:
    """A conversation over real sockets, in one process."""
    arrived = threading.Semaphore(0)
    server = make_server(lambda _conn: arrived.release(), lambda _conn, _reason: None)
    with server.running(("127.0.0.1", 0)) as address:
        say(f"The chat server listens on {format_address(address)}.")
        guests = {name: Guest(name, address) for name in ("Ann", "Bob", "Eve")}
        for _ in guests:
            arrived.acquire(timeout=DEMO_TIMEOUT)  # only who is in the room hears what is said
        for name, text in CONVERSATION:
            say(f"{name} says: {text}")
            guests[name].say(text)
            for other in guests.values():
                if other.name != name:
                    say(f"    {other.name} hears: {other.heard.get(timeout=DEMO_TIMEOUT)}")
        for guest in guests.values():
            guest.leave()
    say("All have left, and the server has stopped.")
    return 0


class Guest:
    """A client without a terminal: what it hears goes into a queue."""

    def __init__(self, name: str, address: tuple[str, int]) -> None:
        self.name = name
        self.heard: queue.SimpleQueue[str] = queue.SimpleQueue()
        registry = MessageRegistry()

        @registry.handler(ChatMessage)
        def hear(ctx: Context[ChatMessage], _conn: WriteCloser) -> None:
            self.heard.put(ctx.message.text)

        self._client = ClientConn(address, registry=registry)
        self._client.start()
        # The server may have seen the connection before this end has.
        self._client.wait_connected(DEMO_TIMEOUT)

    def say(self, text: str) -> None:
        """To all the others."""
        self._client.write(ChatMessage(f"{self.name}: {text}"))

    def leave(self) -> None:
        """Close, and wait until it is over."""
        self._client.close()
        self._client.wait_closed()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = _common.command_line(
        "chat", "A chat room: what one client says, all the others hear.", COMMANDS
    )
    parser.add_argument("--name", help="client: put NAME and a colon before each line")
    commands = {"server": run_server, "client": run_client, "demo": run_demo}
    return _common.run(parser, commands, arguments)


if __name__ == "__main__":
    sys.exit(main())
