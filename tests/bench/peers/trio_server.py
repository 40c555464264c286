"""Echo by trio: a task per connection."""

import signal

import trio

from tests.bench.peers.common import BACKLOG, HOST, announce, peer_parser, prepare_process
from tests.bench.peers.frames import FrameError, FrameReader, echo


async def serve_connection(stream: trio.SocketStream) -> None:
    """Answer all messages of a read in one send, until the peer leaves or breaks the format."""
    reader = FrameReader()
    try:
        async for data in stream:
            replies = [echo(number, value) for number, value in reader.feed(data)]
            if replies:
                await stream.send_all(b"".join(replies))
    except (trio.BrokenResourceError, FrameError):
        pass  # trio closes the stream


async def serve() -> None:
    """Announce the port, and return after SIGTERM."""
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        listeners = await trio.open_tcp_listeners(0, host=HOST, backlog=BACKLOG)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, serve_connection, listeners)
            announce(listeners[0].socket.getsockname()[1])
            await anext(signals)
            nursery.cancel_scope.cancel()


def main() -> None:
    options = peer_parser("trio_server").parse_args()
    prepare_process(options.cpu)
    trio.run(serve)


if __name__ == "__main__":
    main()
