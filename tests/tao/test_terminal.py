"""What programs on a terminal share."""

from __future__ import annotations

import argparse

import pytest

from tao.terminal import CommandLine, count, printable, say, seconds


def test_numbers() -> None:
    assert count("12") == 12
    assert seconds("0.5") == 0.5


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "", "one"])
def test_a_count_is_from_1_on(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=f"from 1 on, not '{text}'"):
        count(text)


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "", "soon"])
def test_seconds_are_positive(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=f"of seconds, not '{text}'"):
        seconds(text)


def test_a_wrong_command_line_is_told_of_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        CommandLine(prog="program").parse_args(["--colour"])
    assert end.value.code == 2
    text = "program: unrecognized arguments: --colour (--help shows what there is)\n"
    assert capsys.readouterr().err == text


def test_what_a_peer_says_does_not_get_at_the_terminal() -> None:
    text = "\x1b]0;title\x07 \u202egnp.exe\r\n\tGrüße 日本"
    assert printable(text) == "\\x1b]0;title\\x07 \\u202egnp.exe\\x0d\\x0a\tGrüße 日本"
    assert printable("two\nlines\x9b", lines=True) == "two\nlines\\x9b"


@pytest.mark.parametrize("code", [*range(9), *range(10, 32), *range(127, 160)])
def test_every_control_character_is_escaped(code: int) -> None:
    assert printable(chr(code)) == f"\\x{code:02x}"


def test_a_line_is_there_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    say("one")
    assert capsys.readouterr().out == "one\n"
