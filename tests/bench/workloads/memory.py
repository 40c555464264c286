"""What a server holds for a connection that is open and idle."""

from tests.bench.echo import (
    ASYNCIO_BUFFERED,
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

# They bring what a server makes once: threads, buffers, modules that are imported late.
FIRST_CONNECTIONS = 100
MEBIBYTE = 1 << 20


def measure(server: ServerProcess, case: Case, conditions: Conditions) -> Sample:
    """The growth of the server's memory, over the connections after the first ones."""
    count = affordable(case.connections)
    first = min(FIRST_CONNECTIONS, count // 2)
    with OpenConnections(server.port, case.size) as connections:
        connections.grow(first)
        before = server.resident_bytes()
        connections.grow(count)
        after = server.resident_bytes()
    return {
        "bytes_per_connection": (after - before) / (count - first),
        "connections": count,
        "before_mib": before / MEBIBYTE,
        "after_mib": after / MEBIBYTE,
    }


WORKLOAD = Workload(
    name="memory",
    summary="resident bytes for each idle connection",
    peers=peers_named(
        TAO_POOL, TAO_INLINE, ASYNCIO_EACH, ASYNCIO_BUFFERED, UVLOOP_EACH, BARE_EPOLL
    ),
    grid=Grid(connections=(10_000,), in_flight=(1,), sizes=(64,)),
    reference=ASYNCIO_EACH,
    headline=Column("bytes_per_connection", "bytes/connection", less_is_better=True),
    columns=(
        Column("connections", "connections"),
        Column("before_mib", "MiB before", decimals=1),
        Column("after_mib", "MiB after", decimals=1),
    ),
    measure=measure,
    note=(
        "The process's memory alone, not the kernel's. Each connection has had one message answered."
        f" Less is better.\nThe first {FIRST_CONNECTIONS} do not count: they bring what is made once."
    ),
)
