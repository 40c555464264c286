"""`tao bench`: the command line, its processes, and the exit status. The load itself: see test_load."""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys

import pytest

from tao import Context, WriteCloser
from tao.cli import main
from tao.cli.bench import generate, split
from tao.cli.load import Plan
from tao.cli.load_process import LoadProcess
from tao.cli.outcome import CommandError
from tao.cli.progress import NoProgress
from tests.examples.support import Program
from tests.support import Sample
from tests.tao.cli.support import serving, where


def bench(*arguments: str) -> int:
    return main(["bench", *arguments])


def test_the_load_of_two_processes_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    with serving() as address:
        arguments = ["--connections", "3", "--processes", "2", "--messages", "101", "--json"]
        assert bench(address, *arguments, "--quiet") == 0
    output, errors = capsys.readouterr()
    found = json.loads(output)
    assert errors == ""
    assert (found["address"], found["connections"], found["connected"]) == (address, 3, 3)
    assert (found["sent"], found["received"], found["wrong"], found["errors"]) == (101, 101, 0, {})
    assert found["generator"]["processes"] == 2
    assert found["generator"]["ceiling_per_second"] > 0
    latency = found["latency"]
    names = ["min", "p50", "p90", "p99", "p99.9", "max"]
    assert [latency[name] for name in names] == sorted(latency[name] for name in names)
    assert found["per_second"] == pytest.approx(101 / found["seconds"])


def test_what_goes_wrong_is_told_of_and_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    def answer(ctx: Context[Sample], _conn: WriteCloser) -> Sample:
        return Sample(1, b"another")

    with serving(answer) as address:
        assert bench(address, "--messages", "5", "--connections", "1", "--quiet") == 1
    output = capsys.readouterr().out
    assert "PROBLEM    5 replies were not what was sent: message 1 b'0000" in output


def test_nobody_there_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = where(free.getsockname())
    assert bench(address, "--connections", "2", "--quiet") == 1
    output = capsys.readouterr().out
    assert "PROBLEM    2 times not connected: Connection refused" in output


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--connections", "0"], "--connections: expected a number from 1 on, not '0'"),
        (["--size", "-1"], "--size: expected bytes from 0 to 8388608, not '-1'"),
        (["--rate", "fast"], "expected a positive number of messages per second, not 'fast'"),
        (["--duration", "0"], "expected a positive number of seconds, not '0'"),
        (["--message", "two\nlines", "--codec", "line"], "would arrive in pieces"),
    ],
)
def test_what_makes_no_sense(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench("localhost:1", *arguments) == 2
    assert text in capsys.readouterr().err


def test_a_wrong_variable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TAO_BENCH_RATE", "-5")
    assert bench("localhost:1") == 2
    assert "TAO_BENCH_RATE: expected a positive number" in capsys.readouterr().err


def test_a_certificate_file_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("localhost:1", "--tls-ca", "/nowhere") == 1
    assert capsys.readouterr().err.count("/nowhere") == 1


def test_the_parts_of_a_load_make_up_the_whole() -> None:
    whole = Plan(address=("localhost", 1), connections=10, messages=101, rate=30.0)
    parts = split(whole, 3)
    assert [part.connections for part in parts] == [4, 3, 3]
    assert [part.messages for part in parts] == [34, 34, 33]
    assert [part.rate for part in parts] == [10.0] * 3
    assert [part.phase for part in parts] == [0.0, 1 / 30, 2 / 30]


def test_a_process_that_ends_without_a_result_is_a_failure() -> None:
    """Such as one that cannot read its plan."""
    plan = Plan(address=("localhost", 1), codec="none of ours")
    with pytest.raises(CommandError, match="a generator has ended with status 1"):
        generate([plan], NoProgress())


def test_who_leaves_before_it_began_leaves_no_process() -> None:
    with serving() as address:
        said: queue.SimpleQueue[tuple[LoadProcess, dict[str, object]]] = queue.SimpleQueue()
        host, port = address.split(":")
        with LoadProcess(Plan(address=(host, int(port)), duration=60.0), said) as process:
            assert said.get(timeout=10) == (process, {"ready": 1})
        ended, what = said.get(timeout=10)
        assert ended is process
        assert list(what) == ["ended"]


@pytest.mark.skipif(sys.platform == "win32", reason="ends it by a signal")
def test_ctrl_c_ends_it_with_what_there_is() -> None:
    with serving() as address:
        command = ["-m", "tao", "bench", address, "--duration", "60", "--connections", "2"]
        with Program([*command, "--json"]) as program:
            program.wait_for_errors(
                r"\d+ replies, "
            )  # a line of progress, a second after the start
            program.signal(signal.SIGINT)
            assert program.wait() == 130
            found = json.loads(program.output)
            assert found["received"] > 0
            assert found["unanswered"] == 0
            assert "Traceback" not in program.errors


@pytest.mark.skipif(sys.platform == "win32", reason="no such terminals there")
def test_on_a_terminal_there_is_a_bar_and_there_are_tables() -> None:
    pytest.importorskip("rich", reason="NOT TESTED: rich is not installed")
    import pty

    main_end, terminal = pty.openpty()
    try:
        with serving() as address:
            command = [sys.executable, "-m", "tao", "bench", address, "--duration", "0.6"]
            shown = _run_on(main_end, terminal, [*command, "--connections", "2"])
    finally:
        os.close(main_end)
    assert "\x1b[" in shown  # the bar's
    assert "replies, " in shown
    assert "Latency, from sending" in shown
    assert "99.9 %" in shown
    assert "generator" in shown


def _run_on(main_end: int, terminal: int, command: list[str]) -> str:
    """What a command shows on a terminal; it has to end with status 0."""
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(
        command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment
    )
    os.close(terminal)
    shown = b""
    while True:
        try:
            shown += os.read(main_end, 65_536)
        except OSError:  # EIO: nobody has the terminal open any more
            break
    assert process.wait() == 0
    return shown.decode()
