"""Echo by asyncio.Protocol: frames are parsed where they arrive, without tasks or futures."""

import asyncio
from typing import cast

from tests.bench.peers.asyncio_loop import add_loop_option, serve
from tests.bench.peers.common import BACKLOG, HOST, peer_parser, prepare_process
from tests.bench.peers.frames import HEADER, MAX_LENGTH
from tests.bench.peers.server_tls import add_tls_option, tls_context
from tests.bench.peers.work import Handler, add_work_option, handler_of

RECEIVE_SIZE = 256 * 1024


class EchoProtocol(asyncio.Protocol):
    """Replies with one write for each message, or one for all messages of a read."""

    __slots__ = ("_handle", "_joined", "_tail", "_transport")

    _transport: asyncio.Transport

    def __init__(self, handle: Handler, joined: bool) -> None:
        self._handle = handle
        self._joined = joined
        self._tail = bytearray()  # an incomplete frame

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def pause_writing(self) -> None:
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        if not self._tail:  # the common case: no copy
            used = self._serve_frames(data)
            if used < len(data):
                self._tail += memoryview(data)[used:]
            return
        self._tail += data
        del self._tail[: self._serve_frames(self._tail)]

    def _serve_frames(self, data: bytes | bytearray) -> int:
        """Reply to every whole frame of `data`; the number of bytes they took."""
        write, handle, joined = self._transport.write, self._handle, self._joined
        header_size, unpack = HEADER.size, HEADER.unpack_from
        replies = []
        start, size = 0, len(data)
        while size - start >= header_size:
            number, length = unpack(data, start)
            if length > MAX_LENGTH:
                self._transport.abort()
                return size
            end = start + header_size + length
            if end > size:
                break
            reply = handle(number, bytes(data[start + header_size : end]))
            if joined:
                replies.append(reply)
            else:
                write(reply)
            start = end
        if replies:
            write(b"".join(replies))
        return start


class BufferedEchoProtocol(EchoProtocol, asyncio.BufferedProtocol):
    """The same, received into one buffer that all connections share.

    asyncio's own loop otherwise allocates the most it could receive for every read. The buffer can
    be shared because nothing is left in it when `buffer_updated` returns.
    """

    __slots__ = ("_buffer",)

    def __init__(self, handle: Handler, joined: bool, buffer: memoryview) -> None:
        super().__init__(handle, joined)
        self._buffer = buffer

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(self._buffer[:nbytes]))


def main() -> None:
    parser = peer_parser("asyncio_protocol")
    parser.add_argument("--writes", choices=("each", "joined"), default="each")
    parser.add_argument("--reads", choices=("plain", "buffered"), default="plain")
    add_loop_option(parser)
    add_work_option(parser)
    add_tls_option(parser)
    options = parser.parse_args()
    prepare_process(options.cpu)

    handle = handler_of(options.work)
    tls = tls_context(options.tls)
    joined = options.writes == "joined"
    buffer = memoryview(bytearray(RECEIVE_SIZE))

    def new_protocol() -> asyncio.BaseProtocol:
        if options.reads == "buffered":
            return BufferedEchoProtocol(handle, joined, buffer)
        return EchoProtocol(handle, joined)

    async def start() -> asyncio.Server:
        loop = asyncio.get_running_loop()
        return await loop.create_server(new_protocol, HOST, 0, backlog=BACKLOG, ssl=tls)

    serve(options.loop, start)


if __name__ == "__main__":
    main()
