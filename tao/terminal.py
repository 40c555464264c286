"""What programs that are run on a terminal share: the `tao` command, and the examples.

Contents: CommandLine, count, seconds, say, typed_lines.

Owns how a wrong command line is told of, and lines in and out. Any thread may print.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from typing import NoReturn

__all__ = ["CommandLine", "count", "say", "seconds", "typed_lines"]


class CommandLine(argparse.ArgumentParser):
    """An ArgumentParser that says in one line what is wrong."""

    def error(self, message: str) -> NoReturn:
        """Exit status 2."""
        self.exit(2, f"{self.prog}: {message} (--help shows what there is)\n")


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


def say(text: str) -> None:
    """Print a line at once, even into a pipe; it stays whole when threads print at the same time."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def typed_lines() -> Iterator[str]:
    """The lines of standard input, without their ends.

    A reader of its own on the same descriptor: `sys.stdin` has a lock which the interpreter wants at
    its end, and a thread that still waits for a line would not give it up.
    """
    with open(sys.stdin.fileno(), encoding="utf-8", errors="replace", closefd=False) as lines:
        for line in lines:
            yield line.rstrip("\r\n")
