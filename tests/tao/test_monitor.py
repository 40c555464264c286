"""tao.monitor: numbers over HTTP, on real sockets."""

from __future__ import annotations

import dataclasses
import errno
import http.client
import json
import logging
import re
import select
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from email.message import Message as Headers
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

import tao.monitor.web
from tao.errors import NotRegisteredError, TaoError
from tao.message import Message
from tao.metrics import BUCKET_BOUNDS, MetricsSnapshot
from tao.monitor import Monitor, monitor_on
from tao.registry import MessageRegistry
from tao.server import Server
from tests.support import DEADLINE, LOCAL, Peer, Sample, as_bytes, wait_until
from tests.tao.monitor.support import NOTHING

PATHS = ["/", "/status", "/debug/vars", "/metrics"]

# Every number is another one, so that none can be taken for the other.
CHAT = MetricsSnapshot(
    uptime=1000.5,
    connections_total=12,
    connections_open=3,
    bytes_held=99,
    connections_refused=4,
    messages_in=51,
    bytes_in=701,
    bytes_out=802,
    handled=40,
    handler_seconds=0.5,
    handler_histogram=(30, 0, 7, *[0] * (len(BUCKET_BOUNDS) - 3), 3),
    queue_depth=5,
    loop_lag=0.0625,
    timers=6,
    wakeups=7,
    passes=98,
    errors=MappingProxyType({"ValueError": 2, "FrameTooLargeError": 9}),
)

TOKEN = "correct-horse-battery-staple"

GAME = dataclasses.replace(NOTHING, connections_total=8, handled=20, handler_seconds=1.0)

# A proxy of the environment knows nothing of our loopback.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Answer:
    """What a monitor has said."""

    status: int
    headers: Headers
    body: bytes

    @property
    def text(self) -> str:
        """The body, decoded."""
        return self.body.decode("utf-8")

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


def ask(monitor: Monitor, path: str, method: str = "GET", data: bytes | None = None) -> Answer:
    """One request on a connection of its own."""
    host, port = monitor.address
    host = f"[{host}]" if ":" in host else host
    request = urllib.request.Request(f"http://{host}:{port}{path}", data=data, method=method)
    try:
        with OPENER.open(request, timeout=DEADLINE) as response:
            return Answer(response.status, response.headers, response.read())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.headers, error.read())


def exchange(monitor: Monitor, request: bytes) -> bytes:
    """All that comes back for these bytes, to the end of the connection."""
    with Peer(monitor.address) as peer:
        peer.send(request)
        return peer.receive_to_end()


def keep_alive(monitor: Monitor) -> closing[http.client.HTTPConnection]:
    """A connection for more than one request."""
    return closing(http.client.HTTPConnection(*monitor.address, timeout=DEADLINE))


@pytest.fixture
def monitor() -> Iterator[Monitor]:
    """With nothing to show yet."""
    with monitor_on(0) as monitor:
        yield monitor


def always(snapshot: MetricsSnapshot) -> Callable[[], MetricsSnapshot]:
    """A source."""
    return lambda: snapshot


def broken() -> MetricsSnapshot:
    """A source that is none."""
    raise LookupError("the source is broken")


# -- /debug/vars ---------------------------------------------------------------------------------


def test_vars_of_one_server(monitor: Monitor) -> None:
    monitor.add("chat", always(CHAT))
    answer = ask(monitor, "/debug/vars")

    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    assert answer.json == {
        "cmdline": sys.orig_argv,
        "tao": {
            "chat": {
                "uptime": 1000.5,
                "connections_total": 12,
                "connections_open": 3,
                "bytes_held": 99,
                "connections_refused": 4,
                "messages_in": 51,
                "bytes_in": 701,
                "bytes_out": 802,
                "handled": 40,
                "handler_seconds": 0.5,
                "handler_histogram": list(CHAT.handler_histogram),
                "queue_depth": 5,
                "loop_lag": 0.0625,
                "timers": 6,
                "wakeups": 7,
                "passes": 98,
                "errors": {"ValueError": 2, "FrameTooLargeError": 9},
                "backplane": {},
                "TotalConn": 12,
                "TotalHandle": 40,
                "TotalTime": 0.5,
                "QPS": 80.0,
            }
        },
        "TotalConn": 12,
        "TotalHandle": 40,
        "TotalTime": 0.5,
        "QPS": 80.0,
    }


def test_vars_have_every_field(monitor: Monitor) -> None:
    monitor.add("chat", always(CHAT))
    names = {field.name for field in dataclasses.fields(MetricsSnapshot)}
    shown = set(ask(monitor, "/debug/vars").json["tao"]["chat"])
    assert shown == names | {"TotalConn", "TotalHandle", "TotalTime", "QPS"}


def test_vars_of_two_servers_are_summed(monitor: Monitor) -> None:
    monitor.add("chat", always(CHAT))
    monitor.add("game", always(GAME))
    found = ask(monitor, "/debug/vars").json

    assert list(found["tao"]) == ["chat", "game"]
    assert found["TotalConn"] == 20
    assert found["TotalHandle"] == 60
    assert found["TotalTime"] == 1.5
    # Not 80 + 20: sixty messages took a second and a half.
    assert found["QPS"] == 40.0
    assert found["tao"]["game"]["QPS"] == 20.0


def test_vars_of_nothing(monitor: Monitor) -> None:
    assert ask(monitor, "/debug/vars").json == {
        "cmdline": sys.orig_argv,
        "tao": {},
        "TotalConn": 0,
        "TotalHandle": 0,
        "TotalTime": 0.0,
        "QPS": 0.0,
    }


def test_vars_are_ascii(monitor: Monitor) -> None:
    monitor.add("café 茶", always(CHAT))
    answer = ask(monitor, "/debug/vars")
    assert answer.body.isascii()
    assert list(answer.json["tao"]) == ["café 茶"]


# -- /metrics ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Family:
    """One metric as Prometheus reads it."""

    kind: str
    help: str
    samples: Mapping[tuple[str, frozenset[tuple[str, str]]], float]

    def value(self, name: str, **labels: str) -> float:
        """The sample with that name and exactly these labels."""
        return self.samples[name, frozenset(labels.items())]


def scrape(monitor: Monitor) -> dict[str, Family]:
    """What prometheus_client reads from /metrics."""
    parser = pytest.importorskip(
        "prometheus_client.parser", reason="needs prometheus_client: pip install 'tao[prometheus]'"
    )
    answer = ask(monitor, "/metrics")
    assert answer.status == 200
    found: dict[str, Family] = {}
    for family in parser.text_string_to_metric_families(answer.text):
        samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for sample in family.samples
        }
        assert len(samples) == len(family.samples)
        assert family.name not in found
        found[family.name] = Family(family.type, family.documentation, samples)
    return found


def test_counters(monitor: Monitor) -> None:
    monitor.add("chat", always(CHAT))
    found = scrape(monitor)
    expected = {
        "tao_connections": 12,
        "tao_connections_refused": 4,
        "tao_messages_received": 51,
        "tao_messages_handled": 40,
        "tao_bytes_received": 701,
        "tao_bytes_sent": 802,
        "tao_loop_wakeups": 7,
        "tao_loop_passes": 98,
    }
    for name, value in expected.items():
        assert found[name].kind == "counter"
        assert found[name].value(f"{name}_total", server="chat") == value


def test_gauges(monitor: Monitor) -> None:
    monitor.add("chat", always(CHAT))
    found = scrape(monitor)
    expected = {
        "tao_connections_open": 3,
        "tao_bytes_held": 99,
        "tao_queue_depth": 5,
        "tao_timers": 6,
        "tao_loop_lag_seconds": 0.0625,
        "tao_uptime_seconds": 1000.5,
    }
    for name, value in expected.items():
        assert found[name].kind == "gauge"
        assert found[name].value(name, server="chat") == value


def test_errors_have_their_kind_as_a_label(monitor: Monitor) -> None:
    monitor.add("chat", always(CHAT))
    monitor.add("game", always(dataclasses.replace(GAME, errors={"ValueError": 1})))
    errors = scrape(monitor)["tao_errors"]
    assert errors.kind == "counter"
    assert errors.value("tao_errors_total", server="chat", kind="ValueError") == 2
    assert errors.value("tao_errors_total", server="chat", kind="FrameTooLargeError") == 9
    assert errors.value("tao_errors_total", server="game", kind="ValueError") == 1
    assert len(errors.samples) == 3


def test_handler_time_is_a_histogram(monitor: Monitor) -> None:
    monitor.add("chat", always(CHAT))
    times = scrape(monitor)["tao_handler_seconds"]
    assert times.kind == "histogram"
    assert times.value("tao_handler_seconds_sum", server="chat") == 0.5
    assert times.value("tao_handler_seconds_count", server="chat") == 40

    found = {
        float(dict(labels)["le"]): value
        for (name, labels), value in times.samples.items()
        if name == "tao_handler_seconds_bucket"
    }
    assert sorted(found) == [*BUCKET_BOUNDS, float("inf")]
    counts = [found[bound] for bound in sorted(found)]
    assert counts == [30, 30, *[37] * (len(BUCKET_BOUNDS) - 2), 40]


def test_a_histogram_agrees_with_itself(monitor: Monitor) -> None:
    """It comes from samples, so it may well disagree with the number of handlers."""
    monitor.add("chat", always(dataclasses.replace(CHAT, handled=39)))
    found = scrape(monitor)
    times = found["tao_handler_seconds"]
    assert times.value("tao_handler_seconds_bucket", server="chat", le="+Inf") == 40
    assert times.value("tao_handler_seconds_count", server="chat") == 40
    handled = found["tao_messages_handled"]
    assert handled.value("tao_messages_handled_total", server="chat") == 39


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(MetricsSnapshot)])
def test_every_field_reaches_prometheus(monitor: Monitor, field: str) -> None:
    changed: dict[str, Any] = {
        "errors": {"E": 1},
        "backplane": {"published": 1},
        "handler_histogram": CHAT.handler_histogram,
    }
    snapshots = [NOTHING, dataclasses.replace(NOTHING, **{field: changed.get(field, 1)})]
    monitor.add("chat", lambda: snapshots.pop(0))
    assert scrape(monitor) != scrape(monitor)


def test_metrics_of_two_servers(monitor: Monitor) -> None:
    monitor.add("chat", always(CHAT))
    monitor.add("game", always(GAME))
    connections = scrape(monitor)["tao_connections"]
    assert connections.value("tao_connections_total", server="chat") == 12
    assert connections.value("tao_connections_total", server="game") == 8
    assert len(connections.samples) == 2


def test_metrics_of_nothing(monitor: Monitor) -> None:
    assert all(not family.samples for family in scrape(monitor).values())


def test_every_metric_is_explained(monitor: Monitor) -> None:
    found = scrape(monitor)
    assert found
    assert [name for name, family in found.items() if not family.help.endswith(".")] == []


@pytest.mark.parametrize("name", ['"', "\\", 'a"} 1', "{,=}", "café 茶", "two words", "# HELP x y"])
def test_any_name_is_a_label(monitor: Monitor, name: str) -> None:
    monitor.add(name, always(CHAT))
    found = scrape(monitor)
    assert found["tao_connections"].value("tao_connections_total", server=name) == 12
    assert all(len(family.samples) == 1 for family in found.values() if family.kind == "gauge")


def test_metrics_say_what_they_are(monitor: Monitor) -> None:
    pytest.importorskip("prometheus_client", reason="needs prometheus_client")
    answer = ask(monitor, "/metrics")
    assert re.fullmatch(
        r"text/plain; version=\d+\.\d+\.\d+; charset=utf-8", answer.headers["Content-Type"]
    )


def test_metrics_of_the_process_are_none_of_ours(monitor: Monitor) -> None:
    client = pytest.importorskip("prometheus_client", reason="needs prometheus_client")
    assert b"python_info" in client.generate_latest()
    monitor.add("chat", always(CHAT))
    assert [name for name in scrape(monitor) if not name.startswith("tao_")] == []


def test_without_prometheus_client(monitor: Monitor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)  # an import of it fails
    monitor.add("chat", always(CHAT))

    answer = ask(monitor, "/metrics")
    assert answer.status == 501
    assert "pip install 'tao[prometheus]'" in answer.text
    assert ask(monitor, "/debug/vars").status == 200


# -- pages and paths -----------------------------------------------------------------------------


def test_the_front_page_leads_to_the_others(monitor: Monitor) -> None:
    answer = ask(monitor, "/")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    links = re.findall(r'href="(/[^"]+)"', answer.text)
    assert links == ["/debug/vars", "/metrics", "/status"]
    assert all(ask(monitor, link).status in (200, 501) for link in links)


@pytest.mark.parametrize("path", PATHS)
def test_a_query_is_ignored(monitor: Monitor, path: str) -> None:
    assert ask(monitor, f"{path}?name=value&x").status == ask(monitor, path).status != 404


def test_a_proxy_may_ask_by_the_whole_address(monitor: Monitor) -> None:
    with keep_alive(monitor) as connection:
        connection.request("GET", f"http://localhost:{monitor.address[1]}/debug/vars")
        assert connection.getresponse().read().startswith(b'{\n  "cmdline"')


@pytest.mark.parametrize(
    "path",
    [
        "/favicon.ico",
        "/debug",
        "/debug/",
        "/metrics/",
        "/Metrics",
        "/%6detrics",
        "//etc/passwd",
        "/../../../../etc/passwd",
        "/debug/vars/../../etc/passwd",
        "/..%2f..%2fetc/passwd",
        "*",
        "http://[",
        "pyproject.toml",
    ],
)
def test_elsewhere_is_a_list_of_what_there_is(monitor: Monitor, path: str) -> None:
    # As it is: urllib would tidy it up.
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    head, _, text = exchange(monitor, request.encode()).decode().partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 404 Not Found\r\n")
    assert "\r\nContent-Type: text/plain; charset=utf-8\r\n" in head
    assert text == "404 Not Found: there are /, /status, /debug/vars, /metrics\n"


@pytest.mark.parametrize("path", [*PATHS, "/elsewhere"])
def test_nothing_is_cached_or_guessed(monitor: Monitor, path: str) -> None:
    headers = ask(monitor, path).headers
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Server"] == "tao"


def test_a_page_that_cannot_be_made(monitor: Monitor, caplog: pytest.LogCaptureFixture) -> None:
    unfit: Any = {"ValueError": object()}
    monitor.add("chat", always(dataclasses.replace(CHAT, errors=unfit)))
    answer = ask(monitor, "/debug/vars")
    assert answer.status == 500
    assert "log" in answer.text
    assert "Traceback" not in answer.text
    assert "not JSON serializable" in caplog.text
    assert ask(monitor, "/").status == 200


# -- methods -------------------------------------------------------------------------------------


# What /status says is of the moment.
@pytest.mark.parametrize("path", ["/", "/debug/vars", "/metrics", "/elsewhere"])
def test_head_is_get_without_the_body(monitor: Monitor, path: str) -> None:
    monitor.add("chat", always(CHAT))
    with keep_alive(monitor) as connection:
        found = []
        # On one connection: a body that was not announced would be taken for the next answer.
        for method in ("GET", "HEAD", "GET"):
            connection.request(method, path)
            response = connection.getresponse()
            body = response.read()
            headers = {name: value for name, value in response.getheaders() if name != "Date"}
            found.append((response.status, headers, body))
    assert found[0] == found[2]
    assert found[1] == (*found[0][:2], b"")
    assert int(found[1][1]["Content-Length"]) == len(found[0][2]) > 0


@pytest.mark.parametrize("path", ["/", "/metrics", "/elsewhere"])
@pytest.mark.parametrize(
    "method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW", "get", "__class__"]
)
def test_other_methods(monitor: Monitor, method: str, path: str) -> None:
    answer = ask(monitor, path, method)
    assert answer.status == 405
    assert answer.headers["Allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8192\r\n\r\n", 405),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n", 200),
        (b"NONSENSE\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: " + b"x" * tao.monitor.web.MAX_REQUEST_SIZE, 431),
    ],
)
def test_what_comes_after_the_last_answer_does_not_destroy_it(
    monitor: Monitor, request_bytes: bytes, status: int
) -> None:
    """It is read and thrown away: it would cause a reset, and that might overtake the answer."""
    with Peer(monitor.address) as peer:
        peer.send(request_bytes)
        assert peer.receive_to_end().startswith(f"HTTP/1.1 {status} ".encode())
        for _ in range(8):
            peer.send(b"x" * 1024)  # raises after a reset
            select.select(
                [], [], [peer.sock], 0.005
            )  # time for a wrong close: to be right takes none


def test_a_body_is_not_waited_for(monitor: Monitor) -> None:
    """A client that asks first whether its body is wanted gets its answer for an answer."""
    with Peer(monitor.address) as peer:
        peer.send(
            b"PUT / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\nExpect: 100-continue\r\n\r\n"
        )
        assert peer.receive_to_end().startswith(b"HTTP/1.1 405 ")


@pytest.mark.parametrize(
    "header", [b"Content-Length: 35", b"Transfer-Encoding: chunked", b"Content-Length: what"]
)
def test_a_body_is_not_the_next_request(monitor: Monitor, header: bytes) -> None:
    smuggled = b"GET /debug/vars HTTP/1.1\r\nHost: localhost\r\n\r\n"
    answer = exchange(
        monitor, b"GET / HTTP/1.1\r\nHost: localhost\r\n" + header + b"\r\n\r\n" + smuggled
    )
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"\r\nConnection: close\r\n" in answer
    assert b"cmdline" not in answer


# -- connections ---------------------------------------------------------------------------------


def test_a_connection_is_kept(monitor: Monitor) -> None:
    with keep_alive(monitor) as connection:
        connection.request("GET", "/")
        first = connection.getresponse()
        first.read()
        assert first.version == 11
        sock = connection.sock
        connection.request("GET", "/elsewhere")
        connection.getresponse().read()
        connection.request("GET", "/debug/vars")
        assert connection.getresponse().read()
        assert connection.sock is sock


def test_requests_that_come_together_are_answered_in_order(monitor: Monitor) -> None:
    answer = exchange(
        monitor,
        b"GET /debug/vars HTTP/1.1\r\nHost: localhost\r\n\r\n"
        b"GET /elsewhere HTTP/1.1\r\nHost: localhost\r\n\r\n"
        b"HEAD / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    )
    assert re.findall(rb"HTTP/1.1 (\d+) ", answer) == [b"200", b"404", b"200"]


@pytest.mark.parametrize(
    "request_line", [b"GET / HTTP/1.0\r\n", b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n"]
)
def test_a_connection_of_http_1_0_is_closed(monitor: Monitor, request_line: bytes) -> None:
    answer = exchange(monitor, request_line + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nConnection: close\r\n" in answer


def test_a_request_may_come_in_pieces(monitor: Monitor) -> None:
    with Peer(monitor.address) as peer:
        for byte in b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n":
            peer.send(bytes([byte]))
        assert peer.receive_to_end().startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"NONSENSE\r\n\r\n", 400),
        (b"GET / HTTP/1.1 x\r\n\r\n", 400),
        (b"GET / HTTP/x.y\r\n\r\n", 400),
        (b"GET / FTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n\r\n\r\n", 400),  # TLS, more or less
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ],
)
def test_what_is_no_request(monitor: Monitor, request_bytes: bytes, status: int) -> None:
    answer = exchange(monitor, request_bytes)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"\r\nConnection: close\r\n" in answer
    assert b"\r\nContent-Type: text/plain; charset=utf-8\r\n" in answer
    assert ask(monitor, "/").status == 200


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /" + b"x" * 100_000,
        b"GET / HTTP/1.1\r\nHost: " + b"x" * 100_000,
        b"GET / HTTP/1.1\r\n" + b"Name: value\r\n" * 10_000,
        b"GET / HTTP/1.1\r\n" + b"a:\r\n" * 200,
    ],
)
def test_a_request_is_bounded(monitor: Monitor, request_bytes: bytes) -> None:
    """It is refused before it is complete: none of these ever is."""
    with Peer(monitor.address) as peer:
        # No more than what is looked at and thrown away, so that no reset overtakes the answer.
        peer.send(request_bytes[: 2 * tao.monitor.web.MAX_REQUEST_SIZE])
        assert peer.receive_to_end().startswith(b"HTTP/1.1 431 ")


def test_a_request_without_an_end_is_cut_off(monitor: Monitor) -> None:
    def send(peer: Peer) -> None:
        for _ in range(100_000):
            peer.send(b"x" * 1000)

    with Peer(monitor.address) as peer, pytest.raises(ConnectionError):
        send(peer)


def test_silence_is_cut_off(
    monitor: Monitor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tao.monitor.web, "REQUEST_TIMEOUT", 0.05)
    with Peer(monitor.address) as silent, Peer(monitor.address) as halfway:
        halfway.send(b"GET / HTTP/1.1\r\nHost: ")
        assert silent.is_cut_off()
        assert halfway.is_cut_off()
    assert caplog.text == ""


def test_silence_between_requests_is_cut_off(
    monitor: Monitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tao.monitor.web, "REQUEST_TIMEOUT", 0.05)
    answer = exchange(monitor, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Connection: close" not in answer


def test_a_request_that_trickles_in_is_cut_off(
    monitor: Monitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is for all of it, and not begun anew with every byte."""
    monkeypatch.setattr(tao.monitor.web, "REQUEST_TIMEOUT", 0.2)
    end = time.monotonic() + DEADLINE
    with Peer(monitor.address) as peer:
        peer.send(b"GET / HTTP/1.1\r\nName: ")
        while not select.select([peer.sock], [], [], 0.02)[0]:
            assert time.monotonic() < end
            peer.send(b"x")
        assert peer.is_cut_off()


def test_connections_are_bounded(
    monitor: Monitor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tao.monitor.web, "MAX_CONNECTIONS", 2)
    with Peer(monitor.address), Peer(monitor.address):
        with Peer(monitor.address) as third:
            assert third.is_cut_off()
        assert "refused a connection" in caplog.text
    # Now that they are gone there is room again; their threads may take a moment to see it.
    request = b"GET / HTTP/1.0\r\n\r\n"

    def answered() -> bool:
        with Peer(monitor.address) as peer:
            try:
                peer.send(request)
                return peer.receive_to_end().startswith(b"HTTP/1.1 200 ")
            except ConnectionError:
                return False

    assert wait_until(answered)


def test_a_client_that_goes_away_is_no_error(
    monitor: Monitor, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG, "tao")
    asked, gone = threading.Event(), threading.Event()

    def slow() -> MetricsSnapshot:
        asked.set()
        assert gone.wait(DEADLINE)
        return CHAT

    monitor.add("chat", slow)
    peer = Peer(monitor.address)
    try:
        peer.send(b"GET /debug/vars HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert asked.wait(DEADLINE)
    finally:
        peer.reset()
        gone.set()
    assert wait_until(lambda: "went away" in caplog.text)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert capfd.readouterr().err == ""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit of descriptors to lower")
def test_out_of_descriptors_is_waited_out(
    monitor: Monitor, caplog: pytest.LogCaptureFixture
) -> None:
    import resource

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as sock:
        sock.settimeout(DEADLINE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            sock.connect(monitor.address)
            seen = wait_until(lambda: "cannot accept" in caplog.text)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert seen
        sock.sendall(b"HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert sock.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")


# -- sources -------------------------------------------------------------------------------------


def test_sources_are_asked_for_every_answer(monitor: Monitor) -> None:
    snapshots = [NOTHING, CHAT]
    monitor.add("chat", lambda: snapshots.pop(0))
    assert ask(monitor, "/debug/vars").json["TotalConn"] == 0
    assert ask(monitor, "/debug/vars").json["TotalConn"] == 12


def test_sources_come_and_go(monitor: Monitor) -> None:
    monitor.add("chat", always(CHAT))
    monitor.add("game", always(GAME))
    monitor.remove("chat")
    assert list(ask(monitor, "/debug/vars").json["tao"]) == ["game"]
    monitor.add("chat", always(GAME))
    assert list(ask(monitor, "/debug/vars").json["tao"]) == ["game", "chat"]


def test_a_source_that_raises_is_left_out(
    monitor: Monitor, caplog: pytest.LogCaptureFixture
) -> None:
    monitor.add("first", always(CHAT))
    monitor.add("broken", broken)
    monitor.add("last", always(GAME))

    found = ask(monitor, "/debug/vars").json
    assert list(found["tao"]) == ["first", "last"]
    assert found["TotalConn"] == 20
    (record,) = caplog.records
    assert record.name == "tao"
    assert "'broken'" in record.getMessage()
    assert "the source is broken" in caplog.text


def test_a_source_that_raises_is_left_out_for_prometheus_too(monitor: Monitor) -> None:
    monitor.add("broken", broken)
    monitor.add("last", always(GAME))
    assert len(scrape(monitor)["tao_connections"].samples) == 1


def test_a_source_that_returns_something_else_is_left_out(
    monitor: Monitor, caplog: pytest.LogCaptureFixture
) -> None:
    wrong: Any = lambda: "hello"  # noqa: E731
    monitor.add("wrong", wrong)
    monitor.add("chat", always(CHAT))
    assert list(ask(monitor, "/debug/vars").json["tao"]) == ["chat"]
    assert "'wrong'" in caplog.text
    assert "'hello'" in caplog.text


def test_a_name_is_given_once(monitor: Monitor) -> None:
    monitor.add("chat", always(CHAT))
    with pytest.raises(ValueError, match="'chat' already; remove it first"):
        monitor.add("chat", always(GAME))
    assert ask(monitor, "/debug/vars").json["TotalConn"] == 12


@pytest.mark.parametrize("name", ["", "two\nlines", "\x1b[31m", "\udc80"])
def test_a_name_can_be_printed(monitor: Monitor, name: str) -> None:
    with pytest.raises(ValueError, match="printable"):
        monitor.add(name, always(CHAT))
    assert ask(monitor, "/debug/vars").json["tao"] == {}


def test_a_source_is_a_function(monitor: Monitor) -> None:
    snapshot: Any = CHAT
    with pytest.raises(TypeError, match="without parentheses"):
        monitor.add("chat", snapshot)


def test_only_what_is_there_can_be_removed(monitor: Monitor) -> None:
    with pytest.raises(NotRegisteredError, match="'chat'"):
        monitor.remove("chat")


def test_sources_are_asked_at_the_same_time(monitor: Monitor) -> None:
    """A slow one holds its own request, and no other."""
    both = threading.Barrier(2)

    def meet() -> MetricsSnapshot:
        both.wait(DEADLINE)
        return CHAT

    monitor.add("chat", meet)
    answers: list[Answer] = []
    threads = [
        threading.Thread(target=lambda: answers.append(ask(monitor, "/debug/vars")))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert [list(answer.json["tao"]) for answer in answers] == [["chat"], ["chat"]]


def test_a_server_is_a_source(monitor: Monitor) -> None:
    def handle(context: Any, conn: Any) -> Message:
        return Sample(1, context.message)

    registry = MessageRegistry()
    registry.register(1, as_bytes, handle)
    server = Server(registry=registry)
    monitor.add("echo", server.metrics)
    assert ask(monitor, "/debug/vars").json["TotalConn"] == 0

    with server.running(LOCAL) as address, Peer(address) as peer:
        peer.send_frame(1, b"hello")
        assert peer.receive_frame() == (1, b"hello")
        # The answer is sent before the handler is counted.
        assert wait_until(lambda: ask(monitor, "/debug/vars").json["TotalHandle"] == 1)
        found = ask(monitor, "/debug/vars").json["tao"]["echo"]
    assert found["TotalConn"] == found["connections_open"] == 1
    assert found["bytes_in"] == found["bytes_out"] == 13


# -- where it listens ----------------------------------------------------------------------------


def test_it_listens_on_this_machine_alone(monitor: Monitor) -> None:
    host, port = monitor.address
    assert host == "127.0.0.1"
    assert port > 0


def test_ipv6(caplog: pytest.LogCaptureFixture) -> None:
    try:
        monitor = monitor_on(0, "::1")
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    with monitor:
        assert monitor.address[0] == "::1"
        assert ask(monitor, "/").status == 200
    assert caplog.text == ""


@pytest.mark.parametrize("host", ["0.0.0.0", ""])
def test_more_than_this_machine_needs_a_token(host: str, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ValueError, match=r"needs a token: pass token=secrets.token_urlsafe\(\)"):
        monitor_on(0, host)
    assert caplog.text == ""


@pytest.mark.parametrize("host", ["0.0.0.0", ""])
def test_more_than_this_machine_is_worth_a_warning(
    host: str, caplog: pytest.LogCaptureFixture
) -> None:
    with monitor_on(0, host, token=TOKEN) as monitor:
        (record,) = caplog.records
        assert (record.name, record.levelname) == ("tao", "WARNING")
        assert "other machines" in record.getMessage()
        assert str(monitor.address[1]) in record.getMessage()
        assert TOKEN not in caplog.text


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost"])
def test_this_machine_is_worth_no_warning(host: str, caplog: pytest.LogCaptureFixture) -> None:
    try:
        monitor = monitor_on(0, host)
    except OSError as error:
        pytest.skip(f"{host} is no address here: {error}")
    with monitor:
        assert caplog.text == ""


def test_a_port_in_use(monitor: Monitor) -> None:
    port = monitor.address[1]
    with pytest.raises(OSError, match=f"{port}.*choose another port") as caught:
        monitor_on(port)
    assert caught.value.errno == errno.EADDRINUSE


def test_a_port_is_free_again_at_once() -> None:
    with monitor_on(0) as monitor:
        port = monitor.address[1]
        ask(monitor, "/")  # which leaves a connection in TIME_WAIT
    with monitor_on(port) as monitor:
        assert ask(monitor, "/").status == 200


@pytest.mark.parametrize("port", [-1, 65_536])
def test_a_port_that_is_none(port: int) -> None:
    with pytest.raises(ValueError, match=f"from 0 to 65535, not {port}"):
        monitor_on(port)


@pytest.mark.parametrize(("port", "host"), [("6060", "127.0.0.1"), (None, ""), (6060, None)])
def test_arguments_of_the_wrong_type(port: Any, host: Any) -> None:
    with pytest.raises(TypeError, match="an address is"):
        monitor_on(port, host)


# -- the end -------------------------------------------------------------------------------------


def test_closed_is_closed() -> None:
    monitor = monitor_on(0)
    monitor.close()
    monitor.close()
    with pytest.raises(ConnectionRefusedError):
        Peer(monitor.address)
    with pytest.raises(TaoError, match="closed"):
        monitor.add("chat", always(CHAT))


def test_leaving_it_closes_it() -> None:
    with pytest.raises(LookupError), monitor_on(0) as monitor:
        raise LookupError
    with pytest.raises(ConnectionRefusedError):
        Peer(monitor.address)


def test_close_leaves_no_thread() -> None:
    """When it returns, and not some time after; connections that wait for nothing or all included."""
    before = threading.active_count()
    monitor = monitor_on(0)
    monitor.add("chat", always(CHAT))
    with keep_alive(monitor) as kept, Peer(monitor.address) as halfway:
        kept.request("GET", "/debug/vars")
        kept.getresponse().read()
        halfway.send(b"GET / HTTP/1.1\r\n")
        # One that accepts, and one for each connection.
        assert wait_until(lambda: threading.active_count() == before + 3)
        monitor.close()
        assert threading.active_count() == before


def test_close_lets_an_answer_go_out() -> None:
    monitor = monitor_on(0)
    asked, closing_now = threading.Event(), threading.Event()

    def slow() -> MetricsSnapshot:
        asked.set()
        assert closing_now.wait(DEADLINE)
        return CHAT

    monitor.add("chat", slow)
    with Peer(monitor.address) as peer:
        peer.send(b"GET /debug/vars HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert asked.wait(DEADLINE)
        closer = threading.Thread(target=monitor.close)
        closer.start()
        # Once nobody listens any more, the close is under way.
        assert wait_until(lambda: refuses(monitor.address))
        closing_now.set()
        answer = peer.receive_to_end()
        closer.join(DEADLINE)
        assert not closer.is_alive()
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"}\n")


def refuses(address: tuple[str, int]) -> bool:
    """Whether nobody listens there."""
    try:
        Peer(address).close()
    except ConnectionError:
        return True
    return False


def test_close_does_not_wait_for_ever(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tao.monitor.web, "CLOSE_TIMEOUT", 0.01)
    monitor = monitor_on(0)
    asked, end = threading.Event(), threading.Event()

    def hangs() -> MetricsSnapshot:
        asked.set()
        assert end.wait(DEADLINE)
        return CHAT

    monitor.add("chat", hangs)
    with Peer(monitor.address) as peer:
        peer.send(b"GET /debug/vars HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert asked.wait(DEADLINE)
        monitor.close()
        assert "does not return" in caplog.text
        end.set()
        assert peer.receive_to_end().startswith(b"HTTP/1.1 200 ")


def test_a_source_may_close_its_monitor() -> None:
    monitor = monitor_on(0)

    def last_words() -> MetricsSnapshot:
        monitor.close()
        return CHAT

    monitor.add("chat", last_words)
    answer = exchange(monitor, b"GET /debug/vars HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b'"TotalConn": 12' in answer
    assert refuses(monitor.address)


def test_a_program_may_forget_it() -> None:
    program = "import tao.monitor; tao.monitor.monitor_on(0); print('done')"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


# -- what it says of itself ----------------------------------------------------------------------


def test_requests_are_logged_for_those_who_look(
    monitor: Monitor, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    ask(monitor, "/elsewhere")
    assert caplog.text == ""
    caplog.set_level(logging.DEBUG, "tao")
    ask(monitor, "/elsewhere")
    exchange(monitor, b"\x1b[31mred\r\n\r\n")

    assert all(record.name == "tao" for record in caplog.records)
    assert '"GET /elsewhere HTTP/1.1" 404' in caplog.text
    # The messages one by one: caplog.text is without escapes anyway.
    assert not any("\x1b" in record.getMessage() for record in caplog.records)
    assert "[31mred" in caplog.text
    assert capfd.readouterr() == ("", "")


def test_repr() -> None:
    with monitor_on(0) as monitor:
        assert repr(monitor) == f"<Monitor on 127.0.0.1:{monitor.address[1]}>"
    assert repr(monitor) == "<Monitor closed>"
