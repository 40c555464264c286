"""A program of somebody's who has installed tao: a server and a client, and what they say to each other."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import tao
from tao import ClientConn, Context, ContextKey, MessageRegistry, Server, ServerConn, WriteCloser

GREETED = ContextKey[int]("greeted")


@dataclass(frozen=True, slots=True)
class Name:
    text: str
    message_number = 1

    def serialize(self) -> bytes:
        return self.text.encode()

    @classmethod
    def deserialize(cls, data: bytes) -> Name:
        return cls(data.decode())


@dataclass(frozen=True, slots=True)
class Greeting:
    text: str
    count: int
    message_number = 2

    def serialize(self) -> bytes:
        return bytes([self.count]) + self.text.encode()

    @classmethod
    def deserialize(cls, data: bytes) -> Greeting:
        return cls(data[1:].decode(), data[0])


def make_server(closed: list[tao.CloseReason]) -> Server:
    registry = MessageRegistry()

    @registry.handler(Name)
    def on_name(ctx: Context[Name], conn: WriteCloser) -> Greeting:
        count = (conn.context_value(GREETED) or 0) + 1
        conn.set_context_value(GREETED, count)
        return Greeting(f"Hello, {ctx.message.text}!", count)

    def on_close(conn: ServerConn, reason: tao.CloseReason) -> None:
        closed.append(reason)

    return Server(registry=registry, on_close=on_close)


def main() -> None:
    heard: list[Greeting] = []
    all_heard = threading.Event()
    registry = MessageRegistry()

    @registry.handler(Greeting)
    def on_greeting(ctx: Context[Greeting], conn: WriteCloser) -> None:
        heard.append(ctx.message)
        if len(heard) == 2:
            all_heard.set()

    closed: list[tao.CloseReason] = []
    with make_server(closed).running(("127.0.0.1", 0)) as address:
        with ClientConn(address, registry=registry) as client:
            client.write(Name("Ann"))
            client.write(Name("Bob"))
            assert all_heard.wait(10.0)
        print(*(f"{greeting.count} {greeting.text}" for greeting in heard), sep="\n")
        print(client.wait_closed())


if __name__ == "__main__":
    main()
