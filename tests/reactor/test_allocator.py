"""Large blocks that are freed and asked for again cost no page faults."""

from __future__ import annotations

import mmap
import platform
import subprocess
import sys

import pytest

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
