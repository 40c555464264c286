"""How late time-outs are, when very many expire within one second."""

from tests.bench.timers import TIMER_PEERS, TIMERS_REFERENCE, measure_timers
from tests.bench.workload import Column, Operation, Operations, Workload

EXPIRE = Operation("expire", 50_000)

WORKLOAD = Workload(
    name="timers-lateness",
    summary="time-outs: how late they are",
    peers=TIMER_PEERS,
    grid=Operations((EXPIRE,)),
    reference=TIMERS_REFERENCE,
    headline=Column("p99_ms", "p99 ms late", decimals=2, less_is_better=True),
    columns=(
        Column("least_ms", "least", decimals=2),
        Column("p50_ms", "p50", decimals=2),
        Column("max_ms", "most", decimals=2),
        Column("cpu_us_each", "cpu us each", decimals=2),
    ),
    measure=measure_timers,
    note=(
        "They are due at random moments within one second. By one monotonic clock for all: where\n"
        "the least is below zero, a time-out was early."
    ),
)
