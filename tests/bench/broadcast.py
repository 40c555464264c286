"""What a message to a thousand connections costs: `python -m tests.bench.broadcast`.

`Server.broadcast`, from the loop's thread and from another, against a bare loop of `socket.send` over as
many equal sockets, round by round in turn. The clients are in a process of their own, which reads all it
gets; one of them never reads, on either side, and its buffers are full from the start. Nothing is asserted
here: it prints.

A round is timed until the system has taken every frame for those who read. Before the next one begins, all
of them have read theirs. A ratio is that of a round to the bare loop of the same round; the median of the
ratios is what counts.
"""

from __future__ import annotations

import argparse
import gc
import os
import resource
import selectors
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

from reactor import Reactor
from tao import ConnectionOptions, MessageRegistry, Server
from tao.codec import TypeLengthValueCodec

ROOT = Path(__file__).resolve().parents[2]
LOCAL = ("127.0.0.1", 0)
SPARE_DESCRIPTORS = 64
SYNC = struct.Struct("<q")
FILLING = (
    b"x" * 65_536
)  # large: of small segments the peer's system can always squeeze in some more
PATIENCE = 30.0  # seconds after which something is stuck

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Value:
    """A message of so many bytes."""

    data: bytes
    message_number: int = 1

    def serialize(self) -> bytes:
        return self.data


# -- the clients, in a process of their own ------------------------------------------------------


def run_clients(ports: list[int], count: int) -> None:
    """Connect `count` times to each port, and read; the first of each port never does.

    On standard input come totals of bytes, one at a time; each is answered on standard output when so
    many have been read.
    """
    selector = selectors.DefaultSelector()
    socks = []
    for port in ports:
        for index in range(count):
            sock = socket.socket()
            if not index:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
            sock.connect(("127.0.0.1", port))
            socks.append(sock)
            if index:
                sock.setblocking(False)
                selector.register(sock, selectors.EVENT_READ)
    orders = sys.stdin.buffer
    orders_key = selector.register(orders, selectors.EVENT_READ)
    answers = sys.stdout.buffer
    answers.write(b"+")
    answers.flush()
    total, wanted = 0, -1
    while True:
        for key, _ in selector.select():
            if key.fd == orders_key.fd:
                order = orders.read(SYNC.size)
                if not order:
                    return
                (wanted,) = SYNC.unpack(order)
                continue
            data = os.read(key.fd, 65_536)
            if not data:
                selector.unregister(key.fd)
            total += len(data)
        if total == wanted:
            wanted = -1
            answers.write(b"+")
            answers.flush()


class Clients:
    """The process of the clients, seen from here."""

    def __init__(self, ports: list[int], count: int) -> None:
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.bench.broadcast"),
                *("--clients", str(count), "--ports", *map(str, ports)),
            ],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._orders: IO[bytes] = self._process.stdin
        self._answers: IO[bytes] = self._process.stdout

    def wait_connected(self) -> None:
        """All of them are."""
        self._await_answer()

    def wait_read(self, total: int) -> None:
        """They have read so many bytes, all together."""
        self._orders.write(SYNC.pack(total))
        self._orders.flush()
        self._await_answer()

    def _await_answer(self) -> None:
        if self._answers.read(1) != b"+":
            raise SystemExit("the clients have died")

    def close(self) -> None:
        self._orders.close()
        self._answers.close()
        self._process.wait(PATIENCE)


# -- the two sides -------------------------------------------------------------------------------


def equal_listener() -> socket.socket:
    """Those that it accepts have send buffers of a size that stays: tcp(7), "tcp_wmem"."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
    sock.bind(LOCAL)
    sock.listen(4096)
    return sock


def until_full(offer: Callable[[], object]) -> None:
    """Offer again and again: what has been sent makes room for more, until it lies at the peer's."""
    for _ in range(10):
        offer()
        time.sleep(0.02)


class Bare:
    """Sockets, and a loop over them."""

    def __init__(self) -> None:
        self._listener = equal_listener()
        self.port: int = self._listener.getsockname()[1]
        self._socks: list[socket.socket] = []

    def accept(self, count: int) -> None:
        for _ in range(count):
            sock, _address = self._listener.accept()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setblocking(False)
            self._socks.append(sock)

    def fill_first(self) -> None:
        """The one that does not read: until the system takes no more."""

        def write_all() -> None:
            try:
                while True:
                    self._socks[0].send(FILLING)
            except BlockingIOError:
                pass

        until_full(write_all)

    def send(self, frame: bytes) -> float:
        """Seconds."""
        socks = self._socks
        started = time.perf_counter()
        for sock in socks:
            try:
                sock.send(frame)
            except BlockingIOError:
                pass
        return time.perf_counter() - started

    def close(self) -> None:
        for sock in (self._listener, *self._socks):
            sock.close()


class Tao:
    """A server on a reactor of its own."""

    def __init__(self, count: int) -> None:
        self._reactor = Reactor()
        self._server = Server(
            registry=MessageRegistry(),
            reactor=self._reactor,
            max_connections=count,
            options=ConnectionOptions(output_limit=1 << 20),
        )
        self.port: int = self._server.listen(equal_listener())[1]
        self._thread = threading.Thread(target=self._reactor.run)
        self._thread.start()

    def on_loop(self, function: Callable[[], T]) -> T:
        """Call it in a timer, on the loop's thread."""
        future: Future[T] = Future()

        def call() -> None:
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)

        self._reactor.call_soon_threadsafe(lambda: self._reactor.call_later(0.0, call))
        return future.result(PATIENCE)

    def accept(self, count: int) -> None:
        until = time.monotonic() + PATIENCE
        while self._server.connection_count < count:
            if time.monotonic() > until:
                raise SystemExit(f"only {self._server.connection_count} connections of {count}")
            time.sleep(0.01)

    def fill_first(self) -> None:
        """The one that does not read: until its limit is reached, too."""
        # They were accepted in the order in which they connected.
        first = min(self._server.connections(), key=lambda conn: conn.net_id)
        alone = self._server.group("does not read")
        alone.join(first)

        def write_all() -> None:
            for message in (Value(FILLING), Value(b"")):
                while alone.broadcast(message).sent:
                    pass

        until_full(lambda: self.on_loop(write_all))

    def send_on_loop(self, message: Value) -> float:
        """Seconds. All that can be sent has been when the call returns."""

        def broadcast() -> float:
            started = time.perf_counter()
            report = self._server.broadcast(message)
            took = time.perf_counter() - started
            assert report.refused == 1
            return took

        took = self.on_loop(broadcast)
        assert self._waiting() == 1
        return took

    def send_from_here(self, message: Value) -> float:
        """Seconds. What is posted after the broadcast runs after its frames have been sent."""
        ended: Future[float] = Future()
        started = time.perf_counter()
        report = self._server.broadcast(message)
        self._reactor.call_soon_threadsafe(lambda: ended.set_result(time.perf_counter()))
        took = ended.result(PATIENCE) - started
        assert report.refused == 1
        assert self._waiting() == 1
        return took

    def _waiting(self) -> int:
        """Connections for which something waits: the one that does not read."""
        return sum(conn.pending > 0 for conn in self._server.connections())

    def close(self) -> None:
        self._server.stop(grace=1.0)
        self._reactor.stop()
        self._thread.join()
        self._reactor.close()


# -- rounds --------------------------------------------------------------------------------------


def raise_descriptors(wanted: int) -> None:
    """Both processes need as many; the clients' inherits the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        if hard != resource.RLIM_INFINITY and hard < wanted:
            raise SystemExit(f"{wanted} descriptors are needed, and the hard limit is {hard}")
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@contextmanager
def collected_before() -> Iterator[None]:
    """No collection of garbage falls into what is timed."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def measure(connections: int, size: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of each round, by way of sending."""
    message = Value(b"x" * size)
    frame = TypeLengthValueCodec().encode(message)
    with ExitStack() as stack:
        bare = Bare()
        stack.callback(bare.close)
        tao = Tao(connections)
        stack.callback(tao.close)
        clients = Clients([bare.port, tao.port], connections)
        stack.callback(clients.close)
        bare.accept(connections)
        tao.accept(connections)
        clients.wait_connected()
        bare.fill_first()
        tao.fill_first()

        ways: dict[str, Callable[[], float]] = {
            "bare": lambda: bare.send(frame),
            "loop": lambda: tao.send_on_loop(message),
            "thread": lambda: tao.send_from_here(message),
        }
        took: dict[str, list[float]] = {way: [] for way in ways}
        expected = 0
        order = list(ways)
        with collected_before():
            for _ in range(rounds + 1):
                for way in order:
                    took[way].append(ways[way]())
                    expected += (connections - 1) * len(frame)
                    clients.wait_read(expected)
                order.append(order.pop(0))  # nobody is always the first after the others
        for seconds in took.values():
            del seconds[0]  # a warm-up
        return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.bench.broadcast")
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 1024], help="bytes in a value")
    parser.add_argument("--clients", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--ports", type=int, nargs="+", default=[], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.clients:
        run_clients(options.ports, options.clients)
        return

    raise_descriptors(2 * options.connections + SPARE_DESCRIPTORS)
    print(
        f"{options.connections:,} connections, one of which does not read; {options.rounds} rounds"
    )
    print(f"{'bytes':>6}  {'from':8}  {'median ms':>9}  {'us each':>7}  {'ratio':>6}  {'least':>6}")
    for size in options.sizes:
        took = measure(options.connections, size, options.rounds)
        for way, seconds in took.items():
            middle = statistics.median(seconds)
            ratios = [a / b for a, b in zip(seconds, took["bare"], strict=True)]
            print(
                f"{size:>6,}  {way:8}  {middle * 1e3:9.2f}  {middle / options.connections * 1e6:7.2f}"
                f"  {statistics.median(ratios):6.2f}  {min(seconds) / min(took['bare']):6.2f}"
            )


if __name__ == "__main__":
    main()
