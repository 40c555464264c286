"""What a time-out costs, and how late it is: `python -m tests.bench.timers`.

Adding and cancelling with few and with many time-outs resident, in the reactor and in asyncio, round by
round in turn; then 50,000 that expire within one second, in each. Nothing is asserted here: it prints.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import statistics
import time
from collections.abc import Callable
from typing import Protocol

from reactor import Reactor


class Timer(Protocol):
    """The handle of a time-out."""

    def cancel(self) -> object: ...


CallLater = Callable[[float, Callable[[], object]], Timer]


def nothing() -> None:
    """What the time-outs would do, if they came to it."""


def nanoseconds(operation: Callable[[], object], count: int) -> float:
    """The time of one of `count` operations that `operation` does."""
    started = time.perf_counter_ns()
    operation()
    return (time.perf_counter_ns() - started) / count


def costs(call_later: CallLater, delays: list[float]) -> tuple[float, float, float]:
    """Nanoseconds to add one, to cancel one, and to do both in turn (a restart)."""
    added: list[Timer] = []

    def add() -> None:
        for delay in delays:
            added.append(call_later(delay, nothing))

    def cancel() -> None:
        for timer in added:
            timer.cancel()

    def restart() -> None:
        timer = call_later(delays[0], nothing)
        for delay in delays:
            timer.cancel()
            timer = call_later(delay, nothing)
        timer.cancel()

    count = len(delays)
    return nanoseconds(add, count), nanoseconds(cancel, count), nanoseconds(restart, count)


def measure_costs(resident: int, rounds: int, operations: int) -> dict[str, list[float]]:
    """Medians over interleaved rounds, with `resident` time-outs waiting all the while."""
    reactor, loop = Reactor(), asyncio.new_event_loop()
    hosts: dict[str, CallLater] = {"reactor": reactor.call_later, "asyncio": loop.call_later}
    delays = [random.uniform(60, 3600) for _ in range(operations)]
    try:
        for call_later in hosts.values():
            for _ in range(resident):
                call_later(random.uniform(60, 3600), nothing)
        gc.freeze()  # or each round would pay for a collection of what merely waits
        samples: dict[str, list[tuple[float, float, float]]] = {host: [] for host in hosts}
        for _ in range(rounds):
            for host, call_later in hosts.items():
                samples[host].append(costs(call_later, delays))
        return {
            host: [statistics.median(column) for column in zip(*rows, strict=True)]
            for host, rows in samples.items()
        }
    finally:
        gc.unfreeze()
        reactor.close()
        loop.close()


def lateness(
    call_later: CallLater, now: Callable[[], float], run: Callable[[], None], count: int
) -> list[float]:
    """Milliseconds by which each of `count` time-outs within a second was late."""
    late: list[float] = []

    def expect(due: float) -> Callable[[], None]:
        return lambda: late.append((now() - due) * 1e3)

    for _ in range(count):
        delay = random.uniform(0.5, 1.5)
        call_later(delay, expect(now() + delay))
    run()
    return sorted(late)


def reactor_lateness(count: int) -> list[float]:
    reactor = Reactor()
    try:
        reactor.call_later(2.0, reactor.stop)
        return lateness(reactor.call_later, reactor.time, reactor.run, count)
    finally:
        reactor.close()


def asyncio_lateness(count: int) -> list[float]:
    loop = asyncio.new_event_loop()
    try:
        loop.call_later(2.0, loop.stop)
        return lateness(loop.call_later, loop.time, loop.run_forever, count)
    finally:
        loop.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.bench.timers")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--resident", type=int, nargs="+", default=[1_000, 100_000, 1_000_000])
    parser.add_argument("--operations", type=int, default=20_000)
    parser.add_argument("--expiring", type=int, default=50_000)
    options = parser.parse_args()

    print(f"{'resident':>10}  {'host':8}  {'add ns':>8}  {'cancel ns':>9}  {'restart ns':>10}")
    for resident in options.resident:
        measured = measure_costs(resident, options.rounds, options.operations)
        for host, (add, cancel, restart) in measured.items():
            print(f"{resident:>10,}  {host:8}  {add:8.0f}  {cancel:9.0f}  {restart:10.0f}")
        ratios = [a / b for a, b in zip(measured["reactor"], measured["asyncio"], strict=True)]
        print(f"{'':10}  {'ratio':8}  {ratios[0]:8.2f}  {ratios[1]:9.2f}  {ratios[2]:10.2f}")

    print(f"\n{options.expiring:,} within one second: milliseconds late")
    print(f"{'host':8}  {'fired':>7}  {'least':>6}  {'p50':>6}  {'p99':>6}  {'most':>6}")
    for host, late in (
        ("reactor", reactor_lateness(options.expiring)),
        ("asyncio", asyncio_lateness(options.expiring)),
    ):
        at = [late[0], *(late[int(len(late) * share)] for share in (0.5, 0.99)), late[-1]]
        print(f"{host:8}  {len(late):>7,}  " + "  ".join(f"{value:6.2f}" for value in at))


if __name__ == "__main__":
    main()
