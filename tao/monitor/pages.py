"""What a monitor answers, but for what its live page asks for.

Contents: Page, index_page, vars_page, prometheus_page, text_page.

Owns the form of the answers, and no numbers: those come as snapshots. Any thread.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import importlib.resources
import json
import logging
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from itertools import accumulate
from typing import Any, TypeAlias

from tao.metrics import BUCKET_BOUNDS, MetricsSnapshot

__all__ = [
    "JSON",
    "Page",
    "index_page",
    "prometheus_page",
    "text_page",
    "vars_page",
]

logger: logging.Logger = logging.getLogger("tao")

TEXT = "text/plain; charset=utf-8"
HTML = "text/html; charset=utf-8"
JSON = "application/json; charset=utf-8"  # as Go's expvar says it

_Number: TypeAlias = Callable[[MetricsSnapshot], float]

# Name, meaning, value. For the names see https://prometheus.io/docs/practices/naming/. What is not
# here are the histogram of handler time, the errors, which have a label for their kind, and what the link
# to other servers counts, likewise.
COUNTERS: tuple[tuple[str, str, _Number], ...] = (
    ("tao_connections_total", "Connections accepted.", lambda now: now.connections_total),
    ("tao_connections_refused_total", "Refused: no room.", lambda now: now.connections_refused),
    ("tao_messages_received_total", "Messages received.", lambda now: now.messages_in),
    ("tao_messages_handled_total", "Handlers that have ended.", lambda now: now.handled),
    ("tao_bytes_received_total", "Bytes that the sockets gave.", lambda now: now.bytes_in),
    ("tao_bytes_sent_total", "Bytes that the sockets took.", lambda now: now.bytes_out),
    ("tao_loop_wakeups_total", "Ends of the loop's sleep by a thread.", lambda now: now.wakeups),
    ("tao_loop_passes_total", "Passes of the loop.", lambda now: now.passes),
)
GAUGES: tuple[tuple[str, str, _Number], ...] = (
    ("tao_connections_open", "Connections that are there now.", lambda now: now.connections_open),
    ("tao_bytes_held", "Bytes not handled or not sent yet.", lambda now: now.bytes_held),
    ("tao_queue_depth", "Connections that wait for a worker.", lambda now: now.queue_depth),
    ("tao_timers", "Timers that are set.", lambda now: now.timers),
    ("tao_loop_lag_seconds", "Time that the loop's last pass took.", lambda now: now.loop_lag),
    ("tao_uptime_seconds", "Time since the server was made.", lambda now: now.uptime),
)


@dataclass(frozen=True, slots=True)
class Page:
    """An answer."""

    content_type: str
    body: bytes
    status: HTTPStatus = HTTPStatus.OK
    headers: tuple[tuple[str, str], ...] = ()


@functools.cache
def index_page() -> Page:
    """The live page: one file, whose own script and style are all that it may run and fetch."""
    html = importlib.resources.files("tao.monitor").joinpath("page.html").read_bytes()
    policy = "; ".join(
        [
            "default-src 'none'",
            f"script-src {_hash_of(html, b'script')}",
            f"style-src {_hash_of(html, b'style')}",
            "img-src data:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ]
    )
    return Page(HTML, html, headers=(("Content-Security-Policy", policy),))


def _hash_of(html: bytes, element: bytes) -> str:
    """What a content security policy (CSP level 3, 2.3.1) calls the text of the one such element."""
    (text,) = re.findall(rb"<%b>(.*?)</%b>" % (element, element), html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(text).digest()).decode("ascii")
    return f"'sha256-{digest}'"


def vars_page(snapshots: Mapping[str, MetricsSnapshot]) -> Page:
    """The form of Go's expvar (pkg.go.dev/expvar), with the names that Tao 1.6 exported.

    At the top they are those of all sources together. The last of them is no sum of rates, then, but
    the rate of the sums beside it.
    """
    connections = sum(snapshot.connections_total for snapshot in snapshots.values())
    handled = sum(snapshot.handled for snapshot in snapshots.values())
    seconds = math.fsum(snapshot.handler_seconds for snapshot in snapshots.values())
    found = {
        "cmdline": sys.orig_argv,
        "tao": {name: _variables(snapshot) for name, snapshot in snapshots.items()},
        **_tao_1_6(connections, handled, seconds, handled / seconds if seconds else 0.0),
    }
    # Names of any script are escaped: plain ASCII survives every terminal.
    return Page(JSON, json.dumps(found, indent=2).encode("ascii") + b"\n")


def _variables(snapshot: MetricsSnapshot) -> dict[str, object]:
    fields = {
        field.name: getattr(snapshot, field.name) for field in dataclasses.fields(MetricsSnapshot)
    }
    return {
        # JSON knows no other mapping than dict.
        **{
            name: dict(value) if isinstance(value, Mapping) else value
            for name, value in fields.items()
        },
        **_tao_1_6(
            snapshot.connections_total,
            snapshot.handled,
            snapshot.handler_seconds,
            snapshot.queries_per_second,
        ),
    }


def _tao_1_6(connections: int, handled: int, seconds: float, rate: float) -> dict[str, object]:
    return {"TotalConn": connections, "TotalHandle": handled, "TotalTime": seconds, "QPS": rate}


def prometheus_page(snapshots: Mapping[str, MetricsSnapshot]) -> Page:
    """In the text format of Prometheus, if there is the package for it."""
    try:
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
    except ImportError as error:
        logger.debug("monitor: %s", error)
        return text_page(
            HTTPStatus.NOT_IMPLEMENTED,
            "this page needs the package prometheus_client: pip install 'tao[prometheus]'",
        )
    # A registry of its own for every answer: the process may have a global one, with metrics of its
    # own, which are none of ours to show.
    registry = CollectorRegistry()
    registry.register(_Collector(snapshots))
    return Page(CONTENT_TYPE_LATEST, generate_latest(registry))


class _Collector:
    """Snapshots as prometheus_client wants them. The package is there when this is used."""

    def __init__(self, snapshots: Mapping[str, MetricsSnapshot]) -> None:
        self._snapshots = snapshots

    def collect(self) -> Iterable[Any]:
        from prometheus_client.core import (
            CounterMetricFamily,
            GaugeMetricFamily,
            HistogramMetricFamily,
        )

        for name, text, number in COUNTERS:
            counter = CounterMetricFamily(name, text, labels=["server"])
            for server, snapshot in self._snapshots.items():
                counter.add_metric([server], number(snapshot))
            yield counter
        for name, text, number in GAUGES:
            gauge = GaugeMetricFamily(name, text, labels=["server"])
            for server, snapshot in self._snapshots.items():
                gauge.add_metric([server], number(snapshot))
            yield gauge
        errors = CounterMetricFamily(
            "tao_errors_total", "Errors by the name of the exception.", labels=["server", "kind"]
        )
        times = HistogramMetricFamily(
            "tao_handler_seconds",
            "Time that handlers took, from samples where they are quick.",
            labels=["server"],
        )
        backplane = GaugeMetricFamily(
            "tao_backplane", "What the link to other servers counts.", labels=["server", "what"]
        )
        for server, snapshot in self._snapshots.items():
            for kind, count in snapshot.errors.items():
                errors.add_metric([server, kind], count)
            for what, count in snapshot.backplane.items():
                backplane.add_metric([server, what], count)
            times.add_metric([server], _buckets(snapshot), snapshot.handler_seconds)
        yield errors
        if backplane.samples:
            yield backplane
        yield times


def _buckets(snapshot: MetricsSnapshot) -> list[tuple[str, float]]:
    """Prometheus counts in each bucket those of all smaller ones as well; the last has no bound."""
    bounds = [*map(str, BUCKET_BOUNDS), "+Inf"]
    return list(zip(bounds, accumulate(snapshot.handler_histogram), strict=True))


def text_page(status: HTTPStatus, text: str, headers: tuple[tuple[str, str], ...] = ()) -> Page:
    """A line for whoever has asked for something that is not to be had."""
    return Page(TEXT, f"{status} {status.phrase}: {text}\n".encode(), status, headers)
