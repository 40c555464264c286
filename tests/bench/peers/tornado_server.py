"""Echo by tornado: a coroutine per connection, over its IOStream."""

import asyncio
import signal

from tornado.iostream import IOStream, StreamClosedError
from tornado.netutil import bind_sockets
from tornado.tcpserver import TCPServer

from tests.bench.peers.common import BACKLOG, HOST, announce, peer_parser, prepare_process
from tests.bench.peers.frames import FrameError, FrameReader, echo

RECEIVE_SIZE = 64 * 1024


class EchoServer(TCPServer):
    """Takes what is there, not frame by frame: a future for each read is what costs most here."""

    async def handle_stream(self, stream: IOStream, address: object) -> None:
        stream.set_nodelay(True)
        reader = FrameReader()
        try:
            while True:
                data = await stream.read_bytes(RECEIVE_SIZE, partial=True)
                replies = [echo(number, value) for number, value in reader.feed(data)]
                if replies:
                    await stream.write(b"".join(replies))
        except (StreamClosedError, FrameError):
            stream.close()


async def serve() -> None:
    """Announce the port, and return after SIGTERM."""
    terminated = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminated.set)
    server = EchoServer()
    sockets = bind_sockets(0, HOST, backlog=BACKLOG)
    server.add_sockets(sockets)
    announce(sockets[0].getsockname()[1])
    await terminated.wait()
    server.stop()


def main() -> None:
    options = peer_parser("tornado_server").parse_args()
    prepare_process(options.cpu)
    asyncio.run(serve())


if __name__ == "__main__":
    main()
