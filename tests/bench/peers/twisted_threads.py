"""Echo by a twisted Protocol with handlers on threads: deferToThread for every message.

As in `asyncio_executor`, the handlers of one connection may run at the same time; their replies
leave in the order of the messages.
"""

from collections import deque
from typing import Any

from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread

from tests.bench.peers.asyncio_executor import MOST_PENDING, WORKERS
from tests.bench.peers.common import peer_parser, prepare_process
from tests.bench.peers.frames import FrameError, FrameReader
from tests.bench.peers.twisted_protocol import reactor, serve
from tests.bench.peers.work import Handler, add_work_option, handler_of


class Slot:
    """The place of one reply among those of its connection; None until it is there."""

    __slots__ = ("reply",)

    def __init__(self) -> None:
        self.reply: bytes | None = None


class ThreadsProtocol(Protocol):
    """Keeps the replies that are under way in order, and writes what is done at their front."""

    transport: Any  # said to be an interface, of which the reactor's class has more

    def __init__(self, handle: Handler) -> None:
        self._handle = handle
        self._reader = FrameReader()
        self._pending: deque[Slot] = deque()
        self._is_full = False  # the transport has enough to write
        self._is_paused = False

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        self.transport.registerProducer(self, True)

    def connectionLost(self, reason: object = None) -> None:
        self._pending.clear()

    def dataReceived(self, data: bytes) -> None:
        try:
            messages = self._reader.feed(data)
        except FrameError:
            self.transport.abortConnection()
            return
        for number, value in messages:
            slot = Slot()
            self._pending.append(slot)
            deferToThread(self._handle, number, value).addCallback(self._write_done, slot)
        self._update_reading()

    def _write_done(self, reply: bytes, slot: Slot) -> None:
        slot.reply = reply
        pending = self._pending
        replies = []
        while pending and (done := pending[0].reply) is not None:
            replies.append(done)
            pending.popleft()
        if replies:
            self.transport.write(b"".join(replies))
            self._update_reading()

    # The transport asks its producer for these three.

    def pauseProducing(self) -> None:
        self._is_full = True
        self._update_reading()

    def resumeProducing(self) -> None:
        self._is_full = False
        self._update_reading()

    def stopProducing(self) -> None:
        """The connection is lost: nothing more is produced anyhow."""

    def _update_reading(self) -> None:
        pause = self._is_full or len(self._pending) >= MOST_PENDING
        if pause == self._is_paused:
            return
        self._is_paused = pause
        if pause:
            self.transport.pauseProducing()
        else:
            self.transport.resumeProducing()


class ThreadsFactory(Factory):
    """Makes a protocol for each connection."""

    noisy = False

    def __init__(self, handle: Handler) -> None:
        self._handle = handle

    def buildProtocol(self, addr: object) -> ThreadsProtocol:
        return ThreadsProtocol(self._handle)


def main() -> None:
    parser = peer_parser("twisted_threads")
    add_work_option(parser)
    options = parser.parse_args()
    prepare_process(options.cpu)
    reactor.suggestThreadPoolSize(WORKERS)
    serve(ThreadsFactory(handler_of(options.work)))


if __name__ == "__main__":
    main()
