"""The loop: the order of a pass, time, descriptors, threads, and how it ends."""

from __future__ import annotations

import logging
import math
import os
import random
import select
import selectors
import signal
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from reactor import (
    READ,
    WRITE,
    Channel,
    ForkError,
    Reactor,
    ReactorClosedError,
    ReentrancyError,
    Statistics,
    Timeout,
    WrongThreadError,
)
from tests.forking import in_child, needs_fork
from tests.reactor.support import (
    DEADLINE,
    LoopThread,
    ManualClock,
    on_thread,
    run_passes,
    run_until,
    socket_pair,
)

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    with socket_pair() as sockets:
        yield sockets


@pytest.fixture
def other_pair() -> Iterator[Pair]:
    with socket_pair() as sockets:
        yield sockets


def _ignore(*_: object) -> None:
    pass


# -- the order of a pass -------------------------------------------------------------------------


def test_a_pass_is_descriptors_and_time_outs_then_what_they_gathered_then_posted(
    manual: Reactor, clock: ManualClock, pair: Pair
) -> None:
    order: list[str] = []
    manual.call_at_stage_end(lambda: order.append("end"))
    manual.call_soon(order.append, "posted")
    manual.call_later(0.5, order.append, "time-out")
    manual.register(pair[0], READ, lambda _: order.append("descriptor"))
    pair[1].send(b"x")
    clock.advance(1.0)

    assert manual.run_once(0) == 3
    assert order == ["descriptor", "time-out", "end", "posted"]


def test_what_each_step_asks_for_is_done_in_the_same_pass(
    manual: Reactor, clock: ManualClock, pair: Pair
) -> None:
    order: list[str] = []

    def step(name: str, following: Callable[[], object]) -> None:
        order.append(name)
        following()

    def end() -> None:
        order.append("end")

    def posted() -> None:
        step("posted", lambda: manual.call_at_stage_end(end))

    def timed() -> None:
        step("time-out", lambda: manual.call_soon(posted))

    def ready(_: int) -> None:
        pair[0].recv(1)
        step("descriptor", lambda: manual.call_at(clock.monotonic(), timed))

    manual.register(pair[0], READ, ready)
    pair[1].send(b"x")
    manual.run_once(0)
    assert order == ["descriptor", "time-out", "posted", "end"]


def test_posted_callbacks_run_in_the_order_of_the_calls(manual: Reactor) -> None:
    order: list[int] = []
    for number in range(5):
        manual.call_soon(order.append, number)
        manual.post(partial(order.append, -number))
    manual.run_once(0)
    assert order == [0, 0, 1, -1, 2, -2, 3, -3, 4, -4]


def test_a_callback_that_posts_itself_runs_once_a_pass(manual: Reactor, pair: Pair) -> None:
    """It cannot starve the descriptors."""
    order: list[str] = []

    def again() -> None:
        order.append("again")
        manual.call_soon(again)

    manual.call_soon(again)
    manual.register(pair[0], READ, lambda _: order.append("ready"))
    pair[1].send(b"x")
    for _ in range(3):
        manual.run_once(None)
    assert order == ["ready", "again"] * 3


def test_what_comes_after_the_events_comes_before_time_outs(
    manual: Reactor, clock: ManualClock
) -> None:
    order: list[str] = []
    with socket_pair() as (one, other):

        def ready(_: int) -> None:
            one.recv(1)
            order.append("descriptor")
            manual.call_after_events(lambda: order.append("after"))
            manual.call_at_stage_end(lambda: order.append("end"))

        manual.register(one, READ, ready)
        other.send(b"x")
        manual.call_later(0.0, order.append, "time-out")
        manual.call_soon(order.append, "posted")
        clock.advance(1.0)
        manual.run_once(0)
        manual.unregister(one)
    assert order == ["descriptor", "after", "time-out", "end", "posted"]


def test_what_comes_after_the_events_has_another_turn_after_ctrl_c(manual: Reactor) -> None:
    order: list[str] = []

    def interrupt() -> None:
        order.append("once")
        if len(order) == 1:
            raise KeyboardInterrupt

    manual.call_after_events(interrupt)
    manual.call_after_events(lambda: order.append("second"))
    with pytest.raises(KeyboardInterrupt):
        manual.run_once(0)
    assert manual.timeout() == 0.0
    manual.run_once(0)
    assert order == ["once", "once", "second"]


def test_a_stage_end_that_asks_for_another_gets_it_at_the_end_of_the_next(manual: Reactor) -> None:
    count = 0

    def again() -> None:
        nonlocal count
        count += 1
        manual.call_at_stage_end(again)

    manual.call_at_stage_end(again)
    assert manual.timeout() == 0.0
    for expected in (2, 4, 6):
        manual.run_once(None)
        assert count == expected


def test_posted_callbacks_of_a_pass_are_bounded(
    manual: Reactor, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reactor.loop.CALLBACKS_PER_PASS", 10)
    order: list[str] = []
    for _ in range(25):
        manual.call_soon(order.append, "posted")
    manual.register(pair[0], READ, lambda _: order.append("ready"))
    pair[1].send(b"x")
    passes = 0
    while manual.timeout() == 0.0:
        manual.run_once(0)
        passes += 1
    assert passes == 3
    assert order == ["ready", *["posted"] * 10] * 2 + ["ready", *["posted"] * 5]


def test_a_posted_callback_is_given_its_arguments(manual: Reactor) -> None:
    got: list[tuple[object, ...]] = []

    def take(*arguments: object) -> None:
        got.append(arguments)

    manual.call_soon(take)
    manual.call_soon(take, 1, "two")
    manual.call_soon_threadsafe(take, 3)
    manual.call_later(0, take, 4, 5)
    manual.run_once(0)
    assert got == [(4, 5), (), (1, "two"), (3,)]


def test_a_posted_callback_can_be_called_off(manual: Reactor) -> None:
    called: list[int] = []
    handle = manual.call_soon(called.append, 1)
    assert handle.active
    assert handle.cancel()
    manual.run_once(0)
    assert called == []


def test_what_is_not_callable_is_refused_at_once(manual: Reactor) -> None:
    nothing: Any = None
    calls: list[Callable[[], object]] = [
        lambda: manual.call_soon(nothing),
        lambda: manual.call_soon_threadsafe(nothing),
        lambda: manual.call_later(1, nothing),
        lambda: manual.call_every(1, nothing),
    ]
    for call in calls:
        with pytest.raises(TypeError, match="must be callable"):
            call()
    assert manual.timeout() is None


# -- time ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("delay", [0.0, 0.0004, 0.001, 0.0015, 0.1, 0.3, 1.0, 77.7, 100_000.1])
@pytest.mark.parametrize("start", [0.0, 0.1, 1_000.0, 123_456.789])
def test_a_time_out_is_never_early_and_at_most_a_tick_late(start: float, delay: float) -> None:
    clock = ManualClock(start)
    reactor = Reactor(clock=clock)
    clock.advance(0.00037)  # not on a tick
    fired: list[float] = []
    when = clock.monotonic() + delay
    reactor.call_at(when, lambda: fired.append(clock.monotonic()))
    passes = 0
    while not fired:
        timeout = reactor.timeout()
        assert timeout is not None
        # An ulp more than asked for, as a clock that is only so fine would give.
        clock.advance(timeout)
        reactor.run_once(0)
        passes += 1
        assert passes < 20
    reactor.close()

    assert when <= fired[0] <= when + 0.001 + 1e-6


def test_a_time_out_is_not_early_by_any_step(manual: Reactor, clock: ManualClock) -> None:
    fired: list[float] = []
    when = clock.monotonic() + 0.0105
    manual.call_at(when, lambda: fired.append(clock.monotonic()))
    while not fired:
        clock.advance(0.0001)
        manual.run_once(0)
        if clock.monotonic() < when:
            assert not fired
    assert fired[0] <= when + 0.0012


@pytest.mark.parametrize("start", [0.0, 0.1, 1.7, 4_242.4242, 86_400.123, 1e7 + 0.3])
def test_a_time_out_is_not_early_by_an_ulp(start: float) -> None:
    """A tick is no power of two: each conversion between ticks and seconds rounds."""
    clock = SettableClock(start)
    reactor = Reactor(clock=clock)
    choice = random.Random(repr(start))
    fired: list[float] = []
    ticks = 0
    for _ in range(400):
        ticks += choice.randrange(1, 500)
        on_tick = start + ticks * 0.001
        for when in (on_tick, math.nextafter(on_tick, math.inf)):
            clock.now = math.nextafter(when, -math.inf)
            reactor.call_at(when, fired.append, when)
            reactor.run_once(0)
            assert when not in fired
        clock.now = on_tick + 0.0021
        reactor.run_once(0)
        assert len(fired) == 2
        fired.clear()
        ticks += 3  # the clock has gone past these
    reactor.close()


class SettableClock(ManualClock):
    """A clock that can be set to the last bit."""

    def __init__(self, now: float) -> None:
        super().__init__(now)
        self.now = now

    def monotonic(self) -> float:
        return self.now


def test_real_time_outs_are_never_early(reactor: Reactor) -> None:
    late: list[float] = []

    def due(when: float) -> None:
        late.append(time.monotonic() - when)

    start = time.monotonic()
    for delay in (0.0, 0.0003, 0.001, 0.0021, 0.01, 0.0255, 0.064, 0.1):
        reactor.call_at(start + delay, due, start + delay)
    run_until(reactor, lambda: len(late) == 8, "the eighth time-out")
    assert min(late) >= 0.0


@pytest.mark.parametrize("delay", [0, 0.0, -0.001, -1e9])
def test_what_is_due_already_is_called_in_the_next_pass(manual: Reactor, delay: float) -> None:
    fired: list[int] = []
    handle = manual.call_later(delay, fired.append, 1)
    assert manual.timeout() == 0.0
    assert not fired
    manual.run_once(None)
    assert fired == [1]
    assert not handle.active


def test_a_time_out_that_asks_for_another_at_once_gets_it_in_the_next_pass(
    manual: Reactor,
) -> None:
    count = 0

    def again() -> None:
        nonlocal count
        count += 1
        manual.call_later(0, again)

    manual.call_later(0, again)
    for expected in (1, 2, 3):
        manual.run_once(None)
        assert count == expected


def test_time_outs_of_one_moment_come_in_the_order_of_the_calls(
    manual: Reactor, clock: ManualClock
) -> None:
    order: list[int] = []
    when = clock.monotonic() + 5.0
    for number in range(4):
        manual.call_at(when, order.append, number)
    manual.call_at(when - 1, order.append, -1)
    clock.advance(10)
    manual.run_once(0)
    assert order == [-1, 0, 1, 2, 3]


def test_a_time_out_can_call_off_another_that_is_due_with_it(
    manual: Reactor, clock: ManualClock
) -> None:
    fired: list[str] = []
    handles: list[Timeout] = []

    def first() -> None:
        fired.append("first")
        assert handles[0].cancel()

    manual.call_later(0.1, first)
    handles.append(manual.call_later(0.1, fired.append, "second"))
    clock.advance(1)
    manual.run_once(0)
    run_passes(manual)
    assert fired == ["first"]


@pytest.mark.parametrize("when", [float("nan"), float("inf"), float("-inf")])
def test_a_time_must_be_finite(manual: Reactor, when: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        manual.call_at(when, _ignore)
    with pytest.raises(ValueError, match="finite"):
        manual.call_later(when, _ignore)
    assert manual.timeout() is None


def test_the_time_out_of_the_loop_follows_the_next_that_is_due(
    manual: Reactor, clock: ManualClock
) -> None:
    assert manual.timeout() is None
    far = manual.call_later(1e6, _ignore)
    timeout = manual.timeout()
    assert timeout is not None
    assert timeout <= 86_400  # some systems take no more
    far.cancel()
    assert manual.timeout() is None

    manual.call_later(0.05, _ignore)
    timeout = manual.timeout()
    assert timeout is not None
    assert timeout == pytest.approx(0.05, abs=0.0011)
    clock.advance(0.2)
    assert manual.timeout() == 0.0


def test_call_every_does_not_drift(manual: Reactor, clock: ManualClock) -> None:
    start = clock.monotonic()
    times: list[float] = []
    manual.call_every(0.7, lambda: times.append(clock.monotonic() - start))
    for _ in range(1_000):
        clock.advance(0.0103)  # no divisor of the interval: each call is a little late
        manual.run_once(0)
    assert len(times) == 14
    for number, at in enumerate(times, 1):
        assert number * 0.7 <= at <= number * 0.7 + 0.0103 + 0.0011


def test_call_every_skips_what_was_missed(manual: Reactor, clock: ManualClock) -> None:
    start = clock.monotonic()
    times: list[float] = []
    manual.call_every(1.0, lambda: times.append(round(clock.monotonic() - start, 3)))
    clock.advance(1.001)
    run_passes(manual)
    clock.advance(5.5)  # held up over the 2nd to the 6th
    run_passes(manual)
    clock.advance(0.3)  # 6.8: nothing
    run_passes(manual)
    clock.advance(0.3)  # 7.1
    run_passes(manual)
    assert times == [1.001, 6.501, 7.101]


def test_call_every_can_be_called_off(manual: Reactor, clock: ManualClock) -> None:
    count = 0
    handles: list[Timeout] = []

    def tick() -> None:
        nonlocal count
        count += 1
        assert handles[0].active
        if count == 2:
            assert handles[0].cancel()

    handles.append(manual.call_every(0.5, tick))
    for _ in range(10):
        clock.advance(0.5)
        run_passes(manual)
    assert count == 2
    assert not handles[0].active
    assert not handles[0].cancel()
    assert manual.timeout() is None


def test_call_every_goes_on_after_an_error(
    manual: Reactor, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    count = 0

    def fail() -> None:
        nonlocal count
        count += 1
        raise RuntimeError(f"failure {count}")

    manual.call_every(0.5, fail)
    for _ in range(3):
        clock.advance(0.501)
        run_passes(manual)
    assert count == 3
    assert [str(_error(record)) for record in caplog.records] == [
        "failure 1",
        "failure 2",
        "failure 3",
    ]


@pytest.mark.parametrize("interval", [0, -1, float("nan"), float("inf")])
def test_an_interval_must_be_positive(manual: Reactor, interval: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        manual.call_every(interval, _ignore)


class _Owner:
    def method(self) -> None:
        pass


@pytest.mark.parametrize("how", ["call_soon", "call_later", "call_every"])
def test_what_is_called_off_is_released_at_once(manual: Reactor, how: str) -> None:
    owner = _Owner()
    gone = weakref.ref(owner)
    if how == "call_soon":
        handle = manual.call_soon(owner.method)
    elif how == "call_later":
        handle = manual.call_later(1_000, owner.method)
    else:
        handle = manual.call_every(1_000, owner.method)
    del owner
    assert gone() is not None
    handle.cancel()
    assert gone() is None, "the handle still holds on to it"


def test_a_step_of_the_wall_clock_changes_nothing() -> None:
    class Stepping(ManualClock):
        def unix(self) -> float:
            return 0.0  # set back by half a century

    clock = Stepping()
    reactor = Reactor(clock=clock)
    fired: list[int] = []
    reactor.call_later(1.0, fired.append, 1)
    clock.advance(1.001)
    reactor.run_once(0)
    reactor.close()
    assert fired == [1]


def test_time_is_the_clocks(manual: Reactor, clock: ManualClock) -> None:
    assert manual.time() == clock.monotonic()
    assert manual.clock is clock
    clock.advance(3)
    assert manual.time() == clock.monotonic()
    manual.run_once(0)
    assert manual.pass_time == clock.monotonic()


# -- callbacks that raise ------------------------------------------------------------------------


def _error(record: logging.LogRecord) -> BaseException | None:
    assert record.exc_info is not None
    return record.exc_info[1]


def test_what_raises_is_logged_and_stops_nothing(
    manual: Reactor, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*where: object) -> None:
        raise RuntimeError(f"in {where[0]}")

    done: list[str] = []
    manual.register(pair[0], WRITE, lambda _: fail("descriptor"))
    manual.register(pair[1], WRITE, lambda _: done.append("descriptor"))
    manual.call_later(0, fail, "time-out")
    manual.call_later(0, done.append, "time-out")
    manual.call_soon(fail, "posted")
    manual.call_soon(done.append, "posted")
    manual.call_at_stage_end(lambda: fail("end"))
    manual.call_at_stage_end(lambda: done.append("end"))
    manual.run_once(0)

    assert done == ["descriptor", "time-out", "end", "posted"]
    assert {record.name for record in caplog.records} == {"reactor"}
    assert {record.levelno for record in caplog.records} == {logging.ERROR}
    assert [str(_error(record)) for record in caplog.records] == [
        "in descriptor",
        "in time-out",
        "in end",
        "in posted",
    ]


def test_a_descriptor_whose_callback_raised_stays_registered(
    manual: Reactor, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: int) -> None:
        raise RuntimeError("each time")

    manual.register(pair[0], WRITE, fail)
    run_passes(manual, 3)
    assert len(caplog.records) == 3


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("where", ["descriptor", "time-out", "posted", "end"])
def test_an_exit_ends_the_run_and_loses_nothing(
    manual: Reactor, clock: ManualClock, pair: Pair, where: str, error: type[BaseException]
) -> None:
    """What was pending when it was raised is done by the next run."""
    done: list[str] = []
    raised = False

    def exit_or(name: str) -> None:
        nonlocal raised
        if name == where and not raised:
            raised = True
            raise error("out")
        done.append(name)

    def ready(_: int) -> None:
        exit_or("descriptor")
        manual.unregister(pair[0])

    manual.register(pair[0], WRITE, ready)
    names = ["time-out", "time-out, second", "posted", "posted, second", "end", "end, second"]
    for name in names[:2]:
        manual.call_later(0, exit_or, name)
    for name in names[2:4]:
        manual.call_soon(exit_or, name)
    for name in names[4:]:
        manual.call_at_stage_end(partial(exit_or, name))

    clock.advance(1.0)
    with pytest.raises(error, match="out"):
        manual.run()
    assert not manual.running
    manual.call_soon(manual.stop)
    manual.run()

    # What raised has had its turn; the descriptor is ready still, and has another.
    assert sorted(done) == sorted({"descriptor", *names} - ({where} - {"descriptor"}))


# -- running and stopping ------------------------------------------------------------------------


def test_stop_from_a_callback_ends_the_run_after_the_pass(reactor: Reactor) -> None:
    done: list[str] = []
    reactor.call_soon(reactor.stop)
    reactor.call_soon(done.append, "same pass")
    reactor.run()
    assert done == ["same pass"]
    assert not reactor.running


def test_stop_from_another_thread(any_reactor: Reactor) -> None:
    any_reactor.call_soon(threading.Thread(target=any_reactor.stop).start)
    any_reactor.run()


def test_a_stop_before_the_run_is_not_forgotten(reactor: Reactor) -> None:
    reactor.stop()
    reactor.run()  # returns


def test_it_may_be_run_again(reactor: Reactor) -> None:
    for _ in range(3):
        reactor.call_soon(reactor.stop)
        reactor.run()


def test_it_may_be_run_by_another_thread_afterwards(reactor: Reactor) -> None:
    reactor.call_soon(reactor.stop)
    reactor.run()

    def run() -> None:
        reactor.call_soon(reactor.stop)
        reactor.run()

    on_thread(run)
    reactor.call_soon(reactor.stop)
    reactor.run()


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="a system without pthread_kill")
def test_stop_from_a_signal_handler(any_reactor: Reactor) -> None:
    """The handler runs on the main thread, in the middle of the loop's sleep."""
    main = threading.get_ident()
    before = signal.signal(signal.SIGUSR1, lambda *_: any_reactor.stop())
    try:
        for _ in range(20):
            kill = threading.Thread(target=lambda: signal.pthread_kill(main, signal.SIGUSR1))
            any_reactor.call_soon(kill.start)
            any_reactor.run()
            kill.join(DEADLINE)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_signal_handler_may_post(reactor: Reactor) -> None:
    done: list[str] = []

    def handle(*_: object) -> None:
        reactor.call_soon_threadsafe(done.append, "posted")
        reactor.call_soon_threadsafe(reactor.stop)

    before = signal.signal(signal.SIGINT, handle)
    try:
        reactor.call_soon(lambda: signal.raise_signal(signal.SIGINT))
        reactor.run()
    finally:
        signal.signal(signal.SIGINT, before)
    assert done == ["posted"]


def test_run_once_with_nothing_to_do(any_reactor: Reactor) -> None:
    assert any_reactor.run_once(0) == 0
    start = time.monotonic()
    assert any_reactor.run_once(0.02) == 0
    assert time.monotonic() - start >= 0.02


def test_run_once_of_a_negative_time_does_not_wait(any_reactor: Reactor) -> None:
    """What remains of a time-out that has passed; `select` takes it so, and `epoll_wait` does not."""
    saved = threading.Timer(2.0, any_reactor.call_soon_threadsafe, [_ignore])
    saved.start()
    passes = any_reactor.run_once(-1.0)
    saved.cancel()
    assert passes == 0, "it has slept until it was woken"


def test_run_once_waits_no_longer_than_the_next_time_out(any_reactor: Reactor) -> None:
    fired: list[int] = []
    any_reactor.call_later(0.01, fired.append, 1)
    start = time.monotonic()
    while not fired:
        any_reactor.run_once(2 * DEADLINE)
    assert time.monotonic() - start < DEADLINE


def test_a_post_from_another_thread_ends_the_sleep(any_reactor: Reactor) -> None:
    """Run without any time-out, so that nothing else could end it."""
    for _ in range(50):
        got: list[int] = []
        other = threading.Thread(target=any_reactor.call_soon_threadsafe, args=(got.append, 1))
        other.start()
        while not got:
            any_reactor.run_once(None)
        other.join(DEADLINE)


def test_a_post_without_a_wake_lets_it_sleep(reactor: Reactor) -> None:
    """`post` alone is for what is about to post more; `wake` ends the sleep for all of it."""
    got: list[int] = []
    reactor.run_once(0)
    number = reactor.fileno()
    if number is None:
        pytest.skip("a system whose selector has no descriptor")
    reactor.post(lambda: got.append(1))
    assert select.select([number], [], [], 0)[0] == []
    reactor.wake()
    assert select.select([number], [], [], DEADLINE)[0] == [number]
    reactor.run_once(0)
    assert got == [1]


def test_reentrancy_is_refused(reactor: Reactor) -> None:
    refused: list[str] = []

    def call() -> None:
        for function in (reactor.run, lambda: reactor.run_once(0), reactor.close):
            with pytest.raises(ReentrancyError):
                function()
            refused.append("refused")
        reactor.stop()

    reactor.call_soon(call)
    reactor.run()
    assert refused == ["refused"] * 3
    assert not reactor.closed


def test_close_from_another_thread_while_it_runs_is_refused(reactor: Reactor) -> None:
    with LoopThread(reactor):
        with pytest.raises(ReentrancyError):
            reactor.close()
        assert not reactor.closed


def test_methods_of_the_loops_thread_refuse_other_threads(reactor: Reactor, pair: Pair) -> None:
    with LoopThread(reactor) as loop:
        channel = loop.call(lambda: reactor.register(pair[0], READ, _ignore))
        calls: list[Callable[[], object]] = [
            lambda: reactor.call_soon(_ignore),
            lambda: reactor.call_later(1, _ignore),
            lambda: reactor.call_at(1, _ignore),
            lambda: reactor.call_every(1, _ignore),
            lambda: reactor.call_at_stage_end(lambda: None),
            lambda: reactor.register(pair[1], READ, _ignore),
            lambda: reactor.modify(channel, WRITE),
            lambda: reactor.unregister(channel),
            lambda: reactor.run_once(0),
            reactor.run,
        ]
        for call in calls:
            with pytest.raises(WrongThreadError, match="thread"):
                call()
        assert reactor.statistics().channels == 1
        assert loop.call(reactor.in_loop_thread)
        assert not loop.call(reactor.in_other_thread)
        assert not reactor.in_loop_thread()
        assert reactor.in_other_thread()
        loop.call(lambda: reactor.unregister(channel))
    assert not reactor.in_loop_thread()
    assert not reactor.in_other_thread()


def test_a_loop_driven_by_run_once_belongs_to_the_thread_that_drives_it(
    reactor: Reactor,
) -> None:
    reactor.run_once(0)

    def refused() -> None:
        with pytest.raises(WrongThreadError):
            reactor.call_soon(_ignore)
        with pytest.raises(WrongThreadError):
            reactor.run_once(0)

    on_thread(refused)
    reactor.call_soon(_ignore)


def test_a_closed_reactor_says_so(pair: Pair) -> None:
    reactor = Reactor()
    channel = reactor.register(pair[0], READ, _ignore)
    closed = [reactor.closed]
    reactor.close()
    reactor.close()
    closed.append(reactor.closed)
    assert closed == [False, True]
    calls: list[Callable[[], object]] = [
        reactor.run,
        lambda: reactor.run_once(0),
        lambda: reactor.call_soon(_ignore),
        lambda: reactor.call_soon_threadsafe(_ignore),
        lambda: reactor.call_later(1, _ignore),
        lambda: reactor.call_every(1, _ignore),
        lambda: reactor.call_at_stage_end(lambda: None),
        lambda: reactor.register(pair[1], READ, _ignore),
        lambda: reactor.modify(channel, 0),
        lambda: reactor.unregister(channel),
    ]
    for call in calls:
        with pytest.raises(ReactorClosedError, match="closed"):
            call()
    reactor.wake()  # harmless: any thread may be too late
    reactor.stop()
    assert "closed" in repr(reactor)


def test_close_leaves_descriptors_to_their_owners(pair: Pair) -> None:
    reactor = Reactor()
    reactor.register(pair[0], READ, _ignore)
    reactor.close()
    pair[1].send(b"still open")
    assert pair[0].recv(100) == b"still open"


# -- a foreign loop ------------------------------------------------------------------------------


def _drive(reactor: Reactor, until: Callable[[], object]) -> None:
    """What any other loop has to do: wait for the descriptor or the time-out, then run_once(0)."""
    outer = selectors.DefaultSelector()
    number = reactor.fileno()
    assert number is not None
    outer.register(number, selectors.EVENT_READ)
    end = time.monotonic() + DEADLINE
    try:
        while not until():
            left = end - time.monotonic()
            assert left > 0, "it has not happened"
            timeout = reactor.timeout()
            outer.select(left if timeout is None else min(timeout, left))
            reactor.run_once(0)
    finally:
        outer.close()


def test_another_loop_can_drive_it(reactor: Reactor, pair: Pair) -> None:
    if reactor.fileno() is None:
        pytest.skip("a system whose selector has no descriptor")
    done: list[object] = []
    reactor.register(pair[0], READ, lambda _: done.append(pair[0].recv(10)))
    pair[1].send(b"data")
    _drive(reactor, lambda: done)
    assert done == [b"data"]

    start = time.monotonic()
    reactor.call_later(0.02, done.append, "time-out")
    _drive(reactor, lambda: len(done) == 2)
    assert time.monotonic() - start >= 0.02

    reactor.call_soon(done.append, "posted")
    _drive(reactor, lambda: len(done) == 3)

    other = threading.Thread(target=reactor.call_soon_threadsafe, args=(done.append, "other"))
    other.start()
    _drive(reactor, lambda: len(done) == 4)
    other.join(DEADLINE)
    assert done == [b"data", "time-out", "posted", "other"]


def test_a_selector_without_a_descriptor_says_so() -> None:
    reactor = Reactor(selector=selectors.SelectSelector())
    assert reactor.fileno() is None
    reactor.close()


# -- descriptors ---------------------------------------------------------------------------------


def test_a_channel_gets_what_it_waits_for(any_reactor: Reactor, pair: Pair) -> None:
    left, right = pair
    got: list[int] = []
    channel = any_reactor.register(left, READ, got.append)
    assert isinstance(channel, Channel)
    assert channel.fileno() == left.fileno()
    run_passes(any_reactor)
    assert got == []

    right.send(b"x")
    any_reactor.run_once(DEADLINE)
    any_reactor.run_once(0)
    assert got == [READ, READ]  # level-triggered: it was not read

    any_reactor.modify(channel, READ | WRITE)
    any_reactor.run_once(0)
    assert got.pop() == READ | WRITE

    left.recv(10)
    any_reactor.run_once(0)
    assert got.pop() == WRITE

    any_reactor.unregister(left)
    got.clear()
    right.send(b"x")
    run_passes(any_reactor)
    assert got == []


def test_modify_to_nothing_and_back(any_reactor: Reactor, pair: Pair) -> None:
    got: list[int] = []
    channel = any_reactor.register(pair[0], 0, got.append)
    pair[1].send(b"x")
    run_passes(any_reactor)
    assert got == []
    assert any_reactor.statistics().channels == 1

    for _ in range(3):
        any_reactor.modify(channel, READ)
        any_reactor.modify(channel, READ)
        any_reactor.run_once(DEADLINE)
        assert got == [READ]
        got.clear()

        any_reactor.modify(pair[0], 0)
        any_reactor.modify(pair[0].fileno(), 0)
        run_passes(any_reactor)
        assert got == []
    any_reactor.unregister(channel)
    assert any_reactor.statistics().channels == 0


def test_a_descriptor_that_is_ready_may_be_a_number(reactor: Reactor) -> None:
    reader, writer = os.pipe()
    try:
        got: list[bytes] = []
        reactor.register(reader, READ, lambda _: got.append(os.read(reader, 10)))
        os.write(writer, b"x")
        reactor.run_once(DEADLINE)
        assert got == [b"x"]
        reactor.unregister(reader)
    finally:
        os.close(reader)
        os.close(writer)


def test_registering_twice_is_an_error(any_reactor: Reactor, pair: Pair) -> None:
    any_reactor.register(pair[0], READ, _ignore)
    with pytest.raises(KeyError, match="registered already"):
        any_reactor.register(pair[0], WRITE, _ignore)
    with pytest.raises(KeyError, match="registered already"):
        any_reactor.register(pair[0].fileno(), WRITE, _ignore)


def test_registering_what_is_closed_is_an_error(any_reactor: Reactor) -> None:
    closed = socket.socket()
    number = closed.fileno()
    closed.close()
    with pytest.raises(ValueError, match="closed"):
        any_reactor.register(closed, READ, _ignore)
    with pytest.raises(ValueError, match="no descriptor"):
        any_reactor.register(-1, READ, _ignore)
    assert any_reactor.statistics().channels == 0
    if any_reactor.fileno() is not None:  # select and poll find out when they are asked
        with pytest.raises(OSError, match="Bad file descriptor"):
            any_reactor.register(number, READ, _ignore)
        assert any_reactor.statistics().channels == 0


@pytest.mark.parametrize("events", [4, 8, -1, READ | WRITE | 4])
def test_a_bad_mask_is_an_error(reactor: Reactor, pair: Pair, events: int) -> None:
    with pytest.raises(ValueError, match="events must be"):
        reactor.register(pair[0], events, _ignore)
    channel = reactor.register(pair[0], READ, _ignore)
    with pytest.raises(ValueError, match="events must be"):
        reactor.modify(channel, events)
    assert channel.events == READ


def test_what_is_not_registered_cannot_be_changed(any_reactor: Reactor, pair: Pair) -> None:
    channel = any_reactor.register(pair[0], READ, _ignore)
    any_reactor.unregister(channel)
    for fileobj in (channel, pair[0], pair[0].fileno(), pair[1]):
        with pytest.raises(KeyError, match="not registered"):
            any_reactor.unregister(fileobj)
        with pytest.raises(KeyError, match="not registered"):
            any_reactor.modify(fileobj, WRITE)


def test_a_channel_of_old_is_not_the_new_one_with_its_number(reactor: Reactor, pair: Pair) -> None:
    old = reactor.register(pair[0], READ, _ignore)
    reactor.unregister(old)
    new = reactor.register(pair[0], READ, _ignore)
    with pytest.raises(KeyError, match="not registered"):
        reactor.modify(old, WRITE)
    with pytest.raises(KeyError, match="not registered"):
        reactor.unregister(old)
    reactor.modify(new, WRITE)


@pytest.mark.skipif(not hasattr(select, "epoll"), reason="other systems can wait for a file")
def test_a_regular_file_is_an_error(reactor: Reactor, tmp_path: Any) -> None:
    with (tmp_path / "file").open("wb") as file:
        with pytest.raises(PermissionError):
            reactor.register(file, READ, _ignore)
        assert reactor.statistics().channels == 0
        assert reactor.run_once(0) == 0


@pytest.mark.skipif(not hasattr(select, "epoll"), reason="other systems can wait for a file")
def test_a_modify_that_fails_leaves_all_as_it_was(reactor: Reactor, tmp_path: Any) -> None:
    """Registered for nothing, it is found out only when somebody waits for it."""
    with (tmp_path / "file").open("wb") as file:
        channel = reactor.register(file, 0, _ignore)
        with pytest.raises(PermissionError):
            reactor.modify(channel, READ)
        assert channel.events == 0
        reactor.unregister(channel)
    assert reactor.run_once(0) == 0
    done: list[int] = []
    reactor.call_soon_threadsafe(done.append, 1)
    assert reactor.run_once(0) == 1
    assert done == [1]


def test_a_descriptor_closed_before_it_was_unregistered(any_reactor: Reactor) -> None:
    """Not what the documentation asks for, but it happens, and must not take the loop with it."""
    left, right = socket.socketpair()
    with right:
        channel = any_reactor.register(left, 0, _ignore)
        left.close()
        any_reactor.unregister(channel)
        assert any_reactor.run_once(0) == 0


# -- nothing stale -------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["unregister", "close", "modify"])
def test_the_first_of_two_may_take_the_second_out(
    any_reactor: Reactor, pair: Pair, other_pair: Pair, how: str
) -> None:
    """Both were found ready by the same call of the selector."""
    called: list[int] = []
    channels: dict[int, Channel] = {}

    def ready(mine: socket.socket, other: socket.socket, _ready: int) -> None:
        called.append(mine.fileno())
        if len(called) > 1:
            return
        channel = channels[other.fileno()]
        if how == "modify":
            any_reactor.modify(channel, 0)
        else:
            any_reactor.unregister(channel)
            if how == "close":
                other.close()

    first, second = pair[0], other_pair[0]
    for mine, other in ((first, second), (second, first)):
        channels[mine.fileno()] = any_reactor.register(mine, READ, partial(ready, mine, other))
    pair[1].send(b"x")
    other_pair[1].send(b"x")
    assert any_reactor.run_once(DEADLINE) == 1
    assert len(called) == 1


def test_events_that_are_no_longer_wanted_are_masked(
    any_reactor: Reactor, pair: Pair, other_pair: Pair
) -> None:
    """Ready for both, and the first that is called leaves the other only one of them."""
    got: list[int] = []
    channels: list[Channel] = []

    def ready(mask: int) -> None:
        got.append(mask)
        for channel in channels:
            any_reactor.modify(channel, WRITE)

    for mine, peer in (pair, other_pair):
        peer.send(b"x")
        channels.append(any_reactor.register(mine, READ | WRITE, ready))
    any_reactor.run_once(DEADLINE)
    assert got == [READ | WRITE, WRITE]


def test_a_reused_number_gets_no_stale_event(
    any_reactor: Reactor, pair: Pair, other_pair: Pair
) -> None:
    """Closed, and its number taken by another descriptor, all in the callback of the first."""
    called: list[str] = []
    made: list[socket.socket] = []

    def ready(mine: socket.socket, other: socket.socket, _ready: int) -> None:
        called.append("old")
        number = other.fileno()
        any_reactor.unregister(other)
        other.close()
        fresh, fresh_peer = socket.socketpair()
        made.extend((fresh, fresh_peer))
        # Whatever number the system gave: now it is the one that was found ready.
        if fresh.fileno() != number:
            os.dup2(fresh.fileno(), number, inheritable=False)
            fresh = socket.socket(fileno=number)
            made.append(fresh)
        any_reactor.register(fresh, READ, lambda _: called.append("new"))
        any_reactor.unregister(mine)

    first, second = pair[0], other_pair[0]
    for mine, other in ((first, second), (second, first)):
        any_reactor.register(mine, READ, partial(ready, mine, other))
    pair[1].send(b"x")
    other_pair[1].send(b"x")
    assert any_reactor.run_once(DEADLINE) == 1
    assert called == ["old"]

    made[1].send(b"y")
    any_reactor.run_once(DEADLINE)
    assert called == ["old", "new"]
    for sock in made:
        sock.close()


# -- idleness and numbers ------------------------------------------------------------------------


def test_an_idle_loop_makes_no_passes(any_reactor: Reactor, pair: Pair) -> None:
    """With a descriptor, and a time-out far away: it sleeps through."""
    with LoopThread(any_reactor) as loop:
        loop.call(lambda: any_reactor.register(pair[0], READ, _ignore))
        loop.call(lambda: any_reactor.call_later(1_000, _ignore))
        loop.call(lambda: None)
        nothing = threading.Event()
        # The loop may be in the tail of the pass that has answered; it is asleep after this.
        nothing.wait(0.05)
        before = any_reactor.statistics().passes
        nothing.wait(1.0)
        assert any_reactor.statistics().passes - before == 0
        loop.call(lambda: any_reactor.unregister(pair[0]))


def test_a_far_time_out_costs_few_passes(manual: Reactor, clock: ManualClock) -> None:
    """The loop wakes to move it to finer slots of the wheel: a few times on the way, no more."""
    fired: list[int] = []
    manual.call_later(1_000, fired.append, 1)
    passes = 0
    while not fired:
        timeout = manual.timeout()
        assert timeout is not None
        clock.advance(timeout)
        manual.run_once(0)
        passes += 1
        assert passes < 10


def test_statistics_count(manual: Reactor, clock: ManualClock, pair: Pair) -> None:
    zero = Statistics(
        passes=0,
        wakeups=0,
        events=0,
        callbacks=0,
        timeouts_fired=0,
        timeouts_waiting=0,
        channels=0,
    )
    assert manual.statistics() == zero

    manual.register(pair[0], READ, lambda _: pair[0].recv(1))
    pair[1].send(b"x")
    manual.call_soon(_ignore)
    manual.call_soon_threadsafe(_ignore)
    manual.call_soon_threadsafe(_ignore)
    manual.call_later(1, _ignore)
    waiting = manual.call_later(10, _ignore)
    before = manual.statistics()
    assert (before.timeouts_waiting, before.channels) == (2, 1)
    clock.advance(2)
    manual.run_once(0)
    manual.run_once(0)
    after = manual.statistics()
    assert after == Statistics(
        passes=2,
        wakeups=1,
        events=1,
        callbacks=3,
        timeouts_fired=1,
        timeouts_waiting=1,
        channels=1,
    )
    waiting.cancel()
    manual.unregister(pair[0])
    last = manual.statistics()
    assert (last.timeouts_waiting, last.channels) == (0, 0)
    with pytest.raises(AttributeError):
        last.passes = 3  # type: ignore[misc]


def test_what_the_loop_posts_to_itself_costs_no_wake_up(reactor: Reactor) -> None:
    """It is awake: it will look without being told."""
    left = 20

    def again() -> None:
        nonlocal left
        left -= 1
        if left:
            reactor.call_soon_threadsafe(again)
            reactor.wake()

    reactor.call_soon(again)
    run_until(reactor, lambda: not left)
    run_passes(reactor)
    assert reactor.statistics().wakeups == 0


def test_many_posts_cost_one_wake_up(reactor: Reactor) -> None:
    reactor.run_once(0)
    got: list[int] = []

    def post() -> None:
        for number in range(1_000):
            reactor.call_soon_threadsafe(got.append, number)

    on_thread(post)
    run_until(reactor, lambda: len(got) == 1_000)
    assert got == list(range(1_000))
    assert reactor.statistics().wakeups == 1


def test_posts_of_many_threads_all_arrive_each_in_its_order(reactor: Reactor) -> None:
    got: list[tuple[int, int]] = []
    with LoopThread(reactor):

        def post(thread: int) -> None:
            for number in range(500):
                reactor.call_soon_threadsafe(got.append, (thread, number))

        others = [threading.Thread(target=post, args=(number,)) for number in range(4)]
        for other in others:
            other.start()
        for other in others:
            other.join(DEADLINE)
        done = threading.Event()
        reactor.call_soon_threadsafe(done.set)
        assert done.wait(DEADLINE)
    for thread in range(4):
        assert [number for of, number in got if of == thread] == list(range(500))


# -- fork ----------------------------------------------------------------------------------------


@needs_fork
def test_a_forked_child_is_refused_and_leaves_the_parent_alone(
    any_reactor: Reactor, pair: Pair
) -> None:
    """The child shares the parent's epoll: what it took out would be taken out for both."""
    got: list[int] = []
    channel = any_reactor.register(pair[0], READ, got.append)
    any_reactor.run_once(0)

    def child() -> None:
        calls: list[Callable[[], object]] = [
            lambda: any_reactor.unregister(channel),
            lambda: any_reactor.modify(channel, 0),
            lambda: any_reactor.register(pair[1], READ, _ignore),
            lambda: any_reactor.call_soon(_ignore),
            lambda: any_reactor.call_soon_threadsafe(_ignore),
            lambda: any_reactor.call_later(1, _ignore),
            lambda: any_reactor.run_once(0),
            any_reactor.run,
        ]
        for call in calls:
            with pytest.raises(ForkError, match="fork"):
                call()
        any_reactor.close()
        with pytest.raises(ForkError, match="fork"):
            any_reactor.unregister(channel)

    assert in_child(child) == 0

    pair[1].send(b"x")
    run_until(any_reactor, lambda: got == [READ], "the parent's event")
    any_reactor.call_soon_threadsafe(got.append, 99)
    run_until(any_reactor, lambda: 99 in got, "the parent's posted callback")


@needs_fork
def test_a_child_may_close_the_reactor_inside_a_pass(reactor: Reactor, pair: Pair) -> None:
    """A handler that forks; its child tidies up what it does not want."""
    got: list[int] = []
    codes: list[int] = []
    reactor.register(pair[0], READ, got.append)
    reactor.call_soon(lambda: codes.append(in_child(reactor.close)))
    reactor.run_once(0)
    assert codes == [0]

    pair[1].send(b"x")
    run_until(reactor, lambda: got, "the parent's event")


@needs_fork
def test_a_child_can_make_a_reactor_of_its_own(reactor: Reactor) -> None:
    def child() -> None:
        own = Reactor()
        own.call_soon(own.stop)
        own.run()
        own.close()

    reactor.run_once(0)
    assert in_child(child) == 0
