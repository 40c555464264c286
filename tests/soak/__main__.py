"""The command line: `python -m tests.soak --minutes N`.

A line of progress goes to standard error after every round, the summary to standard output. Exit status:
0 nothing was lost and nothing has grown; 1 something was found; 2 wrong usage; 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence

from tests.soak.gauges import one_heap
from tests.soak.rounds import Soak


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, and soak; the value is the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="how long (1)")
    parser.add_argument("--seed", type=int, help="what the clients' dice begin with (any)")
    options = parser.parse_args(arguments)
    if not options.minutes > 0:
        parser.error("--minutes must be positive")
    seed = random.SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
    _say(f"seed {seed}; threads and sockets have no seed: it replays what is sent, and not when")
    one_heap()
    try:
        result = Soak(options.minutes * 60, _say, seed=seed).run()
    except KeyboardInterrupt:
        _say("interrupted")
        return 130
    print(result.summary())
    return 1 if result.tally.finding_count else 0


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
