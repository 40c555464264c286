"""Messages by the framework's codec, registry and contexts on a bare select.epoll: its interface's floor.

A frame is decoded, a message made of it and a context of that, its handler called, its reply serialized and
framed, all as the framework calls it; first all connections are read, then their messages handled, then
the replies sent. Nothing else is done: no order between threads, no bytes counted, no errors told, no
deadlines. The framework, which does all that, cannot be faster.
"""

import select
import socket
from typing import cast

from tao import Context, FrameTooLargeError, MessageRegistry, TypeLengthValueCodec, WriteCloser
from tao.context import ContextSource
from tests.bench.peers.bare_epoll import BareEcho, main
from tests.bench.peers.tao_server import Echo, register

NOBODY = cast(ContextSource, None)
"""What a context is asked about its connection: in here it is not."""

NO_CONNECTION = cast(WriteCloser, None)


class BareMessages(BareEcho):
    """As what it is made of, but that frames are handled."""

    def __init__(self, listener: socket.socket) -> None:
        super().__init__(listener)
        self._tails: dict[int, bytes] = {}
        self._codec = TypeLengthValueCodec()
        registry = MessageRegistry()
        register(registry, Echo, None, inline=True)
        self._find = registry.find_open

    def run(self) -> None:
        self._epoll.register(self._listener, select.EPOLLIN)
        while True:
            self._handle_all(self._epoll.poll())

    def _handle_all(self, ready: list[tuple[int, int]]) -> None:
        received = []
        for descriptor, events in ready:
            if descriptor == self._listener.fileno():
                self._accept()
            elif events & select.EPOLLOUT:
                try:
                    self._flush(descriptor)
                except OSError:
                    self._close(descriptor)
            else:
                data = self._receive(descriptor)
                if data:
                    received.append((descriptor, data))
        replies = [(descriptor, self._handle(descriptor, data)) for descriptor, data in received]
        for descriptor, reply in replies:
            if reply is None:
                self._close(descriptor)
            elif reply:
                self._send(descriptor, reply)

    def _receive(self, descriptor: int) -> bytes:
        try:
            size = self._connections[descriptor].recv_into(self._buffer)
        except OSError:
            size = 0
        if not size:
            self._tails.pop(descriptor, None)
            self._close(descriptor)
        return self._buffer[:size].tobytes()

    def _handle(self, descriptor: int, data: bytes) -> bytes | None:
        """The replies to all whole frames; the rest is kept. None: one is too long."""
        codec, find = self._codec, self._find
        if descriptor in self._tails:
            data = self._tails.pop(descriptor) + data
        frames = []
        end = 0
        try:
            for number, value, end in codec.decode(data):  # noqa: B007 - of the last
                entry = find(number)
                assert entry is not None
                handler, deserialize = entry.handler, entry.deserialize
                assert handler is not None
                reply = handler(Context(deserialize(value), NOBODY), NO_CONNECTION)
                if reply is not None:
                    frames.append(codec.encode(reply))
        except FrameTooLargeError:
            return None
        if end < len(data):
            self._tails[descriptor] = data[end:]
        return frames[0] if len(frames) == 1 else b"".join(frames)

    def _send(self, descriptor: int, data: bytes) -> None:
        try:
            sent = self._connections[descriptor].send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._close(descriptor)
            return
        if sent < len(data):  # read no more until the rest is gone
            self._unsent[descriptor] = bytearray(data[sent:])
            self._epoll.modify(descriptor, select.EPOLLOUT)


if __name__ == "__main__":
    main("bare_messages", BareMessages)
