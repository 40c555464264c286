"""The peers and the sample of the workloads that measure time-outs.

Each sample is taken in a process of its own: `tests.bench.peers.timers`, which measures itself.
"""

import json

from tests.bench.peer import Peer
from tests.bench.server_process import ServerProcess
from tests.bench.workload import Conditions, Operation, Sample

TAO_TIMERS = "tao"
TIMERS_REFERENCE = "asyncio"

# What it takes beside the measured time: filling the loop, and measuring memory, traced and slow.
SPARE_SECONDS = 60.0


def _peer(name: str, host: str, requires: str | None = None) -> Peer:
    return Peer(name, "tests.bench.peers.timers", ("--host", host), requires)


TIMER_PEERS = (
    _peer(TAO_TIMERS, "reactor"),
    _peer(TIMERS_REFERENCE, "asyncio"),
    _peer("uvloop", "uvloop", requires="uvloop"),
)


def measure_timers(server: ServerProcess, case: Operation, conditions: Conditions) -> Sample:
    """One run of one operation."""
    request = {
        "operation": case.name,
        "count": case.count,
        "resident": case.resident,
        "seconds": conditions.seconds,
    }
    figures: dict[str, float] = json.loads(
        server.ask(json.dumps(request), conditions.seconds + SPARE_SECONDS)
    )
    return figures
