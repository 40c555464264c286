"""Echo on one connection, and on a thousand."""

from tests.bench.echo import SINGLE_LOOP_PEERS, echo_workload
from tests.bench.workload import Grid

WORKLOAD = echo_workload(
    "echo-connections",
    "echo on one connection and on many",
    SINGLE_LOOP_PEERS,
    Grid(connections=(1, 1000), in_flight=(1, 16), sizes=(64,)),
)
