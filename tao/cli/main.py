"""The command line of `tao`, and how each command ends.

Owns the table of commands, the argument parser, the exit status, and what is printed of an error. What a
command does is its own module's.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import io
import os
import platform
import sys
from collections.abc import Sequence
from typing import Protocol

from tao.cli import bench, chat, environment, monitor, send, serve
from tao.cli.outcome import DONE, FAILED, INTERRUPTED, USAGE, CommandError, UsageError
from tao.errors import TaoError
from tao.terminal import CommandLine

__all__ = ["COMMANDS", "Command", "main"]


class Command(Protocol):
    """What a command's module has."""

    @property
    def NAME(self) -> str:
        """What is typed behind `tao`."""
        ...

    @property
    def HELP(self) -> str:
        """What it does, in one line."""
        ...

    def add_arguments(self, parser: CommandLine) -> None:
        """Its options, and in `parser.epilog` an example. See `environment.add_option`."""
        ...

    def run(self, arguments: argparse.Namespace) -> int:
        """Do it, and return the exit status.

        May raise CommandError, TaoError or OSError for what failed, UsageError for what makes no sense,
        and KeyboardInterrupt.
        """
        ...


COMMANDS: tuple[Command, ...] = (
    serve,
    chat,
    send,
    bench,
    monitor,
)
"""In the order of the help."""

ENDS = """\
exit status:
  0    done
  1    the peer or the network failed
  2    the command line, or a variable of the environment, makes no sense
  130  ended by Ctrl-C

An option's variable, such as TAO_TIMEOUT, counts where the option is left out.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Do what a command line asks for, `sys.argv`'s by default; returns the exit status.

    For the main thread. What goes wrong is told of in a line on standard error.
    """
    _open_standard_streams()
    try:
        status = _main(argv)
        sys.stdout.flush()  # here, where it may still be told of
    except BrokenPipeError:
        _discard_output()  # whoever read it has all that he wanted
        return DONE
    except OSError as error:
        _discard_output()
        return _end("tao", str(error), FAILED)
    return status


def _main(argv: Sequence[str] | None) -> int:
    parser = make_parser()
    try:
        arguments = parser.parse_args(argv)
    except SystemExit as end:  # it has printed why, or the help
        return end.code if isinstance(end.code, int) else USAGE
    command: Command = arguments.command
    program = f"{parser.prog} {command.NAME}"
    _show_anything()
    try:
        environment.fill_in(arguments, os.environ)
        return command.run(arguments)
    except UsageError as error:
        return _end(program, f"{error} (--help shows what there is)", USAGE)
    except BrokenPipeError:
        raise  # of standard output: what the network breaks is a TaoError, or told of by the command
    except KeyboardInterrupt:
        return INTERRUPTED
    except (CommandError, TaoError, OSError, UnicodeError) as error:  # UnicodeError: a host's name
        return _end(program, str(error), FAILED)


def make_parser() -> CommandLine:
    """Of all commands."""
    parser = CommandLine(
        prog="tao",
        description="Serve framed messages over TCP, and try out what does.",
        epilog=f"`tao COMMAND --help` says more of each.\n\n{ENDS}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=version())
    parsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        added = parsers.add_parser(
            command.NAME,
            help=command.HELP,
            description=f"{command.HELP[0].upper()}{command.HELP[1:]}.",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(added)
        added.epilog = f"{added.epilog}\n\n{ENDS}" if added.epilog else ENDS
        added.set_defaults(command=command)
    return parser


def version() -> str:
    """The framework's and the interpreter's."""
    try:
        installed = importlib.metadata.version("tao")
    except importlib.metadata.PackageNotFoundError:
        installed = "(not installed)"
    return f"tao {installed}, Python {platform.python_version()}"


def _open_standard_streams() -> None:
    """Those that were closed before we began lead to the null device.

    The next socket would get the number of such a one, and a child process, which is told the number,
    would find its own standard input there, or print into it.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)  # the lowest that is free
            os.set_inheritable(descriptor, True)
            stream = open(descriptor, mode, encoding="utf-8", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)


def _show_anything() -> None:
    """A peer may say what this terminal cannot show."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _discard_output() -> None:
    """What the interpreter flushes at its end goes nowhere, or it would say something of its own."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _end(program: str, text: str, status: int) -> int:
    print(f"{program}: {text}", file=sys.stderr)
    return status
