"""Ctrl-C at whatever place one likes.

Contents: interrupt, then.

A signal is looked at behind a call, at the beginning of a function, and where a loop goes round.
"""

from __future__ import annotations

import dis
import gc
import sys
import threading
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import reactor
import tao
from tests.support import DEADLINE

__all__ = ["interrupt", "then"]

OURS = (
    *(str(Path(package.__file__ or "").parent) for package in (reactor, tao)),
    str(threading.__file__),
)
LOOKED_AT_BEHIND = {"CALL", "CALL_KW", "CALL_FUNCTION_EX", "RESUME", "JUMP_BACKWARD"}


@cache
def _places(code: CodeType) -> frozenset[int]:
    """Where an instruction stands before which the interpreter looks for signals.

    What it raises then belongs to the instruction before: where that is the last one of a `with` or of a
    `try`, what is raised here would not.
    """
    bytecode: Any = dis.Bytecode(code)
    guarded = bytecode.exception_entries

    def handler(offset: int) -> int:
        return next((each.target for each in guarded if each.start <= offset < each.end), 0)

    return frozenset(
        following.offset
        for before, following in pairwise(bytecode)
        if before.opname in LOOKED_AT_BEHIND and handler(before.offset) == handler(following.offset)
    )


def interrupt(call: Callable[[], object], place: int) -> bool:
    """Call it, and raise KeyboardInterrupt at that place of its way through this project; whether it has so
    many."""
    passed = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal passed
        if not frame.f_code.co_filename.startswith(OURS):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and frame.f_lasti in _places(frame.f_code):
            passed += 1
            if passed > place:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    gc.disable()  # nor in what a finalizer does: nobody would hear of it
    sys._getframe().f_trace_opcodes = True  # Python 3.12 asks at the beginning whether anybody does
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
        gc.enable()
    return passed > place


def then(call: Callable[[], object]) -> None:
    """What comes after: on another thread, so that a lock which was kept is noticed."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(DEADLINE)
    assert not thread.is_alive(), "it waits for ever"
    assert not failures, failures
