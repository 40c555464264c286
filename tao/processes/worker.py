"""A worker: `python -m tao.processes.worker ORDER`, started by the Supervisor and by nobody else.

Owns one process: it imports the application, takes the inherited sockets, serves, and answers the parent.
The main thread runs the server's loop; a thread of its own listens to the parent.

A worker whose parent is gone, in whatever way, ends in good order.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import socket
import sys
import threading
from collections.abc import Callable
from functools import partial
from types import FrameType

from reactor import ReactorError
from tao.errors import TaoError
from tao.monitor import Monitor
from tao.processes.link import ADOPT, ALIVE, LOADED, PING, READY, SERVE, STOP, Link
from tao.processes.logs import set_up_logging
from tao.processes.order import Order
from tao.processes.target import TargetError, load_server
from tao.server import Server
from tao.tls import load_server_tls

__all__ = ["Worker", "main"]

logger: logging.Logger = logging.getLogger("tao")

FAILED = 1
"""The exit status of a worker that could not begin, or had to leave a handler behind."""

MARGIN = 3.0
"""Seconds beyond the grace in which a worker without a parent has ended, or is ended."""


class Worker:
    """One process of a service, from its order to its exit status. Made and run by the main thread."""

    def __init__(self, order: Order, server: Server, link: Link) -> None:
        self._order = order
        self._server = server
        self._link = link
        self._spare = dict(order.spare)  # taken out by the thread that uses or closes them
        self._stop_asked = False  # by a signal
        self._signals, self._signals_in = socket.socketpair()

    def run(self) -> int:
        """Accept and serve until the parent, a signal, or the parent's end stops it."""
        monitor = self._monitor()
        try:
            for number in self._order.listeners:
                self._listen(number)
            self._take_signals()
            # The first thing that the loop does: whoever is told can rely on it.
            self._server.call_soon(partial(self._link.send, READY))
            threading.Thread(target=self._obey, name="tao-control", daemon=True).start()
            self._server.serve_forever()
        finally:
            if monitor is not None:
                monitor.close()
        if self._server.stop(0.0).finished:
            return 0
        # The interpreter's own end would wait for the handler that has not returned.
        logging.shutdown()
        sys.stdout.flush()
        os._exit(FAILED)

    def _listen(self, number: int) -> None:
        sock = socket.socket(fileno=number)
        # Who connects to a Unix socket has no address: there its file's mode says who may.
        trusted = () if sock.family == socket.AF_UNIX else self._order.trusted_proxies
        try:
            self._server.listen(
                sock, proxy_protocol=self._order.proxy_protocol, trusted_proxies=trusted
            )
        except BaseException:
            sock.close()
            raise

    def _take_signals(self) -> None:
        """Have them come to the control thread, as bytes.

        By handlers of ours and not by `signal.set_wakeup_fd`: the loop has it for a moment when it begins,
        and what came then would be lost. It is awake when a signal has come, and the handler runs.
        """
        self._signals_in.setblocking(False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            # SIGHUP too, and not SIG_IGN, which the application's own child processes would inherit.
            signal.signal(number, self._pass_on)

    def _pass_on(self, number: int, _frame: FrameType | None) -> None:
        try:
            self._signals_in.send(bytes((number,)))
        except BlockingIOError:
            pass  # it is full of others, which have the same to say

    def _monitor(self) -> Monitor | None:
        if self._order.monitor is None:
            return None
        monitor = Monitor(socket.socket(fileno=self._order.monitor))
        monitor.add(f"worker {self._order.slot}", self._server.metrics)
        return monitor

    def _obey(self) -> None:
        """The control thread."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._link, selectors.EVENT_READ)
            selector.register(self._signals, selectors.EVENT_READ)
            while True:
                ready = {key.fileobj for key, _ in selector.select()}
                if self._signals in ready:
                    self._handle_signals(self._signals.recv(64))
                if self._link in ready:
                    lines = self._link.read()
                    if lines is None:
                        break
                    for line in lines:
                        self._handle_line(line)
        logger.warning("the parent process is gone: stopping")
        self._begin_stop(self._order.grace)
        # The loop may hang, and nobody else is left to end this process. A daemon's sleep delays no end.
        threading.Event().wait(self._order.grace + MARGIN)
        logger.error("not stopped within the grace: ended by force")
        os._exit(FAILED)

    def _handle_line(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word == STOP:
            self._begin_stop(float(rest))
        elif word == PING:
            self._on_loop(partial(self._link.send, ALIVE))
        elif word == ADOPT:
            self._adopt(int(rest))

    def _handle_signals(self, numbers: bytes) -> None:
        for number in numbers:
            if number != signal.SIGHUP:  # which is the parent's affair
                self._begin_stop(0.0 if self._stop_asked else self._order.grace)
                self._stop_asked = True

    def _begin_stop(self, grace: float) -> None:
        self._close_spare()
        # There `stop` does not wait: what comes by the link next must be read.
        self._on_loop(partial(self._server.stop, grace))

    def _on_loop(self, callback: Callable[[], object]) -> None:
        try:
            self._server.call_soon(callback)
        except ReactorError:
            pass  # the loop has ended, and the process is about to

    def _adopt(self, slot: int) -> None:
        logger.info("worker %d has fallen: accepting in its place", slot)
        try:
            for number in self._spare.pop(slot, ()):
                self._listen(number)
        except TaoError:
            pass  # it stops: nobody is accepted any more

    def _close_spare(self) -> None:
        """A port is free again when the last descriptor of its sockets is closed."""
        while self._spare:
            for number in self._spare.popitem()[1]:
                os.close(number)


def main() -> int:
    """The process's program; returns its exit status."""
    order = Order.load(sys.argv[1])
    for number in order.descriptors():
        os.set_inheritable(number, False)  # what the application starts shall not keep them open
    set_up_logging(order.log_level)
    link = Link(socket.socket(fileno=order.control))
    threading.Thread(target=_end_with_parent, args=(link,), name="tao-parent", daemon=True).start()
    if order.app_dir not in sys.path:
        sys.path.insert(0, order.app_dir)
    server = _load(order)
    if server is None:
        link.close()
        return FAILED
    link.send(LOADED)
    if link.read() != [SERVE]:
        link.close()
        return 0  # the parent is gone, or has changed its mind
    return Worker(order, server, link).run()


def _end_with_parent(link: Link) -> None:
    """While the application is being loaded, which may take for ever, and holds the parent's sockets open.

    The thread ends with the parent's first word, which comes when it has been loaded.
    """
    if not link.wait():
        logger.warning("the parent process is gone: ended before it could serve")
        logging.shutdown()
        os._exit(FAILED)


def _load(order: Order) -> Server | None:
    """The application's server; None when there is none, and the log says why."""
    try:
        server = load_server(order.target)
    except TargetError as error:
        logger.error("%s", error)
        return None
    except Exception:
        logger.exception("cannot load %s", order.target)
        return None
    if order.tls_certificate is not None:
        try:
            server.set_tls(load_server_tls(order.tls_certificate, order.tls_key))
        except OSError as error:  # ssl.SSLError is one
            logger.error("cannot use the certificate %s: %s", order.tls_certificate, error)
            return None
    return server


if __name__ == "__main__":
    sys.exit(main())
