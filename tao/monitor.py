"""A server's numbers over HTTP, for people and for programs that collect them.

Contents: monitor_on, Monitor; then what it is made of: _Sources (names and snapshots), the pages,
_HttpServer and _RequestHandler (the standard library's, with limits).

Owns one listening socket, one thread that accepts and one for each request. It shows what its sources
return and changes nothing: no files, no other methods than GET and HEAD, no way into the process.
Who may see it is a matter of the address: there is no password.
"""

from __future__ import annotations

import dataclasses
import io
import ipaddress
import json
import logging
import math
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import accumulate
from types import TracebackType
from typing import Any, Self, TypeAlias
from urllib.parse import urlsplit

from reactor import Waker, listen
from tao.address import check_address, format_address
from tao.errors import NotRegisteredError, TaoError
from tao.metrics import BUCKET_BOUNDS, MetricsSnapshot

__all__ = ["Monitor", "monitor_on"]

logger: logging.Logger = logging.getLogger("tao")

MAX_REQUEST_SIZE = 16 * 1024
"""Bytes that one request may have, its headers included. A browser's has less than two thousand."""

REQUEST_TIMEOUT = 5.0
"""Seconds in which a request must have arrived as a whole, and in which its answer must have gone out.
The same goes for the silence between two requests of a connection."""

MAX_CONNECTIONS = 32
"""Connections at a time; those beyond are closed at once. Each of them holds a thread."""

RETRY_DELAY = 0.1
"""Seconds without accepting after the system has run out of something: see `reactor.acceptor`."""

CLOSE_TIMEOUT = 5.0
"""Seconds that `close` waits for answers that are being made: a source may hang."""

TEXT = "text/plain; charset=utf-8"
HTML = "text/html; charset=utf-8"
JSON = "application/json; charset=utf-8"  # as Go's expvar says it

_Number: TypeAlias = Callable[[MetricsSnapshot], float]

# Name, meaning, value. For the names see https://prometheus.io/docs/practices/naming/. What is not
# here are the histogram of handler time, and the errors, which have a label for their kind.
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


def monitor_on(port: int, host: str = "127.0.0.1") -> Monitor:
    """Serve the numbers of what will be added over HTTP, from a thread of its own; does not block.

        with monitor_on(6060) as monitor:
            monitor.add("chat", server.metrics)
            server.serve_forever()

    - `/debug/vars`: JSON, in the form of Go's package expvar.
    - `/metrics`: for Prometheus; needs `pip install 'tao[prometheus]'`.

    Port 0 lets the system choose: see `Monitor.address`. Whoever reaches the address sees all of it,
    the command line too: think before giving a `host` other than this machine's own. Raises OSError,
    with the address and a way out in its text, when it cannot be had; ValueError or TypeError for a
    port that is none.
    """
    check_address((host, port), first_port=0)
    sock = listen((host, port), backlog=MAX_CONNECTIONS)
    try:
        return Monitor(sock)
    except BaseException:  # no thread to be had, say
        sock.close()
        raise


class Monitor:
    """Shows the numbers of its sources over HTTP until it is closed. Made by `monitor_on`.

    All of it may be called from any thread. It is its own context manager: leaving closes it.
    """

    def __init__(self, sock: socket.socket) -> None:
        host, port = sock.getsockname()[:2]
        self.address: tuple[str, int] = (host, port)
        """Where it listens, with the port that was chosen."""
        self._sources = sources = _Sources()
        self._lock = threading.Lock()
        self._closed = False  # under the lock
        self._server = _HttpServer(
            sock,
            {
                "/": _index_page,
                "/debug/vars": lambda: _vars_page(sources.snapshots()),
                "/metrics": lambda: _prometheus_page(sources.snapshots()),
            },
        )
        url = f"http://{format_address(self.address)}/"
        if not ipaddress.ip_address(host).is_loopback:
            logger.warning(
                "the monitor on %s can be reached from other machines: it shows this program's numbers "
                "and its command line to whoever asks",
                url,
            )
        self._server.start()
        logger.info("monitor on %s", url)

    def add(self, name: str, source: Callable[[], MetricsSnapshot]) -> None:
        """Show what `source` returns under `name`: `monitor.add("chat", server.metrics)`.

        It is called for every request, on the request's thread; one that raises is logged, and left
        out of that answer. Raises ValueError for a name that is taken or cannot be printed, TaoError
        after `close`.
        """
        if self._closed:
            raise TaoError("this monitor has been closed; make a new one")
        self._sources.add(name, source)

    def remove(self, name: str) -> None:
        """Show it no more. Raises NotRegisteredError when there is nothing under that name."""
        self._sources.remove(name)

    def close(self) -> None:
        """Stop listening, let the answers that are being made go out, end the threads.

        Twice is once. It waits some seconds for a source that hangs, and leaves it behind with a
        warning after that.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._server.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"on {format_address(self.address)}"
        return f"<Monitor {state}>"


class _Sources:
    """Where the numbers come from, by name, in the order in which they were added."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_name: dict[str, Callable[[], MetricsSnapshot]] = {}  # under the lock

    def add(self, name: str, source: Callable[[], MetricsSnapshot]) -> None:
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
        with self._lock:
            if self._by_name.pop(name, None) is None:
                raise NotRegisteredError(
                    f"there is no source {name!r}; it must have been added under this name"
                )

    def snapshots(self) -> dict[str, MetricsSnapshot]:
        """What they say now, without those that fail."""
        with self._lock:
            sources = dict(self._by_name)
        found = {}
        for name, source in sources.items():
            try:
                snapshot: object = source()
            except Exception:
                logger.exception("the monitor leaves out %r: its source raised", name)
                continue
            if isinstance(snapshot, MetricsSnapshot):
                found[name] = snapshot
            else:
                logger.error(
                    "the monitor leaves out %r: its source returned no MetricsSnapshot but %r",
                    name,
                    snapshot,
                )
        return found


# -- pages ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Page:
    content_type: str
    body: bytes
    status: HTTPStatus = HTTPStatus.OK


def _index_page() -> _Page:
    return _Page(
        HTML,
        b"<!DOCTYPE html>\n"
        b'<html lang="en">\n'
        b"<title>tao</title>\n"
        b"<h1>tao</h1>\n"
        b"<ul>\n"
        b'<li><a href="/debug/vars">/debug/vars</a>: all numbers, as JSON\n'
        b'<li><a href="/metrics">/metrics</a>: the same for Prometheus\n'
        b"</ul>\n"
        b"</html>\n",
    )


def _vars_page(snapshots: Mapping[str, MetricsSnapshot]) -> _Page:
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
    return _Page(JSON, json.dumps(found, indent=2).encode("ascii") + b"\n")


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


def _prometheus_page(snapshots: Mapping[str, MetricsSnapshot]) -> _Page:
    try:
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
    except ImportError as error:
        logger.debug("monitor: %s", error)
        return _text_page(
            HTTPStatus.NOT_IMPLEMENTED,
            "this page needs the package prometheus_client: pip install 'tao[prometheus]'",
        )
    # A registry of its own for every answer: the process may have a global one, with metrics of its
    # own, which are none of ours to show.
    registry = CollectorRegistry()
    registry.register(_Collector(snapshots))
    return _Page(CONTENT_TYPE_LATEST, generate_latest(registry))


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
        for server, snapshot in self._snapshots.items():
            for kind, count in snapshot.errors.items():
                errors.add_metric([server, kind], count)
            times.add_metric([server], _buckets(snapshot), snapshot.handler_seconds)
        yield errors
        yield times


def _buckets(snapshot: MetricsSnapshot) -> list[tuple[str, float]]:
    """Prometheus counts in each bucket those of all smaller ones as well; the last has no bound."""
    bounds = [*map(str, BUCKET_BOUNDS), "+Inf"]
    return list(zip(bounds, accumulate(snapshot.handler_histogram), strict=True))


def _text_page(status: HTTPStatus, text: str) -> _Page:
    return _Page(TEXT, f"{status} {status.phrase}: {text}\n".encode(), status)


# -- HTTP ----------------------------------------------------------------------------------------


class _HttpServer(ThreadingHTTPServer):
    """The standard library's server, with a bound on its threads and an end to all of them.

    Not `serve_forever`, which looks twice a second whether it shall stop: this one sleeps until a
    client comes or `stop` wakes it.
    """

    # None of the requests is worth a wait at the end of a program that forgot to close its monitor.
    daemon_threads = True

    def __init__(self, sock: socket.socket, pages: Mapping[str, Callable[[], _Page]]) -> None:
        super().__init__(sock.getsockname(), _RequestHandler, bind_and_activate=False)
        self.socket.close()  # the one that the base class has made, of a family that it chose
        self.socket = sock
        self.pages = pages
        self._waker = Waker()
        # Made here and not by the thread, which could tell nobody that there is no descriptor for it.
        self._selector = selectors.DefaultSelector()
        self._selector.register(self.socket, selectors.EVENT_READ)
        self._selector.register(self._waker, selectors.EVENT_READ)
        self._stopping = threading.Event()
        self._acceptor = threading.Thread(target=self._serve, name="tao-monitor", daemon=True)
        self._threads_of_requests: list[threading.Thread] = []  # the acceptor's, then `stop`'s
        self._lock = threading.Lock()
        # Under the lock, as is closing them: a descriptor must not be shut down after another thread
        # has closed it, when it may be somebody else's.
        self._connections: set[socket.socket] = set()

    def start(self) -> None:
        """Begin to answer."""
        self._acceptor.start()

    def stop(self) -> None:
        """End all threads and release all descriptors. Once; any thread."""
        self._stopping.set()
        self._waker.wake()
        self._acceptor.join()
        self._selector.close()
        self.server_close()
        self._waker.close()
        with self._lock:
            for connection in self._connections:
                # To those that wait for a request this is the end; answers still go out.
                with suppress(OSError):  # the client has gone already
                    connection.shutdown(socket.SHUT_RD)
        deadline = time.monotonic() + CLOSE_TIMEOUT
        for thread in self._threads_of_requests:
            if thread is not threading.current_thread():  # a source that closes its own monitor
                thread.join(max(0.0, deadline - time.monotonic()))
                if thread.is_alive():
                    logger.warning(
                        "the monitor leaves a request behind whose source does not return"
                    )

    def _serve(self) -> None:
        self._waker.arm()
        while not self._stopping.is_set():
            self._selector.select()
            if not self._stopping.is_set():
                self.handle_request()

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept, on a socket that does not block. The base class goes on after an OSError."""
        try:
            return super().get_request()
        except BlockingIOError:
            raise  # the client has given up in the meantime
        except OSError as error:
            # Out of descriptors, most likely; the socket stays readable, so that this would spin.
            logger.warning("the monitor cannot accept: %s", error)
            self._stopping.wait(RETRY_DELAY)
            raise

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether there is room for one more."""
        alive = [thread for thread in self._threads_of_requests if thread.is_alive()]
        self._threads_of_requests = alive
        if len(alive) < MAX_CONNECTIONS:
            return True
        logger.warning("the monitor has refused a connection: it has %d of them", len(alive))
        return False

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer on a thread that `stop` can find: the base class keeps none of its daemons."""
        thread = threading.Thread(
            target=self.process_request_thread,
            args=(request, client_address),
            name="tao-monitor-request",
            daemon=True,
        )
        with self._lock:
            self._connections.add(request)
        self._threads_of_requests.append(thread)
        try:
            thread.start()
        except RuntimeError:
            self._threads_of_requests.remove(thread)  # the base class closes the connection
            raise

    def close_request(self, request: Any) -> None:
        """Close a connection."""
        with self._lock:
            self._connections.discard(request)
            super().close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what a request's thread raised; the base class prints it to stderr."""
        if isinstance(sys.exception(), ConnectionError):
            logger.debug("monitor: %s went away", client_address[0])
        else:
            logger.exception("monitor: failed to answer %s", client_address[0])


class _RequestTooLargeError(Exception):
    """A request goes on beyond MAX_REQUEST_SIZE."""


class _RequestReader(io.RawIOBase):
    """A connection's bytes, for as many and as long as one request may take.

    The limit of time is for the request as a whole: a limit for each read would let a client hold its
    thread for hours, byte by byte.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._left = 0
        self._deadline = 0.0

    def begin(self) -> None:
        """From here on it is the next request."""
        self._left = MAX_REQUEST_SIZE
        self._deadline = time.monotonic() + REQUEST_TIMEOUT

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._left:
            raise _RequestTooLargeError
        remaining = self._deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError(f"nothing complete within {REQUEST_TIMEOUT:g} s")
        self._socket.settimeout(remaining)
        count = self._socket.recv_into(memoryview(buffer)[: self._left])
        self._left -= count
        return count


class _RequestHandler(BaseHTTPRequestHandler):
    """Answers the requests of one connection, on a thread of its own."""

    server: _HttpServer
    protocol_version = "HTTP/1.1"
    # What cannot be understood is answered with a status line all the same, which 0.9 had not.
    default_request_version = "HTTP/1.0"
    # Headers and body go out by two sends: without this the second waits for the peer's ACK.
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self._reader = _RequestReader(self.connection)
        self.rfile = io.BufferedReader(self._reader)

    def handle_one_request(self) -> None:
        """Read one request and answer it. The base class has no limits and knows no 405."""
        self._reader.begin()
        self.requestline = self.command = ""
        self.request_version = self.default_request_version
        try:
            self.raw_requestline = self.rfile.readline()
            if not self.raw_requestline:
                self.close_connection = True
            elif self.parse_request():
                self._answer()
        except _RequestTooLargeError:
            self.send_error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        except TimeoutError as error:
            self.log_message("timed out: %s", error)
            self.close_connection = True

    def handle_expect_100(self) -> bool:
        """No: a body is not wanted, whatever it is."""
        return True

    def _answer(self) -> None:
        if self.request_version < "HTTP/1.1":
            self.close_connection = True  # 1.0 has its own way of keeping a connection: not ours
        has_body = (
            "Transfer-Encoding" in self.headers or self.headers.get("Content-Length", "0") != "0"
        )
        if has_body:
            self.close_connection = True  # it would be taken for the next request
        if self.command in ("GET", "HEAD"):
            self._reply(self._page())
        else:
            page = _text_page(HTTPStatus.METHOD_NOT_ALLOWED, "there are GET and HEAD")
            self._reply(page, Allow="GET, HEAD")
        if has_body:
            self._linger()

    def _page(self) -> _Page:
        pages = self.server.pages
        try:
            make = pages.get(urlsplit(self.path).path)
        except ValueError:  # an absolute URL that is none
            make = None
        if make is None:
            return _text_page(HTTPStatus.NOT_FOUND, f"there are {', '.join(pages)}")
        try:
            return make()
        except Exception:
            logger.exception("monitor: failed to make a page")
            return _text_page(HTTPStatus.INTERNAL_SERVER_ERROR, "see the program's log")

    def _reply(self, page: _Page, **headers: str) -> None:
        self.connection.settimeout(REQUEST_TIMEOUT)  # for `sendall`, a limit of the whole
        self.send_response(page.status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", page.content_type)
        self.send_header("Content-Length", str(len(page.body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(page.body)

    def _linger(self) -> None:
        """Read on for a while, for nothing, after the last answer.

        Closing a socket with unread bytes resets the connection (RFC 1122, 4.2.2.13), and the reset
        may destroy the answer on its way: RFC 9112, 9.6.
        """
        self._reader.begin()
        try:
            self.connection.shutdown(socket.SHUT_WR)
            while self._reader.read(MAX_REQUEST_SIZE):
                pass
        except (OSError, _RequestTooLargeError):
            pass  # enough is enough

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Tell a client that its request is none. Called by the base class as well."""
        status = HTTPStatus(code)
        self.close_connection = True
        self._reply(_text_page(status, message or status.description))
        self._linger()

    def version_string(self) -> str:
        """No version: what is not said is not looked up."""
        return "tao"

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are logged for those who look for something; the base class prints to stderr."""
        # By %r, because a request line may contain anything, a terminal's escapes too.
        logger.debug("monitor: %s: %r", self.address_string(), format % args)
