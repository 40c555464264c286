"""Reloads under load, and what came of them.

Owns the services and the clients of a run: one in plain TCP, and one by TLS.
"""

from __future__ import annotations

import os
import ssl
import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from tests.reload.clients import Address, Client, Tally, Visitor
from tests.reload.record import RECORD_FILE, handled
from tests.tao.processes.service import Service
from tests.tls_support import Certificates, peer_context

__all__ = ["Crowd", "Outcome", "run", "sum_up"]

TARGET = "tests.reload.application:make_server"

Part: TypeAlias = "tuple[Service, Address, ssl.SSLContext | None, Crowd]"
"""A service, where it is and by what TLS, if by any, and who comes to it."""


@dataclass(frozen=True, slots=True)
class Crowd:
    """Who comes to a service."""

    clients: int
    """That stay connected."""
    visitors: int
    """That connect all the time."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The sums of a run."""

    reloads: int
    connections: int
    messages: int
    """That were answered."""
    sent_again: int
    """That came too late for a worker, which said so by FIN, and were answered by another."""
    unheard: int
    """Connections of which that FIN was all that came; to none of them anything had been sent in time."""
    handshakes: int
    """Of TLS."""
    broken_off: int
    """Of these, in the middle."""
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
        return not (self.refused or self.broken_off or self.lost or self.twice or self.broken)

    def __str__(self) -> str:
        lines = [
            f"{self.reloads} reloads, {self.connections} connections, {self.messages} messages answered",
            f"refused {self.refused}, lost {self.lost}, handled twice {self.twice}, "
            f"sent again after a FIN {self.sent_again}",
            f"{self.handshakes} TLS handshakes, broken off {self.broken_off}; "
            f"connections that heard nothing but a FIN {self.unheard}",
            *self.broken[:20],
        ]
        return "\n".join(lines)


def run(
    times: int,
    *,
    workers: int,
    plain: Crowd,
    secure: Crowd,
    unix: bool = False,
    say: Callable[[str], None],
) -> Outcome:
    """Reload `times` times, each when the one before is over; the clients never pause.

    With `unix` they come by Unix sockets, from which all workers accept.
    """
    with tempfile.TemporaryDirectory(prefix="tao-reload-") as name:
        folder = Path(name)
        record = folder / "record"
        record.touch()
        certificates = Certificates(folder)
        os.environ[RECORD_FILE] = str(record)
        try:
            with ExitStack() as stack:
                parts: list[Part] = []
                for crowd, certificate in ((plain, None), (secure, certificates.server_file)):
                    path = folder / f"socket{len(parts)}" if unix else None
                    service = stack.enter_context(_serve(workers, path, certificate))
                    context = None if certificate is None else peer_context(certificates)
                    address = service.address() if path is None else str(path)
                    parts.append((service, address, context, crowd))
                tallies = _load(parts, times, say)
                services = [part[0] for part in parts]
                statuses = [service.stop() for service in services]
                trouble = [
                    line
                    for service in services
                    for line in service.errors.splitlines()
                    if " ERROR " in line or " WARNING " in line or line.startswith("Traceback")
                ]
        finally:
            del os.environ[RECORD_FILE]
        trouble += [f"status {status}" for status in statuses if status]
        return sum_up(times, tallies, handled(record), trouble)


def _serve(workers: int, path: Path | None, certificate: Path | None) -> Service:
    arguments = ["--workers", str(workers)]
    if path is not None:
        arguments += ["--bind", str(path)]
    if certificate is not None:
        arguments += ["--tls-cert", str(certificate)]
    return Service(*arguments, target=TARGET, bind=path is None)


def _load(
    parts: list[Part],
    times: int,
    say: Callable[[str], None],
) -> list[Tally]:
    end = threading.Event()
    threads: list[Client] = []
    for service, address, context, crowd in parts:
        service.wait_for("listening on")
        for make, count in ((Client, crowd.clients), (Visitor, crowd.visitors)):
            threads += [make(address, len(threads) + more, end, context) for more in range(count)]
    for thread in threads:
        thread.start()
    try:
        for number in range(1, times + 1):
            workers = []
            for service, *_ in parts:
                service.reload()
                workers += service.workers()
            say(f"reload {number}: processes {', '.join(map(str, workers))}")
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
        unheard=sum(tally.unheard for tally in tallies),
        handshakes=sum(tally.handshakes for tally in tallies),
        broken_off=sum(tally.broken_off for tally in tallies),
        refused=sum(tally.refused for tally in tallies),
        lost=len(answered ^ set(records)),
        twice=sum(count > 1 for count in records.values()),
        broken=tuple([line for tally in tallies for line in tally.broken] + trouble),
    )
