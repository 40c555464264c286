"""Fixtures of the reactor's tests, and the watch for what they leave behind."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator

import pytest

from reactor import Reactor
from tests.reactor.connections import Make, make_ends
from tests.reactor.support import DEADLINE, SELECTORS, ManualClock, open_descriptors


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    """Every test gives back its descriptors and ends its threads."""
    watched = os.path.isdir("/dev/fd")
    descriptors = open_descriptors() if watched else frozenset()
    threads = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - threads:
        thread.join(DEADLINE)
        assert not thread.is_alive(), f"{thread} has not ended"
    if watched and open_descriptors() != descriptors:
        gc.collect()
        assert open_descriptors() <= descriptors, "descriptors were left open"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    """A reactor in real time."""
    made = Reactor()
    yield made
    made.close()


@pytest.fixture
def manual(clock: ManualClock) -> Iterator[Reactor]:
    """A reactor in the manual clock's time; to be driven with `run_once(0)`."""
    made = Reactor(clock=clock)
    yield made
    made.close()


@pytest.fixture(params=sorted(SELECTORS))
def any_reactor(request: pytest.FixtureRequest) -> Iterator[Reactor]:
    """A reactor over each of the system's selectors in turn."""
    made = Reactor(selector=SELECTORS[request.param]())
    yield made
    made.close()


@pytest.fixture
def make(reactor: Reactor) -> Iterator[Make]:
    """Makes connections on real sockets, and sees them to their end."""
    yield from make_ends(reactor)


@pytest.fixture
def make_manual(manual: Reactor) -> Iterator[Make]:
    """In the manual clock's time."""
    yield from make_ends(manual)
