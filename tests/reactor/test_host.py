"""What a reactor promises to whoever drives it: what is said when, budgets, and what is refused."""

from __future__ import annotations

import os
import select
import threading
import warnings
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from reactor import READ, HostError, Reactor, ReentrancyError, WrongThreadError
from reactor.loop import CALLBACKS_PER_SHARE
from tests.reactor.support import DEADLINE, SELECTORS, ManualClock, on_thread, socket_pair


class NotedHost:
    """A host that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def handle_sooner(self) -> None:
        self.told.append("sooner")

    def handle_close(self) -> None:
        self.told.append("close")


@pytest.fixture
def host() -> NotedHost:
    return NotedHost()


def ignore(*_: object) -> None:
    pass


def is_readable(reactor: Reactor, timeout: float = 0.0) -> bool:
    number = reactor.fileno()
    if number is None:
        pytest.skip("a system whose selector has no descriptor")
    return bool(select.select([number], [], [], timeout)[0])


# -- what is said --------------------------------------------------------------------------------


def test_a_host_is_told_of_what_is_due_sooner(manual: Reactor, host: NotedHost) -> None:
    manual.set_host(host)
    far = manual.call_later(10.0, ignore)
    assert host.told == ["sooner"]
    manual.call_later(20.0, ignore)
    manual.call_at(manual.time() + 10.0, ignore)
    assert host.told == ["sooner"]
    near = manual.call_later(5.0, ignore)
    assert host.told == ["sooner"] * 2
    near.cancel()
    far.cancel()
    assert host.told == ["sooner"] * 2
    manual.call_soon(ignore)
    manual.call_every(1.0, ignore)
    manual.call_at_stage_end(ignore)
    assert host.told == ["sooner"] * 5
    manual.set_host(None)
    manual.call_soon(ignore)
    assert host.told == ["sooner"] * 5


def test_inside_a_pass_it_is_told_nothing(manual: Reactor, host: NotedHost) -> None:
    """It looks at `timeout` after that anyway."""

    def ask() -> None:
        manual.call_soon(ignore)
        manual.call_later(1.0, ignore)

    manual.call_soon(ask)
    manual.set_host(host)
    manual.run_once(0)
    assert host.told == []
    assert manual.timeout() == 0.0
    manual.run_once(0)
    assert manual.timeout() == pytest.approx(1.0)


def test_what_another_thread_posts_makes_the_descriptor_readable(
    reactor: Reactor, host: NotedHost
) -> None:
    """Between two passes, and at once; after a pass it is no longer."""
    reactor.set_host(host)
    reactor.run_once(0)
    assert not is_readable(reactor)
    done: list[int] = []
    on_thread(lambda: reactor.call_soon_threadsafe(done.append, 1))
    assert is_readable(reactor, DEADLINE)
    reactor.run_once(0)
    assert done == [1]
    assert not is_readable(reactor)
    reactor.post(lambda: done.append(2))
    on_thread(reactor.wake)
    assert is_readable(reactor, DEADLINE)
    reactor.run_once(0)
    assert done == [1, 2]
    assert host.told == []
    reactor.set_host(None)


def test_what_another_thread_posts_during_a_pass_is_not_slept_over(reactor: Reactor) -> None:
    """Then nobody writes into the pipe, and the time-out says it."""
    done: list[str] = []
    reactor.call_soon(lambda: on_thread(lambda: reactor.call_soon_threadsafe(done.append, "it")))
    reactor.run_once(0)
    assert done == []
    assert reactor.timeout() == 0.0
    reactor.run_once(0)
    assert done == ["it"]


def test_a_thread_waits_on_behalf_of_a_host(any_reactor: Reactor) -> None:
    """Until there is something: a post, a descriptor, one that is registered meanwhile, a time-out."""
    reactor = any_reactor
    reactor.set_host(NotedHost())
    with socket_pair() as (left, right):

        def waits(then: Callable[[], object]) -> None:
            ended = threading.Event()

            def wait() -> None:
                reactor.wait(None)
                ended.set()

            reactor.lent = True
            thread = threading.Thread(target=wait)
            thread.start()
            with pytest.raises(ReentrancyError, match="detach"):
                reactor.run_once(0)
            then()
            assert ended.wait(DEADLINE)
            thread.join(DEADLINE)
            reactor.lent = False
            reactor.run_once(0)

        waits(lambda: on_thread(lambda: reactor.call_soon_threadsafe(ignore)))
        waits(lambda: reactor.register(left, READ, lambda _: left.recv(1)))
        waits(lambda: right.send(b"x"))
        waits(lambda: reactor.modify(left, 0))
        reactor.modify(left, READ)
        waits(lambda: reactor.unregister(left))
    reactor.wait(0.001)
    reactor.set_host(None)


# -- budgets -------------------------------------------------------------------------------------


def test_a_budget_ends_a_call_and_loses_nothing(manual: Reactor, clock: ManualClock) -> None:
    """A share of each kind is done before the time is looked at."""
    order: list[int] = []

    def work(number: int) -> None:
        order.append(number)
        clock.advance(0.001)

    count = 2 * CALLBACKS_PER_SHARE + 5
    for number in range(count):
        manual.call_soon(work, number)
    assert manual.run_once(0, budget=0.01) == CALLBACKS_PER_SHARE
    assert manual.timeout() == 0.0
    assert manual.run_once(0, budget=10.0) == count - CALLBACKS_PER_SHARE
    assert order == list(range(count))
    assert manual.timeout() is None


def test_time_outs_are_shared_out_in_their_order(manual: Reactor, clock: ManualClock) -> None:
    order: list[int] = []
    count = 2 * CALLBACKS_PER_SHARE + 5
    for number in range(count):
        manual.call_later(0.001 * number, order.append, number)
    clock.advance(10.0)
    manual.call_soon(clock.advance, 1.0)
    assert manual.run_once(0, budget=0.5) == CALLBACKS_PER_SHARE + 1
    assert manual.timeout() == 0.0
    manual.call_later(0.0, order.append, count)
    manual.run_once(0, budget=0.5)
    assert order == list(range(count + 1))


@pytest.mark.parametrize("selector", SELECTORS)
def test_every_descriptor_has_its_turn(selector: str) -> None:
    """Although more are ready, again and again, than one pass within a budget takes."""
    clock = ManualClock()
    reactor = Reactor(selector=SELECTORS[selector](), clock=clock)
    counts = dict.fromkeys(range(2 * CALLBACKS_PER_SHARE + 5), 0)
    with ExitStack() as stack:
        for number in counts:
            left, right = stack.enter_context(socket_pair())

            def ready(_: int, number: int = number) -> None:
                counts[number] += 1  # and it is left ready
                clock.advance(1.0)

            reactor.register(left, READ, ready)
            right.send(b"x")
        for _ in range(12):
            assert reactor.run_once(0, budget=0.5) == CALLBACKS_PER_SHARE
        assert sum(counts.values()) == 12 * CALLBACKS_PER_SHARE
        assert min(counts.values()) >= 3
        assert max(counts.values()) <= 9
        reactor.close()


def test_a_budget_goes_on_while_there_is_something(manual: Reactor) -> None:
    order: list[str] = []
    manual.call_soon(lambda: manual.call_soon(lambda: manual.call_soon(order.append, "third")))
    assert manual.run_once(0, budget=1.0) == 3
    assert order == ["third"]


# -- what is refused -----------------------------------------------------------------------------


def test_a_reactor_with_a_host_belongs_to_its_thread(reactor: Reactor, host: NotedHost) -> None:
    """Before the first pass already; and to nobody when the host has let go."""
    reactor.set_host(host)
    for call in (
        lambda: reactor.run_once(0),
        lambda: reactor.set_host(None),
        lambda: reactor.call_later(1.0, ignore),
        reactor.close,
    ):
        with pytest.raises(WrongThreadError):
            on_thread(call)
    with pytest.raises(HostError, match="detach"):
        reactor.run()
    with pytest.raises(HostError, match="detach"):
        reactor.set_host(NotedHost())
    reactor.set_host(None)
    reactor.set_host(None)
    on_thread(lambda: reactor.run_once(0))


def test_a_host_may_let_go_inside_a_pass_and_not_take_hold(
    reactor: Reactor, host: NotedHost
) -> None:
    errors: list[Exception] = []

    def change() -> None:
        reactor.set_host(None)
        assert reactor.in_loop_thread()
        try:
            reactor.set_host(NotedHost())
        except ReentrancyError as error:
            errors.append(error)

    reactor.set_host(host)
    reactor.call_soon(change)
    reactor.run_once(0)
    assert len(errors) == 1
    assert reactor.thread == 0


def test_closing_tells_the_host(host: NotedHost) -> None:
    reactor = Reactor()
    reactor.set_host(host)
    reactor.close()
    reactor.close()
    assert host.told == ["close"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork")
def test_a_forked_child_does_not_touch_the_host(host: NotedHost) -> None:
    """Which it shares with its parent: what it lets go of there, the parent loses."""
    reactor = Reactor()
    reactor.set_host(host)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads
        child = os.fork()
    if child == 0:
        status = 1
        try:
            reactor.close()
            status = len(host.told)
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    reactor.close()
    assert host.told == ["close"]
