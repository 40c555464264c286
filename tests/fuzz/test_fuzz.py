"""A short round of every fuzzer; and that they find what is wrong."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tao import Codec, TypeLengthValueCodec
from tao.codec import Frame
from tests.fuzz.__main__ import main
from tests.fuzz.codec_input import check_codec, codec_inputs
from tests.fuzz.reference import TypedDialect
from tests.fuzz.server_input import Host, ServerInput
from tests.fuzz.targets import TARGETS, Target, run_round


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    # What peers do wrong is a warning each time. The command sets the level too, and caplog sets it back.
    caplog.set_level(logging.CRITICAL, "tao")


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_nothing_is_found(target: Target) -> None:
    examples = 300 if target.name.startswith("codec") else 120
    assert run_round(target, examples=examples) >= examples


class _ForgetfulCodec(TypeLengthValueCodec):
    """A defect put in by hand: the third of the frames that come together is forgotten."""

    def decode(self, data: bytes) -> Iterable[Frame]:
        for index, frame in enumerate(super().decode(data)):
            if index != 2:
                yield frame


class _ForgetfulDialect(TypedDialect):
    def codec(self) -> Codec:
        return _ForgetfulCodec(max_length=self.max_length)


def test_the_codec_s_fuzzer_finds_a_frame_that_was_forgotten() -> None:
    def check(example: Any) -> None:
        check_codec(
            type(example)(_ForgetfulDialect(40), example.stream, example.cuts, example.message)
        )

    target = Target("defect", codec_inputs("type, length, value"), _always(check))
    # It ends with the first that is found. Which that is changes with the constants in the source, which
    # hypothesis takes into account.
    with pytest.raises(AssertionError):
        run_round(target, examples=3000, number=1, smallest=False)


@pytest.mark.parametrize("number", [1, 2], ids=["pooled", "inline"])
def test_the_servers_check_finds_a_frame_that_was_forgotten(number: int) -> None:
    dialect = _ForgetfulDialect(100)
    part = dialect.frame(number, b"one of four")
    assert part is not None
    with Host(TypedDialect(100)) as host:
        host.check(ServerInput((part * 4,), (), False))
    with Host(dialect) as host, pytest.raises(AssertionError):
        host.check(ServerInput((part * 4,), (), False))


def _always(check: Callable[[Any], None]) -> Callable[[], Any]:
    @contextmanager
    def opened() -> Iterator[Callable[[Any], None]]:
        yield check

    return opened


def test_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--target", "codec: *", "--examples", "5", "--minutes", "0", "--seed", "7"]
    assert main(arguments) == 0
    printed = capsys.readouterr()
    assert "nothing found" in printed.out
    assert len(printed.err.splitlines()) == 3  # a line for every round
    assert "seed 7, codec: type, length, value" in printed.err


def test_an_unknown_target(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--target", "no such thing"]) == 2
    assert "server: lines" in capsys.readouterr().err
