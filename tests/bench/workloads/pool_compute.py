"""Handlers that use the processor for 50 microseconds."""

from tests.bench.echo import (
    ASYNCIO_EXECUTOR,
    ECHO_COLUMNS,
    ECHO_HEADLINE,
    TAO_INLINE,
    TAO_POOL,
    TWISTED_THREADS,
    UVLOOP_EACH,
    UVLOOP_EXECUTOR,
    UVLOOP_JOINED,
    measure_echo,
    peers_named,
)
from tests.bench.workload import Grid, Workload

WORKLOAD = Workload(
    name="pool-compute",
    summary="handlers that compute for 50 microseconds",
    peers=peers_named(
        TAO_POOL,
        TAO_INLINE,
        UVLOOP_EACH,
        UVLOOP_JOINED,
        ASYNCIO_EXECUTOR,
        UVLOOP_EXECUTOR,
        TWISTED_THREADS,
        work="compute",
    ),
    grid=Grid(connections=(50,), in_flight=(1, 16), sizes=(64,)),
    reference=UVLOOP_EACH,
    headline=ECHO_HEADLINE,
    columns=ECHO_COLUMNS,
    measure=measure_echo,
    note=(
        "One interpreter computes for one handler at a time: 20,000 messages/s is the most that there"
        " can be.\nuvloop-each and -joined handle on their loop, the others but tao-inline on threads."
    ),
)
