"""Threads that get into each other's way as often as can be."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.support import DEADLINE

__all__ = ["THREADS", "at_once"]

THREADS = 8


@contextmanager
def _switching() -> Iterator[None]:
    """Let the interpreter change threads at every opportunity."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def at_once(work: Callable[[int], object]) -> None:
    """Call `work(index)` on all of them, which begin together. Raises what one of them raises."""
    together = threading.Barrier(THREADS)
    errors: list[BaseException] = []

    def run(index: int) -> None:
        try:
            together.wait(DEADLINE)
            work(index)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(index,), daemon=True) for index in range(THREADS)]
    with _switching():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)
    assert not any(thread.is_alive() for thread in threads), "a thread is stuck"
    if errors:
        raise errors[0]
