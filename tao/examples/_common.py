"""What the examples share and what says nothing about the framework.

Contents: command_line, say, where, typed_lines, serve, run.

Owns the command line, the text on the terminal, and how a program ends: with one line and an exit
status, never with a traceback for what is the user's affair.
"""

from __future__ import annotations

import argparse
import io
import logging
import math
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Any, NoReturn, TypeAlias

from tao import Server, TaoError
from tao.address import format_address, parse_address

__all__ = ["Command", "CommandLine", "command_line", "count", "run", "say", "seconds", "serve"]

Command: TypeAlias = Callable[[argparse.Namespace], int]
"""What a command does; returns the exit status."""

DEFAULT_PORT = 12345


class CommandLine(argparse.ArgumentParser):
    """An ArgumentParser that says in one line what is wrong."""

    def error(self, message: str) -> NoReturn:
        """Exit status 2."""
        self.exit(2, f"{self.prog}: {message} (--help shows what there is)\n")


def command_line(name: str, description: str, commands: Mapping[str, str]) -> CommandLine:
    """The options that all examples have. `commands` are the commands and what they do."""
    width = max(map(len, commands))
    parser = CommandLine(
        prog=f"tao.examples.{name}",
        description=description,
        epilog="commands:\n"
        + "\n".join(f"  {command:{width}}  {what}" for command, what in commands.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "command", nargs="?", choices=list(commands), default="server", help="default: server"
    )
    parser.add_argument("--host", default="127.0.0.1", help="default: %(default)s")
    parser.add_argument(
        "--port",
        type=_port,
        default=DEFAULT_PORT,
        help="default: %(default)s; 0 lets the system choose one for the server",
    )
    parser.add_argument(
        "--address",
        type=_address,
        help="instead of host and port: HOST:PORT, [::1]:PORT, or unix:PATH for a Unix socket",
    )
    parser.add_argument("--verbose", action="store_true", help="show what the framework logs")
    return parser


def _port(text: str) -> int:
    if not (text.isdecimal() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"a port is a number from 0 to 65535, not {text!r}")
    return int(text)


def _address(text: str) -> tuple[str, int] | str:
    try:
        return parse_address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def count(text: str) -> int:
    """The type of an option: how many."""
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"expected a number from 1 on, not {text!r}")
    return int(text)


def seconds(text: str) -> float:
    """The type of an option: how long."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"expected a positive number of seconds, not {text!r}")
    return value


def run(
    parser: CommandLine, commands: Mapping[str, Command], arguments: Sequence[str] | None
) -> int:
    """Do what the command line asks for; returns the exit status."""
    options = parser.parse_args(arguments)
    if options.address is None:
        options.address = options.host, options.port
    if options.command == "client" and options.address[1] == 0:
        parser.error("a client needs the server's port, from 1 to 65535")
    # A client that cannot connect says so itself, once; a server's warnings are news.
    quiet = logging.WARNING if options.command == "server" else logging.ERROR
    logging.basicConfig(level=logging.INFO if options.verbose else quiet)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a peer may say what this terminal cannot show
    try:
        return commands[options.command](options)
    except (OSError, TaoError, UnicodeError) as error:  # UnicodeError: no name for a host
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1


def say(text: str) -> None:
    """Print a line at once, even into a pipe; it stays whole when threads print at the same time."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def where(address: Any) -> str:
    """An address as the socket module gives it, for people."""
    return format_address(address)


def typed_lines() -> Iterator[str]:
    """The lines of standard input, without their ends.

    A reader of its own on the same descriptor: `sys.stdin` has a lock which the interpreter wants at
    its end, and a thread that still waits for a line would not give it up.
    """
    with open(sys.stdin.fileno(), encoding="utf-8", errors="replace", closefd=False) as lines:
        for line in lines:
            yield line.rstrip("\r\n")


def serve(server: Server, options: argparse.Namespace, what: str) -> int:
    """Listen, say where, and serve until Ctrl-C or SIGTERM; returns the exit status."""
    address = server.listen(options.address)
    _stop_on_signals(server)
    say(f"The {what} server listens on {where(address)}; Ctrl-C ends it.")
    server.serve_forever()
    report = server.stop()
    say(f"Stopped. Connections drained: {report.drained}, cut off: {report.aborted}. Goodbye.")
    return 0


def _stop_on_signals(server: Server) -> None:
    """`serve_forever` sees to the signals by itself, but from its beginning on.

    These programs announce themselves before that, and whoever reads the line may send a signal at
    once: it shall not find the system's default, which ends the process on the spot.
    """
    graces = [0.0, 5.0]  # whoever asks twice is in a hurry

    def stop(_number: int, _frame: FrameType | None) -> None:
        server.stop(graces.pop() if len(graces) > 1 else graces[0])

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
