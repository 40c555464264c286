"""Runs a workload in interleaved rounds.

In every round and case each peer has its turn, in an order that rotates from round to round: what
disturbs the machine for a while disturbs all of them, and nobody always follows the same neighbour.
Every sample has a server process of its own.
"""

from collections.abc import Callable, Sequence

from tests.bench.errors import BenchError
from tests.bench.peer import Peer
from tests.bench.results import Results
from tests.bench.server_process import ServerProcess
from tests.bench.workload import AnyCase, Conditions, Sample, Workload

Say = Callable[[str], None]


def run_rounds(
    workload: Workload,
    peers: Sequence[Peer],
    cases: Sequence[AnyCase],
    rounds: int,
    conditions: Conditions,
    say: Say,
) -> Results:
    """Measure `peers` under `cases`; `say` gets a line of progress after each sample.

    A peer that fails is told of at once, noted in the results, and not tried again in that case.
    """
    results = Results(workload, cases)
    failed: set[tuple[AnyCase, Peer]] = set()
    for round_number in range(rounds):
        for case in cases:
            for peer in _rotated(peers, round_number):
                if (case, peer) in failed:
                    continue
                prefix = f"{workload.name} round {round_number + 1}/{rounds}  {case}  {peer.name}"
                try:
                    sample = _take_sample(workload, peer, case, conditions)
                except BenchError as error:
                    failed.add((case, peer))
                    results.failures.append(f"{case}: {error}")
                    say(f"{prefix}  FAILED: {error}")
                    continue
                results.add(case, peer.name, round_number, sample)
                headline = workload.headline
                say(f"{prefix}  {sample[headline.key]:,.{headline.decimals}f} {headline.title}")
    return results


def _rotated(peers: Sequence[Peer], by: int) -> list[Peer]:
    start = by % max(1, len(peers))
    return [*peers[start:], *peers[:start]]


def _take_sample(workload: Workload, peer: Peer, case: AnyCase, conditions: Conditions) -> Sample:
    certificate_file = None
    if workload.needs_tls:
        assert conditions.tls is not None, f"{workload.name} was chosen without TLS"
        certificate_file = conditions.tls.certificate_file
    command = peer.command(conditions.placement.server, certificate_file)
    with ServerProcess(peer.name, command) as server:
        try:
            return workload.measure(server, case, conditions)
        except BenchError as error:
            raise server.explain(error) from error
