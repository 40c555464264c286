"""tao.session_options: what makes no sense is refused where it is said."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tao import ServerConn
from tao.session_options import FRAME_TIMEOUT, Callbacks, SessionOptions


@pytest.mark.parametrize("name", ["on_connect", "on_message", "on_close", "on_error"])
def test_a_callback_is_a_function(name: str) -> None:
    wrong: dict[str, Any] = {name: "print"}
    with pytest.raises(TypeError, match=f"{name} must be a function, not 'print'"):
        Callbacks[ServerConn](**wrong)
    Callbacks[ServerConn](**{name: print})


@pytest.mark.parametrize("name", ["frame_timeout", "first_message_timeout"])
@pytest.mark.parametrize("seconds", [0.0, -1.0, math.inf, math.nan])
def test_a_deadline_is_positive_and_finite(name: str, seconds: float) -> None:
    wrong: dict[str, Any] = {name: seconds}
    with pytest.raises(ValueError, match=name):
        SessionOptions(**wrong)


def test_there_is_room_for_a_message() -> None:
    with pytest.raises(ValueError, match="at least 1 message, not 0"):
        SessionOptions(buffer_size=0)


def test_without_a_word_only_a_frame_has_a_deadline() -> None:
    assert SessionOptions().frame_timeout == FRAME_TIMEOUT
    assert SessionOptions().first_message_timeout is None
    assert SessionOptions(frame_timeout=None).frame_timeout is None
