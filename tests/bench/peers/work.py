"""What a handler does before it replies: nothing, compute, sleep, or be slow for some messages.

Every peer with handlers gets it from here, so that all of them do the same.
"""

import argparse
import time
from collections.abc import Callable
from typing import Final

from tests.bench.peers.frames import ECHO_TYPE, SLOW_TYPE, echo

COMPUTE_SECONDS: Final = 50e-6
LONG_COMPUTE_SECONDS: Final = 200e-6
SLEEP_SECONDS: Final = 10e-3
SLOW_SECONDS: Final = 100e-3

Work = Callable[[], None]
Handler = Callable[[int, bytes], bytes]


def compute() -> None:
    """Use the processor for COMPUTE_SECONDS, holding the interpreter's lock as Python code does."""
    _use_processor(COMPUTE_SECONDS)


def compute_for_long() -> None:
    """The same for LONG_COMPUTE_SECONDS."""
    _use_processor(LONG_COMPUTE_SECONDS)


def _use_processor(seconds: float) -> None:
    """By the thread's own clock: what other threads take of the processor, and the wait for the
    interpreter, are no work done. So it is the same work in every peer, on any machine."""
    clock = time.thread_time_ns
    until = clock() + int(seconds * 1e9)
    while clock() < until:
        pass


def sleep() -> None:
    """Block as a query of a database would, without the interpreter's lock."""
    time.sleep(SLEEP_SECONDS)


def be_slow() -> None:
    """Block for long, without the interpreter's lock."""
    time.sleep(SLOW_SECONDS)


WORKS: Final[dict[str, dict[int, Work]]] = {
    "nothing": {},
    "compute": {ECHO_TYPE: compute},
    "compute-for-long": {ECHO_TYPE: compute_for_long},
    "sleep": {ECHO_TYPE: sleep},
    "slow-beside-fast": {SLOW_TYPE: be_slow},
}
"""By the option's value: what is done for each type of message; for a type not named, nothing."""


def add_work_option(parser: argparse.ArgumentParser) -> None:
    """`--work`, the name of an entry of WORKS."""
    parser.add_argument("--work", choices=tuple(WORKS), default="nothing")


def handler_of(work: str) -> Handler:
    """The handler and encoder with that work: from the type and value of a message to the reply."""
    works = WORKS[work]
    if not works:
        return echo

    def work_then_echo(number: int, value: bytes) -> bytes:
        if number in works:
            works[number]()
        return echo(number, value)

    return work_then_echo
