"""A clock: the server tells each client the time, again and again, without being asked.

One kind of message: number 1, the Unix time in seconds (a float64, little-endian). Each connection
has a timer of its own, set when it comes and ended with it: nobody has to clear it away.
"""

from __future__ import annotations

import argparse
import struct
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tao import (
    ClientConn,
    CloseCause,
    ConnectionClosedError,
    Context,
    MessageRegistry,
    Server,
    ServerConn,
    WouldBlockError,
    WriteCloser,
)
from tao.address import format_address
from tao.examples import _common
from tao.terminal import count, say, seconds

COMMANDS = {
    "server": "tells each client the time every --interval seconds (the default)",
    "client": "prints it, --count times or until Ctrl-C",
    "demo": "a server and a client in this one process; ends by itself",
}

_TIME = struct.Struct("<d")


@dataclass(frozen=True, slots=True)
class TimeMessage:
    """A moment, as `time.time()` gives it."""

    seconds: float
    message_number = 1

    def serialize(self) -> bytes:
        """Eight bytes."""
        return _TIME.pack(self.seconds)

    @classmethod
    def deserialize(cls, data: bytes) -> TimeMessage:
        """Raises struct.error unless there are eight bytes."""
        return cls(*_TIME.unpack(data))


def make_server(interval: float) -> Server:
    """A server that speaks without being asked, every `interval` seconds."""

    def tell(now: float, conn: ServerConn) -> None:
        # Runs like a handler: on a worker, in its connection's order. An exception in here would
        # close the connection, as one in a handler does.
        try:
            conn.write(TimeMessage(now))
        except ConnectionClosedError:
            pass  # the client has just gone
        except WouldBlockError:
            conn.abort()  # it has long stopped reading

    def on_connect(conn: ServerConn) -> None:
        conn.run_every(interval, tell)

    return Server(registry=MessageRegistry(), on_connect=on_connect)


def run_server(options: argparse.Namespace) -> int:
    """Serve until Ctrl-C."""
    return _common.serve(make_server(options.interval), options, "timer")


def run_client(options: argparse.Namespace) -> int:
    """Print what the server says."""
    try:
        return listen((options.host, options.port), options.count)
    except KeyboardInterrupt:
        return 0


def listen(address: tuple[str, int], times: int | None) -> int:
    """Print the time so many times, or for as long as the server lives; returns the exit status."""
    registry = MessageRegistry()
    left = times

    @registry.handler(TimeMessage, max_size=_TIME.size)
    def on_time(ctx: Context[TimeMessage], conn: WriteCloser) -> None:
        nonlocal left
        moment = ctx.message.seconds
        text = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
        say(f"It is {text}.{int(moment % 1 * 1000):03d} by the server's clock.")
        if left is not None:
            left -= 1
            if left == 0:
                conn.close()

    with ClientConn(address, registry=registry) as client:
        reason = client.wait_closed()
    if reason.cause is CloseCause.CLOSED:
        return 0
    say(f"The connection is over: {reason}.")
    return 0 if reason.clean else 1


def run_demo(_options: argparse.Namespace) -> int:
    """Both ends in one process, and a quicker clock."""
    with make_server(0.2).running(("127.0.0.1", 0)) as address:
        say(f"The timer server listens on {format_address(address)}.")
        return listen(address, 5)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = _common.command_line(
        "timer", "A clock: the server tells each client the time, again and again.", COMMANDS
    )
    parser.add_argument(
        "--interval",
        type=seconds,
        default=1.0,
        help="server: seconds between two messages; default: %(default)s",
    )
    parser.add_argument("--count", type=count, help="client: end after so many; default: go on")
    commands = {"server": run_server, "client": run_client, "demo": run_demo}
    return _common.run(parser, commands, arguments)


if __name__ == "__main__":
    sys.exit(main())
