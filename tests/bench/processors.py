"""Chooses a processor for the server and another for the load."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Placement:
    """Processor numbers; None where there are too few to keep the two apart."""

    server: int | None
    load: int | None

    def __str__(self) -> str:
        if self.server is None:
            return "server and load share one processor: the figures say little"
        return f"server on processor {self.server}, load on processor {self.load}"


def choose_placement() -> Placement:
    """Two processors of different cores if possible: hardware threads of one core share it."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        return Placement(server=None, load=None)
    load = allowed[0]
    others = [cpu for cpu in allowed[1:] if cpu not in _siblings(load)]
    return Placement(server=(others or allowed)[-1], load=load)


def _siblings(cpu: int) -> set[int]:
    path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    try:
        ranges = path.read_text().strip().split(",")
    except OSError:
        return {cpu}
    siblings: set[int] = set()
    for text in ranges:
        first, _, last = text.partition("-")
        siblings.update(range(int(first), int(last or first) + 1))
    return siblings
