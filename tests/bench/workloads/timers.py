"""What it costs to add, cancel and restart a time-out, with many others waiting."""

from tests.bench.timers import TIMER_PEERS, TIMERS_REFERENCE, measure_timers
from tests.bench.workload import Column, Operation, Operations, Workload

COUNT, RESIDENT = 20_000, 100_000

ADD = Operation("add", COUNT, RESIDENT)
CANCEL = Operation("cancel", COUNT, RESIDENT)
RESTART = Operation("restart", COUNT, RESIDENT)

WORKLOAD = Workload(
    name="timers",
    summary="time-outs: what one operation takes",
    peers=TIMER_PEERS,
    grid=Operations((ADD, CANCEL, RESTART)),
    reference=TIMERS_REFERENCE,
    headline=Column("ns_each", "ns each", less_is_better=True),
    columns=(
        Column("bytes_at_once", "bytes held"),
        Column("bytes_soon", "a pass later"),
    ),
    measure=measure_timers,
    note=(
        "On the running loop, which makes a pass after every thousand operations, within the time.\n"
        "bytes held: what an operation leaves allocated when all have been done, and again after a\n"
        "pass of the loop; of an addition that is the time-out, of the others what is not given back."
    ),
)
