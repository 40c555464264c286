"""One frame to everybody who is connected, timed where it is sent.

Takes requests on standard input, a line each: ``accept COUNT`` waits for as many connections and fills
the first, which does not read, until nothing more is taken for it; ``send SIZE`` sends a value of so
many bytes to all and answers with the seconds until the system had taken the frames of all who read.
"""

import asyncio
import gc
import importlib
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol, TypeVar, cast

from reactor import Reactor
from tao import ConnectionOptions, MessageRegistry, Server
from tao.codec import TypeLengthValueCodec
from tests.bench.peers.common import BACKLOG, HOST, announce, peer_parser, prepare_process

MAX_CONNECTIONS = 1_000_000  # the request decides, not the framework's default
SEND_BUFFER = 65_536
OUTPUT_LIMIT = 1 << 20  # bytes that may wait for one connection
# Large: of small segments the peer's system can always squeeze in some more.
FILLING = b"x" * 65_536
FILLS, FILL_PAUSE = 10, 0.02  # what has been sent makes room, until it lies at the peer's
PATIENCE = 30.0  # seconds after which something is stuck
LOOK_EVERY = 0.01  # seconds

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Value:
    """A message of so many bytes."""

    data: bytes
    message_number: int = 1

    def serialize(self) -> bytes:
        return self.data


def frame_of(size: int) -> bytes:
    return TypeLengthValueCodec().encode(Value(b"x" * size))


class Sender(Protocol):
    """A way to send to all. `send` takes the bytes of a value and returns seconds."""

    def connection_count(self) -> int: ...

    def fill_first(self) -> None: ...

    def send(self, size: int) -> float: ...


def listener() -> socket.socket:
    """Those that it accepts have send buffers of a size that stays: tcp(7), "tcp_wmem"."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    sock.bind((HOST, 0))
    sock.listen(BACKLOG)
    return sock


def call_from_elsewhere(
    post: Callable[[Callable[[], None]], object], function: Callable[[], T]
) -> T:
    """Have `post` call it on the loop's thread, and wait for the result."""
    future: Future[T] = Future()

    def call() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    post(call)
    return future.result(PATIENCE)


# -- a loop of sends -----------------------------------------------------------------------------


class Bare:
    """Sockets and a loop over them: what the calls alone cost."""

    def __init__(self, sock: socket.socket) -> None:
        self._listener = sock
        sock.setblocking(False)
        self._socks: list[socket.socket] = []

    def connection_count(self) -> int:
        try:
            while True:
                sock, _ = self._listener.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setblocking(False)
                self._socks.append(sock)
        except BlockingIOError:
            return len(self._socks)

    def fill_first(self) -> None:
        try:
            while True:
                self._socks[0].send(FILLING)
        except BlockingIOError:
            pass

    def send(self, size: int) -> float:
        frame, socks = frame_of(size), self._socks
        started = time.perf_counter()
        for sock in socks:
            try:
                sock.send(frame)
            except BlockingIOError:
                pass
        return time.perf_counter() - started


# -- the framework -------------------------------------------------------------------------------


class Tao:
    """`Server.broadcast`, from the loop's thread or from another."""

    def __init__(self, sock: socket.socket, on_loop: bool) -> None:
        self._on_loop = on_loop
        self._reactor = Reactor()
        self._server = Server(
            registry=MessageRegistry(),
            reactor=self._reactor,
            max_connections=MAX_CONNECTIONS,
            options=ConnectionOptions(output_limit=OUTPUT_LIMIT),
        )
        self._server.listen(sock)
        threading.Thread(target=self._reactor.run, daemon=True).start()

    def connection_count(self) -> int:
        return self._server.connection_count

    def fill_first(self) -> None:
        """Until its limit is reached, too."""
        # They were accepted in the order in which they connected.
        first = min(self._server.connections(), key=lambda conn: conn.net_id)
        alone = self._server.group("does not read")
        alone.join(first)

        def write_all() -> None:
            for message in (Value(FILLING), Value(b"")):
                while alone.broadcast(message).sent:
                    pass

        call_from_elsewhere(self._post, write_all)

    def send(self, size: int) -> float:
        message = Value(b"x" * size)
        took = self._send_on_loop(message) if self._on_loop else self._send_from_here(message)
        waiting = sum(conn.pending > 0 for conn in self._server.connections())
        if waiting != 1:
            raise SystemExit(f"frames wait for {waiting} connections, not for the full one alone")
        return took

    def _send_on_loop(self, message: Value) -> float:
        """All that can be sent has been when the call returns."""

        def broadcast() -> float:
            started = time.perf_counter()
            self._server.broadcast(message)
            return time.perf_counter() - started

        return call_from_elsewhere(self._post, broadcast)

    def _send_from_here(self, message: Value) -> float:
        """What is posted after the broadcast runs after its frames have been sent."""
        ended: Future[float] = Future()
        started = time.perf_counter()
        self._server.broadcast(message)
        self._reactor.call_soon_threadsafe(lambda: ended.set_result(time.perf_counter()))
        return ended.result(PATIENCE) - started

    def _post(self, callback: Callable[[], None]) -> None:
        """Call it in a timer: where an application's broadcasts often come from."""
        self._reactor.call_soon_threadsafe(lambda: self._reactor.call_later(0.0, callback))


# -- asyncio -------------------------------------------------------------------------------------


class Member(asyncio.Protocol):
    """One of those connected."""

    __slots__ = ("_members", "transport")

    transport: asyncio.Transport

    def __init__(self, members: "list[Member]") -> None:
        self._members = members

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._members.append(self)


class Asyncio:
    """`transport.write` in a loop, on asyncio's loop or uvloop's; past a limit nothing is written."""

    def __init__(self, sock: socket.socket, loop_name: str) -> None:
        # By name, so that the type checker needs no uvloop.
        module = asyncio if loop_name == "asyncio" else importlib.import_module("uvloop")
        self._loop: asyncio.AbstractEventLoop = module.new_event_loop()
        self._members: list[Member] = []
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        asyncio.run_coroutine_threadsafe(self._listen(sock), self._loop).result(PATIENCE)

    async def _listen(self, sock: socket.socket) -> None:
        self._server = await self._loop.create_server(
            lambda: Member(self._members), sock=sock, backlog=BACKLOG
        )

    def connection_count(self) -> int:
        return len(self._members)

    def fill_first(self) -> None:
        def write_all() -> None:
            first = self._members[0].transport
            while first.get_write_buffer_size() < OUTPUT_LIMIT:
                first.write(FILLING)

        call_from_elsewhere(self._loop.call_soon_threadsafe, write_all)

    def send(self, size: int) -> float:
        frame = frame_of(size)
        ended: Future[float] = Future()

        def broadcast() -> None:
            started = time.perf_counter()
            for member in self._members:
                transport = member.transport
                if transport.get_write_buffer_size() < OUTPUT_LIMIT:
                    transport.write(frame)
            # uvloop gathers what a pass has written, and sends it at the end of the pass.
            self._loop.call_soon(lambda: ended.set_result(time.perf_counter() - started))

        self._loop.call_soon_threadsafe(broadcast)
        return ended.result(PATIENCE)


# -- requests ------------------------------------------------------------------------------------


def accept(sender: Sender, count: int) -> None:
    """Wait until all have connected, then fill the first."""
    deadline = time.monotonic() + PATIENCE
    while (connected := sender.connection_count()) < count:
        if time.monotonic() > deadline:
            raise SystemExit(f"only {connected} of {count} have connected")
        time.sleep(LOOK_EVERY)
    for _ in range(FILLS):
        sender.fill_first()
        time.sleep(FILL_PAUSE)
    # No collection of garbage falls into what is timed.
    gc.collect()
    gc.disable()


def main() -> None:
    parser = peer_parser("broadcast")
    ways = ("bare", "loop", "thread", "asyncio", "uvloop")
    parser.add_argument("--way", choices=ways, default="loop")
    options = parser.parse_args()
    prepare_process(options.cpu)

    sock = listener()
    port = sock.getsockname()[1]
    sender: Sender
    if options.way == "bare":
        sender = Bare(sock)
    elif options.way in ("loop", "thread"):
        sender = Tao(sock, on_loop=options.way == "loop")
    else:
        sender = Asyncio(sock, options.way)
    announce(port)
    for line in sys.stdin:
        request, number = line.split()
        if request == "accept":
            accept(sender, int(number))
            print(flush=True)
        else:
            print(sender.send(int(number)), flush=True)


if __name__ == "__main__":
    main()
