"""What is said of a load, as text and as tables."""

from __future__ import annotations

import dataclasses
import io
import sys

import pytest

from tao.cli.histogram import Histogram
from tao.cli.load import Plan, Result
from tao.cli.load_report import as_text, bars, busy, ceiling, milliseconds, show
from tests.tao.cli.test_progress import Terminal

PLAN = Plan(address=("localhost", 12345), connections=10, in_flight=2)

TEXT = """\
server     localhost:12345, tlv
load       10 connections, up to 2 in flight on each, 64 bytes
replies    1,000 in 2.00 s: 500/s
bytes      0.03 MiB/s out, 0.03 MiB/s in

latency, from sending
  least    0.001 ms
  50 %     0.502 ms
  90 %     0.901 ms
  99 %     0.991 ms
  99.9 %   0.999 ms
  most         1 ms
  mean       0.5 ms

  < 0.002 ms            1   0.1%
  < 0.005 ms            3   0.3%
   < 0.01 ms            5   0.5%
   < 0.02 ms           10   1.0%  #
   < 0.05 ms           30   3.0%  ##
    < 0.1 ms           50   5.0%  ####
    < 0.2 ms          100  10.0%  ########
    < 0.5 ms          300  30.0%  ########################
      < 1 ms          500  50.0%  ########################################
      < 2 ms            1   0.1%

generator  1 process, 25% busy; 500 us of a processor for each message: 2,000/s at the most"""


def result(processor: int = 500_000_000) -> Result:
    """A thousand replies, from a microsecond to a millisecond."""
    latency = Histogram()
    latency.add_all(range(1_000, 1_001_000, 1_000))
    return Result(
        connected=10,
        sent=1000,
        received=1000,
        bytes_sent=72_000,
        bytes_received=72_000,
        elapsed=2_000_000_000,
        processor=processor,
        latency=latency,
    )


def test_the_text() -> None:
    assert as_text(PLAN, result()) == TEXT


def test_a_rate_changes_what_the_times_are() -> None:
    text = as_text(dataclasses.replace(PLAN, rate=500.0), result())
    assert "replies    1,000 in 2.00 s: 500/s, of 500/s asked for\n" in text
    assert "sent late  99 % by less than 0 ms\n" in text
    assert "latency, from when each was due\n" in text


def test_what_was_wrong() -> None:
    found = result()
    found.errors = {"not connected: Connection refused": 2}
    found.wrong, found.example = 3, "this was sent, and that came"
    found.unanswered, found.unsent = 4, 5
    lines = [line for line in as_text(PLAN, found).splitlines() if line.startswith("PROBLEM")]
    assert lines == [
        "PROBLEM    2 times not connected: Connection refused",
        "PROBLEM    3 replies were not what was sent: this was sent, and that came",
        "PROBLEM    4 messages had no reply; how long they would have taken is not in the times",
        "PROBLEM    5 messages were due and could not be sent in time",
    ]


def test_nothing_came() -> None:
    text = as_text(PLAN, Result(elapsed=1, latency=Histogram()))
    assert "PROBLEM    no reply came\n" in text
    assert text.endswith("generator  1 process")
    assert "latency" not in text
    assert Result().failed


@pytest.mark.parametrize(("processor", "limits"), [(1_700_000_000, False), (1_900_000_000, True)])
def test_it_says_when_the_generator_is_the_limit(processor: int, limits: bool) -> None:
    found = result(processor)
    assert ("It is the limit here, not the server" in as_text(PLAN, found)) is limits
    assert busy(found) == processor / 2e9
    assert ceiling(found) == pytest.approx(1000 / processor * 1e9)


def test_two_generators_can_do_twice_as_much() -> None:
    found = result(1_000_000_000)
    found.merge(result(1_000_000_000))
    assert busy(found) == 0.5
    assert ceiling(found) == pytest.approx(2000.0)


def test_the_bars_count_every_reply_once() -> None:
    drawn = list(bars(result()))
    assert sum(count for _, count, _ in drawn) == 1000
    assert sum(share for _, _, share in drawn) == pytest.approx(1.0)
    assert list(bars(Result())) == []


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (1_234, "0.00123 ms"),
        (12_345_678, "12.3 ms"),
        (99_960_000, "100 ms"),
        (1e12, "1,000,000 ms"),
    ],
)
def test_times_have_three_digits(nanoseconds: float, text: str) -> None:
    assert milliseconds(nanoseconds) == text


def test_tables_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rich", reason="NOT TESTED: rich is not installed")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "110")
    terminal = Terminal()
    found = result()
    found.wrong, found.example = 1, "[red]a reply is no markup[/red]"
    show(PLAN, found, terminal)
    text = terminal.getvalue()
    for words in ("1,000 in 2.00 s: 500/s", "Latency, from sending", "0.901 ms", "50.0%", "busy"):
        assert words in text
    assert "[red]a reply is no markup[/red]" in text


def test_text_without_a_terminal_or_without_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = io.StringIO()
    show(PLAN, result(), plain)
    assert plain.getvalue() == TEXT + "\n"
    monkeypatch.setitem(sys.modules, "rich.progress", None)  # as if it were not installed
    terminal = Terminal()
    show(PLAN, result(), terminal)
    assert terminal.getvalue() == TEXT + "\n"
