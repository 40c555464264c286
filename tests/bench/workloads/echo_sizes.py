"""Echo of values from none to 64 KiB."""

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
    name="echo-sizes",
    summary="echo of small and large values",
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
    grid=Grid(connections=(50,), in_flight=(1, 16), sizes=(0, 1024, 65_536)),
    reference=UVLOOP_EACH,
    headline=ECHO_HEADLINE,
    columns=ECHO_COLUMNS,
    measure=measure_echo,
    note=ECHO_NOTE,
)
