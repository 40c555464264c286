"""tao.timers: the timers of one connection; on a manual clock, then on real connections."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator

import pytest

from reactor import Reactor
from tao import Context, MessageRegistry, Server, ServerConn, WriteCloser
from tao.timers import ConnectionTimers
from tests.support import DEADLINE, LOCAL, Calls, ManualClock, Peer, Sample, as_bytes, wait_until


class Bench:
    """Timers on a loop that this thread runs, and the queue in which expired ones wait."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.reactor = Reactor(clock=self.clock)
        self.queue: list[Callable[[], object]] = []
        self.timers = ConnectionTimers(self.reactor, self.queue.append)
        self.seen: list[float] = []
        self.reactor.run_once(0)  # from here on this thread is the loop's

    def pass_time(self, seconds: float) -> None:
        """Let the clock move and the loop look."""
        self.clock.advance(seconds)
        self.reactor.run_once(0)

    def run_queue(self) -> int:
        """Give all that wait their turn; how many there were."""
        calls, self.queue[:] = list(self.queue), []
        for call in calls:
            call()
        return len(calls)


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.reactor.close()


def test_run_after_is_never_early_and_comes_once(bench: Bench) -> None:
    bench.timers.run_after(0.5, bench.seen.append)
    bench.reactor.run_once(0)
    bench.pass_time(0.375)
    assert bench.run_queue() == 0
    bench.pass_time(0.125)
    assert bench.run_queue() == 1
    assert bench.seen == [bench.clock.unix()]
    bench.pass_time(10.0)
    assert bench.run_queue() == 0
    assert len(bench.timers) == 0


def test_run_at_takes_unix_time(bench: Bench) -> None:
    bench.timers.run_at(bench.clock.unix() + 2.0, bench.seen.append)
    bench.reactor.run_once(0)
    bench.pass_time(1.5)
    assert bench.run_queue() == 0
    bench.pass_time(0.5)
    assert bench.run_queue() == 1


@pytest.mark.parametrize("when", [0.0, 1_699_999_999.0])
def test_a_time_that_has_passed_is_at_once(bench: Bench, when: float) -> None:
    bench.timers.run_at(when, bench.seen.append)
    bench.reactor.run_once(0)
    bench.reactor.run_once(0)
    assert bench.run_queue() == 1


def test_a_step_of_the_wall_clock_holds_nothing_back(bench: Bench) -> None:
    bench.timers.run_after(1.0, bench.seen.append)
    bench.reactor.run_once(0)
    bench.clock.set_unix(0.0)
    bench.pass_time(1.0)
    assert bench.run_queue() == 1


def test_run_every_does_not_drift(bench: Bench) -> None:
    bench.timers.run_every(0.25, bench.seen.append)
    bench.reactor.run_once(0)
    start = bench.clock.unix()
    for _ in range(8):
        bench.pass_time(0.125)
        bench.run_queue()
    assert [now - start for now in bench.seen] == [0.25, 0.5, 0.75, 1.0]


def test_what_a_late_loop_missed_is_skipped(bench: Bench) -> None:
    bench.timers.run_every(0.25, bench.seen.append)
    bench.reactor.run_once(0)
    start = bench.clock.unix()
    bench.pass_time(0.875)  # three were due
    bench.run_queue()
    bench.pass_time(0.125)  # the fourth, at its own time
    bench.run_queue()
    assert [now - start for now in bench.seen] == [0.875, 1.0]


def test_one_that_waits_for_its_turn_does_not_pile_up(bench: Bench) -> None:
    bench.timers.run_every(0.25, bench.seen.append)
    bench.reactor.run_once(0)
    for _ in range(8):
        bench.pass_time(0.25)  # a handler holds the connection meanwhile
    assert bench.run_queue() == 1
    bench.pass_time(0.25)
    assert bench.run_queue() == 1


def test_they_expire_in_the_order_of_their_times(bench: Bench) -> None:
    order: list[str] = []
    bench.timers.run_after(0.5, lambda now: order.append("later"))
    bench.timers.run_after(0.25, lambda now: order.append("sooner"))
    bench.timers.run_after(0.25, lambda now: order.append("sooner, asked for after it"))
    bench.reactor.run_once(0)
    bench.pass_time(1.0)
    bench.run_queue()
    assert order == ["sooner", "sooner, asked for after it", "later"]


def test_cancelled_before(bench: Bench) -> None:
    timer_id = bench.timers.run_after(0.25, bench.seen.append)
    bench.reactor.run_once(0)
    assert bench.timers.cancel(timer_id) is True
    assert bench.timers.cancel(timer_id) is False
    bench.pass_time(1.0)
    bench.run_queue()
    assert bench.seen == []
    assert bench.reactor.statistics().timeouts_waiting == 0


def test_cancelled_before_the_loop_has_seen_it(bench: Bench) -> None:
    timer_id = bench.timers.run_after(0.0, bench.seen.append)
    assert bench.timers.cancel(timer_id) is True
    bench.pass_time(1.0)
    bench.run_queue()
    assert bench.seen == []


def test_cancelled_between_its_time_and_its_turn(bench: Bench) -> None:
    timer_id = bench.timers.run_after(0.25, bench.seen.append)
    bench.reactor.run_once(0)
    bench.pass_time(0.25)
    assert len(bench.queue) == 1
    assert bench.timers.cancel(timer_id) is True
    bench.run_queue()
    assert bench.seen == []


def test_cancelled_after(bench: Bench) -> None:
    timer_id = bench.timers.run_after(0.25, bench.seen.append)
    bench.reactor.run_once(0)
    bench.pass_time(0.25)
    bench.run_queue()
    assert bench.timers.cancel(timer_id) is False


def test_cancelled_inside(bench: Bench) -> None:
    answers: list[bool] = []

    def callback(now: float) -> None:
        bench.seen.append(now)
        answers.append(bench.timers.cancel(timer_id))

    timer_id = bench.timers.run_every(0.25, callback)
    bench.reactor.run_once(0)
    for _ in range(4):
        bench.pass_time(0.25)
        bench.run_queue()
    assert len(bench.seen) == 1
    assert answers == [True]
    assert bench.reactor.statistics().timeouts_waiting == 0


def test_cancelling_what_never_was(bench: Bench) -> None:
    assert bench.timers.cancel(-1) is False


def test_ids_are_not_used_twice(bench: Bench) -> None:
    ids = [bench.timers.run_after(1.0, bench.seen.append) for _ in range(10)]
    for timer_id in ids:
        bench.timers.cancel(timer_id)
    ids += [bench.timers.run_every(1.0, bench.seen.append) for _ in range(10)]
    assert len(set(ids)) == 20


def test_none_is_left_after_the_end(bench: Bench) -> None:
    bench.timers.run_after(0.25, bench.seen.append)
    bench.timers.run_every(0.25, bench.seen.append)
    bench.reactor.run_once(0)
    bench.timers.end()
    bench.timers.run_after(0.25, bench.seen.append)
    bench.timers.run_every(0.25, bench.seen.append)
    bench.reactor.run_once(0)
    bench.pass_time(1.0)
    assert bench.run_queue() == 0
    assert len(bench.timers) == 0
    assert bench.reactor.statistics().timeouts_waiting == 0


def test_the_end_comes_before_its_turn(bench: Bench) -> None:
    bench.timers.run_after(0.25, bench.seen.append)
    bench.reactor.run_once(0)
    bench.pass_time(0.25)
    bench.timers.end()
    bench.run_queue()
    assert bench.seen == []


def test_set_and_cancelled_from_other_threads(bench: Bench) -> None:
    ids: list[int] = []
    cancelled: list[bool] = []

    def work() -> None:
        ids.append(bench.timers.run_after(0.25, bench.seen.append))
        unwanted = bench.timers.run_every(0.25, lambda now: bench.seen.append(-1.0))
        cancelled.append(bench.timers.cancel(unwanted))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    bench.reactor.run_once(0)
    bench.pass_time(0.25)
    assert bench.run_queue() == 8
    assert bench.seen == [bench.clock.unix()] * 8
    assert cancelled == [True] * 8
    assert bench.reactor.statistics().timeouts_waiting == 0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_times_that_never_come(bench: Bench, value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        bench.timers.run_after(value, bench.seen.append)
    with pytest.raises(ValueError, match="finite"):
        bench.timers.run_at(value, bench.seen.append)


@pytest.mark.parametrize("interval", [0.0, -1.0, math.nan, math.inf])
def test_intervals_that_make_no_sense(bench: Bench, interval: float) -> None:
    with pytest.raises(ValueError, match="interval"):
        bench.timers.run_every(interval, bench.seen.append)


# -- on connections ------------------------------------------------------------------------------


class OnConnect:
    """Hands the first connection of a server to the test."""

    def __init__(self) -> None:
        self.calls: Calls[ServerConn] = Calls()

    def __call__(self, conn: ServerConn) -> None:
        self.calls.add(conn)

    def conn(self) -> ServerConn:
        return self.calls.wait()[0]


def test_every_kind_comes_with_the_connection() -> None:
    on_connect = OnConnect()
    calls: Calls[tuple[str, float, ServerConn]] = Calls()
    server = Server(registry=MessageRegistry(), on_connect=on_connect)
    with server.running(LOCAL) as address, Peer(address):
        conn = on_connect.conn()
        conn.run_after(0.01, lambda now, conn: calls.add(("after", now, conn)))
        conn.run_at(0.0, lambda now, conn: calls.add(("at", now, conn)))
        conn.run_every(0.01, lambda now, conn: calls.add(("every", now, conn)))
        assert wait_until(lambda: {name for name, _, _ in calls.items} == {"after", "at", "every"})
        calls.wait(6)
        assert {conn for _, _, conn in calls.items} == {conn}
        names = [name for name, _, _ in calls.items]
        assert (names.count("after"), names.count("at")) == (1, 1)


@pytest.mark.parametrize("verb", ["run_at", "run_after", "run_every"])
def test_a_callback_that_cannot_be_called_is_refused_at_once(verb: str) -> None:
    on_connect = OnConnect()
    server = Server(registry=MessageRegistry(), on_connect=on_connect)
    with server.running(LOCAL) as address, Peer(address):
        run = getattr(on_connect.conn(), verb)
        with pytest.raises(TypeError, match="callback"):
            run(60.0, "not callable")


def test_none_runs_after_its_connection_has_ended() -> None:
    on_connect = OnConnect()
    ended = threading.Event()
    ticks: Calls[str] = Calls()
    server = Server(
        registry=MessageRegistry(),
        on_connect=on_connect,
        on_close=lambda conn, reason: ended.set(),
    )

    def tick(now: float, conn: ServerConn) -> None:
        ticks.add("late" if ended.is_set() else "in time")

    with server.running(LOCAL) as address:
        with Peer(address), Peer(address) as other:
            conn = on_connect.conn()
            conn.run_every(0.002, tick)
            ticks.wait(3)
            other.close()
        assert ended.wait(DEADLINE)
        assert wait_until(lambda: server.connection_count == 0)
        # A timer of another connection comes later than one of the ended one would have.
        count = len(ticks)
        with Peer(address):
            assert wait_until(lambda: server.connection_count == 1)
            done = threading.Event()
            server.connections()[0].run_after(0.05, lambda now, conn: done.set())
            assert done.wait(DEADLINE)
        assert len(ticks) == count
        assert conn.run_after(0.0, tick) != conn.run_every(0.001, tick)
        assert conn.cancel_timer(1) is False
    assert len(ticks) == count


def test_they_wait_for_their_turn_behind_a_handler() -> None:
    order: Calls[str] = Calls()
    release, begun = threading.Event(), threading.Event()
    registry = MessageRegistry()

    def handle(context: Context[bytes], conn: WriteCloser) -> None:
        order.add("handler begins")
        conn.run_after(0.0, lambda now, conn: order.add("timer"))
        begun.set()
        assert release.wait(DEADLINE)
        order.add("handler ends")

    registry.register(1, as_bytes, handle)
    registry.register(2, as_bytes, lambda context, conn: order.add("other connection"))
    with (
        Server(registry=registry).running(LOCAL) as address,
        Peer(address) as peer,
        Peer(address) as other,
    ):
        peer.send_frame(1)
        assert begun.wait(DEADLINE)
        other.send_frame(2)
        order.wait(2)
        release.set()
        assert order.wait(4) == ["handler begins", "other connection", "handler ends", "timer"]


def test_ticks_missed_behind_a_handler_are_skipped() -> None:
    """The clock is the test's, so that it knows how many were due."""
    clock = ManualClock()
    reactor = Reactor(clock=clock)
    on_connect = OnConnect()
    ticks: Calls[float] = Calls()
    release, begun = threading.Event(), threading.Event()
    registry = MessageRegistry()

    def handle(context: Context[bytes], conn: WriteCloser) -> Sample:
        begun.set()
        assert release.wait(DEADLINE)
        return Sample(1)

    registry.register(1, as_bytes, handle)
    server = Server(registry=registry, on_connect=on_connect, reactor=reactor)

    def drive(condition: Callable[[], object]) -> None:
        def look() -> bool:
            reactor.run_once(0.005)
            return bool(condition())

        assert wait_until(look)

    with Peer(server.listen(LOCAL)) as peer:
        drive(lambda: server.connection_count == 1)
        drive(lambda: on_connect.calls)
        on_connect.conn().run_every(0.25, lambda now, conn: ticks.add(now))
        peer.send_frame(1)
        drive(begun.is_set)
        for _ in range(10):
            clock.advance(0.25)
            reactor.run_once(0)
        assert len(ticks) == 0
        release.set()
        drive(lambda: len(ticks) == 1)
        clock.advance(0.25)
        drive(lambda: len(ticks) == 2)
        start = clock.unix() - 11 * 0.25
        assert [now - start for now in ticks.items] == [2.5, 2.75]
        assert peer.receive_frame() == (1, b"")
    stopping = threading.Thread(target=server.stop)
    stopping.start()
    drive(lambda: not stopping.is_alive())
    reactor.close()
