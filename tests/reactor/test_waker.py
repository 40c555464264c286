"""The wake-up pipe: one byte a sleep, and never one too few."""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from reactor import Reactor, Waker
from tests.interrupting import interrupt
from tests.reactor.support import DEADLINE


@pytest.fixture
def waker() -> Iterator[Waker]:
    made = Waker()
    yield made
    made.close()


def _readable(waker: Waker, timeout: float = 0.0) -> bool:
    return bool(select.select([waker], [], [], timeout)[0])


def test_a_new_waker_is_not_armed(waker: Waker) -> None:
    waker.wake()
    assert not _readable(waker)


def test_a_wake_makes_it_readable(waker: Waker) -> None:
    waker.arm()
    assert not _readable(waker)
    waker.wake()
    assert _readable(waker)
    waker.disarm()
    waker.drain()
    assert not _readable(waker)
    assert waker.wakeups == 1


def test_one_byte_an_arm_however_many_wakes(waker: Waker) -> None:
    threads = 8
    for round_ in range(1, 6):
        waker.arm()
        gate = threading.Barrier(threads)

        def wake_often(gate: threading.Barrier = gate) -> None:
            gate.wait(DEADLINE)
            for _ in range(200):
                waker.wake()

        others = [threading.Thread(target=wake_often) for _ in range(threads)]
        for other in others:
            other.start()
        for other in others:
            other.join(DEADLINE)
        waker.disarm()
        waker.drain()
        assert waker.wakeups == round_


def test_arming_twice_is_once(waker: Waker) -> None:
    waker.arm()
    waker.arm()
    waker.wake()
    waker.wake()
    waker.drain()
    assert waker.wakeups == 1


def test_disarmed_it_writes_nothing(waker: Waker) -> None:
    waker.arm()
    waker.disarm()
    waker.disarm()
    waker.wake()
    assert not _readable(waker)


def test_draining_an_empty_pipe_is_harmless(waker: Waker) -> None:
    waker.drain()
    assert waker.wakeups == 0


def test_a_full_pipe_is_harmless(waker: Waker) -> None:
    """It is readable, which is all that is wanted. Nobody drains it here, which no loop would do."""
    size = 200_000  # more than a pipe holds, unless it is told to (pipe(7): 16 pages)
    for _ in range(size):
        waker.arm()
        waker.wake()
    assert _readable(waker)
    waker.drain()
    assert 0 < waker.wakeups < size


def test_waking_after_close_is_harmless() -> None:
    waker = Waker()
    waker.arm()
    waker.close()
    waker.wake()
    waker.close()


def test_waking_while_it_is_closed_is_harmless() -> None:
    """The descriptor may be another's by now: a byte must not go there."""
    waker = Waker()
    waker.arm()
    waker.close()
    reader, writer = os.pipe()  # takes the numbers that have just come free
    try:
        os.set_blocking(reader, False)
        waker.wake()
        with pytest.raises(BlockingIOError):
            os.read(reader, 1)
    finally:
        os.close(reader)
        os.close(writer)


def test_close_releases_the_descriptors() -> None:
    waker = Waker()
    number = waker.fileno()
    waker.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)


def test_one_that_nobody_closed_closes_itself() -> None:
    waker = Waker()
    number = waker.fileno()
    del waker
    gc.collect()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)


@pytest.mark.skipif(sys.platform == "win32", reason="a question of POSIX")
def test_the_descriptor_is_not_inherited(waker: Waker) -> None:
    assert not os.get_inheritable(waker.fileno())
    assert not os.get_blocking(waker.fileno())


def test_no_wake_up_is_lost() -> None:
    """Threads post and wake; the loop sleeps without a time-out of its own that could save it.

    Each thread posts its next item only when the last one was taken: were one wake-up lost, all
    would soon stand still, with the loop asleep.
    """
    waker = Waker()
    queue: deque[tuple[int, threading.Event | None]] = deque()
    threads, end = 4, time.monotonic() + 1.0
    posted = [0] * threads

    def post(number: int) -> None:
        taken = threading.Event()
        while time.monotonic() < end:
            taken.clear()
            posted[number] += 1
            queue.append((number, taken))
            waker.wake()
            if not taken.wait(2 * DEADLINE):
                return
        queue.append((number, None))  # it has finished
        waker.wake()

    others = [threading.Thread(target=post, args=(number,)) for number in range(threads)]
    for other in others:
        other.start()
    taken = [0] * threads
    finished = lost = 0
    while finished < threads:
        waker.arm()
        if not queue and not _readable(waker, DEADLINE):
            lost += 1
        waker.disarm()
        waker.drain()
        while queue:
            number, event = queue.popleft()
            if event is None:
                finished += 1
            else:
                taken[number] += 1
                event.set()
    for other in others:
        other.join(DEADLINE)
    waker.close()

    assert lost == 0
    assert taken == posted
    assert min(taken) > 0
    assert waker.wakeups <= sum(taken) + threads


def test_at_the_interpreter_s_end_it_stays_open() -> None:
    """A loop on a daemon thread still reads from it, and would say that it cannot."""
    program = (
        "import atexit, os\n"
        # Registered before the first finalizer, and so called after all of them.
        "atexit.register(lambda: print(os.fstat(waker.fileno()).st_mode))\n"
        "from reactor.waker import Waker\n"
        "waker = Waker()\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=True,
    )
    assert ended.stderr == ""
    assert ended.stdout


# -- signals -------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="the system has no signal masks")
def test_a_signal_that_another_thread_gets_wakes_the_loop() -> None:
    """The system does not end the main thread's sleep for it; its handler is to run all the same."""
    reactor = Reactor()
    seen: list[int] = []
    gone = threading.Event()

    def handle(number: int, _frame: object) -> None:
        seen.append(number)
        reactor.stop()

    def receive() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
        time.sleep(0.1)  # if the loop does not sleep by now, the test shows nothing, and passes
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
        gone.wait(DEADLINE)  # a thread that ends could be what wakes the other

    def give_up() -> None:
        reactor.call_soon_threadsafe(reactor.stop)

    before = signal.signal(signal.SIGUSR1, handle)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    watchdog = threading.Timer(DEADLINE, give_up)
    watchdog.start()
    try:
        thread = threading.Thread(target=receive)
        reactor.call_soon(thread.start)
        started = time.monotonic()
        reactor.run()
        assert seen == [signal.SIGUSR1]
        assert time.monotonic() - started < DEADLINE / 2
    finally:
        watchdog.cancel()
        gone.set()
        thread.join()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGUSR1, before)
        reactor.close()
    assert signal.set_wakeup_fd(-1) == -1, "nothing is left behind"


def test_what_somebody_else_has_asked_of_signals_stays() -> None:
    reactor = Reactor()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        signal.set_wakeup_fd(theirs.fileno())
        try:
            reactor.call_soon(reactor.stop)
            reactor.run()
        finally:
            assert signal.set_wakeup_fd(-1) == theirs.fileno()
    reactor.close()


@pytest.mark.skipif(sys.platform == "win32", reason="NOT TESTED: there it is no pipe")
def test_ctrl_c_in_a_wake_after_the_close_writes_to_nobody(tmp_path: Path) -> None:
    """The numbers of its descriptors are other files' by then."""
    waker = Waker()
    waker.close()
    with ExitStack() as files:
        opened = [files.enter_context(open(tmp_path / str(n), "wb", buffering=0)) for n in range(4)]
        place = 0
        while interrupt(waker.wake, place):
            place += 1
        assert place > 0
        assert [os.fstat(file.fileno()).st_size for file in opened] == [0] * 4
