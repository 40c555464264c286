"""What a type checker says of programs that use tao and reactor, line by line.

Nothing in here is run. `assert_type` is what is known; a comment that ignores an error is an error that
must be there, for a type checker that is told to be strict reports comments which are of no use.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, assert_type

from reactor import CloseReason, ConnectionState, Reactor, SocketAddress, Timeout
from tao import (
    Backoff,
    BroadcastReport,
    ClientConn,
    ConnectionMap,
    Context,
    ContextKey,
    DataSource,
    Group,
    Heartbeat,
    LineCodec,
    Message,
    MessageRegistry,
    MessageServer,
    MetricsSnapshot,
    Server,
    ServerConn,
    StopReport,
    WriteCloser,
    load_client_tls,
    monitor_on,
    register,
)
from tao.codec import Frame, Header


@dataclass(frozen=True)
class Chat:
    text: str
    message_number = 1

    def serialize(self) -> bytes:
        return self.text.encode()

    @classmethod
    def deserialize(cls, data: bytes) -> Chat:
        return cls(data.decode())


class Shout(Chat):
    """A kind of Chat; its decoder makes Chats."""


@dataclass(frozen=True)
class Move:
    x: int
    y: int
    message_number = 2

    def serialize(self) -> bytes:
        return bytes([self.x, self.y])

    @classmethod
    def deserialize(cls, data: bytes) -> Move:
        return cls(data[0], data[1])


class Plain:
    """Its decoder is no method of the class."""

    message_number = 3

    def serialize(self) -> bytes:
        return b""

    @staticmethod
    def deserialize(data: bytes) -> Plain:
        return Plain()


class Marked:
    """Its number is marked as the class's, which is good enough for one that is only received."""

    message_number: ClassVar[int] = 6

    @classmethod
    def deserialize(cls, data: bytes) -> Marked:
        return cls()


class Numbered:
    """Its number is a matter of each message."""

    def __init__(self, number: int) -> None:
        self._number = number

    @property
    def message_number(self) -> int:
        return self._number

    def serialize(self) -> bytes:
        return b""


class NoDecoder:
    message_number = 4


# -- messages and handlers -----------------------------------------------------------------------


def on_chat(ctx: Context[Chat], conn: WriteCloser) -> Message | None:
    assert_type(ctx.message, Chat)
    assert_type(ctx.net_id, int)
    assert_type(ctx.server, MessageServer)
    assert_type(ctx.server.broadcast(ctx.message), BroadcastReport)
    assert_type(ctx.server.stop(), StopReport)
    assert_type(ctx.server.connection(1), WriteCloser)
    assert_type(ctx.with_timeout(1.0), Context[Chat])
    assert_type(ctx.remaining, float | None)
    return ctx.message


def on_move(ctx: Context[Move], conn: WriteCloser) -> Move:
    return ctx.message


def on_anything(ctx: Context[object], conn: WriteCloser) -> None:
    assert_type(ctx.message, object)


def on_chat_at_a_server(ctx: Context[Chat], conn: ServerConn) -> None: ...
def on_chat_alone(ctx: Context[Chat]) -> None: ...
def on_chat_with_text(ctx: Context[Chat], conn: WriteCloser) -> str:
    return ctx.message.text


async def on_chat_later(ctx: Context[Chat], conn: WriteCloser) -> None: ...


def decode_text(data: bytes) -> str:
    return data.decode()


def on_text(ctx: Context[str], conn: WriteCloser) -> None:
    assert_type(ctx.message, str)


def what_is_registered(registry: MessageRegistry) -> None:
    registry.register(1, Chat.deserialize, on_chat)
    registry.register(1, Chat.deserialize, on_anything)
    registry.register(1, Chat.deserialize)
    registry.register(1, Chat.deserialize, lambda ctx, conn: ctx.message)
    registry.register(5, decode_text, on_text)
    register(1, Chat.deserialize, on_chat, inline=True)

    registry.register(1, Chat.deserialize, on_move)  # type: ignore[misc]
    registry.register(5, decode_text, on_chat)  # type: ignore[misc]
    registry.register(1, Chat.deserialize, on_chat_at_a_server)  # type: ignore[arg-type]
    registry.register(1, Chat.deserialize, on_chat_alone)  # type: ignore[arg-type]
    registry.register(1, Chat.deserialize, on_chat_with_text)  # type: ignore[arg-type]
    registry.register(1, Chat.deserialize, on_chat_later)  # type: ignore[arg-type]
    registry.register("1", Chat.deserialize, on_chat)  # type: ignore[arg-type]
    registry.register(1, Chat, on_chat)  # type: ignore[arg-type]
    register(1, Chat.deserialize, on_move)  # type: ignore[misc]


def what_is_decorated(registry: MessageRegistry) -> None:
    @registry.handler(Chat)
    def right(ctx: Context[Chat], conn: WriteCloser) -> None: ...

    @registry.handler(Chat, inline=True, max_size=1000)
    def wider(ctx: Context[object], conn: WriteCloser) -> Chat | None: ...

    @registry.handler(Shout)
    def as_its_decoder_says(ctx: Context[Chat], conn: WriteCloser) -> None: ...

    @registry.handler(Plain)
    def plain(ctx: Context[Plain], conn: WriteCloser) -> None: ...

    @registry.handler(Marked)
    def marked(ctx: Context[Marked], conn: WriteCloser) -> None: ...

    @registry.handler(Chat)  # type: ignore[arg-type]
    def wrong(ctx: Context[Move], conn: WriteCloser) -> None: ...

    @registry.handler(Chat)  # type: ignore[arg-type]
    def narrower(ctx: Context[Shout], conn: WriteCloser) -> None: ...

    @registry.handler(Chat)  # type: ignore[arg-type]
    async def later(ctx: Context[Chat], conn: WriteCloser) -> None: ...

    @registry.handler(NoDecoder)  # type: ignore[arg-type]
    def unreadable(ctx: Context[NoDecoder], conn: WriteCloser) -> None: ...


def what_can_be_sent(conn: WriteCloser) -> None:
    assert_type(conn.write(Chat("hello")), bool)
    conn.write(Plain())
    conn.write(Numbered(7))
    conn.write("hello")  # type: ignore[arg-type]
    conn.write(Chat)  # type: ignore[arg-type]


# -- connections ---------------------------------------------------------------------------------

USER = ContextKey[str]("user")


def what_is_kept(ctx: Context[Chat], conn: WriteCloser, client: ClientConn) -> None:
    assert_type(conn.context_value(USER), str | None)
    assert_type(client.context_value(USER), str | None)
    assert_type(conn.context_value("user"), object)
    conn.set_context_value(USER, "Ann")
    conn.set_context_value("user", 3)
    conn.set_context_value(USER, 3)  # type: ignore[misc]
    client.set_context_value(USER, b"Ann")  # type: ignore[misc]

    assert_type(ctx.value(USER), str | None)
    assert_type(ctx.with_value(USER, "Ann"), Context[Chat])
    ctx.with_value(USER, 3)  # type: ignore[misc]


def on_time(now: float, conn: WriteCloser) -> None: ...
def on_time_at_a_server(now: float, conn: ServerConn) -> None: ...
def on_time_alone(now: float) -> None: ...


def what_timers_call(conn: WriteCloser, ours: ServerConn, theirs: ClientConn) -> None:
    assert_type(conn.run_after(1.0, on_time), int)
    ours.run_every(1.0, on_time)
    ours.run_at(0.0, on_time_at_a_server)
    ours.run_after(1.0, lambda now, conn: assert_type(conn, ServerConn))
    theirs.run_after(1.0, lambda now, conn: assert_type(conn, ClientConn), keep=True)
    assert_type(conn.cancel_timer(1), bool)

    conn.run_after(1.0, on_time_at_a_server)  # type: ignore[arg-type]
    theirs.run_every(1.0, on_time_at_a_server)  # type: ignore[arg-type]
    ours.run_at(0.0, on_time_alone)  # type: ignore[arg-type]
    ours.run_after("1", on_time)  # type: ignore[arg-type]


def what_a_connection_has(conn: ServerConn, client: ClientConn, handled: WriteCloser) -> None:
    for each in (conn, client, handled):
        assert_type(each.remote_address, SocketAddress)
        assert_type(each.local_address, SocketAddress)
        assert_type(each.state, ConnectionState)
        assert_type(each.heart_beat, float)
        assert_type(each.name, str)


def both_ends_are_write_closers(conn: ServerConn, client: ClientConn) -> list[WriteCloser]:
    return [conn, client]


# -- servers and clients -------------------------------------------------------------------------


def on_connect(conn: ServerConn) -> bool:
    return True


def on_close(conn: ServerConn, reason: CloseReason) -> None: ...
def on_error(conn: ServerConn, error: BaseException) -> None: ...
def on_some_message(message: object, conn: ServerConn) -> None: ...
def on_chat_message(message: Chat, conn: ServerConn) -> None: ...
def on_client_close(conn: ClientConn, reason: CloseReason) -> None: ...


class Doubled:
    """A codec of one's own."""

    def encode(self, message: Message) -> bytes:
        return message.serialize() * 2

    def decode(self, data: bytes) -> Iterator[Frame]:
        yield 1, data, len(data)

    def header(self, data: bytes) -> Header | None:
        return None


class Half:
    """A codec that cannot say anything of a frame that is not whole."""

    def encode(self, message: Message) -> bytes:
        return b""

    def decode(self, data: bytes) -> Iterator[Frame]:
        yield 1, data, len(data)


def make_number() -> int:
    return 1


def how_servers_are_made() -> None:
    Server(
        registry=MessageRegistry(),
        codec=Doubled(),
        on_connect=on_connect,
        on_message=on_some_message,
        on_close=on_close,
        on_error=on_error,
        heartbeat=Heartbeat(interval=1.0, timeout=3.0),
        data_source=DataSource(make_number),
    )
    Server(on_close=lambda conn, reason: print(conn.net_id, reason.clean))
    Server(codec=Half())  # type: ignore[arg-type]
    Server(codec=LineCodec)  # type: ignore[arg-type]
    Server(on_connect=on_close)  # type: ignore[arg-type]
    Server(on_close=on_client_close)  # type: ignore[arg-type]
    Server(on_message=on_chat_message)  # type: ignore[arg-type]
    Server(when_full="drop")  # type: ignore[arg-type]
    Server(MessageRegistry())  # type: ignore[call-arg]


def what_servers_return(server: Server, sock: socket.socket) -> None:
    assert_type(server.listen(("127.0.0.1", 0)), tuple[str, int])
    assert_type(server.listen("/run/chat"), str)
    assert_type(server.listen(sock), SocketAddress)
    with server.running(("127.0.0.1", 0)) as address:
        assert_type(address, tuple[str, int])
        ClientConn(address)
    assert_type(server.stop(grace=1.0), StopReport)
    assert_type(server.connection(1), ServerConn)
    assert_type(server.connections(), list[ServerConn])
    assert_type(server.broadcast(Chat("hello"), when_full="close"), BroadcastReport)
    assert_type(server.metrics(), MetricsSnapshot)
    server.schedule(1.0, on_time_at_a_server)
    server.schedule(1.0, on_time_alone)  # type: ignore[arg-type]
    server.broadcast(Chat("hello"), when_full="drop")  # type: ignore[arg-type]
    server.listen(12345)  # type: ignore[call-overload]


def who_is_in_a_group(server: Server, conn: ServerConn, client: ClientConn) -> None:
    lobby = server.group("lobby")
    assert_type(lobby, Group[ServerConn])
    assert_type(lobby.members(), list[ServerConn])
    lobby.join(conn)
    lobby.join(client)  # type: ignore[arg-type]


def what_clients_return() -> None:
    with ClientConn(
        ("127.0.0.1", 1), reconnect=Backoff(first=0.5), on_close=on_client_close
    ) as client:
        assert_type(client, ClientConn)
        assert_type(client.write(Chat("hello")), bool)
    assert_type(client.wait_connected(1.0), bool)
    assert_type(client.wait_closed(), CloseReason)
    assert_type(client.wait_closed(1.0), CloseReason | None)
    ClientConn(("127.0.0.1", 1), on_close=on_close)  # type: ignore[arg-type]
    ClientConn("127.0.0.1", 1)  # type: ignore[call-arg, arg-type]
    ClientConn(("127.0.0.1", "1"))  # type: ignore[arg-type]
    assert_type(load_client_tls(verify=False), ssl.SSLContext)


def what_is_shared() -> None:
    numbers = DataSource(make_number, lambda number: assert_type(number, int))
    assert_type(numbers, DataSource[int])
    assert_type(numbers.get(), int)

    by_name: ConnectionMap[str, ServerConn] = ConnectionMap()
    assert_type(by_name.get("Ann"), ServerConn | None)
    by_name.put("Ann", 1)  # type: ignore[arg-type]


def what_is_monitored(server: Server) -> None:
    with monitor_on(0) as monitor:
        assert_type(monitor.address, tuple[str, int])
        monitor.add("chat", server.metrics)
        monitor.add("chat", server.metrics())  # type: ignore[arg-type]


# -- the loop ------------------------------------------------------------------------------------


def take_two(number: int, text: str) -> None: ...


def what_the_loop_calls(reactor: Reactor) -> None:
    assert_type(reactor.call_soon(take_two, 1, "one"), Timeout)
    assert_type(reactor.call_soon_threadsafe(take_two, 1, "one"), Timeout)
    assert_type(reactor.call_later(1.0, take_two, 1, "one"), Timeout)
    assert_type(reactor.call_at(reactor.time(), take_two, 1, "one"), Timeout)
    assert_type(reactor.call_every(1.0, take_two, 1, "one"), Timeout)
    reactor.call_soon(take_two, 1)  # type: ignore[arg-type]
    reactor.call_soon_threadsafe(take_two, "one", 1)  # type: ignore[arg-type]
    reactor.call_later(1.0, take_two)  # type: ignore[arg-type]
    reactor.call_at(1.0, take_two, 1, "one", 2)  # type: ignore[arg-type]
    reactor.call_every(take_two, 1, "one")  # type: ignore[arg-type]
    assert_type(reactor.fileno(), int | None)
    assert_type(reactor.timeout(), float | None)
    assert_type(reactor.run_once(0), int)
