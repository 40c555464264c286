"""Where figures come from, in words and as a command."""

from __future__ import annotations

import os
import platform
from dataclasses import replace
from pathlib import Path

import pytest

from tests.bench.peer import Peer
from tests.bench.processors import Placement
from tests.bench.provenance import command_line, provenance
from tests.bench.workload import Conditions


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        ([], ""),
        (["echo", "--rounds", "3"], " echo --rounds 3"),
        (["--json", "a.json", "echo", "--svg=b.svg"], " echo"),
        (["--markdown", "timers*", "--check"], " 'timers*'"),
        (["--json"], ""),
    ],
)
def test_the_command_is_told_without_where_results_go(arguments: list[str], kept: str) -> None:
    assert command_line(arguments) == f"python -m tests.bench{kept}"


def test_this_machine() -> None:
    peers = [Peer("one", "no.module", requires="pytest"), Peer("two", "no.module")]
    absent = Peer("three", "no.module", requires="there-is-no-such-distribution")
    conditions = Conditions(Path("load"), 2.0, 0.3, Placement(server=1, load=0))
    found = provenance(["echo"], [*peers, absent], 5, conditions)
    assert found.command == "python -m tests.bench echo"
    assert found.python == f"{platform.python_implementation()} {platform.python_version()}"
    assert found.processors == os.cpu_count()
    assert found.processor
    assert found.packages == {"pytest": pytest.__version__}
    command, machine, rounds = found.lines()
    assert command == found.command
    assert machine.startswith(f"{found.python}, pytest {pytest.__version__}, {platform.system()} ")
    assert "5 interleaved rounds, samples of 2 s after 0.3 s" in rounds
    assert "one round" in replace(found, rounds=1).lines()[2]
