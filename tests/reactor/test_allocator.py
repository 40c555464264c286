"""Large blocks that are freed and asked for again cost no page faults."""

from __future__ import annotations

import mmap
import platform
import subprocess
import sys

import pytest

from reactor.allocator import LARGE_READ, SMALL_READ
from tests.examples.support import ROOT

ROUNDS, BLOCKS, BLOCK = 50, 64, 65_536

PROGRAM = f"""
import resource, sys
if sys.argv[1] == "with":
    from reactor import Reactor
    Reactor().close()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def use():
    blocks = [b"x" * {BLOCK} for _ in range({BLOCKS})]
use()
before = faults()
for _ in range({ROUNDS}):
    use()
print(faults() - before)
"""


def faults(which: str) -> int:
    """Page faults of a process in which large blocks come and go, `with` a reactor or `without`."""
    command = [sys.executable, "-c", PROGRAM, which]
    environment = {"PYTHONPATH": str(ROOT)}  # and nothing that sets the thresholds
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc's allocator")
def test_a_reactor_keeps_the_memory_of_large_blocks() -> None:
    pages = ROUNDS * BLOCKS * BLOCK // mmap.PAGESIZE
    assert faults("with") < pages / 50
    # Should this fail, the allocator does so by itself by now, and the reactor need not see to it.
    assert faults("without") > pages / 2


SIZE_OF_A_READ = "from reactor.allocator import largest_read; print(largest_read())"


def size_of_a_read(**environment: str) -> int:
    """In a process of its own, with that in its environment."""
    done = subprocess.run(
        [sys.executable, "-c", SIZE_OF_A_READ],
        env={"PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc's allocator")
def test_much_is_read_where_memory_is_kept_and_less_where_it_is_not() -> None:
    assert size_of_a_read() == LARGE_READ
    assert size_of_a_read(MALLOC_MMAP_THRESHOLD_="131072") == SMALL_READ
