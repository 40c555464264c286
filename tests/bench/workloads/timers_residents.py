"""Whether what a time-out costs depends on how many others wait: beside a thousand, and a million."""

from tests.bench.timers import TIMER_PEERS, TIMERS_REFERENCE, measure_timers
from tests.bench.workload import Column, Operation, Operations, Workload

COUNT = 20_000
FEW, MANY = 1_000, 1_000_000

WORKLOAD = Workload(
    name="timers-residents",
    summary="time-outs: what one operation takes beside few others and many",
    peers=TIMER_PEERS,
    grid=Operations(
        tuple(
            Operation(name, COUNT, beside) for name in ("add", "cancel") for beside in (FEW, MANY)
        )
    ),
    reference=TIMERS_REFERENCE,
    headline=Column("ns_each", "ns each", less_is_better=True),
    columns=(),
    measure=measure_timers,
    note="Of what is O(1) the figures beside few and many are the same, but for the processor's caches.",
)
