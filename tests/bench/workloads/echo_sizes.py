"""Echo of values from none to 64 KiB."""

from tests.bench.echo import SINGLE_LOOP_PEERS, echo_workload
from tests.bench.workload import Grid

WORKLOAD = echo_workload(
    "echo-sizes",
    "echo of small and large values",
    SINGLE_LOOP_PEERS,
    Grid(connections=(50,), in_flight=(1, 16), sizes=(0, 1024, 65_536)),
)
