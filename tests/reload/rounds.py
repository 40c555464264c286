"""Reloads under load, and what came of them.

Owns the service and the clients of a run.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.reload.clients import Address, Client, Tally, Visitor
from tests.reload.record import RECORD_FILE, handled
from tests.tao.processes.service import Service

__all__ = ["Outcome", "run", "sum_up"]

TARGET = "tests.reload.application:make_server"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The sums of a run."""

    reloads: int
    connections: int
    messages: int
    """That were answered."""
    sent_again: int
    """That came too late for a worker, which said so by FIN, and were answered by another."""
    refused: int
    lost: int
    """Handled, and never answered; or answered, and never handled."""
    twice: int
    """Handled more than once: then a reply had been lost."""
    broken: tuple[str, ...]
    """Whatever else must not be."""

    @property
    def good(self) -> bool:
        """Whether nothing was refused, lost or broken."""
        return not (self.refused or self.lost or self.twice or self.broken)

    def __str__(self) -> str:
        lines = [
            f"{self.reloads} reloads, {self.connections} connections, {self.messages} messages answered",
            f"refused {self.refused}, lost {self.lost}, handled twice {self.twice}, "
            f"sent again after a FIN {self.sent_again}",
            *self.broken[:20],
        ]
        return "\n".join(lines)


def run(
    times: int,
    *,
    workers: int,
    clients: int,
    visitors: int,
    unix: bool = False,
    say: Callable[[str], None],
) -> Outcome:
    """Reload `times` times, each when the one before is over; the clients never pause.

    With `unix` they come by a Unix socket, from which all workers accept.
    """
    with tempfile.TemporaryDirectory(prefix="tao-reload-") as folder:
        record = Path(folder) / "record"
        record.touch()
        os.environ[RECORD_FILE] = str(record)
        try:
            path = str(Path(folder) / "socket") if unix else None
            where = [] if path is None else ["--bind", path]
            arguments = ["--workers", str(workers), *where]
            with Service(*arguments, target=TARGET, bind=not unix) as service:
                service.wait_for("listening on")
                address = path or service.address()
                tallies = _load(service, address, times, clients, visitors, say)
                status = service.stop()
                trouble = [
                    line
                    for line in service.errors.splitlines()
                    if " ERROR " in line or " WARNING " in line or line.startswith("Traceback")
                ]
        finally:
            del os.environ[RECORD_FILE]
        return sum_up(
            times, tallies, handled(record), [*trouble, *([] if status == 0 else ["status"])]
        )


def _load(
    service: Service,
    address: Address,
    times: int,
    clients: int,
    visitors: int,
    say: Callable[[str], None],
) -> list[Tally]:
    end = threading.Event()
    threads: list[Client] = [Client(address, number, end) for number in range(clients)]
    threads += [Visitor(address, clients + number, end) for number in range(visitors)]
    for thread in threads:
        thread.start()
    try:
        for number in range(1, times + 1):
            service.reload()
            say(f"reload {number}: processes {', '.join(map(str, service.workers()))}")
    finally:
        end.set()
        for thread in threads:
            thread.join()
    return [thread.tally for thread in threads]


def sum_up(
    times: int, tallies: list[Tally], records: dict[bytes, int], trouble: list[str]
) -> Outcome:
    """What the clients have seen, held against what the workers have noted."""
    answered: set[bytes] = set().union(*(tally.answered for tally in tallies))
    return Outcome(
        reloads=times,
        connections=sum(tally.connections for tally in tallies),
        messages=len(answered),
        sent_again=sum(tally.unanswered for tally in tallies),
        refused=sum(tally.refused for tally in tallies),
        lost=len(answered ^ set(records)),
        twice=sum(count > 1 for count in records.values()),
        broken=tuple([line for tally in tallies for line in tally.broken] + trouble),
    )
