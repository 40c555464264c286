"""Handlers that block for 10 milliseconds, and whether all workers share them."""

from tests.bench.echo import (
    ASYNCIO_EXECUTOR,
    ECHO_COLUMNS,
    ECHO_HEADLINE,
    TAO_POOL,
    TWISTED_THREADS,
    UVLOOP_EXECUTOR,
    measure_echo,
    peers_named,
)
from tests.bench.peers.asyncio_executor import WORKERS
from tests.bench.peers.work import SLEEP_SECONDS
from tests.bench.server_process import ServerProcess
from tests.bench.workload import Case, Column, Conditions, Grid, Sample, Workload

IDEAL = WORKERS / SLEEP_SECONDS


def measure(server: ServerProcess, case: Case, conditions: Conditions) -> Sample:
    """The sample of an echo, and its share of what the workers could do at the most."""
    sample = measure_echo(server, case, conditions)
    return {**sample, "of_ideal": sample["messages_per_second"] / IDEAL}


WORKLOAD = Workload(
    name="pool-sleep",
    summary="handlers that sleep for 10 milliseconds, on 20 workers",
    peers=peers_named(TAO_POOL, ASYNCIO_EXECUTOR, UVLOOP_EXECUTOR, TWISTED_THREADS, work="sleep"),
    grid=Grid(connections=(200,), in_flight=(1,), sizes=(64,)),
    reference=ASYNCIO_EXECUTOR,
    headline=ECHO_HEADLINE,
    columns=(Column("of_ideal", "of ideal", decimals=3), *ECHO_COLUMNS),
    measure=measure,
    note=f"{WORKERS} workers that only sleep would handle {IDEAL:,.0f} messages/s: the ideal.",
)
