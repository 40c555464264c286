"""tao.stop_signals: whose signals they are, and for how long; what a server does then is in test_stop."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

import pytest

from tao.stop_signals import stop_signals

BOTH = (signal.SIGINT, signal.SIGTERM)


def handle(_number: int, _frame: FrameType | None) -> None:
    """Nothing comes here."""


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in BOTH]


def test_they_are_taken_and_given_back() -> None:
    before = handlers()
    with stop_signals(handle):
        assert handlers() == [handle, handle]
    assert handlers() == before


def test_they_are_given_back_when_the_block_raises() -> None:
    before = handlers()
    with pytest.raises(KeyError), stop_signals(handle):
        raise KeyError
    assert handlers() == before


def test_the_inner_of_two_takes_nothing() -> None:
    def other(_number: int, _frame: FrameType | None) -> None: ...

    with stop_signals(handle):
        with stop_signals(other):
            assert handlers() == [handle, handle]
        assert handlers() == [handle, handle]


@pytest.mark.parametrize("number", BOTH)
def test_what_a_program_handles_itself_stays_its_own(number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with stop_signals(handle):
            assert signal.getsignal(number) is signal.SIG_IGN
            assert handlers().count(handle) == 1
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_on_another_thread_nothing_is_taken() -> None:
    before, seen = handlers(), []

    def run() -> None:
        with stop_signals(handle):
            seen.append(handlers())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [before]


@pytest.mark.skipif(os.name != "posix", reason="Windows has no signals to send to a process")
@pytest.mark.parametrize("number", BOTH)
def test_they_come_to_the_handler(number: signal.Signals) -> None:
    came: list[int] = []
    with stop_signals(lambda number, _frame: came.append(number)):
        signal.raise_signal(number)
    assert came == [number]
