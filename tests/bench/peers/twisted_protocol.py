"""Echo by a twisted Protocol: frames are parsed where they arrive."""

import importlib
from typing import Any

from twisted.internet.protocol import Factory, Protocol

from tests.bench.peers.common import BACKLOG, HOST, announce, peer_parser, prepare_process
from tests.bench.peers.frames import FrameError, FrameReader, echo

# By name: the reactor is an object that stands where its module stood, which no type describes.
reactor: Any = importlib.import_module("twisted.internet.reactor")


class EchoProtocol(Protocol):
    """One write for all messages of a read."""

    transport: Any  # said to be an interface, of which the reactor's class has more

    def connectionMade(self) -> None:
        self._reader = FrameReader()
        self.transport.setTcpNoDelay(True)
        # As its own producer the transport stops reading while it has too much to write.
        self.transport.registerProducer(self.transport, True)

    def dataReceived(self, data: bytes) -> None:
        try:
            messages = self._reader.feed(data)
        except FrameError:
            self.transport.abortConnection()
            return
        if messages:
            self.transport.write(b"".join([echo(number, value) for number, value in messages]))


def serve(factory: object) -> None:
    """Listen, announce the port, and return after SIGTERM, which twisted handles by itself."""
    listener = reactor.listenTCP(0, factory, backlog=BACKLOG, interface=HOST)
    reactor.callWhenRunning(announce, listener.getHost().port)
    reactor.run()


def main() -> None:
    options = peer_parser("twisted_protocol").parse_args()
    prepare_process(options.cpu)
    factory = Factory.forProtocol(EchoProtocol)
    factory.noisy = False
    serve(factory)


if __name__ == "__main__":
    main()
