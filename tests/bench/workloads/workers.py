"""One process and two: handlers that use the processor for 200 microseconds."""

from tests.bench.echo import ECHO_HEADLINE
from tests.bench.errors import BenchError
from tests.bench.load import LoadSpec, run_load
from tests.bench.peer import Peer
from tests.bench.server_process import ServerProcess
from tests.bench.workload import Case, Column, Conditions, Grid, Sample, Workload

WORKERS_1 = "workers-1"
WORKERS_2 = "workers-2"
WORKERS_2_SHARED = "workers-2-shared"


def _peer(name: str, *options: str) -> Peer:
    return Peer(name, "tests.bench.peers.tao_workers", options, requires="tao")


def _measure(server: ServerProcess, case: Case, conditions: Conditions) -> Sample:
    """One run of the load generator, on any processor: there is none that the servers leave free."""
    load = run_load(
        conditions.load_program,
        LoadSpec(
            port=server.port,
            connections=case.connections,
            in_flight=case.in_flight,
            size=case.size,
            seconds=conditions.seconds,
            warm_up=conditions.warm_up,
            cpu=None,
        ),
    )
    if load.messages == 0:
        raise BenchError("not one reply fell into the measured time: measure for longer")
    return {
        "messages_per_second": load.messages / load.seconds,
        "p50_us": load.p50_us,
        "p99_us": load.p99_us,
        "max_us": load.max_us,
        "load_cpu": load.cpu_seconds / load.seconds,
    }


WORKLOAD = Workload(
    name="workers",
    summary="handlers that compute for 200 microseconds, on one process and on two",
    peers=(
        _peer(WORKERS_1, "--workers", "1"),
        _peer(WORKERS_2, "--workers", "2"),
        _peer(WORKERS_2_SHARED, "--workers", "2", "--listener", "shared"),
    ),
    grid=Grid(connections=(50,), in_flight=(1, 16), sizes=(64,)),
    reference=WORKERS_1,
    headline=ECHO_HEADLINE,
    columns=(
        Column("p50_us", "p50 us"),
        Column("p99_us", "p99 us"),
        Column("max_us", "max us"),
        Column("load_cpu", "load cpu", decimals=2),
    ),
    measure=_measure,
    note=(
        "One interpreter computes for one handler at a time: 5,000 messages/s is the most that there can be"
        " of a process.\nServers and load share the processors, as the system deals them out. -shared: both"
        " processes accept from one socket."
    ),
)
