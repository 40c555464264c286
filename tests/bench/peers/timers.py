"""Time-outs on one loop: what they cost, what memory they hold, how late they are.

Takes one request a line on standard input, as JSON, and answers with a line of figures. Everything is
measured on the loop's own thread while it runs, which is where a server's time-outs come and go.
"""

import asyncio
import gc
import importlib
import json
import random
import sys
import time
import tracemalloc
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol

from reactor import Reactor
from tests.bench.peers.common import announce, peer_parser, prepare_process

Figures = dict[str, float]

# The loop makes a pass after so many operations: there asyncio sweeps out what was cancelled, and
# uvloop closes it. It is part of the time.
OPERATIONS_PER_PASS = 1_000
SHORTEST, LONGEST = 60.0, 3600.0  # seconds; nothing that is only added or cancelled expires
EARLIEST, LATEST = 0.5, 1.5  # seconds until what shall expire does: longer than it takes to add all
SPARE = 10.0  # seconds after which what has not expired never will
LOOK_EVERY = 0.1  # seconds between two looks whether all have expired


class Timer(Protocol):
    """The handle of a time-out."""

    def cancel(self) -> object: ...


@dataclass(frozen=True, slots=True)
class Host:
    """A loop, by what is used of it here."""

    call_soon: Callable[[Callable[[], object]], object]
    call_later: Callable[[float, Callable[[], object]], Timer]
    run: Callable[[], None]
    stop: Callable[[], None]
    close: Callable[[], None]


def host_named(name: str) -> Host:
    """A new loop."""
    if name == "reactor":
        reactor = Reactor()
        return Host(reactor.call_soon, reactor.call_later, reactor.run, reactor.stop, reactor.close)
    # By name, so that the type checker needs no uvloop.
    module = asyncio if name == "asyncio" else importlib.import_module("uvloop")
    loop = module.new_event_loop()
    return Host(loop.call_soon, loop.call_later, loop.run_forever, loop.stop, loop.close)


def run_passes(host: Host, steps: Iterator[None]) -> None:
    """Run `steps` on the loop, which makes a pass at each `yield`. Raises what they raise."""
    failures: list[BaseException] = []

    def go_on() -> None:
        try:
            next(steps)
        except StopIteration:
            host.stop()
        except BaseException as error:  # loops log it, or end, as each of them likes
            failures.append(error)
            host.stop()
        else:
            host.call_soon(go_on)

    host.call_soon(go_on)
    host.run()
    if failures:
        raise failures[0]


def nothing() -> None:
    """What the time-outs would do, if they came to it."""


def far_off(count: int) -> list[float]:
    """Delays of time-outs that will not be reached."""
    return [random.uniform(SHORTEST, LONGEST) for _ in range(count)]


# -- what they cost ------------------------------------------------------------------------------


def cost(host: Host, operation: str, count: int, resident: int, seconds: float) -> Figures:
    """Nanoseconds that one operation takes, on average over about so many seconds."""
    figures: Figures = {}
    steps = restarts if operation == "restart" else adds_and_cancels
    run_passes(host, steps(host, operation, count, resident, seconds, figures))
    return figures


def adds_and_cancels(
    host: Host, operation: str, count: int, resident: int, seconds: float, figures: Figures
) -> Iterator[None]:
    """Add `count`, cancel them, and again; the time of either goes by its name."""
    call_later = host.call_later
    for delay in far_off(resident):
        call_later(delay, nothing)
    delays = far_off(count)
    timers: deque[Timer] = deque()
    gc.freeze()  # or the operations would pay for collections of what merely waits
    yield
    took = {"add": 0.0, "cancel": 0.0}
    rounds = 0
    while not rounds or sum(took.values()) < seconds:
        rounds += 1
        started = time.perf_counter()
        for start in range(0, count, OPERATIONS_PER_PASS):
            for delay in delays[start : start + OPERATIONS_PER_PASS]:
                timers.append(call_later(delay, nothing))
            yield
        added = time.perf_counter()
        while timers:
            for _ in range(min(len(timers), OPERATIONS_PER_PASS)):
                timers.popleft().cancel()
            yield
        took["add"] += added - started
        took["cancel"] += time.perf_counter() - added
    figures["ns_each"] = took[operation] / (rounds * count) * 1e9


def restarts(
    host: Host, operation: str, count: int, resident: int, seconds: float, figures: Figures
) -> Iterator[None]:
    """Put off each of those resident in its turn: `count` of them, and again."""
    call_later = host.call_later
    timers = deque(call_later(delay, nothing) for delay in far_off(resident))
    delays = far_off(count)
    gc.freeze()
    yield
    took = 0.0
    rounds = 0
    while not rounds or took < seconds:
        rounds += 1
        started = time.perf_counter()
        for start in range(0, count, OPERATIONS_PER_PASS):
            for delay in delays[start : start + OPERATIONS_PER_PASS]:
                timers.popleft().cancel()
                timers.append(call_later(delay, nothing))
            yield
        took += time.perf_counter() - started
    figures["ns_each"] = took / (rounds * count) * 1e9


# -- what memory they hold -----------------------------------------------------------------------


def memory(host: Host, operation: str, count: int, resident: int) -> Figures:
    """Bytes that an operation leaves allocated: when all have been done, and a pass later.

    Of an addition that is the time-out itself; of a cancellation and a restart, what is not given back.
    """
    figures: Figures = {}
    tracemalloc.start()
    try:
        run_passes(host, held(host, operation, count, resident, figures))
    finally:
        tracemalloc.stop()
    return figures


def held(host: Host, operation: str, count: int, resident: int, figures: Figures) -> Iterator[None]:
    waiting = [host.call_later(delay, nothing) for delay in far_off(resident)]
    delays = far_off(count)
    timers: list[Timer | None] = [None] * count
    yield
    before, _ = tracemalloc.get_traced_memory()
    for index, delay in enumerate(delays):
        if operation == "restart":
            waiting[index].cancel()
            waiting[index] = host.call_later(delay, nothing)
            continue
        timers[index] = host.call_later(delay, nothing)
    if operation == "cancel":
        for index in range(count):
            forget(timers, index)
    at_once, _ = tracemalloc.get_traced_memory()
    yield
    soon, _ = tracemalloc.get_traced_memory()
    figures["bytes_at_once"] = (at_once - before) / count
    figures["bytes_soon"] = (soon - before) / count


def forget(timers: list[Timer | None], index: int) -> None:
    """Cancel one, and leave no reference to it behind."""
    timer = timers[index]
    assert timer is not None
    timer.cancel()
    timers[index] = None


# -- how late they are ---------------------------------------------------------------------------


def lateness(host: Host, count: int) -> Figures:
    """By how many milliseconds `count` time-outs within one second were late, in quantiles.

    One clock for all hosts; a time-out that was early has been late by less than nothing.
    """
    now = time.monotonic
    late: list[float] = []
    cpu = [0.0]

    def expect(due: float) -> Callable[[], None]:
        return lambda: late.append(now() - due)

    def add_all() -> None:
        for _ in range(count):
            delay = random.uniform(EARLIEST, LATEST)
            host.call_later(delay, expect(now() + delay))
        cpu[0] = time.process_time()
        deadline = now() + LATEST + SPARE

        def look() -> None:
            if len(late) < count and now() < deadline:
                host.call_later(LOOK_EVERY, look)
            else:
                host.stop()

        host.call_later(LATEST, look)

    host.call_soon(add_all)
    host.run()
    if len(late) != count:
        raise SystemExit(f"{len(late)} of {count} time-outs have expired")
    used = time.process_time() - cpu[0]
    late.sort()
    quantiles = {f"p{share}_ms": late[count * share // 100] * 1e3 for share in (50, 99)}
    return {
        "least_ms": late[0] * 1e3,
        **quantiles,
        "max_ms": late[-1] * 1e3,
        "cpu_us_each": used / count * 1e6,
    }


def answer(host_name: str, request: dict[str, Any]) -> Figures:
    """The figures of one request, each on a loop of its own."""
    operation, count, resident = request["operation"], request["count"], request["resident"]
    with closing(host_named(host_name)) as host:
        if operation == "expire":
            return lateness(host, count)
        figures = cost(host, operation, count, resident, request["seconds"])
    with closing(host_named(host_name)) as host:
        return {**figures, **memory(host, operation, count, resident)}


def main() -> None:
    parser = peer_parser("timers")
    parser.add_argument("--host", choices=("reactor", "asyncio", "uvloop"), default="reactor")
    options = parser.parse_args()
    prepare_process(options.cpu)
    random.seed(1)  # the same delays for all
    announce(0)
    for line in sys.stdin:
        print(json.dumps(answer(options.host, json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
