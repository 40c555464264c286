"""What a process holds, and whether that grows.

Contents: Sample, one_heap, sample, growth.
"""

from __future__ import annotations

import ctypes
import gc
import os
import statistics
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from tests.support import descriptors

__all__ = ["MEMORY_TOLERANCE", "Sample", "growth", "memory_growth", "one_heap", "sample"]

MEMORY_TOLERANCE = 3 << 20
"""Bytes by which the resident set may have grown between the first and the last third of the rounds after
the warm-up: what the pages differ by from one round to the next although nothing is kept."""

M_ARENA_MAX = -8
"""mallopt(3)."""


def one_heap() -> None:
    """Have all threads allocate from one heap, where the C library can be told to (glibc).

    By default each new thread may open another, which keeps the pages of what was freed: the resident set
    then grows for minutes with the number of threads that there have been, and hides what does not stop.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_ARENA_MAX, 1)


def _give_back() -> None:
    """What has been freed, to the system, so that only what is in use is counted; glibc only."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)


@dataclass(frozen=True, slots=True)
class Sample:
    """Taken when nothing is going on."""

    memory: int
    """Bytes of the resident set."""
    descriptors: int
    threads: int
    timers: int
    """Set in the servers' loops."""


def sample(timers: int) -> Sample:
    """Of this process, now."""
    gc.collect()
    _give_back()
    return Sample(_resident(), len(descriptors()), threading.active_count(), timers)


def _resident() -> int:
    try:
        with open("/proc/self/statm", encoding="ascii") as statm:  # proc_pid_statm(5)
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except FileNotFoundError:  # not Linux
        command = ["ps", "-o", "rss=", "-p", str(os.getpid())]
        return int(subprocess.check_output(command)) * 1024


def growth(samples: Sequence[Sample]) -> list[str]:
    """What is wrong with these, which were taken after the warm-up, one after each round."""
    if not samples:
        return []
    found: list[str] = []
    first = samples[0]
    for name in ("descriptors", "threads", "timers"):
        numbers = [getattr(one, name) for one in samples]
        if max(numbers) > getattr(first, name):
            found.append(f"{name} have grown from {getattr(first, name)} to {max(numbers)}")
    grown = memory_growth(samples)
    if grown > MEMORY_TOLERANCE:
        found.append(
            f"memory has grown by {grown / (1 << 20):.1f} MiB, "
            f"and {MEMORY_TOLERANCE / (1 << 20):.1f} MiB is what is tolerated"
        )
    return found


def memory_growth(samples: Sequence[Sample]) -> float:
    """Bytes from the median of the first third to that of the last."""
    third = max(1, len(samples) // 3)
    memory = [one.memory for one in samples]
    return statistics.median(memory[-third:]) - statistics.median(memory[:third])
