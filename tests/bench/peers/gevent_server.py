"""Echo by gevent: a greenlet per connection, which reads as if it blocked."""

import signal
import socket

import gevent
from gevent.server import StreamServer

from tests.bench.peers.common import BACKLOG, HOST, announce, peer_parser, prepare_process
from tests.bench.peers.frames import FrameError, FrameReader, echo

RECEIVE_SIZE = 64 * 1024


def serve_connection(sock: socket.socket, address: object) -> None:
    """Answer all messages of a read in one send, until the peer leaves or breaks the format."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    reader = FrameReader()
    try:
        while data := sock.recv(RECEIVE_SIZE):
            replies = [echo(number, value) for number, value in reader.feed(data)]
            if replies:
                sock.sendall(b"".join(replies))
    except (OSError, FrameError):
        pass  # the server closes the socket


def main() -> None:
    options = peer_parser("gevent_server").parse_args()
    prepare_process(options.cpu)
    server = StreamServer((HOST, 0), serve_connection, backlog=BACKLOG)
    gevent.signal_handler(signal.SIGTERM, server.stop)
    server.start()
    announce(server.server_port)
    server.serve_forever()


if __name__ == "__main__":
    main()
