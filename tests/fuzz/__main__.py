"""The command line: `python -m tests.fuzz --minutes N`.

Rounds of every target in turn, each with a seed of its own, until the time is over. A line of progress
goes to standard error after every round. Exit status: 0 nothing was found; 1 a check has failed, and
the smallest input that makes it fail was shown, with the seed that replays it; 2 wrong usage; 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import random
import sys
import time
import traceback
from collections.abc import Sequence
from fnmatch import fnmatchcase

from tests.fuzz.targets import TARGETS, Target, run_round

EXAMPLES = 200
"""Inputs of a round."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, and fuzz; the value is the exit status."""
    options = _parse(arguments)
    targets = [target for target in TARGETS if fnmatchcase(target.name, options.target)]
    if not targets:
        _say(f"no target is named {options.target!r}; there are:")
        for target in TARGETS:
            _say(f"  {target.name}")
        return 2
    # What peers do wrong, and that a handler has raised, is logged each time; here it is meant to be.
    logging.getLogger("tao").setLevel(logging.CRITICAL)
    try:
        return _fuzz(targets, options)
    except KeyboardInterrupt:
        _say("interrupted")
        return 130


def _fuzz(targets: list[Target], options: argparse.Namespace) -> int:
    begun = time.monotonic()
    first = random.SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
    total = 0
    for number, target in zip(itertools.count(first), itertools.cycle(targets), strict=False):
        try:
            total += run_round(target, examples=options.examples, number=number)
        except Exception:
            traceback.print_exc()
            _say(
                f"{target.name}: a check has failed. To replay it: python -m tests.fuzz "
                f"--target {target.name!r} --seed {number} --examples {options.examples} --minutes 0"
            )
            return 1
        elapsed = time.monotonic() - begun
        _say(f"{elapsed:6.0f} s  {total:8,} inputs, none has failed; seed {number}, {target.name}")
        # As far as every target has had its turn.
        if elapsed >= options.minutes * 60 and number - first + 1 >= len(targets):
            break
    print(f"{total:,} inputs in {time.monotonic() - begun:.0f} s: nothing found")
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument(
        "--minutes", type=float, default=1.0, help="how long; the last round is ended (1)"
    )
    parser.add_argument("--target", default="*", help="the name of a target, or a pattern (*)")
    parser.add_argument("--seed", type=int, help="of the first round; each has the next (any)")
    parser.add_argument("--examples", type=int, default=EXAMPLES, help=f"a round ({EXAMPLES})")
    return parser.parse_args(arguments)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
