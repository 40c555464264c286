"""The command line: `python -m tests.reload --times N`.

A service on several processes is reloaded by SIGHUP, again and again, while clients that stay connected
send numbered messages and others connect for every message; and so is another, whose clients come by TLS
and from afar. Whatever was handled is noted by the workers: each message must have been handled exactly
once, and answered.

Exit status: 0 nothing was refused, broken off or lost; 1 something was; 2 wrong usage; 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tests.reload.rounds import Crowd, run

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, and reload; the value is the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.reload",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--times", type=int, default=20, help="reloads (20)")
    parser.add_argument("--workers", type=int, default=2, help="processes (2)")
    parser.add_argument("--clients", type=int, default=8, help="that stay connected (8)")
    parser.add_argument("--visitors", type=int, default=4, help="that connect all the time (4)")
    parser.add_argument("--secure-clients", type=int, default=2, help="the same by TLS (2)")
    parser.add_argument("--secure-visitors", type=int, default=8, help="the same by TLS (8)")
    parser.add_argument("--unix", action="store_true", help="by a Unix socket, which they share")
    options = parser.parse_args(arguments)
    for name in ("times", "workers"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be positive")
    try:
        outcome = run(
            options.times,
            workers=options.workers,
            plain=Crowd(options.clients, options.visitors),
            secure=Crowd(options.secure_clients, options.secure_visitors),
            unix=options.unix,
            say=lambda text: print(text, file=sys.stderr, flush=True),
        )
    except KeyboardInterrupt:
        return 130
    print(outcome)
    return 0 if outcome.good else 1


if __name__ == "__main__":
    sys.exit(main())
