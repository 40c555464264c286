"""Echo on one connection, and on a thousand."""

from tests.bench.echo import (
    ASYNCIO_BUFFERED,
    ASYNCIO_EACH,
    ASYNCIO_JOINED,
    BARE_EPOLL,
    ECHO_COLUMNS,
    ECHO_HEADLINE,
    ECHO_NOTE,
    TAO_INLINE,
    TAO_POOL,
    UVLOOP_EACH,
    UVLOOP_JOINED,
    measure_echo,
    peers_named,
)
from tests.bench.workload import Grid, Workload

WORKLOAD = Workload(
    name="echo-connections",
    summary="echo on one connection and on many",
    peers=peers_named(
        TAO_POOL,
        TAO_INLINE,
        ASYNCIO_EACH,
        ASYNCIO_JOINED,
        ASYNCIO_BUFFERED,
        UVLOOP_EACH,
        UVLOOP_JOINED,
        BARE_EPOLL,
    ),
    grid=Grid(connections=(1, 1000), in_flight=(1, 16), sizes=(64,)),
    reference=UVLOOP_EACH,
    headline=ECHO_HEADLINE,
    columns=ECHO_COLUMNS,
    measure=measure_echo,
    note=ECHO_NOTE,
)
