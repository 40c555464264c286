"""What an application uses of the monitor.

Contents: monitor_on, Monitor.

Owns one listening socket, and what hears on it (`tao.monitor.web`); the sources, by their names; and the
sampler, which runs while somebody watches. It shows what its sources return and changes nothing: no
files, no other methods than GET and HEAD, no way into the process. Who may see it: `tao.monitor.access`.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from reactor import listen
from tao.address import check_address, format_address
from tao.errors import TaoError
from tao.metrics import MetricsSnapshot
from tao.monitor.access import Access, check_token
from tao.monitor.pages import index_page, prometheus_page, vars_page
from tao.monitor.sampler import Sampler
from tao.monitor.sources import Sources
from tao.monitor.status import status_page
from tao.monitor.web import MAX_CONNECTIONS, HttpServer, Route

__all__ = ["Monitor", "monitor_on"]

logger: logging.Logger = logging.getLogger("tao")


def monitor_on(port: int, host: str = "127.0.0.1", *, token: str | None = None) -> Monitor:
    """Serve the numbers of what will be added over HTTP, from threads of its own; does not block.

        with monitor_on(6060) as monitor:
            monitor.add("chat", server.metrics)
            server.serve_forever()

    - `/`: a page that shows them as they change; `/status` is the JSON that it asks for.
    - `/debug/vars`: JSON, in the form of Go's package expvar.
    - `/metrics`: for Prometheus; needs `pip install 'tao[prometheus]'`.

    Port 0 lets the system choose: see `Monitor.address`. On another `host` than this machine's own a
    `token` is needed, of 16 characters at least, which every request for numbers has to bring:
    `Authorization: Bearer TOKEN`. Here, without one, only requests for a name of this machine are
    answered. Nothing of it is encrypted. Any thread.

    Raises OSError, with the address and a way out in its text, when it cannot be had; ValueError for a
    host that others reach without a token, and for a token that is none; ValueError or TypeError for a
    port that is none.
    """
    check_address((host, port), first_port=0)
    check_token(token)
    sock = listen((host, port), backlog=MAX_CONNECTIONS)
    try:
        return Monitor(sock, token=token)
    except BaseException:  # others reach it, or there is no thread to be had
        sock.close()
        raise


class Monitor:
    """Shows the numbers of its sources over HTTP until it is closed. Made by `monitor_on`.

    All of it may be called from any thread. It is its own context manager: leaving closes it. Raises
    ValueError for a socket that others reach without a token.
    """

    def __init__(self, sock: socket.socket, *, token: str | None = None) -> None:
        host, port = sock.getsockname()[:2]
        self.address: tuple[str, int] = (host, port)
        """Where it listens, with the port that was chosen."""
        is_local = ipaddress.ip_address(host).is_loopback
        if token is None and not is_local:
            raise ValueError(
                f"a monitor on {host} can be reached from other machines and needs a token: pass "
                f"token=secrets.token_urlsafe(), or leave host out, which is this machine alone"
            )
        self._sources = sources = Sources()
        self._sampler = sampler = Sampler(sources)
        self._lock = threading.Lock()
        self._closed = False  # under the lock
        self._server = HttpServer(
            sock,
            {
                # What this one shows, its script has to ask for.
                "/": Route(lambda _query: index_page(), is_public=True),
                "/status": Route(lambda query: status_page(sampler, query)),
                "/debug/vars": Route(lambda _query: vars_page(sources.snapshots())),
                "/metrics": Route(lambda _query: prometheus_page(sources.snapshots())),
            },
            Access(token),
        )
        url = f"http://{format_address(self.address)}/"
        if not is_local:
            logger.warning(
                "the monitor on %s can be reached from other machines: it shows this program's numbers "
                "and its command line to whoever has the token, and neither is encrypted on the way",
                url,
            )
        self._server.start()
        logger.info("monitor on %s", url)

    def add(self, name: str, source: Callable[[], MetricsSnapshot]) -> None:
        """Show what `source` returns under `name`: `monitor.add("chat", server.metrics)`.

        It is called for every request, on the request's thread, and once in a second while somebody
        watches, on one of the monitor's; one that raises is logged, and left out of that answer. Of a
        server's `metrics` the live page shows the server's connections and handlers, too. Raises
        ValueError for a name that is taken or cannot be printed, TaoError after `close`.
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
        self._sampler.stop()

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
