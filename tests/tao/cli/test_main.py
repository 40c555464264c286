"""The frame of the command: help, the exit status of each end, and the environment."""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tao import ConnectionClosedError
from tao.cli import main
from tao.cli.environment import add_option, add_switch
from tao.cli.outcome import CommandError, UsageError
from tao.terminal import CommandLine, count
from tests.examples.support import DEADLINE, ROOT

module = importlib.import_module(
    "tao.cli.main"
)  # as an attribute of its package it is the function


class Probe:
    """A command that does what a test tells it to."""

    NAME = "probe"
    HELP = "do what the test says"

    def __init__(self) -> None:
        self.does: Callable[[argparse.Namespace], int] = lambda _arguments: 0
        self.arguments = argparse.Namespace()

    def add_arguments(self, parser: CommandLine) -> None:
        parser.add_argument("word", nargs="?")
        add_option(
            parser,
            "--count",
            variable="TAO_COUNT",
            convert=count,
            default=3,
            help="how many, of 100%",
        )
        add_option(
            parser, "--kind", variable="TAO_KIND", choices=("tlv", "line"), help="which of the two"
        )
        add_switch(parser, "--tls", variable="TAO_TLS", help="speak TLS")
        parser.epilog = "example:\n  tao probe --count 3"

    def run(self, arguments: argparse.Namespace) -> int:
        self.arguments = arguments
        return self.does(arguments)


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> Probe:
    command = Probe()
    monkeypatch.setattr(module, "COMMANDS", (command,))
    for name in os.environ:
        if name.startswith("TAO_"):
            monkeypatch.delenv(name)
    return command


def test_the_status_of_the_command_is_the_status(probe: Probe) -> None:
    assert main(["probe"]) == 0
    probe.does = lambda _arguments: 1
    assert main(["probe"]) == 1


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (CommandError("no reply"), 1, "tao probe: no reply\n"),
        (ConnectionClosedError("not connected"), 1, "tao probe: not connected\n"),
        (ConnectionResetError(104, "reset"), 1, "tao probe: [Errno 104] reset\n"),
        (
            UsageError("both is too much"),
            2,
            "tao probe: both is too much (--help shows what there is)\n",
        ),
        (KeyboardInterrupt(), 130, ""),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_command_raises_is_a_line_and_a_status(
    probe: Probe, error: BaseException, status: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_arguments: argparse.Namespace) -> int:
        raise error

    probe.does = fail
    assert main(["probe"]) == status
    assert capsys.readouterr() == ("", text)


def test_a_defect_keeps_its_traceback(probe: Probe) -> None:
    def fail(_arguments: argparse.Namespace) -> int:
        raise KeyError("a defect")

    probe.does = fail
    with pytest.raises(KeyError):
        main(["probe"])


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ([], "tao: the following arguments are required: COMMAND"),
        (["prob"], "invalid choice: 'prob'"),
        (["probe", "--count", "none"], "--count: expected a number from 1 on, not 'none'"),
        (["probe", "--kind", "json"], "--kind: invalid choice: 'json'"),
        (["probe", "--colour"], "unrecognized arguments: --colour"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_status_2(
    probe: Probe, line: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert text in errors
    assert errors.count("\n") == 1


def test_the_command_line_counts_before_the_environment_and_that_before_the_default(
    probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    main(["probe"])
    assert (probe.arguments.count, probe.arguments.kind, probe.arguments.tls) == (3, None, False)
    monkeypatch.setenv("TAO_COUNT", "5")
    monkeypatch.setenv("TAO_KIND", "line")
    monkeypatch.setenv("TAO_TLS", "yes")
    main(["probe"])
    assert (probe.arguments.count, probe.arguments.kind, probe.arguments.tls) == (5, "line", True)
    main(["probe", "--count", "7", "--kind", "tlv", "--no-tls"])
    assert (probe.arguments.count, probe.arguments.kind, probe.arguments.tls) == (7, "tlv", False)
    monkeypatch.setenv("TAO_COUNT", "")
    main(["probe"])
    assert probe.arguments.count == 3


@pytest.mark.parametrize(
    ("variable", "value", "text"),
    [
        ("TAO_COUNT", "-1", "TAO_COUNT: expected a number from 1 on, not '-1'"),
        ("TAO_KIND", "json", "TAO_KIND: choose one of tlv, line, not 'json'"),
        ("TAO_TLS", "maybe", "TAO_TLS: expected 1 or 0, yes or no, on or off, not 'maybe'"),
    ],
)
def test_a_wrong_variable_is_named_unless_the_command_line_says_it(
    probe: Probe,
    variable: str,
    value: str,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(variable, value)
    assert main(["probe"]) == 2
    assert capsys.readouterr().err == f"tao probe: {text} (--help shows what there is)\n"
    assert main(["probe", "--count", "1", "--kind", "tlv", "--tls"]) == 0


def test_the_help_has_the_commands_and_the_statuses(
    probe: Probe, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert "probe" in text
    assert "130  ended by Ctrl-C" in text


def test_the_help_of_a_command_has_its_variables_its_example_and_the_statuses(
    probe: Probe, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["probe", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for words in (
        "Do what the test says.",
        "how many, of 100% (default: 3; TAO_COUNT)",
        "which of the two (TAO_KIND)",
        "speak TLS (TAO_TLS=1)",
        "example: tao probe --count 3",
        "130 ended by Ctrl-C",
    ):
        assert words in text
    assert "--no-tls" not in text


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m tao` in a process of its own, whose warnings are errors."""
    return subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-m", "tao", *arguments],
        cwd=ROOT,
        text=True,
        timeout=DEADLINE,
        capture_output=True,
        check=False,
    )


def test_the_version() -> None:
    ended = run("--version")
    version = ".".join(map(str, sys.version_info[:3]))
    assert ended.returncode == 0
    assert ended.stdout.startswith("tao ")
    assert ended.stdout.endswith(f", Python {version}\n")
    assert ended.stderr == ""


def test_the_script_is_the_same() -> None:
    text = (Path(ROOT) / "pyproject.toml").read_text("utf-8")
    assert '\n[project.scripts]\ntao = "tao.cli:main"\n' in text


@pytest.mark.skipif(sys.platform == "win32", reason="the pipes of others")
def test_who_closes_the_pipe_has_seen_enough() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = subprocess.run(
            [sys.executable, "-X", "dev", "-W", "error", "-m", "tao", "--help"],
            cwd=ROOT,
            stdout=writing,
            stderr=subprocess.PIPE,
            timeout=DEADLINE,
            check=False,
        )
    finally:
        os.close(writing)
    assert (ended.returncode, ended.stderr) == (0, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no /dev/full")
def test_output_that_cannot_be_written_is_a_failure() -> None:
    # Of what is written at once, argparse itself catches the error, and says nothing.
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with open("/dev/full", "wb") as full:
        ended = subprocess.run(
            [sys.executable, "-X", "dev", "-W", "error", "-m", "tao", "--version"],
            cwd=ROOT,
            env=environment,
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=DEADLINE,
            check=False,
        )
    assert ended.returncode == 1
    assert ended.stderr == b"tao: [Errno 28] No space left on device\n"


def test_every_command_helps_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert {"bench", "chat", "send"} <= {command.NAME for command in module.COMMANDS}
    for command in module.COMMANDS:
        assert main([command.NAME, "--help"]) == 0
        text = capsys.readouterr().out
        assert f"\n  tao {command.NAME} " in text
        assert "130  ended by Ctrl-C" in text


@pytest.mark.skipif(sys.platform == "win32", reason="closes descriptors as a shell does")
@pytest.mark.parametrize(
    ("arguments", "redirection"),
    [
        (["send", "127.0.0.1:1", "-"], "<&-"),
        (["bench", "127.0.0.1:1", "--messages", "1"], ">&-"),
        (["send", "127.0.0.1:1", "-"], "<&- >&-"),
    ],
)
def test_without_a_standard_stream_it_ends_as_ever(arguments: list[str], redirection: str) -> None:
    ended = subprocess.run(
        ["sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, "-m", "tao", *arguments],
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert ended.returncode == 1  # nobody listens at that port
    assert "Traceback" not in ended.stderr
    assert ended.stderr.count("\n") <= 1
