"""Locks that connections share."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from reactor import Connection, Environment, Lock, Reactor
from reactor.lock_stripes import STRIPES, LockStripes
from tests.reactor.connections import Recorder


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    with closing(Reactor()) as reactor:
        yield reactor


def test_each_has_its_own_until_there_are_enough(reactor: Reactor) -> None:
    stripes = LockStripes(reactor)
    first = [stripes.next() for _ in range(STRIPES)]
    assert len({id(lock) for lock in first}) == STRIPES
    assert [stripes.next() for _ in range(2 * STRIPES)] == first * 2


def test_those_that_few_need_are_few(reactor: Reactor) -> None:
    stripes = LockStripes(reactor)
    stripes.next()
    assert repr(stripes) == f"<LockStripes 1 of {STRIPES}>"


def test_threads_that_ask_at_once_all_get_one(reactor: Reactor) -> None:
    stripes = LockStripes(reactor)
    got: list[Lock] = []
    begin = threading.Barrier(8)

    def ask() -> None:
        begin.wait()
        got.extend(stripes.next() for _ in range(STRIPES))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 8 * STRIPES
    assert len({id(lock) for lock in got}) == STRIPES


def test_those_of_one_loop_are_the_same_for_all_owners(reactor: Reactor) -> None:
    assert Environment(reactor).locks is Environment(reactor).locks
    with closing(Reactor()) as other:
        assert Environment(reactor).locks is not Environment(other).locks


def test_connections_share_them(reactor: Reactor) -> None:
    environment = Environment(reactor)
    connections = [Connection(environment, Recorder()) for _ in range(3 * STRIPES)]
    assert len({id(connection.lock) for connection in connections}) == STRIPES
