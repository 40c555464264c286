"""Echo by everything that there is to choose from."""

from tests.bench.echo import PEERS, echo_workload
from tests.bench.workload import Grid

WORKLOAD = echo_workload(
    "peers",
    "echo by every peer",
    PEERS,
    Grid(connections=(50,), in_flight=(1, 16), sizes=(64,)),
)
