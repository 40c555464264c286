"""tao.errors: what the framework raises."""

from __future__ import annotations

import pytest

import tao
from tao import FrameTooLargeError, TaoError, UndefinedMessageError


@pytest.mark.parametrize(
    "name",
    [
        "ConnectionClosedError",
        "FrameTooLargeError",
        "NotRegisteredError",
        "UndefinedMessageError",
        "WouldBlockError",
    ],
)
def test_all_have_one_base(name: str) -> None:
    assert issubclass(getattr(tao, name), TaoError)


def test_a_frame_too_large_says_how_large() -> None:
    error = FrameTooLargeError(11, 10, "a greeting")
    assert (error.size, error.limit) == (11, 10)
    assert str(error) == "a greeting of 11 bytes is over the limit of 10"


def test_an_undefined_message_says_its_number() -> None:
    error = UndefinedMessageError(-5)
    assert error.number == -5
    assert "-5 is not registered" in str(error)
