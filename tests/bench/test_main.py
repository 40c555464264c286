"""The command line, and every workload once, shortly."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.bench.discovery import find_workloads
from tests.bench.errors import BenchError
from tests.bench.load import TLS_NEEDS, compiled_load
from tests.bench.processors import Placement
from tests.bench.report import terminal_report
from tests.bench.rounds import run_rounds
from tests.bench.tls import prepared_tls
from tests.bench.workload import Case, Conditions

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the load generator uses epoll"),
    pytest.mark.skipif(shutil.which("cc") is None, reason="the load generator needs a C compiler"),
]

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 60.0
CASE = Case(connections=20, in_flight=1, size=64)
NETWORK_WORKLOADS = [
    "churn",
    "echo",
    "echo-connections",
    "echo-sizes",
    "idle",
    "memory",
    "peers",
    "pool-compute",
    "pool-sleep",
    "slow-beside-fast",
    "tls-echo",
]


@pytest.fixture(scope="module")
def conditions() -> Iterator[Conditions]:
    """Short, with TLS if it can be had."""
    with ExitStack() as stack:
        program = stack.enter_context(compiled_load())
        try:
            tls = stack.enter_context(prepared_tls())
        except BenchError:
            tls = None
        yield Conditions(program, 0.1, 0.05, Placement(server=None, load=None), tls)


@pytest.mark.parametrize("name", NETWORK_WORKLOADS)
def test_a_workload_measures_what_it_shows(name: str, conditions: Conditions) -> None:
    workload = find_workloads()[name]
    if workload.needs_tls and conditions.tls is None:
        pytest.skip(TLS_NEEDS)
    peers = [peer for peer in workload.peers if peer.name == "tao-pool"]
    results = run_rounds(workload, peers, [CASE], 1, conditions, lambda text: None)
    assert results.failures == []
    (sample,) = results.samples(CASE, "tao-pool").values()
    assert sample.keys() >= {column.key for column in (workload.headline, *workload.columns)}
    assert "tao-pool" in terminal_report(results)


def _run(*arguments: str, compiler: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = dict(os.environ) if compiler is None else {**os.environ, "CC": str(compiler)}
    return subprocess.run(
        [sys.executable, "-m", "tests.bench", "--rounds", "1", "--seconds", "0.1", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )


@pytest.fixture
def without_tls(tmp_path: Path) -> Path:
    """A compiler that finds no headers of OpenSSL's."""
    path = tmp_path / "cc"
    path.write_text(
        "#!/bin/sh\n"
        'case "$*" in *WITH_TLS*) echo "openssl/ssl.h: No such file" >&2; exit 1;; esac\n'
        'exec cc "$@"\n'
    )
    path.chmod(0o755)
    return path


def test_what_cannot_be_run_is_skipped_loudly(tmp_path: Path, without_tls: Path) -> None:
    report = tmp_path / "report.json"
    done = _run(
        "tls-echo", "chur*", "--only", "bare-epoll", "--json", str(report), compiler=without_tls
    )
    assert done.returncode == 0, done.stderr
    assert "*** SKIPPED: tls-echo: " in done.stderr
    assert "libssl-dev" in done.stderr
    (workload,) = json.loads(report.read_text())["workloads"]
    assert workload["name"] == "churn"
    assert workload["cases"][0]["peers"]["bare-epoll"]["samples"][0]["messages_per_second"] > 0.0


def test_nothing_is_left_to_run(without_tls: Path) -> None:
    done = _run("--workload", "tls-echo", compiler=without_tls)
    assert done.returncode == 2
    assert "libssl-dev" in done.stderr


def test_a_workload_that_there_is_not() -> None:
    done = _run("echo", "nonsense")
    assert done.returncode == 2
    assert "no workload matches 'nonsense'" in done.stderr
    assert "slow-beside-fast" in done.stderr


def test_a_target_that_is_missed_is_a_failure() -> None:
    """One that was not measured is: without its reference there is no ratio."""
    done = _run("churn", "--check", "--only", "bare-epoll")
    assert done.returncode == 1
    assert "MISSED  churn" in done.stdout
    assert "not measured (minimum 1.50)" in done.stdout
