"""The peers and the sample of the workload that sends one frame to many."""

import time
from statistics import median

from tests.bench.peer import Peer
from tests.bench.peers.broadcast import frame_of
from tests.bench.readers import Readers
from tests.bench.server_process import ServerProcess
from tests.bench.workload import Case, Conditions, Sample

BARE_LOOP = "bare-loop"
TAO_LOOP = "tao-loop"
TAO_THREAD = "tao-thread"

FEWEST = 5  # broadcasts in a sample, however short it is
ANSWER_SECONDS = 60.0


def _peer(name: str, way: str, requires: str | None = None) -> Peer:
    return Peer(name, "tests.bench.peers.broadcast", ("--way", way), requires)


BROADCAST_PEERS = (
    _peer(TAO_LOOP, "loop", requires="tao"),
    _peer(TAO_THREAD, "thread", requires="tao"),
    _peer("asyncio", "asyncio"),
    _peer("uvloop", "uvloop", requires="uvloop"),
    _peer(BARE_LOOP, "bare"),
)


def measure_broadcast(server: ServerProcess, case: Case, conditions: Conditions) -> Sample:
    """The median of many broadcasts; before the next one, all who read have read the last.

    Raises BenchError when somebody does not get what is theirs.
    """
    bytes_each = (case.connections - 1) * len(frame_of(case.size))
    bytes_read = 0

    def broadcast_for(seconds: float) -> list[float]:
        nonlocal bytes_read
        took: list[float] = []
        until = time.monotonic() + seconds
        while len(took) < FEWEST or time.monotonic() < until:
            took.append(float(server.ask(f"send {case.size}", ANSWER_SECONDS)))
            bytes_read += bytes_each
            readers.wait_read(bytes_read)
        return took

    with Readers(server.port, case.connections, conditions.placement.load) as readers:
        server.ask(f"accept {case.connections}", ANSWER_SECONDS)
        broadcast_for(conditions.warm_up)
        took = broadcast_for(conditions.seconds)
    return {
        "ms": median(took) * 1e3,
        "least_ms": min(took) * 1e3,
        "us_each": median(took) / case.connections * 1e6,
        "broadcasts": len(took),
    }
