"""A short soak; and that it finds what is wrong."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tao import Context, WriteCloser
from tests.soak import __main__ as command
from tests.soak import services as services_module
from tests.soak.actors import Actors, LostError
from tests.soak.gauges import MEMORY_TOLERANCE, Sample, growth
from tests.soak.rounds import Result, Soak
from tests.soak.services import Services, Watch
from tests.soak.tally import Tally
from tests.support import Sample as Message
from tests.tls_support import Certificates

MIB = 1 << 20


def test_a_short_soak_finds_nothing() -> None:
    said: list[str] = []
    result = Soak(1.5, said.append, seed=1).run()
    # Memory needs minutes to be judged, and a process of its own.
    assert [text for text in result.tally.findings if not text.startswith("memory")] == []
    assert len(said) == len(result.samples) >= 3  # a line for every round
    taken = {actor: count for actor, count, _ in result.tally.by_actor()}
    assert len(taken) == 12
    assert all(taken.values())
    assert result.closed > sum(taken.values()) / 2
    assert f"{result.tally.finding_count} findings" in result.summary()


# -- what it would find --------------------------------------------------------------------------

STEADY = Sample(memory=50 * MIB, descriptors=20, threads=10, timers=0)


@pytest.mark.parametrize("gauge", ["descriptors", "threads", "timers"])
def test_one_more_than_after_the_warm_up_is_growth(gauge: str) -> None:
    more = replace(STEADY, **{gauge: getattr(STEADY, gauge) + 1})
    assert growth([STEADY] * 5) == []
    assert growth([more] + [STEADY] * 5) == []  # fewer is none
    [found] = growth([STEADY] * 5 + [more])
    assert found.startswith(gauge)


def test_memory_that_creeps_is_growth_and_what_comes_and_goes_is_none() -> None:
    def samples(*mib: float) -> list[Sample]:
        return [replace(STEADY, memory=int(size * MIB)) for size in mib]

    assert growth([]) == []
    assert growth(samples(50, 54, 50, 55, 50, 50, 51, 50, 56)) == []
    [found] = growth(samples(*(50 + index for index in range(9))))
    assert found.startswith("memory has grown by 6.0 MiB")
    assert MEMORY_TOLERANCE < 6 * MIB


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    with Services(Watch(Tally()), Certificates(tmp_path)) as made:
        yield made


def _shortened(context: Context[bytes], _conn: WriteCloser) -> Message:
    return Message(services_module.POOLED, context.message[:-1])


@pytest.mark.parametrize("actor", ["echo", "half_close", "garbage", "raise_"])
def test_an_actor_notices_what_is_lost(
    actor: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A defect put in by hand: echoes without their last byte."""
    monkeypatch.setattr(services_module, "_echo", _shortened)
    with Services(Watch(Tally()), Certificates(tmp_path)) as services:
        converse = getattr(Actors(services, Tally()), actor)

        def converse_often() -> None:
            for seed in range(10):  # a conversation may have no message at all
                converse(random.Random(seed))

        with pytest.raises(LostError):
            converse_often()


def test_the_watch_notices_an_end_too_many(services: Services) -> None:
    tally = Tally()
    watch = Watch(tally)
    conn: Any = type("Conn", (), {"net_id": 1})()
    reason: Any = type("Reason", (), {"error": ValueError("of nobody")})()
    watch.opened(services.plain, conn)
    watch.ended(services.plain, conn, reason)
    assert watch.open_count == 0
    assert [text for text in tally.findings if "of nobody" in text or "ended with" in text]
    before = tally.finding_count
    reason.error = None
    watch.ended(services.plain, conn, reason)
    assert tally.finding_count == before + 1


# -- the command line ----------------------------------------------------------------------------


@pytest.mark.parametrize("findings", [0, 1])
def test_the_exit_status_says_whether_something_was_found(
    findings: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tally = Tally()
    for _ in range(findings):
        tally.find("a needle")
    result = Result(tally, [STEADY] * 4, 1, 6.0, 3.0, 0, 5)
    monkeypatch.setattr(Soak, "run", lambda self: result)
    monkeypatch.setattr(command, "one_heap", lambda: None)  # is for a process of its own
    assert command.main(["--minutes", "0.1", "--seed", "5"]) == findings
    printed = capsys.readouterr()
    assert "seed 5" in printed.err
    assert f"{findings} findings" in printed.out
    assert ("a needle" in printed.out) == bool(findings)


def test_a_time_that_makes_no_sense(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(["--minutes", "0"])
    assert ended.value.code == 2
