"""The actors at work, round after round, and a look at everything in between.

Contents: Soak, Result.
"""

from __future__ import annotations

import logging
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.soak.actors import Actors
from tests.soak.gauges import Sample, growth, memory_growth, sample
from tests.soak.services import WORKERS, Services, Watch
from tests.soak.tally import Tally
from tests.support import DEADLINE, Peer, frame, wait_until
from tests.tls_support import Certificates

__all__ = ["Result", "Soak"]

STUCK = 30.0
"""Seconds after which an actor that was told to end is stuck: each of its waits has a deadline."""


@dataclass(frozen=True, slots=True)
class Result:
    """What has come of it."""

    tally: Tally
    samples: list[Sample]
    """After each round."""
    warm_up: int
    """How many of them were the warm-up's."""
    seconds: float
    processor_seconds: float
    most_pending: int
    """Bytes that waited to be sent at one moment, at the most."""
    closed: int
    """Connections that the servers have had."""

    def summary(self) -> str:
        """For people."""
        conversations, messages = self.tally.totals
        lines = [
            f"{self.seconds:.0f} s, {len(self.samples)} rounds, the first {self.warm_up} to warm up; "
            f"{self.processor_seconds / self.seconds:.2f} of one processor",
            f"{conversations:,} conversations, {messages:,} messages back, "
            f"{self.closed:,} connections closed at the servers",
            "",
        ]
        for actor, count, back in self.tally.by_actor():
            lines.append(f"  {actor:24} {count:10,} conversations {back:12,} messages")
        lines.append("")
        steady = self.samples[self.warm_up :]
        if steady:
            first, last = steady[0], steady[-1]
            lines += [
                f"  memory       {_mib(first.memory)} after the warm-up, {_mib(last.memory)} at the "
                f"end; medians of thirds differ by {memory_growth(steady) / (1 << 20):+.2f} MiB",
                f"  descriptors  {first.descriptors}, {last.descriptors}",
                f"  threads      {first.threads}, {last.threads}",
                f"  timers       {first.timers}, {last.timers}",
                f"  pending      0 bytes after every round, {_mib(self.most_pending)} at the most",
            ]
        lines += ["", f"{self.tally.finding_count} findings"]
        lines += [f"  {text}" for text in self.tally.findings]
        return "\n".join(lines)


class Soak:
    """So many seconds of rounds. `say` is given a line of progress after each."""

    def __init__(self, seconds: float, say: Callable[[str], object], *, seed: int) -> None:
        self._seconds = seconds
        self._say = say
        self._seed = seed
        # Enough rounds for thirds of them to be compared, none so long that nothing is heard of it.
        self._round = min(15.0, max(0.5, seconds / 20))
        self._tally = Tally()
        self._samples: list[Sample] = []
        self._most_pending = 0

    def run(self) -> Result:
        """All of it; blocks."""
        begun, processor = time.monotonic(), time.process_time()
        watch = Watch(self._tally)
        loggers = [logging.getLogger(name) for name in ("tao", "reactor")]
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            for logger in loggers:
                logger.addHandler(watch)
                stack.callback(logger.removeHandler, watch)
                stack.callback(setattr, logger, "propagate", logger.propagate)
                logger.propagate = False
            services = stack.enter_context(Services(watch, Certificates(Path(folder))))
            _have_all_workers(services)
            actors = Actors(services, self._tally)
            rounds = 0
            while time.monotonic() - begun < self._seconds or rounds < 3:
                rounds += 1
                self._run_round(services, actors, rounds)
                self._say(self._progress(time.monotonic() - begun, rounds))
                if any("stuck" in finding for finding in self._tally.findings):
                    break
        warm_up = max(1, len(self._samples) // 5)
        for finding in growth(self._samples[warm_up:]):
            self._tally.find(finding)
        return Result(
            self._tally,
            self._samples,
            warm_up,
            time.monotonic() - begun,
            time.process_time() - processor,
            self._most_pending,
            watch.closed,
        )

    def _run_round(self, services: Services, actors: Actors, number: int) -> None:
        over = threading.Event()
        publishing = threading.Event()
        threads = [
            threading.Thread(
                target=actors.run,
                name=f"soak: {name}",
                args=(name, conversation, self._seed + number * 1000 + index, over),
                daemon=True,  # one that is stuck is told of, and does not hold up the end
            )
            for index, (name, conversation) in enumerate(actors.conversations)
        ]
        publisher = threading.Thread(target=actors.publish, args=(publishing,), daemon=True)
        before = threading.active_count()
        for thread in [*threads, publisher]:
            thread.start()
        end = time.monotonic() + self._round
        while time.monotonic() < end:
            time.sleep(0.05)
            self._most_pending = max(self._most_pending, services.pending)
        over.set()
        deadline = time.monotonic() + STUCK
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                self._tally.find(f"{thread.name} is stuck")
        publishing.set()  # only now: a subscriber waits for the news that it has ordered
        publisher.join(DEADLINE)
        for left in services.settle():
            self._tally.find(f"after round {number}: {left}")
        wait_until(lambda: threading.active_count() <= before)
        self._samples.append(sample(services.timers))

    def _progress(self, elapsed: float, rounds: int) -> str:
        last = self._samples[-1]
        conversations, messages = self._tally.totals
        return (
            f"{elapsed:6.0f} s  round {rounds:3}  {conversations:9,} conversations "
            f"{messages:11,} messages  {_mib(last.memory)}, {last.descriptors} descriptors, "
            f"{last.threads} threads  {self._tally.finding_count} findings"
        )


def _have_all_workers(services: Services) -> None:
    """Executors make their threads one by one, as they are needed: have all of them from the start."""
    for server in services.all:
        assert server._pool is not None
        executor = server._pool._executor
        together = threading.Barrier(WORKERS)
        for future in [executor.submit(together.wait, DEADLINE) for _ in range(WORKERS)]:
            future.result(DEADLINE)
    # And what a pool has for its first worker without work.
    with Peer(services.plain_address) as peer:
        peer.send(frame(1))
        peer.receive_frame()


def _mib(size: float) -> str:
    return f"{size / (1 << 20):.1f} MiB"
