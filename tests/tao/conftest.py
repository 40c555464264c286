"""What every test of the framework is checked for: it ends, and leaves no thread and no descriptor."""

from __future__ import annotations

import faulthandler
import io
import os
import threading
from collections.abc import Iterator

import pytest

from tests.support import descriptors, wait_until

HANGS_AFTER = 1200.0 if os.environ.get("TAO_TEST_FULL") else 120.0
"""Seconds after which a test counts as hanging: the stack of every thread is shown, the run ends."""


@pytest.fixture(scope="session")
def real_stderr(pytestconfig: pytest.Config) -> Iterator[io.TextIOWrapper]:
    """Where a message is seen although the process ends before pytest shows what it has captured."""
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    assert capture is not None
    with capture.global_and_fixture_disabled():
        stream = os.fdopen(os.dup(2), "w")
    with stream:
        yield stream


@pytest.fixture(autouse=True)
def ends_and_leaves_nothing(real_stderr: io.TextIOWrapper) -> Iterator[None]:
    """Threads may take a moment to end after they have done their work; descriptors likewise."""
    threads_before, descriptors_before = set(threading.enumerate()), descriptors()
    faulthandler.dump_traceback_later(HANGS_AFTER, exit=True, file=real_stderr)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
    wait_until(
        lambda: (
            set(threading.enumerate()) <= threads_before and descriptors() <= descriptors_before
        ),
        timeout=5.0,
    )
    assert set(threading.enumerate()) - threads_before == set()
    assert descriptors() - descriptors_before == set()
