"""The JSON that the live page and `tao monitor` ask for.

Contents: status_page, Query.

Owns the form of it. What a field means is said where it comes from, in `tao.metrics`,
`tao.monitor.series` and `tao.monitor.watch`. On the request's thread.
"""

from __future__ import annotations

import json
import math
import os
import platform
import threading
import time
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

from tao.metrics import MetricsSnapshot
from tao.monitor.pages import JSON, Page, text_page
from tao.monitor.sampler import TICKS, Sampler, Watched
from tao.monitor.series import COLUMNS
from tao.monitor.watch import SORTS

__all__ = ["status_page"]

MOST_ROWS = 500
"""Connections in one answer."""


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked for. All of it may be left out."""

    server: str | None = None
    """The source whose connections and handlers are wanted; the first, if there is none of that name."""
    sort: str = "bytes"
    """In which order: one of SORTS."""
    limit: int = 50
    """How many connections."""
    since: float = -1.0
    """Points after that time only, in seconds as they have it."""


def status_page(sampler: Sampler, text: str) -> Page:
    """The answer to a query. It begins the gathering, if nobody else has asked lately."""
    try:
        query = _parse(text)
    except ValueError as error:
        return text_page(HTTPStatus.BAD_REQUEST, str(error))
    watched, age = sampler.look()
    chosen = query.server if query.server in watched else next(iter(watched), None)
    found: dict[str, Any] = {
        "monitor": {
            "id": sampler.id,
            "time": round(sampler.time, 3),
            "unix": time.time(),
            "age": age,
            "interval": sampler.interval,
            "timed_per_second": TICKS,
            "pid": os.getpid(),
            "python": platform.python_version(),
            "threads": threading.active_count(),
        },
        "columns": COLUMNS,
        "sorts": list(SORTS),
        "shown": chosen,
        "servers": {name: _server(each, query.since) for name, each in watched.items()},
        "handlers": [],
        "connections": None,
    }
    server = None if chosen is None else watched[chosen].server
    if server is not None:
        found["handlers"] = server.handlers()
        found["connections"] = server.connections(query.sort, query.limit)
    return Page(JSON, json.dumps(found, separators=(",", ":"), allow_nan=False).encode("ascii"))


def _parse(text: str) -> Query:
    """Raises ValueError, with a text for whoever has asked."""
    given = dict(parse_qsl(text, max_num_fields=16))
    query = Query(server=given.get("server"))
    changes: dict[str, Any] = {}
    if "sort" in given:
        if given["sort"] not in SORTS:
            raise ValueError(f"sort must be one of {', '.join(SORTS)}; not {given['sort']!r}")
        changes["sort"] = given["sort"]
    if "limit" in given:
        if not (given["limit"].isdecimal() and len(given["limit"]) < 9):
            raise ValueError(f"limit is a number of connections, not {given['limit']!r}")
        changes["limit"] = min(int(given["limit"]), MOST_ROWS)
    if "since" in given:
        try:
            changes["since"] = float(given["since"])
        except ValueError:
            changes["since"] = math.nan
        if not math.isfinite(changes["since"]):
            raise ValueError(
                f"since is a number of seconds, as points have it, not {given['since']!r}"
            )
    return replace(query, **changes)


def _server(watched: Watched, since: float) -> dict[str, Any]:
    last = watched.series.last
    return {
        "now": None if last is None else _totals(last),
        "made": None if watched.server is None else watched.server.facts(),
        "points": watched.series.since(since),
    }


def _totals(snapshot: MetricsSnapshot) -> dict[str, Any]:
    """What a chart does not show."""
    return {
        "uptime": snapshot.uptime,
        "connections_total": snapshot.connections_total,
        "connections_refused": snapshot.connections_refused,
        "messages_in": snapshot.messages_in,
        "bytes_in": snapshot.bytes_in,
        "bytes_out": snapshot.bytes_out,
        "handled": snapshot.handled,
        "handler_seconds": snapshot.handler_seconds,
        "timers": snapshot.timers,
        "wakeups": snapshot.wakeups,
        "passes": snapshot.passes,
        "errors": dict(snapshot.errors),
        "backplane": dict(snapshot.backplane),
    }
