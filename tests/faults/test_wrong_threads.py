"""Methods of the loop's thread, called by another one: each raises, and has changed nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from reactor import Connection, Pause, Reactor, WorkerPool, WrongThreadError
from tests.faults.support import Watched, check_alive
from tests.support import DEADLINE, LOCAL, Calls, Peer, wait_until

METHODS: dict[str, Callable[[Connection], object]] = {
    "pause_reading": lambda connection: connection.pause_reading(Pause.USER),
    "resume_reading": lambda connection: connection.resume_reading(Pause.USER),
    "fail": lambda connection: connection.fail(ValueError("from the wrong thread")),
    "flush": lambda connection: connection.flush(),
}


@pytest.mark.parametrize("method", METHODS)
def test_a_connection(method: str) -> None:
    watched = Watched()
    with watched.server.running(LOCAL) as address, Peer(address) as peer:
        check_alive(peer)
        [conn] = watched.server.connections()
        paused = method == "resume_reading"
        if paused:
            conn.pause_reading()
            assert wait_until(lambda: conn._session.connection.paused)
        with pytest.raises(WrongThreadError):
            METHODS[method](conn._session.connection)
        assert bool(conn._session.connection.paused) == paused
        conn.resume_reading()
        check_alive(peer)
        peer.close()
        assert watched.only_reason().clean


class _Job:
    """Says that it was run."""

    def __init__(self, ran: Calls[str], name: str) -> None:
        self._ran = ran
        self._name = name

    def run(self, now: float) -> float:
        self._ran.add(self._name)
        return time.monotonic()

    def collect(self) -> None:
        pass

    def finish(self) -> None:
        pass

    def refuse(self, error: BaseException) -> None:
        self._ran.add(f"{self._name} refused: {error}")


def test_a_pool() -> None:
    """The job of the wrong thread is not run, and those of the right one are."""
    reactor = Reactor()
    pool = WorkerPool(reactor, worker_size=2)
    thread = threading.Thread(target=reactor.run)
    thread.start()
    ran: Calls[str] = Calls()
    try:
        assert wait_until(reactor.in_other_thread)
        with pytest.raises(WrongThreadError):
            pool.submit(_Job(ran, "wrong"))
        assert pool.waiting == 0
        reactor.call_soon_threadsafe(pool.submit, _Job(ran, "right"))
        assert ran.wait(timeout=DEADLINE) == ["right"]
    finally:
        reactor.stop()
        thread.join()
        pool.shutdown()
        reactor.close()
