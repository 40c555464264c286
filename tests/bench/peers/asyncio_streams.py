"""Echo by asyncio streams: one coroutine per connection, as the documentation teaches it."""

import asyncio

from tests.bench.peers.asyncio_loop import add_loop_option, serve
from tests.bench.peers.common import BACKLOG, HOST, peer_parser, prepare_process
from tests.bench.peers.frames import HEADER, MAX_LENGTH, echo


async def serve_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reply to every frame until the peer leaves or breaks the format."""
    try:
        while True:
            number, length = HEADER.unpack(await reader.readexactly(HEADER.size))
            if length > MAX_LENGTH:
                break
            writer.write(echo(number, await reader.readexactly(length)))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


def main() -> None:
    parser = peer_parser("asyncio_streams")
    add_loop_option(parser)
    options = parser.parse_args()
    prepare_process(options.cpu)

    async def start() -> asyncio.Server:
        return await asyncio.start_server(serve_connection, HOST, 0, backlog=BACKLOG)

    serve(options.loop, start)


if __name__ == "__main__":
    main()
