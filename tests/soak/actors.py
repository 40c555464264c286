"""The clients, good and bad. Each conversation says what it expects, and raises where that does not come.

Contents: Actors.
"""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

from tao import (
    Backoff,
    ClientConn,
    ConnectionClosedError,
    ConnectionState,
    Context,
    MessageRegistry,
    TypeLengthValueCodec,
    WriteCloser,
)
from tests.soak.services import (
    BULK,
    INLINE,
    KICK,
    MAX_LENGTH,
    NEWS,
    POOLED,
    RAISE,
    SUBSCRIBE,
    TICKS,
    Services,
    make_server,
)
from tests.soak.tally import Tally
from tests.support import DEADLINE, LOCAL, Peer, Sample, as_bytes, frame, wait_until
from tests.tls_support import Certificates, peer_context

__all__ = ["Actors"]

PAUSE = 0.05
"""Seconds between two conversations of an actor, about."""

Conversation = Callable[[random.Random], int]
"""Returns how many messages came back; raises where something is not as it should be."""


def _check(condition: object, text: str) -> None:
    # An exception that is no AssertionError of somebody's `python -O`.
    if not condition:
        raise LostError(text)


class LostError(Exception):
    """Something was lost, or doubled, or came in another order, or was never ended."""


class _Numbered:
    """Messages with a running number and a body of any length; and the answers that they must get."""

    def __init__(self, chance: random.Random, longest: int = 3000) -> None:
        self._chance = chance
        self._longest = longest
        self._next = chance.randrange(1 << 40)

    def __call__(self) -> bytes:
        self._next += 1
        size = self._chance.randrange(self._longest)
        return struct.pack("<Q", self._next) + bytes([self._next & 0xFF]) * size


class Actors:
    """All of them, against these services."""

    def __init__(self, services: Services, tally: Tally) -> None:
        self._services = services
        self._tally = tally
        self._certificates: Certificates = services.certificates
        self._tls = peer_context(services.certificates)
        self._news = 0
        self.conversations: list[tuple[str, Conversation]] = [
            ("echo", self.echo),
            ("echo", self.echo),
            ("echo", self.echo),
            ("echo over TLS", self.echo_over_tls),
            ("lines", self.echo_lines),
            ("slow reader", self.slow_reader),
            ("reset", self.reset),
            ("half-close", self.half_close),
            ("garbage", self.garbage),
            ("handler that raises", self.raise_),
            ("subscriber", self.subscribe),
            ("subscriber", self.subscribe),
            ("timers", self.ticks),
            ("reconnecting client", self.reconnect),
            ("stop and start again", self.stop_and_start),
        ]

    def run(self, name: str, conversation: Conversation, seed: int, over: threading.Event) -> None:
        """One conversation after the other until it is over. On a thread."""
        chance = random.Random(seed)
        while not over.is_set():
            try:
                self._tally.add(name, conversation(chance))
            except Exception as error:
                self._tally.find(f"{name}: {type(error).__name__}: {error}")
            over.wait(PAUSE * chance.uniform(0.5, 1.5))

    def publish(self, over: threading.Event) -> None:
        """Numbered news to whoever has subscribed. On a thread."""
        group = self._services.plain.group("news")
        while not over.wait(0.005):
            report = group.broadcast(Sample(NEWS, struct.pack("<Q", self._news)))
            self._news += 1
            if report.refused:
                self._tally.find(f"a broadcast of a few bytes was refused: {report}")

    # -- good ones -------------------------------------------------------------------------------

    def echo(self, chance: random.Random) -> int:
        """Pooled and inline, in bursts; the end is a FIN in good order."""
        values = _Numbered(chance)
        count = 0
        with Peer(self._services.plain_address) as peer:
            for _ in range(chance.randint(1, 8)):
                burst = [values() for _ in range(chance.randint(1, 40))]
                numbers = [chance.choice((POOLED, INLINE)) for _ in burst]
                peer.send(b"".join(map(frame, numbers, burst)))
                for value in burst:
                    _check(peer.receive_frame() == (POOLED, value), "an echo is not what was sent")
                count += len(burst)
            peer.finish_sending()
            _check(peer.receive_to_end() == b"", "more came than was asked for")
        return count

    def echo_over_tls(self, chance: random.Random) -> int:
        """The standard library's own client."""
        values = _Numbered(chance)
        with (
            socket.create_connection(self._services.secure_address, DEADLINE) as plain,
            self._tls.wrap_socket(plain, server_hostname="localhost") as sock,
        ):
            burst = [values() for _ in range(chance.randint(1, 60))]
            data = b"".join(frame(chance.choice((POOLED, INLINE)), value) for value in burst)
            sock.sendall(data)
            expected = b"".join(frame(POOLED, value) for value in burst)
            received = bytearray()
            while len(received) < len(expected):
                piece = sock.recv(65_536)
                _check(piece, "the TLS stream has ended too early")
                received += piece
            _check(received == expected, "an echo over TLS is not what was sent")
            if chance.random() < 0.7:
                sock.unwrap()
            # else: TCP's end without TLS's, which is for the server to notice
            return len(burst)

    def echo_lines(self, chance: random.Random) -> int:
        """In pieces that have nothing to do with the lines."""
        lines = [b"line %d" % chance.randrange(1 << 40) for _ in range(chance.randint(1, 60))]
        data = b"".join(line + chance.choice([b"\n", b"\r\n"]) for line in lines)
        with Peer(self._services.lines_address) as peer:
            while data:
                size = chance.randint(1, 400)
                peer.send(data[:size])
                data = data[size:]
            expected = b"".join(line + b"\n" for line in lines)
            _check(peer.receive(len(expected)) == expected, "a line is not what was sent")
        return len(lines)

    def half_close(self, chance: random.Random) -> int:
        """All requests, FIN, and then every answer."""
        values = _Numbered(chance, 500)
        burst = [values() for _ in range(chance.randint(1, 100))]
        with Peer(self._services.plain_address) as peer:
            peer.send(b"".join(frame(chance.choice((POOLED, INLINE)), value) for value in burst))
            peer.finish_sending()
            expected = b"".join(frame(POOLED, value) for value in burst)
            _check(peer.receive_to_end() == expected, "an answer behind a FIN is missing")
        return len(burst)

    def slow_reader(self, chance: random.Random) -> int:
        """More than the buffers hold, read bit by bit."""
        count = chance.randint(200, 600)
        with Peer(self._services.plain_address, receive_buffer=8192) as peer:
            peer.send_frame(BULK, struct.pack("<I", count))
            for number in range(count):
                kind, value = peer.receive_frame()
                _check(
                    kind == BULK and struct.unpack_from("<I", value) == (number,),
                    "a slow reader has missed something",
                )
                _check(value[4:] == bytes([number & 0xFF]) * (len(value) - 4), "a torn message")
                if number % 10 == 0:
                    time.sleep(0.005)
        return count

    def subscribe(self, chance: random.Random) -> int:
        """News without a gap, from the first one on."""
        count = chance.randint(5, 50)
        with Peer(self._services.plain_address) as peer:
            peer.send_frame(SUBSCRIBE)
            received = [peer.receive_frame() for _ in range(count + 1)]
            # It has joined before it is answered: news may come first.
            received.remove((SUBSCRIBE, b""))
            numbers = [struct.unpack("<Q", value)[0] for _, value in received]
            _check(
                numbers == list(range(numbers[0], numbers[0] + count)), f"news with gaps: {numbers}"
            )
        return count

    def ticks(self, chance: random.Random) -> int:
        """A timer's messages, as many as were ordered."""
        count = chance.randint(1, 20)
        with Peer(self._services.plain_address) as peer:
            peer.send_frame(TICKS, struct.pack("<I", count))
            for number in range(count):
                _check(
                    peer.receive_frame() == (TICKS, struct.pack("<I", number)), "a tick is missing"
                )
            if chance.random() < 0.5:
                peer.reset()  # while its timer is still set
        return count

    # -- bad ones --------------------------------------------------------------------------------

    def reset(self, chance: random.Random) -> int:
        """RST, at any moment: before anything, between messages, inside one, with answers unread."""
        values = _Numbered(chance)
        burst = [values() for _ in range(chance.randint(0, 20))]
        data = b"".join(frame(chance.choice((POOLED, INLINE)), value) for value in burst)
        peer = Peer(self._services.plain_address)
        try:
            peer.send(data[: chance.randint(0, len(data))])
            if chance.random() < 0.5 and data:
                peer.sock.settimeout(0.01)
                peer.sock.recv(chance.randint(1, 5000))
        except TimeoutError:
            pass  # what was sent was no whole message
        finally:
            peer.reset()
        return 0

    def garbage(self, chance: random.Random) -> int:
        """What is sensible before it is answered; then the connection ends."""
        values = _Numbered(chance, 100)
        burst = [values() for _ in range(chance.randint(0, 20))]
        damage = struct.pack(
            "<iI", chance.randrange(-9, 9), chance.randrange(MAX_LENGTH + 1, 1 << 32)
        )
        with Peer(self._services.plain_address) as peer:
            data = b"".join(frame(chance.choice((POOLED, INLINE)), value) for value in burst)
            peer.send(data + damage + chance.randbytes(chance.randint(0, 2000)))
            expected = b"".join(frame(POOLED, value) for value in burst)
            _check(peer.receive_to_end() == expected, "before garbage, something went wrong")
        return len(burst)

    def raise_(self, chance: random.Random) -> int:
        """As with garbage, but it is the handler's fault."""
        values = _Numbered(chance, 100)
        burst = [values() for _ in range(chance.randint(0, 20))]
        with Peer(self._services.plain_address) as peer:
            peer.send(b"".join(frame(POOLED, value) for value in burst) + frame(RAISE))
            expected = b"".join(frame(POOLED, value) for value in burst)
            _check(peer.receive_to_end() == expected, "before an error, something went wrong")
        return len(burst)

    # -- those that come back --------------------------------------------------------------------

    def reconnect(self, chance: random.Random) -> int:
        """A client that is thrown out, and comes back: in each connection every echo, in order."""
        life = _Life()
        client = ClientConn(
            self._services.plain_address,
            registry=life.registry,
            codec=TypeLengthValueCodec(max_length=MAX_LENGTH),
            on_connect=life.begin,
            reconnect=Backoff(first=0.005, maximum=0.02),
        )
        client.start()
        try:
            for connection in range(1, 4):
                _check(client.wait_connected(DEADLINE), "it does not come back")
                # Of this connection, and not what is left of the last one.
                _check(
                    wait_until(lambda wanted=connection: life.connections == wanted),  # type: ignore[misc]
                    "it was not thrown out, or on_connect is missing",
                )
                try:
                    for _ in range(chance.randint(10, 60)):
                        client.write(Sample(POOLED, struct.pack("<Q", life.written)))
                        life.written += 1
                    if chance.random() < 0.5:
                        _check(
                            wait_until(lambda: life.last == life.written - 1),
                            "an echo has not come back",
                        )
                    client.write(Sample(KICK))
                except ConnectionClosedError as error:
                    raise LostError(f"nobody has ended it, and it is closed: {error}") from error
                # It may be back already: on a busy machine nobody sees it closed.
                _check(
                    wait_until(
                        lambda so_far=connection: (  # type: ignore[misc]
                            client.state is not ConnectionState.OPEN or life.connections > so_far
                        )
                    ),
                    "it was not thrown out",
                )
        finally:
            client.close()
            ended = client.wait_closed(DEADLINE)
        _check(ended is not None, "a client does not end")
        _check(not life.gaps, f"echoes with gaps: {life.gaps}")
        return life.received

    def stop_and_start(self, chance: random.Random) -> int:
        """A server that is stopped under load and started again on its port: whole answers, in order."""
        address: Any = LOCAL
        total = 0
        for _ in range(2):
            server = make_server(self._services.watch)
            with server.running(address) as address:
                clients = [_Chatter(address, chance.random()) for _ in range(3)]
                for client in clients:
                    client.start()
                wait_until(lambda clients=clients: all(client.received > 50 for client in clients))  # type: ignore[misc]
                report = server.stop(grace=DEADLINE)
                for client in clients:
                    client.join()
            _check(report.finished and not report.aborted, f"a stop not in good order: {report}")
            for client in clients:
                _check(client.error is None, f"at a stop: {client.error}")
                _check(client.received > 50, "a server that was started again does not answer")
                total += client.received
            _check(server.connection_count == 0, "connections are left after a stop")
        return total


class _Life:
    """What a reconnecting client sees. Its handlers run one at a time."""

    def __init__(self) -> None:
        self.written = 0
        """Of the thread that writes."""
        self.connections = 0
        self.received = 0
        self.last = -1
        self.gaps: list[tuple[int, int]] = []
        self._first = True
        self.registry = MessageRegistry()
        self.registry.register(POOLED, as_bytes, self._note)

    def begin(self, _conn: ClientConn) -> None:
        """A new connection: what was on its way on the last one is gone."""
        self._first = True
        self.connections += 1

    def _note(self, context: Context[bytes], _conn: WriteCloser) -> None:
        (number,) = struct.unpack("<Q", context.message)
        if number <= self.last or (number != self.last + 1 and not self._first):
            self.gaps.append((self.last, number))
        self._first = False
        self.last = number
        self.received += 1


class _Chatter(threading.Thread):
    """Sends without waiting, until the server ends it; what it gets is a part of what it is owed."""

    def __init__(self, address: tuple[str, int], share: float) -> None:
        super().__init__(name="soak-chatter")
        self._address = address
        self._share = share
        self.received = 0
        self.error: str | None = None

    def run(self) -> None:
        """On its own thread."""
        try:
            with Peer(self._address) as peer:
                self._talk(peer)
        except (EOFError, ConnectionError):
            pass  # the stop
        except Exception as error:
            self.error = repr(error)

    def _talk(self, peer: Peer) -> None:
        number = 0
        while True:
            batch = [struct.pack("<Q", number + index) for index in range(10)]
            number += len(batch)
            kind = INLINE if self._share < 0.5 else POOLED
            peer.send(b"".join(frame(kind, value) for value in batch))
            for value in batch:
                if peer.receive_frame() != (POOLED, value):
                    self.error = "an echo is not what was sent"
                    return
                self.received += 1
            time.sleep(0.004)
