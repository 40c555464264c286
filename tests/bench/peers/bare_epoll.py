"""Sends back what comes, on a bare select.epoll: what the calls alone cost in Python.

It parses nothing and has no handler, so nothing that does its work in Python can be faster; where
the load generator keeps up with it, the generator is no limit for the others.
"""

import select
import signal
import socket
import sys
from types import FrameType

from tests.bench.peers.common import BACKLOG, HOST, announce, peer_parser, prepare_process

RECEIVE_SIZE = 256 * 1024


class BareEcho:
    """One listener, its connections, and for each the bytes that the kernel did not take yet."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._epoll = select.epoll()
        self._connections: dict[int, socket.socket] = {}
        self._unsent: dict[int, bytearray] = {}
        # Shared by all connections: it is empty again before the next one is read.
        self._buffer = memoryview(bytearray(RECEIVE_SIZE))

    def run(self) -> None:
        self._epoll.register(self._listener, select.EPOLLIN)
        listener = self._listener.fileno()
        while True:
            for descriptor, events in self._epoll.poll():
                if descriptor == listener:
                    self._accept()
                    continue
                try:
                    if events & select.EPOLLOUT:
                        self._flush(descriptor)
                    else:
                        self._echo(descriptor)
                except OSError:
                    self._close(descriptor)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connections[connection.fileno()] = connection
        self._epoll.register(connection, select.EPOLLIN)

    def _echo(self, descriptor: int) -> None:
        connection = self._connections[descriptor]
        size = connection.recv_into(self._buffer)
        if size == 0:
            self._close(descriptor)
            return
        data = self._buffer[:size]
        try:
            sent = connection.send(data)
        except BlockingIOError:
            sent = 0
        if sent < size:  # read no more until the rest is gone
            self._unsent[descriptor] = bytearray(data[sent:])
            self._epoll.modify(descriptor, select.EPOLLOUT)

    def _flush(self, descriptor: int) -> None:
        unsent = self._unsent[descriptor]
        del unsent[: self._connections[descriptor].send(unsent)]
        if not unsent:
            del self._unsent[descriptor]
            self._epoll.modify(descriptor, select.EPOLLIN)

    def _close(self, descriptor: int) -> None:
        self._unsent.pop(descriptor, None)
        self._connections.pop(descriptor).close()


def _on_sigterm(signal_number: int, frame: FrameType | None) -> None:
    sys.exit(0)


def main(name: str = "bare_epoll", kind: type[BareEcho] = BareEcho) -> None:
    options = peer_parser(name).parse_args()
    prepare_process(options.cpu)
    signal.signal(signal.SIGTERM, _on_sigterm)
    with socket.create_server((HOST, 0), backlog=BACKLOG) as listener:
        listener.setblocking(False)
        announce(listener.getsockname()[1])
        kind(listener).run()


if __name__ == "__main__":
    main()
