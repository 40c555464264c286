"""The worker pool: how work leaves the loop's thread and how its results come back.

Owns the queue of jobs that are ready and the drains that empty it; owns the executor only if it made
it. It knows nothing of connections or messages: a job is an object with a `run`.

The problem: `Executor.submit` and the change of thread behind it cost more than a short handler. So
jobs are not submitted. They are queued, and at the end of a pass one *drain* is submitted, which
takes jobs until there are none. Under load one submission carries many jobs, and one wake-up of the
loop brings many results back. A drain that has emptied the queue stays for a while and can be called
back (`_Bell`).

Its two dangers, and what is done about them:

- A job that blocks holds up what is queued behind it. While jobs wait and none was taken for PATIENCE,
  the number of drains doubles, up to `worker_size`: blocking handlers spread over all workers within
  a few milliseconds, and stay spread as long as there is work.
- A result that does not wake the loop could lie there. A worker may leave the loop asleep only until
  `quiet_until`, a moment at which the loop is sure to wake by itself; and a drain that ends wakes it.
"""

from __future__ import annotations

import logging
import socket
import struct
import sys
import threading
import weakref
from collections import deque
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from typing import Protocol

from reactor.loop import Reactor

__all__ = ["Job", "WorkerPool"]

logger: logging.Logger = logging.getLogger("reactor")

PATIENCE = 0.001
"""Seconds without progress after which a drain counts as blocked. Measured: less starts threads for
handlers that only compute; more shows in the latency of what waits behind one that sleeps."""


PARKING = 0.05
"""Seconds that a drain waits for more work before it gives its thread back. Calling a parked one costs a
twentieth of a `submit`, which would otherwise be paid in every pass of a busy loop."""


class Job(Protocol):
    """What a worker does."""

    def run(self, now: float) -> float:
        """On a worker, which tells the monotonic time, in seconds, and is told when this ended. Must not
        raise."""
        ...

    def collect(self) -> None:
        """On the loop's thread, while it runs or later: take the results that there are so far."""

    def finish(self) -> None:
        """On the loop's thread, once, after `run`."""

    def refuse(self, error: BaseException) -> None:
        """On the loop's thread, instead of `run`, when no worker can be had any more."""


class _Bell:
    """How a parked drain is called: it waits for a byte, as the loop does in its wake-up pipe.

    A lock would do, but whoever releases a lock goes on holding the interpreter: the thread that it has
    woken runs into that, goes back to sleep, and is woken a second time when the loop sleeps. To send a
    byte lets the interpreter go, and the drain finds it free: 2 changes of thread for a pass instead of
    6, and 6 in 100 of a pooled echo's rate.
    """

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair()
        # A blocking socket that gives up by itself is one call; with Python's own time-out it is two,
        # and the interpreter would be let go between them.
        milliseconds = int(PARKING * 1e3)
        self._ours.setsockopt(
            socket.SOL_SOCKET,
            socket.SO_RCVTIMEO,
            milliseconds
            if sys.platform == "win32"
            else struct.pack("ll", milliseconds // 1000, milliseconds % 1000 * 1000),
        )

    def ring(self) -> None:
        """Call one. The socket has room for more bytes than there can be drains that wait."""
        self._theirs.send(b"\0")

    def wait(self) -> bool:
        """Sleep until `ring`, for PARKING at the most; whether it has rung."""
        try:
            return bool(self._ours.recv(1))
        except (BlockingIOError, TimeoutError):
            return False

    def close(self) -> None:
        """Release the descriptors. Nobody waits any more."""
        self._ours.close()
        self._theirs.close()


class WorkerPool:
    """Runs jobs on the threads of an Executor.

    `worker_size` is the number of jobs that may run at once. Without `executor`, the pool makes a
    ThreadPoolExecutor of that size and shuts it down; one that is passed in stays its owner's, and
    must run what it is given on threads of this process. Raises ValueError for a size below 1, TypeError
    for an executor of processes.
    """

    def __init__(
        self, reactor: Reactor, *, worker_size: int = 20, executor: Executor | None = None
    ) -> None:
        if worker_size < 1:
            raise ValueError(f"worker_size must be at least 1, not {worker_size!r}")
        if isinstance(executor, ProcessPoolExecutor):
            raise TypeError(
                "handlers share memory with the loop: pass an executor of threads, "
                "not a ProcessPoolExecutor"
            )
        self._reactor = reactor
        self._monotonic = reactor.clock.monotonic
        self._worker_size = worker_size
        self._owns_executor = executor is None
        if executor is None:
            executor = ThreadPoolExecutor(worker_size, thread_name_prefix="tao-worker")
        self._executor = executor
        # Appended to by the loop's thread, taken from by the drains. deque's append and popleft are
        # safe between threads by its documentation, and a popleft gives each job to one drain only.
        self._ready: deque[Job] = reactor.system.queue()
        self._lock = reactor.system.lock()
        self._drains = 0  # under the lock: submitted and not ended
        self._parked = (
            False  # under the lock: one of them waits in `_park`, and nobody has called it
        )
        self._shut_down = False  # under the lock
        # Rung once by whoever clears `_parked`, heard once by each drain that waits: two may wait for a
        # moment, the one that has been called and the next one. Made by the first that parks.
        self._bell: _Bell | None = None  # under the lock
        # Threads inside a drain, with the job in hand. Keys come and go under the lock; each thread
        # sets its own value; whether a thread is among them, it can ask without the lock.
        self._running: dict[int, Job | None] = {}
        # Appended to by the drains, taken from by the loop's thread. Whoever appends and finds no
        # `_finish` posted posts it: two may at once, and the second finds nothing. The loop clears the
        # mark before it takes what there is, so what was appended under a mark that stood is taken.
        self._finished: deque[Job] = reactor.system.queue()
        self._finish_posted = False
        # Written by whichever drain takes a job, read by the loop. A stale value costs a thread too
        # many or a millisecond.
        self._taken_at = 0.0
        self.quiet_until: float = 0.0
        """Monotonic seconds until which a result need not wake the loop: it will look by itself.
        Written by the loop, read by the drains. A stale value is an older one: it costs a wake-up."""
        self._watching = False  # the loop's thread: `_watch` is in the wheel
        self._submit_asked = False  # the loop's thread: `_submit` will run at the end of this pass

    # -- the loop's thread -----------------------------------------------------------------------

    def submit(self, job: Job) -> None:
        """Queue a job; it is on its way to a worker when this pass ends. The loop's thread.

        After `shutdown` the job is refused. Raises as `Reactor.call_soon` does, with nothing queued.
        """
        if not self._submit_asked:
            self._reactor.call_at_stage_end(self._submit)
            self._submit_asked = True
        elif self._reactor.thread != threading.get_ident():
            self._reactor.check_thread()
        self._ready.append(job)

    def _submit(self) -> None:
        self._submit_asked = False
        now = self._monotonic()
        self.quiet_until = now + PATIENCE
        if not self._watching:
            self._watching = True
            self._reactor.call_later(PATIENCE, self._watch)
        with self._lock:
            parked, self._parked = self._parked, False
            drains = self._drains
            bell = self._bell
        if parked and bell is not None:
            bell.ring()
        elif drains == 0:
            self._start(1)
        elif now - self._taken_at > PATIENCE:
            self._start(1)  # all drains are inside a job that takes its time

    def _watch(self) -> None:
        """`quiet_until` may have come: see what there is, and whether work is going on."""
        self._watching = False
        with self._lock:
            running = list(self._running.values())
        for job in running:
            if job is not None:
                job.collect()
        now = self._monotonic()
        if self._ready:
            with self._lock:
                drains = self._drains
            if now - self._taken_at >= PATIENCE:
                self._start(max(1, drains))
            if drains < self._worker_size:
                self.quiet_until = now + PATIENCE
            # else all workers are taken; what they finish from now on wakes the loop at once
        if now < self.quiet_until:
            # Work has been queued since, and with it the promise to look again.
            self._watching = True
            self._reactor.call_later(self.quiet_until - now, self._watch)

    def _finish(self) -> None:
        """Take back the jobs that have been run. In the order in which they ended."""
        self._finish_posted = False
        finished = self._finished
        try:
            for _ in range(len(finished)):
                job = finished.popleft()
                try:
                    job.finish()
                except Exception as error:
                    _log_defect(error)
        finally:
            # What has come meanwhile, or was left by Ctrl-C: the others have their turn first.
            if finished and not self._finish_posted:
                self._finish_posted = True
                self._reactor.post(self._finish)

    def _start(self, wanted: int) -> None:
        with self._lock:
            count = min(wanted, self._worker_size - self._drains, len(self._ready))
            if count <= 0 and self._drains:
                return
            self._drains += count
        for started in range(count):
            try:
                self._executor.submit(self._drain).add_done_callback(self._handle_done)
            except RuntimeError as error:  # the executor has been shut down, by its owner or by us
                with self._lock:
                    self._drains -= count - started
                self._refuse_waiting(error)
                return

    def _handle_done(self, future: Future[None]) -> None:
        """A drain has ended, or will never begin. Any thread."""
        if future.cancelled():
            with self._lock:
                self._drains -= 1
            error = RuntimeError(
                "the executor has been shut down, and has dropped what it was given"
            )
            self._reactor.post(partial(self._refuse_waiting, error))
            self._reactor.wake()
        elif (failure := future.exception()) is not None:
            logger.critical("a worker's drain failed; this is a defect", exc_info=failure)

    def _refuse_waiting(self, error: BaseException) -> None:
        """No more drains can be had. Those that there are will take what waits; if there are any."""
        with self._lock:
            if self._drains:
                return
        while self._ready:
            self._ready.popleft().refuse(error)

    # -- the workers -----------------------------------------------------------------------------

    def _drain(self) -> None:
        thread = threading.get_ident()
        with self._lock:
            self._running[thread] = None
        ready, running, finished = self._ready, self._running, self._finished
        post = self._reactor.post
        now = self._monotonic()
        while True:
            try:
                job = ready.popleft()
            except IndexError:
                if self._park(thread):
                    now = self._monotonic()
                    continue
                return
            self._taken_at = now
            if now >= self.quiet_until:
                self._reactor.wake()  # for what the job before has left
            running[thread] = job
            try:
                now = job.run(now)
            except BaseException as error:  # it promised not to; the drain is not to end for it
                post(partial(_log_defect, error))
                now = self._monotonic()
            finished.append(job)
            if not self._finish_posted:
                self._finish_posted = True
                post(self._finish)

    def _park(self, thread: int) -> bool:
        """The queue is empty: wait a moment for more. False when the drain is to end, and counted so.

        The queue is looked at again under the lock under which `_submit` looks for a drain: a job that
        was queued in between is either seen here or finds this drain parked, or brings one of its own.
        """
        with self._lock:
            if self._ready:
                return True
            self._running[thread] = None
            # One may park, and only on a thread of our own: others may wait for somebody else's.
            park = self._owns_executor and not self._parked and not self._shut_down
            if park and self._bell is None:
                try:
                    self._bell = _Bell()
                    weakref.finalize(self, self._bell.close)  # for a pool that nobody shuts down
                except OSError:
                    park = False  # out of descriptors: the next one may have more luck
            bell = self._bell
            if park:
                self._parked = True
            else:
                self._end_drain(thread)
        self._reactor.wake()
        if not park or bell is None:
            return False
        if bell.wait():
            return True
        with self._lock:
            if self._parked:
                self._parked = False
                self._end_drain(thread)
                return False
        while not bell.wait():
            pass  # called in the last moment: the byte is there, or about to be
        return True

    def _end_drain(self, thread: int) -> None:
        """Under the lock."""
        self._drains -= 1
        del self._running[thread]
        self._close_bell()

    def _close_bell(self) -> None:
        """If nobody will wait for it any more. Under the lock."""
        if self._shut_down and not self._drains and self._bell is not None:
            self._bell.close()

    def on_worker(self) -> bool:
        """Whether the calling thread is inside a job of this pool. Any thread."""
        return threading.get_ident() in self._running

    def wake(self) -> None:
        """Something was posted to the reactor: wake it, unless it is sure to look soon. Any thread.

        A worker's result waits for the end of its drain, or for the loop's own next look, whichever
        comes first; that is less than PATIENCE, plus what the selector rounds up.
        """
        if threading.get_ident() in self._running and self._monotonic() < self.quiet_until:
            return
        self._reactor.wake()

    # -- the end ---------------------------------------------------------------------------------

    def shutdown(self, *, wait: bool = True) -> None:
        """End the threads, if they are the pool's; with `wait`, return when they have ended.

        Any thread but a worker's. Jobs that run are not interrupted, and queued ones are still run.
        """
        with self._lock:
            self._shut_down = True
            parked, self._parked = self._parked, False
            if parked and self._bell is not None:
                self._bell.ring()
            self._close_bell()
        if self._owns_executor:
            self._executor.shutdown(wait=wait)

    @property
    def waiting(self) -> int:
        """Jobs that wait for a worker. Any thread; a moment old."""
        return len(self._ready)

    def __repr__(self) -> str:
        return (
            f"<WorkerPool {self._worker_size} workers, {self._drains} active, "
            f"{len(self._ready)} jobs waiting>"
        )


def _log_defect(error: BaseException) -> None:
    logger.critical("a job raised; this is a defect", exc_info=error)
