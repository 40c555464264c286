"""tao.expectations: who is late, and with what; on a manual clock."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from reactor import CloseReason, Connection, Environment, Reactor
from tao import Heartbeat, Message
from tao.expectations import Expectations
from tests.support import ManualClock


class Bench:
    """An open connection, and what is expected of its peer. It is also the connection's handler."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.reactor = Reactor(clock=self.clock)
        self.connection = Connection(Environment(self.reactor), self)
        ours, self.peer = socket.socketpair()
        ours.setblocking(False)
        self.connection.start(ours)
        self.partial = True
        self.late: list[str] = []
        self.written: list[Message] = []
        self.expectations = Expectations(
            self.reactor, self.connection, lambda: self.partial, self.late.append
        )

    def handle_open(self) -> None: ...
    def handle_data(self, data: bytes) -> None: ...
    def handle_draining(self) -> None: ...
    def handle_writable(self) -> None: ...
    def handle_closed(self, reason: CloseReason) -> None: ...
    def is_idle(self) -> bool:
        return True

    def pass_time(self, seconds: float) -> None:
        """Let the clock move and the loop look."""
        self.clock.advance(seconds)
        self.reactor.run_once(0)

    def close(self) -> None:
        """All that there is of it."""
        self.connection.abort()
        self.reactor.run_once(0)
        self.peer.close()
        self.reactor.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


def test_the_first_message_is_late_if_none_has_come(bench: Bench) -> None:
    bench.expectations.expect_message(2.0, lambda: True)
    bench.pass_time(1.5)
    assert bench.late == []
    bench.pass_time(0.5)
    assert bench.late == ["no message came in the first 2 s"]


def test_nobody_is_late_who_has_come(bench: Bench) -> None:
    bench.expectations.expect_message(2.0, lambda: False)
    bench.expectations.expect_rest(2.0, 0)
    bench.partial = False
    bench.pass_time(10.0)
    assert bench.late == []


def test_a_frame_has_its_time_from_when_it_began(bench: Bench) -> None:
    """More of it does not put that off."""
    bench.expectations.expect_rest(2.0, 0)
    for _ in range(3):
        bench.pass_time(0.5)
        bench.expectations.expect_rest(2.0, 0)
    assert bench.late == []
    bench.pass_time(0.5)
    assert bench.late == ["a frame was not whole 2 s after it began"]


@pytest.mark.parametrize("anew", ["the next frame", "the same frame, forgotten"])
def test_and_anew_when_it_is_another(bench: Bench, anew: str) -> None:
    bench.expectations.expect_rest(2.0, 0)
    bench.pass_time(1.5)
    if anew == "the next frame":
        bench.expectations.expect_rest(2.0, 1)
    else:
        bench.expectations.forget_rest()
        bench.expectations.expect_rest(2.0, 0)
    bench.pass_time(1.5)
    assert bench.late == []
    bench.pass_time(0.5)
    assert len(bench.late) == 1


def test_signs_of_life_are_given(bench: Bench) -> None:
    heartbeat = Heartbeat(interval=1.0, timeout=10.0)
    bench.expectations.expect_signs_of_life(heartbeat, bench.written.append)
    bench.pass_time(1.0)
    assert [message.message_number for message in bench.written] == [0]


def test_at_the_end_nothing_is_expected_any_more(bench: Bench) -> None:
    heartbeat = Heartbeat(interval=1.0, timeout=10.0)
    bench.expectations.expect_signs_of_life(heartbeat, bench.written.append)
    bench.expectations.expect_message(2.0, lambda: True)
    bench.expectations.expect_rest(2.0, 0)
    bench.expectations.end()
    bench.expectations.end()
    bench.pass_time(20.0)
    assert bench.late == [] and bench.written == []
