"""What a server does while all its connections are idle: nothing, if all is well."""

import time

from tests.bench.echo import (
    ASYNCIO_EACH,
    BARE_EPOLL,
    TAO_INLINE,
    TAO_POOL,
    UVLOOP_EACH,
    peers_named,
)
from tests.bench.open_connections import OpenConnections, affordable
from tests.bench.server_process import ServerProcess
from tests.bench.workload import Case, Column, Conditions, Grid, Sample, Workload

# What follows from the connections' coming, such as threads that look for more, has its end by then.
CALM_SECONDS = 1.0


def measure(server: ServerProcess, case: Case, conditions: Conditions) -> Sample:
    """What the server did in the measured time, after which every connection must still answer."""
    with OpenConnections(server.port, case.size) as connections:
        connections.grow(affordable(case.connections))
        time.sleep(max(CALM_SECONDS, conditions.warm_up))
        cpu_before, wake_ups_before = server.exact_cpu_seconds(), server.wake_ups()
        time.sleep(conditions.seconds)
        cpu = server.exact_cpu_seconds() - cpu_before
        wake_ups = server.wake_ups() - wake_ups_before
        connections.check()
        return {
            "wake_ups": wake_ups,
            "cpu_ms": cpu * 1e3,
            "seconds": conditions.seconds,
            "connections": len(connections),
        }


WORKLOAD = Workload(
    name="idle",
    summary="a server whose connections are all idle",
    peers=peers_named(TAO_POOL, TAO_INLINE, ASYNCIO_EACH, UVLOOP_EACH, BARE_EPOLL),
    grid=Grid(connections=(10_000,), in_flight=(1,), sizes=(64,)),
    reference=ASYNCIO_EACH,
    headline=Column("wake_ups", "wake-ups", less_is_better=True),
    columns=(
        Column("cpu_ms", "cpu ms", decimals=3),
        Column("seconds", "in seconds", decimals=1),
        Column("connections", "connections"),
    ),
    measure=measure,
    note="A wake-up is a voluntary context switch of any of the server's threads. Less is better.",
)
