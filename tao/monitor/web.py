"""A small HTTP server with limits.

Contents: Route, HttpServer (the standard library's), then what it is made of: _RequestReader and
_RequestHandler.

Owns a listening socket, one thread that accepts and one for each connection. It knows two methods, GET and
HEAD, reads no bodies, and knows nothing of what it serves.
"""

from __future__ import annotations

import io
import logging
import re
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from reactor import Waker
from tao.monitor.access import Access
from tao.monitor.pages import Page, text_page

__all__ = ["MAX_CONNECTIONS", "HttpServer", "Route"]

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

HEADERS = (
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Frame-Options", "DENY"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)
"""Of every answer: nothing is kept, guessed, framed, or handed to another site."""


@dataclass(frozen=True, slots=True)
class Route:
    """What is at a path."""

    make: Callable[[str], Page]
    """Makes the answer to a query, on the request's thread."""
    is_public: bool = False
    """Whether it is shown without a token."""


class HttpServer(ThreadingHTTPServer):
    """The standard library's server, with a bound on its threads and an end to all of them.

    Not `serve_forever`, which looks twice a second whether it shall stop: this one sleeps until a
    client comes or `stop` wakes it.
    """

    # None of the requests is worth a wait at the end of a program that forgot to close its monitor.
    daemon_threads = True

    def __init__(self, sock: socket.socket, routes: Mapping[str, Route], access: Access) -> None:
        super().__init__(sock.getsockname(), _RequestHandler, bind_and_activate=False)
        self.socket.close()  # the one that the base class has made, of a family that it chose
        self.socket = sock
        self.routes = routes
        self.access = access
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

    server: HttpServer
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
        self._reply(self._page())
        if has_body:
            self._linger()

    def _page(self) -> Page:
        access, routes = self.server.access, self.server.routes
        hosts = self.headers.get_all("Host", [])
        if not hosts and self.request_version >= "HTTP/1.1":
            return text_page(HTTPStatus.BAD_REQUEST, "a request has a Host")  # RFC 9112, 3.2
        denial = access.check_host(hosts, self.path)
        if denial is not None:
            return text_page(denial.status, denial.text, denial.headers)
        if self.command not in ("GET", "HEAD"):
            return text_page(
                HTTPStatus.METHOD_NOT_ALLOWED, "there are GET and HEAD", (("Allow", "GET, HEAD"),)
            )
        try:
            target = urlsplit(self.path)
        except ValueError:  # an absolute URL that is none
            return text_page(HTTPStatus.NOT_FOUND, f"there are {', '.join(routes)}")
        route = routes.get(target.path)
        if route is None:
            return text_page(HTTPStatus.NOT_FOUND, f"there are {', '.join(routes)}")
        if not route.is_public:
            denial = access.check_token(self.headers.get_all("Authorization", []))
            if denial is not None:
                return text_page(denial.status, denial.text, denial.headers)
        try:
            return route.make(target.query)
        except Exception:
            logger.exception("monitor: failed to make a page")
            return text_page(HTTPStatus.INTERNAL_SERVER_ERROR, "see the program's log")

    def _reply(self, page: Page) -> None:
        self.connection.settimeout(REQUEST_TIMEOUT)  # for `sendall`, a limit of the whole
        self.send_response(page.status)
        for name, value in (*page.headers, *HEADERS):
            self.send_header(name, value)
        self.send_header("Content-Type", page.content_type)
        self.send_header("Content-Length", str(len(page.body)))
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
        self._reply(text_page(status, message or status.description))
        self._linger()

    def version_string(self) -> str:
        """No version: what is not said is not looked up."""
        return "tao"

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Without the query: somebody may have put a token there."""
        self.log_message('"%s" %s', re.sub(r"\?\S*", "?...", self.requestline), str(int(code)))

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are logged for those who look for something; the base class prints to stderr."""
        # By %r, because a request line may contain anything, a terminal's escapes too.
        logger.debug("monitor: %s: %r", self.address_string(), format % args)
