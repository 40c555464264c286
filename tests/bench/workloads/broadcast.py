"""One frame to a thousand connections, one of which does not read."""

from tests.bench.broadcast import BARE_LOOP, BROADCAST_PEERS, measure_broadcast
from tests.bench.workload import Column, Grid, Workload

WORKLOAD = Workload(
    name="broadcast",
    summary="broadcast of one frame",
    peers=BROADCAST_PEERS,
    grid=Grid(connections=(1_000,), in_flight=(1,), sizes=(64, 1_024)),
    reference=BARE_LOOP,
    headline=Column("ms", "ms", decimals=2, less_is_better=True),
    columns=(
        Column("least_ms", "least ms", decimals=2),
        Column("us_each", "us each", decimals=2),
        Column("broadcasts", "broadcasts"),
    ),
    measure=measure_broadcast,
    note=(
        "Until the system has taken the frames of all who read. One does not, and its buffers are\n"
        "full from the start. bare-loop: a loop of socket.send. tao-thread: Server.broadcast from a\n"
        "thread that is not the loop's; all others send on the loop's."
    ),
)
