"""`python -m tests.simulate --seeds N`: as many runs as one likes.

With `--first S` they begin with that seed; `--seed S` plays one, and `--trace` prints what happened in
it. A run that fails prints its seed and what was wrong; the status is then 1.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback

from tests.simulate.scenario import Run


def play(seed: int, *, trace: bool = False) -> bool:
    """Play one; says what is wrong with it, if anything is. Whether nothing is."""
    run = Run(seed)
    try:
        run.play()
    except Exception as error:
        print(f"\nseed {seed}: {type(error).__name__}: {error}", flush=True)
        if trace:
            traceback.print_exc(file=sys.stdout)
        return False
    finally:
        if trace:
            print("\n".join(map(str, run.simulation.trace)), flush=True)
    return True


def main(arguments: list[str] | None = None) -> int:
    """The status to exit with."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many (default: 1000)")
    parser.add_argument("--first", type=int, default=0, help="the first of them (default: 0)")
    parser.add_argument("--seed", type=int, help="play this one only")
    parser.add_argument("--trace", action="store_true", help="print what happens, with --seed")
    chosen = parser.parse_args(arguments)
    if chosen.seed is not None:
        return 0 if play(chosen.seed, trace=chosen.trace) else 1
    failed: list[int] = []
    begun = time.monotonic()
    for count in range(1, chosen.seeds + 1):
        seed = chosen.first + count - 1
        if not play(seed):
            failed.append(seed)
        if count % 10 == 0 or count == chosen.seeds:
            rate = count / (time.monotonic() - begun)
            state = f"{count} of {chosen.seeds} seeds, {rate:.0f} a second, {len(failed)} failed"
            print(f"\r{state}", end="", flush=True)
    print()
    if failed:
        print(f"failed: {' '.join(map(str, failed))}")
        print(f"again: python -m tests.simulate --seed {failed[0]} --trace")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
