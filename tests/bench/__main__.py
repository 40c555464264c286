"""The command line: ``python -m tests.bench``.

Arguments are the workloads to run, as names or patterns; without them it runs the first, frozen
benchmark. Progress goes to standard error, tables to standard output. A chart can also be drawn
later: `tests.bench.chart`.

Exit status: 0 all was measured (and, with ``--check``, every target was met); 1 a peer failed or a
target was missed; 2 wrong usage, or nothing could be measured; 130 Ctrl-C.
"""

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from types import FrameType

from tests.bench.chart import draw
from tests.bench.discovery import find_workloads
from tests.bench.errors import BenchError
from tests.bench.load import compiled_load
from tests.bench.peer import Peer
from tests.bench.processors import choose_placement
from tests.bench.provenance import Provenance, provenance
from tests.bench.report import (
    caption,
    json_report,
    markdown_caption,
    markdown_report,
    terminal_report,
)
from tests.bench.results import Results
from tests.bench.rounds import run_rounds
from tests.bench.targets import check
from tests.bench.tls import Tls, prepared_tls
from tests.bench.workload import Cases, Conditions, Grid, Workload

DEFAULT_WORKLOAD = "echo"


def main() -> int:
    """Parse the command line, measure, print; the value is the exit status."""
    # SIGTERM must unwind the stack as Ctrl-C does: servers are ended on the way out.
    signal.signal(signal.SIGTERM, _on_sigterm)
    options = _parse()
    try:
        all_results, origin = _measure(options)
    except BenchError as error:
        _say(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        _say("interrupted")
        return 130
    report = json_report(all_results, origin)
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    if options.svg is not None:
        options.svg.write_text(draw([report]))
    print((markdown_caption if options.markdown else caption)(origin), end="\n\n")
    show = markdown_report if options.markdown else terminal_report
    for results in all_results:
        print(show(results), end="\n\n")
    return _judge(all_results, options.check)


def _measure(options: argparse.Namespace) -> tuple[list[Results], Provenance]:
    patterns = [*options.workloads, *(options.workload or [])]
    workloads = _chosen_workloads(patterns or [DEFAULT_WORKLOAD])
    placement = choose_placement()
    _say(str(placement))
    all_results = []
    measured: set[Peer] = set()
    with ExitStack() as stack:
        program = stack.enter_context(compiled_load())
        tls, workloads = _prepare_tls(workloads, stack)
        conditions = Conditions(program, options.seconds, options.warm_up, placement, tls)
        for workload in workloads:
            peers = _chosen_peers(workload, options.only)
            measured.update(peers)
            cases = _chosen_grid(workload.grid, options).cases()
            all_results.append(run_rounds(workload, peers, cases, options.rounds, conditions, _say))
    return all_results, provenance(sys.argv[1:], measured, options.rounds, conditions)


def _judge(all_results: Sequence[Results], with_targets: bool) -> int:
    failures = [failure for results in all_results for failure in results.failures]
    for failure in failures:
        _say(f"FAILED: {failure.splitlines()[0]}")
    verdicts = check(all_results) if with_targets else []
    for verdict in verdicts:
        print(verdict)
    return 1 if failures or not all(verdict.is_met for verdict in verdicts) else 0


def _chosen_workloads(patterns: Sequence[str]) -> list[Workload]:
    """Each once, in the order of the patterns, every one of which must find something."""
    found = find_workloads()
    chosen: dict[str, Workload] = {}
    for pattern in patterns:
        names = [name for name in found if fnmatchcase(name, pattern)]
        if not names:
            raise BenchError(f"no workload matches {pattern!r}; there are: {', '.join(found)}")
        chosen.update((name, found[name]) for name in names)
    return list(chosen.values())


def _prepare_tls(workloads: list[Workload], stack: ExitStack) -> tuple[Tls | None, list[Workload]]:
    """TLS, if it is needed, and the workloads that can be run."""
    if not any(workload.needs_tls for workload in workloads):
        return None, workloads
    try:
        return stack.enter_context(prepared_tls()), workloads
    except BenchError as error:
        without = [workload for workload in workloads if not workload.needs_tls]
        if not without:
            raise
        skipped = ", ".join(workload.name for workload in workloads if workload.needs_tls)
        _say(f"*** SKIPPED: {skipped}: {error} ***")
        return None, without


def _chosen_peers(workload: Workload, patterns: Sequence[str] | None) -> list[Peer]:
    chosen = []
    for peer in workload.peers:
        if patterns and not any(fnmatchcase(peer.name, pattern) for pattern in patterns):
            continue
        if peer.is_available():
            chosen.append(peer)
        else:
            _say(f"*** SKIPPED: {peer.name}: the module {peer.requires} is not installed ***")
    if not chosen:
        names = ", ".join(peer.name for peer in workload.peers)
        raise BenchError(f"no peer of {workload.name} is left to measure; there are: {names}")
    return chosen


def _chosen_grid(grid: Cases, options: argparse.Namespace) -> Cases:
    if not isinstance(grid, Grid):
        return grid
    return replace(
        grid,
        connections=tuple(options.connections or grid.connections),
        in_flight=tuple(options.in_flight or grid.in_flight),
        sizes=tuple(options.size or grid.sizes),
    )


def _parse() -> argparse.Namespace:
    workloads = find_workloads().values()
    width = max(len(workload.name) for workload in workloads)
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=(
            "Measures servers, and what they are made of, side by side, in interleaved rounds.\n"
            "Results are ratios to one of those measured, the reference."
        ),
        epilog="\n".join(
            ["workloads:", *(f"  {each.name:{width}}  {each.summary}" for each in workloads)]
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("workloads", nargs="*", metavar="WORKLOAD", help="workloads to run; a GLOB will do")
    add("--workload", action="append", metavar="GLOB", help="another way to say which")
    add("--only", action="append", metavar="GLOB", help="peers to run; may be repeated")
    add("--rounds", type=_positive_int, default=5)
    add("--seconds", type=_positive_float, default=2.0, help="measured time of a sample")
    add("--warm-up", type=float, default=0.3, metavar="SECONDS", help="before it, not measured")
    add(
        "--connections",
        type=_positive_int,
        nargs="+",
        metavar="N",
        help="in place of the workload's own numbers; so are the next two",
    )
    add("--in-flight", type=_positive_int, nargs="+", metavar="N", help="frames per connection")
    add("--size", type=int, nargs="+", metavar="BYTES", help="bytes of a value")
    add("--json", type=Path, metavar="FILE", help="write every sample there")
    add("--svg", type=Path, metavar="FILE", help="draw the ratios there")
    add("--markdown", action="store_true", help="print tables in Markdown")
    add("--check", action="store_true", help="fail when a target is missed")
    return parser.parse_args()


def _positive_int(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def _positive_float(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def _on_sigterm(signal_number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + signal_number)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
