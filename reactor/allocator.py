"""What is asked of the C library's allocator, and what it is found to do.

Owns nothing. Any thread.
"""

from __future__ import annotations

import mmap
import sys
from functools import cache

__all__ = ["keep_freed_memory", "largest_read"]

LARGE_READ = 262_144
"""Bytes for the largest read where that costs nothing: then large messages come in one piece."""

SMALL_READ = 65_536
"""Bytes for the largest read elsewhere: what allocators mostly have at hand."""

LARGEST_BLOCK = 8 << 20
"""Bytes: the largest value of `tao`'s default codec. To receive one has the effect by itself."""


@cache  # once in a process: from then on such a block comes from the heap, and would be cleared
def keep_freed_memory() -> None:
    """Have the memory of large blocks used again, where the allocator would give it back to the system.

    glibc's malloc maps a block from 128 KiB on for itself, and gives back what is free at the end of a
    heap from 128 KiB on. The next such block finds every page missing: a fault, and a page to be cleared,
    for each 4 KiB. With values of 64 KiB on fifty connections that is most of what a server does: a pooled
    echo of them had a fifth of its rate. Both thresholds rise with the largest mapped block that has been
    freed (mallopt(3), M_MMAP_THRESHOLD), so this frees one, whose pages are never touched.

    The price is free memory that the process keeps: up to twice LARGEST_BLOCK for a heap. Whoever sets
    MALLOC_TRIM_THRESHOLD_ or MALLOC_MMAP_THRESHOLD_ has the say; other allocators take no notice.
    """
    bytes(LARGEST_BLOCK)


@cache
def largest_read() -> int:
    """Bytes that a read may ask for: so many are allocated, and what did not come is given back.

    Where the allocator maps a block of LARGE_READ anew each time, reading had a quarter of its rate with
    that. Whether it does, depends on the allocator, and on what the environment has told it: it is tried.
    """
    keep_freed_memory()
    return LARGE_READ if _is_kept(LARGE_READ) else SMALL_READ


def _is_kept(size: int) -> bool:
    """Whether a block of that size that has been freed is got again, with its pages."""
    if sys.platform == "win32":
        return False  # it is not known there
    import resource

    # The calling thread's own faults, where the system counts those.
    who = getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)
    filled = b"x" * size
    del filled
    before = resource.getrusage(who).ru_minflt
    filled = b"x" * size
    del filled
    return resource.getrusage(who).ru_minflt - before < size // mmap.PAGESIZE // 2
