"""The command line: `python -m tests.cluster`.

A line of progress goes to standard error after every event, the summary to standard output. Exit status:
0 nothing was found; 1 something was; 2 wrong usage, or no redis-server; 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace

from tests.cluster.rounds import Plan, run
from tests.redis_support import MISSING, PROGRAM


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, and run; the value is the exit status."""
    plan = Plan()
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    for name, what in (
        ("clients", "how many (%(default)s)"),
        ("interval", "seconds between two messages of a client (%(default)s)"),
        ("frozen", "seconds that Redis is frozen (%(default)s)"),
        ("stopped", "seconds that Redis is gone (%(default)s)"),
        ("time_to_live", "seconds that messages wait for it (%(default)s)"),
    ):
        default = getattr(plan, name)
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, type=type(default), default=default, help=what)
    options = parser.parse_args(arguments)
    if PROGRAM is None:
        print(MISSING, file=sys.stderr)
        return 2
    try:
        result = run(replace(plan, **vars(options)), _say)
    except KeyboardInterrupt:
        _say("interrupted")
        return 130
    print(result.summary())
    return 1 if result.verdict.findings else 0


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
