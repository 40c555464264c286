"""What the tests of the monitor share: snapshots, and requests by hand."""

from __future__ import annotations

import http.client
import json
import socket
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from tao.metrics import BUCKET_BOUNDS, MetricsSnapshot
from tao.monitor import Monitor
from tests.support import DEADLINE, wait_until

__all__ = ["NOTHING", "TOKEN", "Answer", "ask", "latest", "status", "status_when"]

TOKEN = "correct-horse-battery-staple"

NOTHING = MetricsSnapshot(
    uptime=0.0,
    connections_total=0,
    connections_open=0,
    bytes_held=0,
    connections_refused=0,
    messages_in=0,
    bytes_in=0,
    bytes_out=0,
    handled=0,
    handler_seconds=0.0,
    handler_histogram=(0,) * (len(BUCKET_BOUNDS) + 1),
    queue_depth=0,
    loop_lag=0.0,
    timers=0,
    wakeups=0,
    passes=0,
    errors={},
)


@dataclass(frozen=True)
class Answer:
    """What a monitor has said."""

    status: int
    headers: dict[str, str]
    text: str


def ask(
    monitor: Monitor, path: str, headers: dict[str, str] | None = None, *, method: str = "GET"
) -> Answer:
    """One request, with these headers and a Host that is right unless they have one."""
    address = ("127.0.0.1", monitor.address[1])
    with closing(http.client.HTTPConnection(*address, timeout=DEADLINE)) as connection:
        connection.request(method, path, headers=headers or {})
        answer = connection.getresponse()
        return Answer(answer.status, dict(answer.getheaders()), answer.read().decode())


def status(monitor: Monitor, query: str = "") -> Any:
    """What `/status` says."""
    answer = ask(monitor, f"/status?{query}")
    assert answer.status == 200, answer
    return json.loads(answer.text)


def status_when(monitor: Monitor, condition: Any, query: str = "") -> Any:
    """The first status of which `condition` is true."""
    found: list[Any] = []

    def holds() -> bool:
        found[:] = [status(monitor, query)]
        return bool(condition(found[0]))

    assert wait_until(holds), found
    return found[0]


def latest(answer: Any, name: str) -> dict[str, float | None]:
    """A server's last point, by the names of its columns."""
    points = answer["servers"][name]["points"]
    return dict(zip(answer["columns"], points[-1], strict=True)) if points else {}


def unused_address() -> tuple[str, int]:
    """Where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address: tuple[str, int] = taken.getsockname()
    return address
