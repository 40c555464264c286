"""The first benchmark, and frozen: echo of small values on few connections.

Changing it breaks the comparison with every earlier result; write another workload in its place.
"""

from tests.bench.echo import (
    ECHO_COLUMNS,
    ECHO_HEADLINE,
    ECHO_NOTE,
    ECHO_PEERS,
    UVLOOP_EACH,
    measure_echo,
)
from tests.bench.workload import Grid, Workload

WORKLOAD = Workload(
    name="echo",
    summary="echo of type-length-value frames",
    peers=ECHO_PEERS,
    grid=Grid(connections=(50,), in_flight=(1, 16), sizes=(64,)),
    reference=UVLOOP_EACH,
    headline=ECHO_HEADLINE,
    columns=ECHO_COLUMNS,
    measure=measure_echo,
    note=ECHO_NOTE,
)
