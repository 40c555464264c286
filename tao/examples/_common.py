"""What the examples share and what says nothing about the framework.

Contents: command_line, run, serve, serve_at.

Owns the options that all have, and how a program ends: with one line and an exit status, never with a
traceback for what is the user's affair. Lines in and out are `tao.terminal`'s.
"""

from __future__ import annotations

import argparse
import io
import logging
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import TypeAlias

from tao import Server, TaoError
from tao.address import format_address
from tao.terminal import CommandLine, say

__all__ = ["Command", "command_line", "run", "serve", "serve_at"]

Command: TypeAlias = Callable[[argparse.Namespace], int]
"""What a command does; returns the exit status."""

DEFAULT_PORT = 12345


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
    parser.add_argument("--verbose", action="store_true", help="show what the framework logs")
    return parser


def _port(text: str) -> int:
    if not (text.isdecimal() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"a port is a number from 0 to 65535, not {text!r}")
    return int(text)


def run(
    parser: CommandLine, commands: Mapping[str, Command], arguments: Sequence[str] | None
) -> int:
    """Do what the command line asks for; returns the exit status."""
    options = parser.parse_args(arguments)
    if options.command == "client" and options.port == 0:
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


def serve(server: Server, options: argparse.Namespace, what: str) -> int:
    """As `serve_at`, where the command line says."""
    return serve_at(server, (options.host, options.port), what)


def serve_at(server: Server, address: tuple[str, int] | str, what: str) -> int:
    """Listen, say where, and serve until Ctrl-C or SIGTERM; returns the exit status."""
    bound = server.listen(address)
    _stop_on_signals(server)
    say(f"The {what} server listens on {format_address(bound)}; Ctrl-C ends it.")
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
