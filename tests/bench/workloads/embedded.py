"""Echo on a reactor that another loop drives: what it costs to be a guest."""

from tests.bench.echo import ECHO_COLUMNS, ECHO_HEADLINE, measure_echo
from tests.bench.embedded import EMBEDDED_NONE, embedded_peers
from tests.bench.workload import Grid, Workload

WORKLOAD = Workload(
    name="embedded",
    summary="inline echo on a reactor in another loop",
    peers=tuple(peer for peer in embedded_peers("inline") if "frames" not in peer.name),
    grid=Grid(connections=(50,), in_flight=(1, 16), sizes=(64,)),
    reference=EMBEDDED_NONE["inline"],
    headline=ECHO_HEADLINE,
    columns=ECHO_COLUMNS,
    measure=measure_echo,
    note=(
        "The same server each time. run-inline is the reactor's own loop, the others are loops that it is\n"
        "attached to, in which it has the budget of a turn unless it is set otherwise. A loop of frames is\n"
        "not among them: it sleeps between its frames, whatever comes."
    ),
)
