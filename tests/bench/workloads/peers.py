"""Echo by everything that there is to choose from."""

from tests.bench.echo import (
    ECHO_COLUMNS,
    ECHO_HEADLINE,
    ECHO_NOTE,
    PEERS,
    UVLOOP_EACH,
    measure_echo,
)
from tests.bench.workload import Grid, Workload

WORKLOAD = Workload(
    name="peers",
    summary="echo by every peer",
    peers=PEERS,
    grid=Grid(connections=(50,), in_flight=(1, 16), sizes=(64,)),
    reference=UVLOOP_EACH,
    headline=ECHO_HEADLINE,
    columns=ECHO_COLUMNS,
    measure=measure_echo,
    note=ECHO_NOTE,
)
