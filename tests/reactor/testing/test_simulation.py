"""reactor.testing: threads that take turns, a time that jumps, and what is told when something is wrong."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from functools import partial

import pytest

from reactor import Clock, Reactor, System
from reactor.testing import Entry, Faults, ManualClock, Simulation, SimulationError
from tests.reactor.support import DEADLINE

# -- the clock -----------------------------------------------------------------------------------


def test_a_manual_clock_stands_still() -> None:
    clock = ManualClock(monotonic=10.0, unix=1000.0)
    checked: Clock = clock
    assert (checked.monotonic(), checked.unix()) == (10.0, 1000.0)
    clock.advance(0.1)
    clock.advance(0.2)
    assert (clock.monotonic(), clock.unix()) == (10.3, 1000.3)
    clock.step(-500.0)
    assert (clock.monotonic(), clock.unix()) == (10.3, 500.3)


@pytest.mark.parametrize("seconds", [-0.1, float("nan"), float("inf")])
def test_time_does_not_run_backwards(seconds: float) -> None:
    with pytest.raises(ValueError, match="time passes"):
        ManualClock().advance(seconds)


def test_a_manual_clock_drives_a_reactor() -> None:
    clock = ManualClock()
    reactor = Reactor(clock=clock)
    fired: list[float] = []
    reactor.call_later(5.0, lambda: fired.append(clock.monotonic()))
    reactor.run_once(0)
    assert not fired
    clock.advance(5.0)
    reactor.run_once(0)
    assert fired == [1005.0]
    reactor.close()


# -- faults --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        {"switch": 1.5},
        {"reset": -0.1},
        {"longest_delay": -1.0},
        {"buffer_size": 0},
        {"shortest_delay": 2.0, "longest_delay": 1.0},
        {"partial_send": float("nan")},
    ],
    ids=str,
)
def test_faults_are_checked(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"cannot be|must not be"):
        Faults(**arguments)  # type: ignore[arg-type]


# -- time and turns ------------------------------------------------------------------------------


def test_hours_pass_at_once() -> None:
    with Simulation() as simulation:
        checked: System = simulation
        assert checked.clock is simulation.clock
        begun = simulation.time
        simulation.sleep(36_000.0)
        assert simulation.time == begun + 36_000.0


def test_who_sleeps_lets_others_run() -> None:
    heard: list[str] = []
    with Simulation() as simulation:

        def talk(name: str, pause: float) -> None:
            for _ in range(3):
                simulation.sleep(pause)
                heard.append(f"{name} {simulation.time - 1000.0:g}")

        threads = [
            simulation.spawn(lambda: talk("slow", 2.0)),
            simulation.spawn(lambda: talk("quick", 0.5)),
        ]
        for thread in threads:
            thread.join()
    assert heard == ["quick 0.5", "quick 1", "quick 1.5", "slow 2", "slow 4", "slow 6"]


def test_wait_asks_when_nobody_can_go_on() -> None:
    with Simulation() as simulation:
        done: list[int] = []

        def work() -> None:
            for number in range(5):
                simulation.sleep(0.1)
                done.append(number)

        simulation.spawn(work)
        assert simulation.wait(lambda: len(done) == 3 and "three") == "three"
        assert done == [0, 1, 2]
        with pytest.raises(SimulationError, match="has not happened in 5 s"):
            simulation.wait(lambda: len(done) == 7, timeout=5.0)
        assert simulation.time == pytest.approx(1005.3)


def lengths_seen(seed: int) -> list[int]:
    """By two threads that each put something into one queue, and look how much is in it then."""
    seen: list[int] = []
    with Simulation(seed, Faults(switch=0.5)) as simulation:
        queue: deque[str] = simulation.queue()

        def put() -> None:
            queue.append("something")
            seen.append(len(queue))

        threads = [simulation.spawn(put) for _ in range(2)]
        for thread in threads:
            thread.join()
        assert [queue.popleft(), queue.popleft()] == ["something", "something"]
    return seen


def test_another_thread_may_come_between_two_steps_with_a_queue() -> None:
    assert {tuple(lengths_seen(seed)) for seed in range(50)} == {(1, 2), (2, 2)}


def test_a_step_of_the_wall_clock_holds_nobody_up() -> None:
    with Simulation() as simulation:
        unix = simulation.clock.unix()
        simulation.step_wall_clock(-86_400.0)
        simulation.sleep(1.0)
        assert simulation.clock.unix() == unix - 86_400.0 + 1.0


def interleaved(seed: int, switch: float = 0.3) -> tuple[list[int], list[Entry]]:
    """The order in which two threads come to do their steps."""
    order: list[int] = []
    with Simulation(seed, Faults(switch=switch, slowness=0.0)) as simulation:

        def work(number: int) -> None:
            for _ in range(5):
                order.append(number)
                simulation.scheduler.point()

        for thread in [simulation.spawn(partial(work, number)) for number in (1, 2)]:
            thread.join()
        return order, simulation.trace


def test_the_seed_decides_who_goes_on() -> None:
    assert len({tuple(interleaved(seed)[0]) for seed in range(20)}) > 5
    for seed in range(20):
        assert interleaved(seed) == interleaved(seed)


def test_without_faults_a_thread_runs_until_it_waits() -> None:
    for seed in range(10):
        assert interleaved(seed, 0.0)[0] in ([1] * 5 + [2] * 5, [2] * 5 + [1] * 5)


def lost_updates(seed: int, interrupt: float) -> int:
    """A counter that two threads add to without a lock: what is missing in the end."""
    count = [0]
    faults = Faults(switch=0.0, slowness=0.0, interrupt=interrupt)
    with Simulation(seed, faults, interruptible=[__file__]) as simulation:

        def add() -> None:
            for _ in range(20):
                before = count[0]
                count[0] = before + 1

        for thread in [simulation.spawn(add), simulation.spawn(add)]:
            thread.join()
    return 40 - count[0]


def test_a_thread_is_interrupted_between_two_lines() -> None:
    losses = [lost_updates(seed, 0.1) for seed in range(20)]
    assert any(losses)
    assert losses == [lost_updates(seed, 0.1) for seed in range(20)]
    assert not any(lost_updates(seed, 0.0) for seed in range(20))


# -- what threads wait with ------------------------------------------------------------------------


def test_a_lock_is_held_by_one() -> None:
    for seed in range(20):
        with Simulation(seed, Faults(switch=0.5)) as simulation:
            lock = simulation.lock()
            inside: list[int] = []

            def work(
                simulation: Simulation = simulation,
                inside: list[int] = inside,
                enter: Callable[[], bool] = lock.acquire,
                leave: Callable[[], None] = lock.release,
            ) -> None:
                for _ in range(5):
                    enter()
                    inside.append(1)
                    assert len(inside) == 1
                    simulation.scheduler.point()
                    inside.pop()
                    leave()

            for thread in [simulation.spawn(work) for _ in range(3)]:
                thread.join()
            assert not lock.locked()


def test_a_lock_is_waited_for_so_long_and_no_longer() -> None:
    with Simulation(faults=Faults.none()) as simulation:
        lock = simulation.lock()
        assert lock.acquire()
        assert not lock.acquire(blocking=False)
        assert not lock.acquire(timeout=2.0)
        assert simulation.time == 1002.0
        lock.release()
        with pytest.raises(RuntimeError):
            lock.release()


def test_a_reentrant_lock_and_its_owner() -> None:
    with Simulation(faults=Faults.none()) as simulation:
        lock = simulation.reentrant_lock()
        order: list[str] = []

        def other() -> None:
            with lock:
                order.append("other")

        with lock, lock:
            thread = simulation.spawn(other)
            simulation.sleep(1.0)
            order.append("first")
        thread.join()
        assert order == ["first", "other"]


def test_an_event_wakes_all() -> None:
    with Simulation() as simulation:
        event = simulation.event()
        assert not event.wait(1.0)
        woken: list[int] = []

        def wait() -> None:
            assert event.wait()
            woken.append(1)

        threads = [simulation.spawn(wait) for _ in range(3)]
        simulation.sleep(1.0)
        assert not woken
        event.set()
        for thread in threads:
            thread.join()
        assert len(woken) == 3
        assert event.is_set()
        event.clear()
        assert not event.is_set()


def test_a_condition_has_what_is_waited_for() -> None:
    for seed in range(20):
        with Simulation(seed, Faults(switch=0.5)) as simulation:
            condition = simulation.condition(simulation.reentrant_lock())
            items: list[int] = []
            taken: list[int] = []

            def take(
                condition: threading.Condition = condition,
                items: list[int] = items,
                taken: list[int] = taken,
            ) -> None:
                for _ in range(4):
                    with condition:
                        condition.wait_for(lambda: items)
                        taken.append(items.pop(0))

            threads = [simulation.spawn(take) for _ in range(2)]
            for number in range(8):
                with condition:
                    items.append(number)
                    condition.notify()
            for thread in threads:
                thread.join()
            assert taken == list(range(8))
            with condition:
                begun = simulation.time
                assert not condition.wait_for(lambda: False, timeout=3.0)
                assert simulation.time >= begun + 3.0


def test_an_executor_has_so_many_threads() -> None:
    with Simulation() as simulation:
        executor = simulation.executor(2)
        running: list[int] = []
        most: list[int] = []

        def work(number: int) -> int:
            running.append(number)
            most.append(len(running))
            simulation.sleep(1.0)
            running.remove(number)
            return number * number

        def fail() -> None:
            raise ValueError("no")

        futures = [executor.submit(work, number) for number in range(5)]
        failed = executor.submit(fail)
        simulation.wait(failed.done)
        assert [future.result() for future in futures] == [0, 1, 4, 9, 16]
        assert max(most) == 2
        with pytest.raises(ValueError, match="no"):
            failed.result()
        executor.shutdown()
        with pytest.raises(RuntimeError):
            executor.submit(fail)


# -- what is wrong ---------------------------------------------------------------------------------


def told(
    body: Callable[[Simulation], object], kind: type[Exception] = SimulationError, seed: int = 0
) -> str:
    """What an exception says that ends a simulation, its notes too."""
    try:
        with Simulation(seed) as simulation:
            body(simulation)
    except kind as error:
        return "\n".join([str(error), *error.__notes__])
    raise AssertionError("nothing was told")


def test_a_deadlock_is_told_with_who_waits_for_what() -> None:
    def body(simulation: Simulation) -> None:
        first, second = simulation.lock(), simulation.lock()

        def other() -> None:
            with second:
                simulation.sleep(1.0)
                first.acquire()

        first.acquire()
        simulation.spawn(other, name="other")
        simulation.sleep(0.5)
        second.acquire()

    text = told(body, seed=5)
    assert text.startswith("nothing can happen any more, at ")
    assert "<other-1 waits for a lock>" in text
    assert "<main waits for a lock>" in text
    assert text.endswith("\nthe simulation's seed is 5: with it, the same happens again")


def test_a_loop_that_spins_is_told() -> None:
    def body(simulation: Simulation) -> None:
        def spin() -> None:
            while True:
                simulation.scheduler.point()

        simulation.spawn(spin).join()

    assert "the clock stands still" in told(body)


def test_what_a_thread_raises_ends_the_simulation() -> None:
    def body(simulation: Simulation) -> None:
        def fail() -> None:
            simulation.sleep(1.0)
            raise ZeroDivisionError

        simulation.spawn(fail)
        simulation.sleep(10.0)

    text = told(body, ZeroDivisionError, seed=3)
    assert "in the simulated thread thread-1" in text
    assert "seed is 3" in text


@pytest.mark.parametrize("progress", [False, True])
def test_who_sleeps_in_vain_is_told_unless_something_changes(progress: bool) -> None:
    """Each time that it is looked, two milliseconds have passed."""

    def body(simulation: Simulation) -> None:
        left = 10

        def look() -> str | None:
            return f"{left if progress else 'all'} jobs wait" if left else None

        simulation.scheduler.add_sleeper(look)
        while left:
            simulation.sleep(0.002)
            left -= 1

    if progress:
        with Simulation() as simulation:
            body(simulation)
    else:
        assert told(body).startswith("a wake-up was lost: all jobs wait")


def test_a_wake_up_that_is_lost_is_told() -> None:
    def body(simulation: Simulation) -> None:
        reactor = simulation.reactor()
        simulation.sleep(1.0)
        reactor.post(lambda: None)  # and no `wake`
        simulation.sleep(1.0)

    assert told(body).startswith("a wake-up was lost: loop sleeps")


def test_a_thread_from_elsewhere_is_refused() -> None:
    with Simulation() as simulation:
        lock = simulation.lock()
        errors: list[Exception] = []

        def use() -> None:
            try:
                lock.acquire()
            except SimulationError as error:
                errors.append(error)

        stranger = threading.Thread(target=use)
        stranger.start()
        stranger.join()
        assert "has not started" in str(errors[0])


def test_who_waits_for_something_real_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reactor.testing.scheduler.PATIENCE", 0.2)
    real = threading.Event()

    def body(simulation: Simulation) -> None:
        simulation.spawn(real.wait, name="patient")
        simulation.sleep(1.0)

    text = told(body)
    assert text.startswith("patient-1 waits for something that is not simulated")
    assert "threading.py" in text
    # Let it end, as far as it can: nobody will give it the baton again.
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "patient"]
    real.set()
    threading.Thread.join(thread, DEADLINE)


def test_what_is_left_open_is_told() -> None:
    text = told(lambda simulation: simulation.network.socket())
    assert "there are still the descriptors" in text


def test_a_timer_that_is_left_is_told() -> None:
    def body(simulation: Simulation) -> None:
        reactor = simulation.reactor()
        reactor.call_soon_threadsafe(lambda: reactor.call_later(100.0, print))
        simulation.sleep(1.0)

    assert "1 time-outs of loop" in told(body)


def test_a_thread_that_never_ends_is_ended() -> None:
    threads: list[threading.Thread] = []

    def body(simulation: Simulation) -> None:
        def run() -> None:
            try:
                simulation.sleep(1e6)
            except BaseException:
                simulation.sleep(1e6)  # it will not listen
                raise

        threads.append(simulation.spawn(run))
        simulation.sleep(1.0)
        raise KeyError

    told(body, KeyError)
    threads[0].join()
    assert not threads[0].is_alive()


# -- a reactor in it -------------------------------------------------------------------------------


def test_a_reactor_lives_in_the_simulations_time() -> None:
    with Simulation() as simulation:
        reactor = simulation.reactor()
        fired: list[float] = []

        def set_timers() -> None:
            for delay in (3600.0, 0.5, 60.0):
                reactor.call_later(delay, lambda: fired.append(simulation.time - 1000.0))

        reactor.call_soon_threadsafe(set_timers)
        simulation.wait(lambda: len(fired) == 3, timeout=4000.0)
        for wanted, came in zip([0.5, 60.0, 3600.0], fired, strict=True):
            assert wanted <= came < wanted + 0.01
        assert reactor in simulation.reactors


def test_a_full_pipe_wakes_as_well() -> None:
    for seed in range(20):
        with Simulation(seed, Faults(full_pipe=0.5)) as simulation:
            reactor = simulation.reactor()
            called: list[int] = []
            for number in range(10):
                reactor.call_soon_threadsafe(called.append, number)
                simulation.sleep(0.001)
            simulation.wait(lambda called=called: len(called) == 10)  # type: ignore[misc]
            assert called == list(range(10))
