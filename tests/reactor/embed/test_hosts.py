"""Every case in every host: timers, posts, a deadline moved, an end in a callback, and no busy loop."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from reactor import READ, HostError, Reactor, ReentrancyError, WrongThreadError
from tests.reactor.embed.hosts import HostUnderTest
from tests.reactor.support import DEADLINE, on_thread, socket_pair

FAR = 3600.0
"""Seconds; what is due then is not due in any test."""


def ignore(*_: object) -> None:
    pass


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket_pair() as sockets:
        yield sockets


def test_timers_alone(host: HostUnderTest, reactor: Reactor) -> None:
    fired: list[float] = []
    ticks: list[None] = []

    def begin() -> None:
        attached = host.attach(reactor)
        host.tick(0.005, ticks)
        began = time.monotonic()

        def fire() -> None:
            fired.append(time.monotonic() - began)
            if len(fired) == 3:
                attached.detach()
                host.stop()
            else:
                reactor.call_later(0.02, fire)

        reactor.call_later(0.02, fire)

    host.run(begin)
    assert [elapsed >= 0.02 * count for count, elapsed in enumerate(fired, 1)] == [True] * 3
    assert len(ticks) > 3, "the host's own timers were held up"


def test_posts_alone(host: HostUnderTest, reactor: Reactor) -> None:
    """By the host, in a pass, and by another thread, which finds the host asleep."""
    order: list[str] = []
    threads: list[threading.Thread] = []

    def begin() -> None:
        attached = host.attach(reactor)

        def first() -> None:
            order.append("host")
            reactor.call_soon(second)

        def second() -> None:
            order.append("pass")
            thread = threading.Thread(target=post)
            threads.append(thread)
            thread.start()

        def post() -> None:
            if host.name != "frames":  # which do not sleep for long
                wait_until_asleep(reactor)
            reactor.call_soon_threadsafe(third)

        def third() -> None:
            order.append("thread")
            attached.detach()
            host.stop()

        reactor.call_soon(first)

    host.run(begin)
    threads[0].join(DEADLINE)
    assert order == ["host", "pass", "thread"]


def wait_until_asleep(reactor: Reactor) -> None:
    """Until no pass has been made for a moment."""
    passes = -1
    while passes != reactor.passes:
        passes = reactor.passes
        time.sleep(0.02)


def test_a_deadline_that_the_host_moves(host: HostUnderTest, reactor: Reactor) -> None:
    """The host's timer for the first is set, and the host asleep, when it asks for an earlier one."""
    fired: list[str] = []

    def begin() -> None:
        attached = host.attach(reactor)
        reactor.call_later(FAR, fired.append, "far")

        def nearer() -> None:
            reactor.call_later(FAR / 2, fired.append, "nearer")
            reactor.call_later(0.02, near)
            reactor.call_later(FAR / 4, fired.append, "not so near")

        def near() -> None:
            fired.append("near")
            attached.detach()
            host.stop()

        host.call_later(0.05, nearer)

    host.run(begin)
    assert fired == ["near"]


def test_a_deadline_that_is_called_off_wakes_at_most_once(
    host: HostUnderTest, reactor: Reactor
) -> None:
    fired: list[str] = []

    def begin() -> None:
        attached = host.attach(reactor)
        timeout = reactor.call_later(0.03, fired.append, "cancelled")
        timeout.cancel()

        def end() -> None:
            attached.detach()
            host.stop()

        reactor.call_later(0.1, end)

    host.run(begin)
    assert fired == []


def test_a_descriptor_that_the_host_registers_and_modifies(
    host: HostUnderTest, reactor: Reactor, pair: tuple[socket.socket, socket.socket]
) -> None:
    """It is ready already; and so is the next, when the host comes to wait for it."""
    left, right = pair
    got: list[bytes] = []

    def begin() -> None:
        attached = host.attach(reactor)

        def register() -> None:
            right.send(b"one")
            reactor.register(left, READ, read)

        def read(_: int) -> None:
            got.append(left.recv(10))
            if len(got) == 1:
                reactor.modify(left, 0)
                right.send(b"two")
                host.call_later(0.02, lambda: reactor.modify(left, READ))
            else:
                reactor.unregister(left)
                attached.detach()
                host.stop()

        host.call_later(0.02, register)

    host.run(begin)
    assert got == [b"one", b"two"]


# -- no busy loop --------------------------------------------------------------------------------


def test_an_idle_reactor_makes_no_passes(
    host: HostUnderTest, reactor: Reactor, pair: tuple[socket.socket, socket.socket]
) -> None:
    if host.name == "frames":
        pytest.skip("a loop of frames goes round by itself")
    passes: list[int] = []

    def begin() -> None:
        attached = host.attach(reactor)
        reactor.register(pair[0], READ, ignore)
        reactor.call_later(FAR, ignore)
        reactor.call_soon(ignore)

        def look() -> None:
            passes.append(reactor.passes)
            if len(passes) == 2:
                attached.detach()
                host.stop()
            else:
                host.call_later(0.15, look)

        host.call_later(0.1, look)

    host.run(begin)
    assert passes[0] == passes[1]


def test_what_is_due_in_less_than_a_millisecond_is_not_spun_for(
    host: HostUnderTest, reactor: Reactor
) -> None:
    if host.name == "frames":
        pytest.skip("a loop of frames goes round by itself")
    count = 50
    fired: list[int] = []

    def begin() -> None:
        attached = host.attach(reactor)

        def fire() -> None:
            fired.append(reactor.passes)
            if len(fired) == count:
                attached.detach()
                host.stop()
            else:
                reactor.call_later(0.0016, fire)

        reactor.call_later(0.0016, fire)

    host.run(begin)
    # One pass that fires it, one that finds nothing more within the budget, one that may be early.
    assert fired[-1] - fired[0] <= 3 * count


def test_a_flood_leaves_the_host_its_turns(host: HostUnderTest, reactor: Reactor) -> None:
    """A callback that posts itself again and again is never done; the host's timers run all the same."""
    ticks: list[None] = []

    def begin() -> None:
        attached = host.attach(reactor)

        def again() -> None:
            if attached.attached:
                reactor.call_soon(again)

        def look() -> None:
            if len(ticks) >= 5:
                attached.detach()
                host.stop()
            else:
                host.call_later(0.005, look)

        reactor.call_soon(again)
        host.tick(0.001, ticks)
        host.call_later(0.005, look)

    host.run(begin)


def test_a_callback_may_run_the_host(
    host: HostUnderTest, reactor: Reactor, pair: tuple[socket.socket, socket.socket]
) -> None:
    """As a dialog does. The descriptor is ready all the while; nobody looks in vain, nothing is lost."""
    left, right = pair
    got: list[bytes] = []
    ticks: list[None] = []
    errors: list[BaseException] = []

    def begin() -> None:
        attached = host.attach(reactor)
        reactor.register(left, READ, lambda _: read())

        def dialog() -> None:
            right.send(b"meanwhile")
            host.call_later(0.1, lambda: ticks.append(None))
            before = time.thread_time()
            try:
                host.nested(lambda: bool(ticks))
            except BaseException as error:  # a skip, too, is for outside
                errors.append(error)
                attached.detach()
                host.stop()
            assert got == []
            ticks.append(None)
            spent.append(time.thread_time() - before)

        def read() -> None:
            got.append(left.recv(100))
            attached.detach()
            host.stop()

        spent: list[float] = []
        reactor.call_soon(host.guarded(dialog))

    host.run(begin)
    if errors:
        raise errors[0]
    assert got == [b"meanwhile"]


# -- the end -------------------------------------------------------------------------------------


def test_detached_in_a_callback_it_runs_no_further_pass(
    host: HostUnderTest, reactor: Reactor
) -> None:
    """Until somebody else drives it: what was to come is still there."""
    order: list[str] = []

    def begin() -> None:
        attached = host.attach(reactor)

        def detach() -> None:
            order.append("detach")
            attached.detach()
            attached.detach()
            assert not attached.attached
            assert reactor.in_loop_thread()
            reactor.call_soon(order.append, "later")
            reactor.call_later(0.01, order.append, "timed")
            host.call_later(0.05, end)

        def end() -> None:
            order.append("end")
            host.stop()

        reactor.call_later(0.01, detach)

    host.run(begin)
    assert order in (["detach", "end"], ["detach", "later", "end"])  # the same pass may take it
    reactor.call_later(0.02, reactor.stop)
    on_thread(reactor.run)
    assert order[-1] == "timed"
    assert sorted(order) == ["detach", "end", "later", "timed"]


def test_a_reactor_that_is_closed_leaves_its_host(host: HostUnderTest, reactor: Reactor) -> None:
    seen: list[bool] = []

    def begin() -> None:
        attached = host.attach(reactor)
        reactor.call_later(0.01, inside, attached)

    def inside(attached: object) -> None:
        with pytest.raises(ReentrancyError):
            reactor.close()
        host.call_later(0.01, lambda: outside(attached))

    def outside(attached: object) -> None:
        reactor.close()
        seen.append(getattr(attached, "attached", True))
        host.call_later(0.01, host.stop)

    host.run(begin)
    assert seen == [False]


def test_it_may_be_attached_again(host: HostUnderTest, reactor: Reactor) -> None:
    fired: list[int] = []

    def begin() -> None:
        host.attach(reactor).detach()
        again(0)

    def again(number: int) -> None:
        attached = host.attach(reactor)

        def fire() -> None:
            fired.append(number)
            attached.detach()
            host.call_later(0.0, lambda: again(number + 1) if number < 2 else host.stop())

        reactor.call_later(0.005, fire)

    host.run(begin)
    assert fired == [0, 1, 2]


# -- misuse --------------------------------------------------------------------------------------


def test_a_reactor_has_one_host(host: HostUnderTest, reactor: Reactor) -> None:
    def begin() -> None:
        attached = host.attach(reactor)
        with pytest.raises(HostError, match="detach"):
            host.attach(reactor)
        with pytest.raises(HostError, match="detach"):
            reactor.run()
        attached.detach()
        host.stop()

    host.run(begin)


def test_other_threads_are_refused(host: HostUnderTest, reactor: Reactor) -> None:
    """From the beginning, before the first pass."""

    def begin() -> None:
        attached = host.attach(reactor)
        for call in (reactor.run_once, attached.detach, reactor.close):
            with pytest.raises(WrongThreadError):
                on_thread(call)
        assert attached.attached
        attached.detach()
        host.stop()

    host.run(begin)


def test_a_pass_inside_a_pass_is_refused(host: HostUnderTest, reactor: Reactor) -> None:
    errors: list[Exception] = []

    def begin() -> None:
        attached = host.attach(reactor)

        def again() -> None:
            try:
                reactor.run_once(0)
            except Exception as error:
                errors.append(error)
            attached.detach()
            host.stop()

        reactor.call_soon(again)

    host.run(begin)
    assert [type(error) for error in errors] == [ReentrancyError]


def test_an_exception_that_ends_programs_ends_the_host(
    host: HostUnderTest, reactor: Reactor
) -> None:
    if host.name not in ("asyncio", "trio", "frames"):
        pytest.skip(f"{host.name} decides itself what becomes of it")

    def begin() -> None:
        host.attach(reactor)
        reactor.call_soon(interrupt)

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(BaseException) as caught:
        host.run(begin)
    group = caught.value
    errors = group.exceptions if isinstance(group, BaseExceptionGroup) else (group,)
    assert [type(error) for error in errors] == [KeyboardInterrupt]


def test_budgets_make_sense(host: HostUnderTest, reactor: Reactor) -> None:
    """Refused, and the reactor is as it was."""

    def begin() -> None:
        for budget in (0.0, -1.0, float("nan")):
            with pytest.raises(ValueError, match="budget"):
                host.attach(reactor, budget=budget)
        host.attach(reactor, budget=0.01).detach()
        host.stop()

    host.run(begin)
