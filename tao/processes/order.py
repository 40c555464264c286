"""What a worker is told when it is started.

Owns the value and its way into the worker's command line, as JSON. Immutable; any thread.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Order"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a worker serves, and with which inherited descriptors."""

    target: str
    """The application, as `load_server` takes it."""
    slot: int
    """The worker's place among its like, from 0."""
    control: int
    """The descriptor of its line to the parent."""
    listeners: tuple[int, ...]
    """The descriptors of the sockets to accept from."""
    spare: dict[int, tuple[int, ...]]
    """Those of the other slots, by slot, in case that one of these has no worker."""
    grace: float
    """Seconds to finish in when the parent is gone."""
    log_level: str
    """A level's name, for the root logger."""
    app_dir: str
    """The folder to import the application from."""
    tls_certificate: str | None = None
    """The file with the server's certificate; None leaves the server's own TLS as it is."""
    tls_key: str | None = None
    """The file with its key, if it is not in the same."""
    proxy_protocol: bool = False
    """Whether a proxy connects, and says first for whom."""
    trusted_proxies: tuple[str, ...] = ()
    """Who may be one, for TCP; empty: everybody."""
    monitor: int | None = None
    """The descriptor of the socket on which its numbers are shown."""

    def descriptors(self) -> tuple[int, ...]:
        """All that are to be inherited, each once."""
        spare = [number for numbers in self.spare.values() for number in numbers]
        monitor = [] if self.monitor is None else [self.monitor]
        return tuple(dict.fromkeys([self.control, *self.listeners, *spare, *monitor]))

    def dump(self) -> str:
        """As one argument of a command line."""
        return json.dumps(asdict(self))

    @classmethod
    def load(cls, text: str) -> Order:
        """What `dump` has made a text of."""
        values: dict[str, Any] = json.loads(text)
        for name in ("listeners", "trusted_proxies"):
            values[name] = tuple(values[name])
        values["spare"] = {int(slot): tuple(fds) for slot, fds in values["spare"].items()}
        return cls(**values)
