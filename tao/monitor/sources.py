"""Where a monitor's numbers come from.

Owns the functions, by name, in the order in which they were added, and what is done about one that fails.
Any thread.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TypeAlias

from tao.errors import NotRegisteredError
from tao.metrics import MetricsSnapshot

__all__ = ["Source", "Sources", "snapshot_of"]

logger: logging.Logger = logging.getLogger("tao")

Source: TypeAlias = Callable[[], MetricsSnapshot]


class Sources:
    """The sources of one monitor."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_name: dict[str, Source] = {}  # under the lock

    def add(self, name: str, source: Source) -> None:
        """See `Monitor.add`."""
        if not name or not name.isprintable():
            raise ValueError(f"a source's name is some printable text, not {name!r}")
        if not callable(source):
            raise TypeError(
                f"a source is a function that returns a MetricsSnapshot, such as server.metrics "
                f"without parentheses; not {source!r}"
            )
        with self._lock:
            if name in self._by_name:
                raise ValueError(f"there is a source {name!r} already; remove it first")
            self._by_name[name] = source

    def remove(self, name: str) -> None:
        """See `Monitor.remove`."""
        with self._lock:
            if self._by_name.pop(name, None) is None:
                raise NotRegisteredError(
                    f"there is no source {name!r}; it must have been added under this name"
                )

    def items(self) -> list[tuple[str, Source]]:
        """Those that there are at this moment."""
        with self._lock:
            return list(self._by_name.items())

    def snapshots(self) -> dict[str, MetricsSnapshot]:
        """What they say now, without those that fail."""
        found = {}
        for name, source in self.items():
            snapshot = snapshot_of(name, source)
            if snapshot is not None:
                found[name] = snapshot
        return found


def snapshot_of(name: str, source: Source) -> MetricsSnapshot | None:
    """What it says now; None if it fails, which is logged."""
    try:
        snapshot: object = source()
    except Exception:
        logger.exception("the monitor leaves out %r: its source raised", name)
        return None
    if isinstance(snapshot, MetricsSnapshot):
        return snapshot
    logger.error(
        "the monitor leaves out %r: its source returned no MetricsSnapshot but %r", name, snapshot
    )
    return None
