"""What a server does in another loop while all its connections are idle: nothing, if all is well."""

from dataclasses import replace

from tests.bench.embedded import embedded_name, embedded_peers
from tests.bench.workload import Grid
from tests.bench.workloads.idle import WORKLOAD as IDLE

WORKLOAD = replace(
    IDLE,
    name="embedded-idle",
    summary="a server in another loop whose connections are all idle",
    peers=embedded_peers("pool"),
    grid=Grid(connections=(100,), in_flight=(1,), sizes=(64,)),
    reference=embedded_name("none", "pool"),
)
