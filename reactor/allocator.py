"""What is asked of the C library's allocator.

Owns nothing. Any thread.
"""

from __future__ import annotations

from functools import cache

__all__ = ["keep_freed_memory"]

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
