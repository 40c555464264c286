"""The inline echo with the framework's counting and without: what the metrics cost."""

from tests.bench.echo import (
    ECHO_COLUMNS,
    ECHO_HEADLINE,
    TAO_INLINE,
    measure_echo,
    peers_named,
)
from tests.bench.peer import Peer
from tests.bench.workload import Grid, Workload

UNCOUNTED = "tao-uncounted"

WORKLOAD = Workload(
    name="metrics-cost",
    summary="inline echo: what counting costs",
    peers=(
        *peers_named(TAO_INLINE),
        Peer(
            UNCOUNTED, "tests.bench.peers.tao_uncounted", ("--handlers", "inline"), requires="tao"
        ),
    ),
    grid=Grid(connections=(50,), in_flight=(1, 16), sizes=(64,)),
    reference=UNCOUNTED,
    headline=ECHO_HEADLINE,
    columns=ECHO_COLUMNS,
    measure=measure_echo,
    note=(
        "tao-uncounted is the same server, whose methods were compiled without the statements that\n"
        "count messages, handlers and bytes, those that count the loop's events and time its passes,\n"
        "and without the samples of how long handlers take. What users cannot do without stays: the\n"
        "number of connections, errors, the time of the last byte, and the number of the loop's pass."
    ),
)
