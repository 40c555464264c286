"""Echo by asyncio.Protocol with handlers on threads: run_in_executor for every message.

What a program with blocking handlers does on asyncio. The replies leave in the order of the messages.
The handlers of one connection may run at the same time, or, with ``--order handled``, one after the
other, as the framework's do.
"""

import asyncio
from collections import deque
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import cast

from tests.bench.peers.asyncio_loop import add_loop_option, serve
from tests.bench.peers.common import BACKLOG, HOST, peer_parser, prepare_process
from tests.bench.peers.frames import HEADER, MAX_LENGTH
from tests.bench.peers.work import Handler, add_work_option, handler_of

WORKERS = 20  # the framework's default
MOST_PENDING = 1024  # messages of one connection handed to the executor; then reading pauses


class ExecutorProtocol(asyncio.Protocol):
    """Keeps the futures of its messages in order and writes what is done at their front."""

    __slots__ = (
        "_executor",
        "_handle",
        "_is_full",
        "_is_paused",
        "_loop",
        "_pending",
        "_tail",
        "_transport",
    )

    _transport: asyncio.Transport

    def __init__(
        self, loop: asyncio.AbstractEventLoop, executor: Executor, handle: Handler
    ) -> None:
        self._loop = loop
        self._executor = executor
        self._handle = handle
        self._pending: deque[asyncio.Future[bytes]] = deque()
        self._tail = bytearray()
        self._is_full = False  # the transport has enough to write
        self._is_paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._pending.clear()

    def pause_writing(self) -> None:
        self._is_full = True
        self._update_reading()

    def resume_writing(self) -> None:
        self._is_full = False
        self._update_reading()

    def data_received(self, data: bytes) -> None:
        if not self._tail:
            used = self._submit_frames(data)
            if used < len(data):
                self._tail += memoryview(data)[used:]
        else:
            self._tail += data
            del self._tail[: self._submit_frames(self._tail)]
        self._update_reading()

    def _submit_frames(self, data: bytes | bytearray) -> int:
        start, size = 0, len(data)
        while size - start >= HEADER.size:
            number, length = HEADER.unpack_from(data, start)
            if length > MAX_LENGTH:
                self._transport.abort()
                return size
            end = start + HEADER.size + length
            if end > size:
                break
            value = bytes(data[start + HEADER.size : end])
            self._submit(number, value)
            start = end
        return start

    def _submit(self, number: int, value: bytes) -> None:
        future = self._loop.run_in_executor(self._executor, self._handle, number, value)
        future.add_done_callback(self._write_done)
        self._pending.append(future)

    def _write_done(self, _: asyncio.Future[bytes]) -> None:
        pending = self._pending
        replies = []
        while pending and pending[0].done():
            replies.append(pending.popleft().result())
        if replies:
            self._transport.write(b"".join(replies))
            self._update_reading()

    def _update_reading(self) -> None:
        pause = self._is_full or self._unanswered() >= MOST_PENDING
        if pause == self._is_paused:
            return
        self._is_paused = pause
        if pause:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _unanswered(self) -> int:
        return len(self._pending)


class OrderedExecutorProtocol(ExecutorProtocol):
    """Hands a message to the executor when the one before it has been handled."""

    __slots__ = ("_waiting",)

    def __init__(
        self, loop: asyncio.AbstractEventLoop, executor: Executor, handle: Handler
    ) -> None:
        super().__init__(loop, executor, handle)
        self._waiting: deque[tuple[int, bytes]] = deque()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._waiting.clear()

    def _submit(self, number: int, value: bytes) -> None:
        if self._pending:
            self._waiting.append((number, value))
        else:
            super()._submit(number, value)

    def _write_done(self, future: asyncio.Future[bytes]) -> None:
        super()._write_done(future)
        if self._waiting:
            super()._submit(*self._waiting.popleft())

    def _unanswered(self) -> int:
        return len(self._pending) + len(self._waiting)


def main() -> None:
    parser = peer_parser("asyncio_executor")
    parser.add_argument("--order", choices=("replied", "handled"), default="replied")
    add_loop_option(parser)
    add_work_option(parser)
    options = parser.parse_args()
    prepare_process(options.cpu)
    new_protocol = OrderedExecutorProtocol if options.order == "handled" else ExecutorProtocol
    handle = handler_of(options.work)
    with ThreadPoolExecutor(WORKERS) as executor:

        async def start() -> asyncio.Server:
            loop = asyncio.get_running_loop()
            return await loop.create_server(
                lambda: new_protocol(loop, executor, handle), HOST, 0, backlog=BACKLOG
            )

        serve(options.loop, start)


if __name__ == "__main__":
    main()
