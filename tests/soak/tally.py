"""What has happened so far. Any thread."""

from __future__ import annotations

import threading
from collections import Counter

__all__ = ["Tally"]

MOST = 50
"""Findings that are kept; one that comes with every message says nothing new."""


class Tally:
    """Counts of what went well, and the list of what did not."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._conversations: Counter[str] = Counter()
        self._messages: Counter[str] = Counter()
        self._findings: list[str] = []
        self._count = 0

    def add(self, actor: str, messages: int) -> None:
        """A conversation has gone as it should, with so many messages back."""
        with self._lock:
            self._conversations[actor] += 1
            self._messages[actor] += messages

    def find(self, text: str) -> None:
        """Something is wrong."""
        with self._lock:
            self._count += 1
            if len(self._findings) < MOST:
                self._findings.append(text)

    @property
    def findings(self) -> list[str]:
        """What is wrong, as far as it was kept."""
        with self._lock:
            return list(self._findings)

    @property
    def finding_count(self) -> int:
        """How often something was wrong."""
        return self._count

    @property
    def totals(self) -> tuple[int, int]:
        """Conversations and messages of all actors."""
        with self._lock:
            return sum(self._conversations.values()), sum(self._messages.values())

    def by_actor(self) -> list[tuple[str, int, int]]:
        """Name, conversations, messages; in the order of the names."""
        with self._lock:
            return [
                (actor, count, self._messages[actor])
                for actor, count in sorted(self._conversations.items())
            ]
