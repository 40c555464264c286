"""The echo while somebody looks at the monitor's page, and while nobody does: what watching costs."""

from tests.bench.echo import (
    ECHO_COLUMNS,
    ECHO_HEADLINE,
    TAO_INLINE,
    TAO_POOL,
    measure_echo,
    peers_named,
)
from tests.bench.peer import Peer
from tests.bench.workload import Grid, Workload


def _watched(name: str, handlers: str) -> Peer:
    return Peer(name, "tests.bench.peers.tao_watched", ("--handlers", handlers), requires="tao")


WORKLOAD = Workload(
    name="monitor-cost",
    summary="echo: what it costs to be watched",
    peers=(
        *peers_named(TAO_INLINE, TAO_POOL),
        _watched("tao-inline-watched", "inline"),
        _watched("tao-pool-watched", "pool"),
    ),
    grid=Grid(connections=(50,), in_flight=(1, 16), sizes=(64,)),
    reference=TAO_INLINE,
    headline=ECHO_HEADLINE,
    columns=ECHO_COLUMNS,
    measure=measure_echo,
    note=(
        "The watched ones have a monitor, and a thread that asks it for /status once a second, as the\n"
        "live page does. tao-pool is the reference for tao-pool-watched: divide the one by the other."
    ),
)
