"""How a command ends.

Owns the exit statuses, and the exceptions by which a command says one of them from wherever it is.
"""

from __future__ import annotations

__all__ = ["DONE", "FAILED", "INTERRUPTED", "USAGE", "CommandError", "UsageError"]

DONE = 0
FAILED = 1
"""The peer's failure, or the network's."""
USAGE = 2
"""The command line, or a variable of the environment, makes no sense; argparse's number for it."""
INTERRUPTED = 130
"""Ended by Ctrl-C: as a shell says it of a program that SIGINT has ended, 128 and the signal's number."""


class CommandError(Exception):
    """What was asked for could not be done. Its text is printed, and the status is FAILED."""


class UsageError(Exception):
    """What was asked for makes no sense. Its text is printed, and the status is USAGE."""
