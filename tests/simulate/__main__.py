"""`python -m tests.simulate --seeds N`: as many runs as one likes.

With `--first S` they begin with that seed; `--seed S` plays one, and `--trace` prints what happened in
it. A run that fails prints its seed and what was wrong; the status is then 1.

With `--defects` it puts each of the known defects into the framework, looks for the first of so many
seeds that fails, and plays that a second time; with `--defects TEXT`, those that have it in their name. The
status is 1 if one of them is not found, or not found again by its seed in the very same run.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback

from tests.simulate.defects import DEFECTS
from tests.simulate.planting import Defect, first_found, planted
from tests.simulate.processor import on_one_processor
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


def hunt(defect: Defect, seeds: range) -> bool:
    """Whether one of the seeds finds it, and finds it again."""
    with planted(defect):
        found = first_found(seeds)
        again = None if found is None else first_found(range(found.seed, found.seed + 1))
    if found is None:
        print(f"  NOT FOUND: {defect.name}", flush=True)
        return False
    told = found.message.splitlines()[0]
    print(f"  {defect.name}: seed {found.seed}: {told}", flush=True)
    if again != found:
        print(f"  NOT THE SAME RUN AGAIN: {defect.name}", flush=True)
        return False
    return True


def hunt_all(seeds: range, text: str) -> bool:
    """Whether all defects with that text in their name are found; and that there are any."""
    results = []
    for kind, defects in DEFECTS.items():
        chosen = [defect for defect in defects if text in defect.name]
        if chosen:
            print(f"{kind}:")
        results += [hunt(defect, seeds) for defect in chosen]
    print(f"{sum(results)} of {len(results)} defects found, in {len(seeds)} seeds each at the most")
    return bool(results) and all(results)


def main(arguments: list[str] | None = None) -> int:
    """The status to exit with."""
    with on_one_processor():
        return _main(arguments)


def _main(arguments: list[str] | None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many (default: 1000)")
    parser.add_argument("--first", type=int, default=0, help="the first of them (default: 0)")
    parser.add_argument("--seed", type=int, help="play this one only")
    parser.add_argument("--trace", action="store_true", help="print what happens, with --seed")
    parser.add_argument(
        "--defects",
        metavar="TEXT",
        nargs="?",
        const="",
        help="put in the known defects, or those with TEXT in their name, and look for them",
    )
    chosen = parser.parse_args(arguments)
    if chosen.seed is not None:
        return 0 if play(chosen.seed, trace=chosen.trace) else 1
    if chosen.defects is not None:
        seeds = range(chosen.first, chosen.first + chosen.seeds)
        return 0 if hunt_all(seeds, chosen.defects) else 1
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
