"""The worker pool: everything runs, blocking jobs spread, and nothing is submitted in vain."""

from __future__ import annotations

import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from typing import Any, ParamSpec, TypeVar

import pytest

from reactor import Job, Reactor, WorkerPool
from tests.reactor.support import DEADLINE, LoopThread, ManualClock, run_passes, run_until

P = ParamSpec("P")
T = TypeVar("T")


class Task:
    """A job that writes down what becomes of it."""

    def __init__(self, work: Callable[[], object] = lambda: None) -> None:
        self._work = work
        self.ran_on = 0
        self.runs = 0
        self.collects = 0
        self.finished_on = 0
        self.finishes = 0
        self.refusals: list[BaseException] = []

    def run(self, now: float) -> float:
        self.ran_on = threading.get_ident()
        self.runs += 1
        self._work()
        return time.monotonic()

    def collect(self) -> None:
        self.collects += 1

    def finish(self) -> None:
        self.finished_on = threading.get_ident()
        self.finishes += 1

    def refuse(self, error: BaseException) -> None:
        self.finished_on = threading.get_ident()
        self.refusals.append(error)

    @property
    def over(self) -> bool:
        return bool(self.finishes or self.refusals)


_: Job = Task()  # checked by mypy: it is a Job


class CountingExecutor(Executor):
    """A ThreadPoolExecutor that counts what it is given."""

    def __init__(self, workers: int) -> None:
        self.inner = ThreadPoolExecutor(workers)
        self.submits = 0
        self.shut_down = False

    def submit(
        self, function: Callable[P, T], /, *arguments: P.args, **options: P.kwargs
    ) -> Future[T]:
        future = self.inner.submit(function, *arguments, **options)
        self.submits += 1
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self.shut_down = True
        self.inner.shutdown(wait, cancel_futures=cancel_futures)


@pytest.fixture
def executor() -> Iterator[CountingExecutor]:
    made = CountingExecutor(4)
    yield made
    made.shutdown()


MakePool = Callable[..., WorkerPool]


@pytest.fixture
def make_pool(reactor: Reactor) -> Iterator[MakePool]:
    pools: list[WorkerPool] = []

    def make(**options: Any) -> WorkerPool:
        pools.append(WorkerPool(reactor, **options))
        return pools[-1]

    yield make
    for pool in pools:
        pool.shutdown()


def _submit(pool: WorkerPool, tasks: list[Task]) -> None:
    for task in tasks:
        pool.submit(task)


def _until_over(reactor: Reactor, tasks: list[Task]) -> None:
    run_until(reactor, lambda: all(task.over for task in tasks), "the last job")


def _until_without_help(reactor: Reactor, predicate: Callable[[], object]) -> None:
    """Sleep as the loop itself does: nothing but the pool may end it."""
    start = time.monotonic()
    while not predicate():
        reactor.run_once(DEADLINE)
        assert time.monotonic() - start < DEADLINE, "it was slept over"


def test_a_job_runs_on_a_worker_and_finishes_on_the_loop(
    reactor: Reactor, make_pool: MakePool
) -> None:
    pool = make_pool()
    task = Task()
    pool.submit(task)
    assert not task.runs
    _until_over(reactor, [task])
    assert (task.runs, task.finishes, task.refusals) == (1, 1, [])
    assert task.ran_on not in (0, threading.get_ident())
    assert task.finished_on == threading.get_ident()


@pytest.mark.parametrize("workers", [1, 2, 20])
def test_many_jobs_each_run_once(reactor: Reactor, make_pool: MakePool, workers: int) -> None:
    pool = make_pool(worker_size=workers)
    tasks = [Task() for _ in range(1_000)]
    for start in range(0, 1_000, 50):
        _submit(pool, tasks[start : start + 50])
        reactor.run_once(0)
    _until_over(reactor, tasks)
    assert [(task.runs, task.finishes) for task in tasks] == [(1, 1)] * 1_000
    assert pool.waiting == 0


def test_one_worker_runs_jobs_in_their_order(reactor: Reactor, make_pool: MakePool) -> None:
    pool = make_pool(worker_size=1)
    order: list[int] = []
    tasks = [Task(partial(order.append, number)) for number in range(200)]
    _submit(pool, tasks)
    _until_over(reactor, tasks)
    assert order == list(range(200))


def test_one_submission_carries_many_jobs(
    reactor: Reactor, make_pool: MakePool, executor: CountingExecutor
) -> None:
    pool = make_pool(worker_size=4, executor=executor)
    tasks = [Task() for _ in range(500)]
    _submit(pool, tasks)
    assert executor.submits == 0  # at the end of the pass, and not before
    _until_over(reactor, tasks)
    # One, or a few more if this machine has kept them waiting; not one a job.
    assert 1 <= executor.submits <= 20


def test_a_busy_loop_need_not_submit_in_every_pass(
    reactor: Reactor, make_pool: MakePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker of its own stays for a moment when there is nothing left, for the next job."""
    submits = 0
    submit = ThreadPoolExecutor.submit

    def counting(self: ThreadPoolExecutor, *arguments: Any, **named: Any) -> Any:
        nonlocal submits
        submits += 1
        return submit(self, *arguments, **named)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", counting)
    pool = make_pool(worker_size=4)
    tasks = [Task() for _ in range(100)]
    for task in tasks:
        pool.submit(task)
        _until_over(reactor, [task])
    assert 1 <= submits <= 50


def test_a_worker_that_has_nothing_to_do_gives_its_thread_back(
    reactor: Reactor, make_pool: MakePool
) -> None:
    """Somebody else's executor has other work, too: here its only thread is asked for."""
    with ThreadPoolExecutor(1) as single:
        pool = make_pool(worker_size=1, executor=single)
        task = Task()
        pool.submit(task)
        _until_over(reactor, [task])
        assert single.submit(lambda: "their turn").result(DEADLINE) == "their turn"

        again = Task()
        pool.submit(again)
        _until_over(reactor, [again])
        assert again.runs == 1


@pytest.mark.parametrize("workers", [1, 3, 20])
def test_blocking_jobs_spread_over_all_workers(
    reactor: Reactor, make_pool: MakePool, workers: int
) -> None:
    """Each waits until all of them run at once: were one worker short, none would return."""
    pool = make_pool(worker_size=workers)
    barrier = threading.Barrier(workers)
    tasks = [Task(lambda: barrier.wait(DEADLINE)) for _ in range(workers)]
    _submit(pool, tasks)
    _until_over(reactor, tasks)
    assert not barrier.broken
    assert len({task.ran_on for task in tasks}) == workers


def test_they_spread_when_they_come_one_by_one(reactor: Reactor, make_pool: MakePool) -> None:
    pool = make_pool(worker_size=8)
    barrier = threading.Barrier(8)
    tasks = [Task(lambda: barrier.wait(DEADLINE)) for _ in range(8)]
    for task in tasks:
        pool.submit(task)
        reactor.run_once(0)
    _until_over(reactor, tasks)
    assert not barrier.broken


def test_they_spread_again_and_again(reactor: Reactor, make_pool: MakePool) -> None:
    pool = make_pool(worker_size=6)
    for _ in range(5):
        barrier = threading.Barrier(6)
        tasks = [Task(partial(barrier.wait, DEADLINE)) for _ in range(6)]
        _submit(pool, tasks)
        _until_over(reactor, tasks)
        assert not barrier.broken


def test_never_more_at_once_than_there_are_workers(
    reactor: Reactor, make_pool: MakePool, executor: CountingExecutor
) -> None:
    """Though the executor has a thread more."""
    pool = make_pool(worker_size=3, executor=executor)
    lock = threading.Lock()
    at_once = most = 0
    pause = threading.Event()

    def work() -> None:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        pause.wait(0.005)
        with lock:
            at_once -= 1

    tasks = [Task(work) for _ in range(40)]
    _submit(pool, tasks)
    _until_over(reactor, tasks)
    assert most == 3


def test_more_jobs_wait_than_there_are_workers(reactor: Reactor, make_pool: MakePool) -> None:
    """All workers are held; what is queued behind them runs when they are let go."""
    pool = make_pool(worker_size=2)
    release = threading.Event()
    held = [Task(lambda: release.wait(DEADLINE)) for _ in range(2)]
    waiting = [Task() for _ in range(300)]
    _submit(pool, held)
    run_until(reactor, lambda: all(task.runs for task in held), "the workers' being held")
    _submit(pool, waiting)
    run_passes(reactor, 5)
    assert pool.waiting == 300
    assert "300 jobs waiting" in repr(pool)
    release.set()
    _until_over(reactor, held + waiting)
    assert all(task.runs == 1 for task in waiting)
    assert pool.waiting == 0


def test_a_job_behind_one_that_blocks_does_not_wait_for_it(
    reactor: Reactor, make_pool: MakePool
) -> None:
    pool = make_pool(worker_size=2)
    release = threading.Event()
    blocking, short = Task(lambda: release.wait(DEADLINE)), Task()
    _submit(pool, [blocking, short])
    _until_over(reactor, [short])
    assert not blocking.over
    release.set()
    _until_over(reactor, [blocking])


@pytest.mark.parametrize("seconds", [0.0, 0.0005, 0.001, 0.002, 0.03])
def test_a_result_before_a_job_that_blocks_is_collected_soon(
    reactor: Reactor, make_pool: MakePool, seconds: float
) -> None:
    """One worker has taken both. The loop sleeps without a time-out that could help."""
    pool = make_pool(worker_size=1)
    for _ in range(5):
        release = threading.Event()
        first = Task(partial(release.wait, seconds))
        blocking = Task(partial(release.wait, 2 * DEADLINE))
        _submit(pool, [first, blocking])
        _until_without_help(reactor, lambda: first.over)  # noqa: B023
        assert not blocking.over
        release.set()
        _until_over(reactor, [blocking])


def test_what_a_blocking_job_has_is_collected_while_it_runs(
    reactor: Reactor, make_pool: MakePool
) -> None:
    pool = make_pool(worker_size=1)
    release = threading.Event()
    task = Task(lambda: release.wait(DEADLINE))
    pool.submit(task)
    run_until(reactor, lambda: task.collects, "collecting")
    assert not task.over
    release.set()
    _until_over(reactor, [task])


def test_a_long_job_does_not_keep_the_loop_awake(reactor: Reactor, make_pool: MakePool) -> None:
    """Nothing else waits: there is nothing to look after until it ends."""
    pool = make_pool(worker_size=2)
    release = threading.Event()
    task = Task(lambda: release.wait(DEADLINE))
    with LoopThread(reactor) as loop:
        loop.call(lambda: pool.submit(task))
        end = time.monotonic() + DEADLINE
        pause = threading.Event()
        while not task.collects:
            assert time.monotonic() < end
            pause.wait(0.01)
        pause.wait(0.05)
        before = reactor.statistics().passes
        pause.wait(0.3)
        assert reactor.statistics().passes - before <= 1
        release.set()
        while not task.over:
            assert time.monotonic() < end
            pause.wait(0.001)


# -- wake and on_worker ------------------------------------------------------------------------


def test_a_thread_knows_whether_it_is_a_worker(reactor: Reactor, make_pool: MakePool) -> None:
    pool, other = make_pool(), make_pool()
    seen: list[tuple[bool, bool]] = []
    task = Task(lambda: seen.append((pool.on_worker(), other.on_worker())))
    pool.submit(task)
    _until_over(reactor, [task])
    assert seen == [(True, False)]
    assert not pool.on_worker()


def test_what_a_job_posts_arrives_while_it_still_runs(
    reactor: Reactor, make_pool: MakePool
) -> None:
    """`wake` may leave the loop asleep, but only for a moment after which it looks by itself."""
    pool = make_pool(worker_size=1)
    for moment in (0.0, 0.0005, 0.002, 0.02):
        release = threading.Event()
        got: list[int] = []

        def work(
            release: threading.Event = release, got: list[int] = got, moment: float = moment
        ) -> None:
            release.wait(moment)
            reactor.post(lambda: got.append(1))
            pool.wake()
            release.wait(2 * DEADLINE)

        task = Task(work)
        pool.submit(task)
        _until_without_help(reactor, lambda: got)  # noqa: B023
        assert not task.over
        release.set()
        _until_over(reactor, [task])


def test_a_worker_leaves_the_loop_asleep_only_if_it_will_look_soon() -> None:
    """The second of two submissions, a little after the first, must not be told to be quiet for
    longer than the loop's next look, which was fixed by the first."""
    clock = ManualClock(monotonic=0.0)
    reactor = Reactor(clock=clock)
    number = reactor.fileno()
    if number is None:
        reactor.close()
        pytest.skip("a system whose selector has no descriptor")
    pool = WorkerPool(reactor, worker_size=1)
    go, posted, release = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        go.wait(DEADLINE)
        reactor.post(lambda: None)
        pool.wake()
        posted.set()
        release.wait(DEADLINE)

    first, second = Task(), Task(work)
    pool.submit(first)
    _until_over(reactor, [first])
    clock.advance(0.0009)
    pool.submit(second)
    run_until(reactor, lambda: second.runs, "the second job")
    clock.advance(0.0006)
    run_passes(reactor)  # the look that the first has brought about

    sleep = reactor.timeout()  # so long the loop would sleep now
    go.set()
    assert posted.wait(DEADLINE)
    woken = bool(select.select([number], [], [], 0)[0])
    release.set()
    _until_over(reactor, [second])
    pool.shutdown()
    reactor.close()
    assert woken or (sleep is not None and sleep < 0.1), "the post would have been slept over"


def test_wake_from_no_worker_wakes_the_loop_at_once(reactor: Reactor, make_pool: MakePool) -> None:
    pool = make_pool()
    got: list[int] = []

    def post() -> None:
        reactor.post(lambda: got.append(1))
        pool.wake()

    other = threading.Thread(target=post)
    other.start()
    while not got:
        reactor.run_once(None)  # nothing else would end this sleep
    other.join(DEADLINE)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_chain_of_jobs_does_not_break(
    reactor: Reactor, make_pool: MakePool, workers: int
) -> None:
    """Each is submitted by the finish of the one before: a single one forgotten would end it.

    Threads are switched as often as can be, to hit the moment in which a worker has just found
    nothing to do.
    """
    pool = make_pool(worker_size=workers)
    done = threading.Event()
    count = 0

    class Link(Task):
        def finish(self) -> None:
            nonlocal count
            count += 1
            if count == 2_000:
                done.set()
            else:
                pool.submit(Link())

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with LoopThread(reactor) as loop:
            loop.call(lambda: pool.submit(Link()))
            assert done.wait(3 * DEADLINE), f"it has ended after {count}"
    finally:
        sys.setswitchinterval(interval)
    assert count == 2_000


# -- executors and the end -----------------------------------------------------------------------


def test_somebody_elses_executor_is_used_and_left_alone(
    reactor: Reactor, executor: CountingExecutor
) -> None:
    pool = WorkerPool(reactor, worker_size=4, executor=executor)
    task = Task()
    pool.submit(task)
    _until_over(reactor, [task])
    pool.shutdown()
    assert not executor.shut_down
    assert executor.submits == 1
    assert executor.inner.submit(lambda: 1).result(DEADLINE) == 1


def test_an_executor_with_fewer_threads_than_workers(reactor: Reactor, make_pool: MakePool) -> None:
    with ThreadPoolExecutor(2) as small:
        pool = make_pool(worker_size=20, executor=small)
        tasks = [Task(lambda: time.sleep(0.002)) for _ in range(50)]
        _submit(pool, tasks)
        _until_over(reactor, tasks)
        assert all(task.runs == 1 for task in tasks)


def test_after_shutdown_a_job_is_refused(reactor: Reactor) -> None:
    pool = WorkerPool(reactor)
    ran = Task()
    pool.submit(ran)
    _until_over(reactor, [ran])
    pool.shutdown()
    tasks = [Task(), Task()]
    _submit(pool, tasks)
    _until_over(reactor, tasks)
    for task in tasks:
        [error] = task.refusals
        assert isinstance(error, RuntimeError)
        assert (task.runs, task.finishes) == (0, 0)
        assert task.finished_on == threading.get_ident()
    pool.shutdown()


def test_after_the_executors_own_shutdown_a_job_is_refused(
    reactor: Reactor, make_pool: MakePool, executor: CountingExecutor
) -> None:
    pool = make_pool(worker_size=4, executor=executor)
    executor.shutdown()
    tasks = [Task() for _ in range(3)]
    _submit(pool, tasks)
    _until_over(reactor, tasks)
    assert [len(task.refusals) for task in tasks] == [1, 1, 1]


def test_shutdown_still_runs_what_is_queued(reactor: Reactor) -> None:
    pool = WorkerPool(reactor, worker_size=1)
    release = threading.Event()
    held, queued = Task(lambda: release.wait(DEADLINE)), Task()
    _submit(pool, [held, queued])
    run_until(reactor, lambda: held.runs, "the first job")
    pool.shutdown(wait=False)
    release.set()
    pool.shutdown(wait=True)
    _until_over(reactor, [held, queued])
    assert (held.runs, queued.runs, queued.refusals) == (1, 1, [])


def test_an_executor_that_drops_what_it_was_given(reactor: Reactor, make_pool: MakePool) -> None:
    """Its owner shut it down with `cancel_futures`: what it will never begin has to be refused."""
    release = threading.Event()
    with ThreadPoolExecutor(1) as single:
        single.submit(release.wait, DEADLINE)  # their own work, in front of ours
        pool = make_pool(worker_size=4, executor=single)
        first = Task()
        pool.submit(first)
        run_passes(reactor, 3)
        single.shutdown(wait=False, cancel_futures=True)
        release.set()
        end = time.monotonic() + 2.0
        second = Task()
        pool.submit(second)
        while not (first.over and second.over) and time.monotonic() < end:
            reactor.run_once(0.01)
    assert (first.runs, second.runs) == (0, 0)
    assert len(first.refusals) == 1, "neither run nor refused"
    assert len(second.refusals) == 1, "neither run nor refused"


@pytest.mark.parametrize("size", [0, -1])
def test_there_must_be_a_worker(reactor: Reactor, size: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        WorkerPool(reactor, worker_size=size)


def test_an_executor_of_processes_is_refused(reactor: Reactor) -> None:
    with ProcessPoolExecutor(1) as processes, pytest.raises(TypeError, match="threads"):
        WorkerPool(reactor, executor=processes)


def test_an_executor_that_counts_as_false_is_used_all_the_same(
    reactor: Reactor, make_pool: MakePool
) -> None:
    """One whose length is the number of its tasks, say."""

    class Sized(CountingExecutor):
        def __len__(self) -> int:
            return 0

    sized = Sized(1)
    pool = make_pool(executor=sized)
    task = Task()
    pool.submit(task)
    _until_over(reactor, [task])
    sized.shutdown()
    assert sized.submits == 1


class _TwoAtOnce(deque[Job]):
    """Holds the first two appends up until both are done, as two threads may well come about."""

    def __init__(self) -> None:
        super().__init__()
        self._met = threading.Barrier(2, timeout=DEADLINE)
        self._appends = 0

    def append(self, job: Job, /) -> None:
        super().append(job)
        self._appends += 1  # the barrier below: nobody counts while another one does
        if self._appends <= 2:
            self._met.wait()


def test_two_that_end_at_once_are_both_taken_back(reactor: Reactor, make_pool: MakePool) -> None:
    """Whoever appends second must not leave it to the first to tell the loop, and the other way round."""
    pool = make_pool(worker_size=2)
    pool._finished = _TwoAtOnce()
    first, release = threading.Event(), threading.Event()
    quick = [Task(lambda: first.wait(DEADLINE)) for _ in range(2)]
    slow = [Task(lambda: release.wait(DEADLINE)) for _ in range(2)]
    try:
        _submit(pool, quick + slow)
        run_until(reactor, lambda: all(task.ran_on for task in quick), "both workers")
        run_until(reactor, lambda: not pool._watching, "the loop's last look by itself")
        first.set()
        _until_over(reactor, quick)  # while both workers are inside a job that blocks
        assert not any(task.over for task in slow)
    finally:
        release.set()
    _until_over(reactor, slow)
