"""tao.stopping: what becomes of connections, and when; by hand, with connections that are none.

What it is on sockets, and what a server does beside: test_stop, test_latecomers.
"""

from __future__ import annotations

import logging
from typing import Any, cast

import pytest

from reactor import CloseCause, CloseReason, ConnectionState
from tao import StopReport
from tao.session import Session
from tao.stopping import STOP_MARGIN, Stopping
from tests.tao.manual import ManualLoop


class FakeSession:
    """Both the session and its connection; says what was asked of it."""

    def __init__(self, name: str, state: ConnectionState = ConnectionState.OPEN) -> None:
        self.conn = name
        self.connection = self
        self.state = state
        self.messages_in = 1  # it has been here for a while
        self.asked: list[str] = []

    def close(self, cause: CloseCause) -> None:
        """In good order."""
        assert cause is CloseCause.STOPPED
        self.asked.append("close")

    def abort(self, cause: CloseCause, error: BaseException) -> bool:
        """By force; once."""
        assert cause is CloseCause.STOPPED and "grace" in str(error)
        self.asked.append("abort")
        return self.asked.count("abort") == 1


class Stop:
    """A stop of so many connections, on a loop that stands still."""

    def __init__(self, loop: ManualLoop, count: int) -> None:
        self.sessions = {number: FakeSession(f"conn {number}") for number in range(count)}
        self.table = cast("dict[int, Session[Any]]", dict(self.sessions))
        self.overs = 0
        self.stopping = Stopping(loop.reactor, self.table, self._handle_over)

    def _handle_over(self) -> None:
        assert self.stopping.over and not self.table
        self.overs += 1

    def begin(self, grace: float) -> None:
        """As a server does."""
        self.stopping.begin(grace)
        self.stopping.hurry(grace)

    def end(self, number: int, cause: CloseCause = CloseCause.STOPPED) -> None:
        """One is gone."""
        session = self.table.pop(number)
        self.stopping.handle_gone(session, CloseReason(cause))

    def asked(self) -> list[list[str]]:
        """Of each connection."""
        return [session.asked for session in self.sessions.values()]


@pytest.mark.parametrize("grace", [0.0, 5.0])
def test_without_connections_it_is_over_at_once(grace: float) -> None:
    with ManualLoop() as loop:
        stop = Stop(loop, 0)
        stop.begin(grace)
        assert (stop.overs, stop.stopping.over) == (1, True)
        loop.advance(10.0)
        assert stop.overs == 1
        assert loop.reactor.statistics().timeouts_waiting == 0


def test_it_is_over_when_the_last_is_gone() -> None:
    with ManualLoop() as loop:
        stop = Stop(loop, 3)
        stop.begin(5.0)
        loop.settle()
        assert stop.asked() == [["close"]] * 3
        stop.end(0)
        stop.end(1, CloseCause.PEER_CLOSED)
        assert stop.overs == 0
        stop.end(2)
        assert stop.overs == 1
        assert loop.reactor.statistics().timeouts_waiting == 0
        assert stop.stopping.report(finished=False) == StopReport(2, 0, False)
        assert stop.stopping.report(finished=True) == StopReport(2, 0, True)


def test_with_a_grace_what_came_last_is_read_before_it_is_closed() -> None:
    with ManualLoop() as loop:
        stop = Stop(loop, 1)
        stop.begin(5.0)
        assert stop.asked() == [[]]
        loop.settle()
        assert stop.asked() == [["close"]]
        stop.end(0)


def test_at_the_end_of_the_grace_who_is_left_is_cut_off_and_then_given_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with ManualLoop() as loop, caplog.at_level(logging.ERROR, "tao"):
        stop = Stop(loop, 2)
        stop.begin(5.0)
        loop.advance(4.9)
        assert stop.asked() == [["close"]] * 2
        loop.advance(0.2)
        assert stop.asked() == [["close", "abort"]] * 2
        stop.end(0, CloseCause.ABORTED)
        assert not stop.stopping.over
        loop.advance(STOP_MARGIN / 2 + 0.01)
        assert (stop.overs, stop.stopping.over) == (1, True)
        assert stop.stopping.report(finished=True) == StopReport(0, 2, False)
        assert [record.getMessage() for record in caplog.records] == [
            "conn 1: its handler has not returned; stopped without it"
        ]


def test_it_can_be_hurried_and_not_put_off() -> None:
    with ManualLoop() as loop:
        stop = Stop(loop, 1)
        stop.begin(5.0)
        loop.settle()
        ends = stop.stopping.ends
        stop.stopping.hurry(10.0)
        assert stop.stopping.ends == ends
        stop.stopping.hurry(1.0)
        assert stop.stopping.ends == ends - 4.0
        loop.advance(1.1)
        assert stop.asked() == [["close", "abort"]]
        stop.end(0)


def test_who_is_not_open_yet_is_left_to_the_latecomers() -> None:
    with ManualLoop() as loop:
        stop = Stop(loop, 2)
        stop.sessions[1].state = ConnectionState.HANDSHAKING
        stop.begin(4.0)
        loop.settle()
        assert stop.asked() == [["close"], []]
        stop.stopping.handle_open(stop.table[1])
        loop.advance(1.1)
        assert stop.asked() == [["close"], ["close"]]
        stop.end(0)
        stop.end(1)
        assert repr(stop.stopping) == "<Stopping, over>"
