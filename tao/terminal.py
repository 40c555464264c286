"""What programs that are run on a terminal share: the `tao` command, and the examples.

Contents: CommandLine, count, seconds, printable, say, typed_lines.

Owns how a wrong command line is told of, and lines in and out. Any thread may print.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from typing import NoReturn

__all__ = ["CommandLine", "count", "printable", "say", "seconds", "typed_lines"]


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


# What moves the cursor, changes colours or titles, or turns the direction of what follows: the control
# characters of ASCII and Latin 1, and Unicode's for text from right to left.
_CONTROLS = {
    code: f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
    for code in (*range(32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
    if chr(code) not in "\t"
}
_CONTROLS_IN_LINES = {code: text for code, text in _CONTROLS.items() if chr(code) != "\n"}


def printable(text: str, *, lines: bool = False) -> str:
    """What a peer has said, so that a terminal only shows it: control characters are escaped.

    With `lines` it may have several lines. Any thread.
    """
    return text.translate(_CONTROLS_IN_LINES if lines else _CONTROLS)


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
