"""How progress is shown, with a terminal and without one, with `rich` and without it."""

from __future__ import annotations

import io
import sys

import pytest

from tao.cli.progress import NoProgress, PlainProgress, RichProgress, has_rich, make_progress
from tests.support import ManualClock


class Terminal(io.StringIO):
    """A stream that says it is one."""

    def isatty(self) -> bool:
        return True


def test_a_line_at_most_once_a_second() -> None:
    clock, stream = ManualClock(), io.StringIO()
    with PlainProgress(stream, clock.monotonic) as progress:
        for eighth in range(20):
            progress.show(eighth / 20, f"{eighth} done")
            clock.advance(0.125)
    assert stream.getvalue() == " 40%  8 done\n 80%  16 done\n"


def test_nothing_is_shown_to_who_wants_quiet() -> None:
    progress = make_progress(Terminal(), quiet=True)
    assert isinstance(progress, NoProgress)
    with progress:
        progress.show(0.5, "half")


def test_a_bar_on_a_terminal_only() -> None:
    pytest.importorskip("rich", reason="NOT TESTED: rich is not installed")
    assert isinstance(make_progress(Terminal(), quiet=False), RichProgress)
    assert isinstance(make_progress(io.StringIO(), quiet=False), PlainProgress)


def test_a_bar_shows_what_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rich", reason="NOT TESTED: rich is not installed")
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    with make_progress(terminal, quiet=False) as progress:
        progress.show(0.5, "7 replies")
    assert "7 replies" in terminal.getvalue()
    assert "50%" in terminal.getvalue()


def test_lines_where_rich_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich.progress", None)  # as if it were not installed
    assert not has_rich()
    assert isinstance(make_progress(Terminal(), quiet=False), PlainProgress)
