"""Connections that come, ask once and go."""

from dataclasses import replace

from tests.bench.echo import (
    ASYNCIO_BUFFERED,
    ASYNCIO_EACH,
    BARE_EPOLL,
    ECHO_COLUMNS,
    TAO_INLINE,
    TAO_POOL,
    UVLOOP_EACH,
    load_spec,
    peers_named,
    sample_of_load,
)
from tests.bench.server_process import ServerProcess
from tests.bench.workload import Case, Column, Conditions, Grid, Sample, Workload


def measure(server: ServerProcess, case: Case, conditions: Conditions) -> Sample:
    """Connections in place of messages; a latency is from a connection's beginning to its end."""
    spec = replace(load_spec(server, case, conditions), churn=True)
    return sample_of_load(server, spec, conditions.load_program)


WORKLOAD = Workload(
    name="churn",
    summary="connect, one message, close",
    peers=peers_named(
        TAO_POOL, TAO_INLINE, ASYNCIO_EACH, ASYNCIO_BUFFERED, UVLOOP_EACH, BARE_EPOLL
    ),
    grid=Grid(connections=(50,), in_flight=(1,), sizes=(64,)),
    reference=ASYNCIO_EACH,
    headline=Column("messages_per_second", "connections/s"),
    columns=ECHO_COLUMNS,
    measure=measure,
    note=(
        "So many connections at a time, each with one message. One counts when both ends have closed"
        " it; latencies\nand microseconds per message are those of whole connections. load cpu near 1"
        " (marked !): the generator was the limit."
    ),
)
