"""Calling something in a forked child."""

from __future__ import annotations

import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable

import pytest

from tests.support import DEADLINE

__all__ = ["in_child", "needs_fork"]

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork")


def in_child(function: Callable[[], object]) -> int:
    """Fork, call it in the child, and return the child's exit code: 0 if nothing was raised."""
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        # From 3.12 on: other threads run here; the child does nothing with theirs but refuse.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(int(DEADLINE))  # one that hangs is ended
            function()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)
