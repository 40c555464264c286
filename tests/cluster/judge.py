"""Who was to hear what, and who has heard it.

Contents: Connection, Heard, Verdict, judge.

Owns no sockets: it is told what was said and heard, with the times, and finds what is wrong.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field

__all__ = ["Connection", "Heard", "Verdict", "judge"]


@dataclass(slots=True)
class Heard:
    """What one connection has heard of another."""

    first: int
    last: int
    missing: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Connection:
    """One connection of a client's: a listener, and a sender."""

    id: int
    server: str = ""
    """The member_id of the server that it has reached."""
    since: float = math.inf
    """When it was welcomed; from then on it hears all."""
    ended: bool = False
    said: list[float] = field(default_factory=list)
    """When it said each of its messages."""
    heard: dict[int, Heard] = field(default_factory=dict)
    doubles: int = 0
    """Messages that were heard again, or too late."""
    received: int = 0
    local_delays: list[float] = field(default_factory=list)
    """Seconds from what was said on the same server to its being heard."""
    remote_delays: list[float] = field(default_factory=list)

    def hear(self, sender: int, number: int) -> None:
        """A message has come."""
        self.received += 1
        known = self.heard.get(sender)
        if known is None:
            self.heard[sender] = Heard(number, number)
        elif number <= known.last:
            self.doubles += 1
        else:
            known.missing.extend(range(known.last + 1, number))
            known.last = number


@dataclass(slots=True)
class Verdict:
    """What was found."""

    findings: list[str] = field(default_factory=list)
    deliveries: int = 0
    missing: Counter[int] = field(default_factory=Counter)
    """By connection: messages that it did not hear, all of them said while Redis was down."""


def judge(connections: list[Connection], outages: list[tuple[float, float]]) -> Verdict:
    """Compare. In `outages` messages may be lost between two servers, and nowhere else."""
    verdict = Verdict()
    for listener in connections:
        verdict.deliveries += listener.received
        if listener.doubles:
            _find(verdict, listener, f"heard {listener.doubles} messages twice, or out of order")
        for sender in connections:
            _judge_pair(verdict, listener, sender, outages)
    _judge_ends(verdict, connections)
    return verdict


def _judge_pair(
    verdict: Verdict,
    listener: Connection,
    sender: Connection,
    outages: list[tuple[float, float]],
) -> None:
    heard = listener.heard.get(sender.id)
    # The first that was said when the listener was there already.
    first = bisect_right(sender.said, listener.since) + 1
    last = len(sender.said)
    missing = list(heard.missing) if heard is not None else []
    if not listener.ended and first <= last:
        begins = last + 1 if heard is None else heard.first
        missing = [*range(first, min(begins, last + 1)), *missing]
        if not sender.ended:
            ends = last if heard is None else heard.last
            missing += range(ends + 1, last + 1)
    for number in missing:
        said = sender.said[number - 1]
        excused = listener.server != sender.server and any(
            begin <= said <= end for begin, end in outages
        )
        if excused:
            verdict.missing[listener.id] += 1
        else:
            _find(verdict, listener, f"did not hear message {number} of {sender.id}")


def _judge_ends(verdict: Verdict, connections: list[Connection]) -> None:
    """All others agree what the last words of a killed server's clients were: all heard them, or none."""
    for sender in connections:
        if not sender.ended:
            continue
        lasts = {
            listener.heard[sender.id].last if sender.id in listener.heard else 0
            for listener in connections
            if not listener.ended and sender.said and listener.since < sender.said[0]
        }
        if len(lasts) > 1:
            _find(verdict, sender, f"was heard up to {sorted(lasts)}, by different listeners")


def _find(verdict: Verdict, connection: Connection, what: str) -> None:
    verdict.findings.append(f"connection {connection.id} on {connection.server[:6]}: {what}")
