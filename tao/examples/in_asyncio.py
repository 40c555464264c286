"""A server and a client in an asyncio program, which awaits the replies."""

from __future__ import annotations

import asyncio

from reactor import Reactor
from reactor.embed.asyncio import attach
from tao import ClientConn, MessageRegistry, Server
from tao.examples.echo import EchoMessage
from tao.terminal import say


async def main() -> None:
    """Echo three messages while another task ticks."""
    loop = asyncio.get_running_loop()
    reactor = Reactor()
    echoes = MessageRegistry()
    echoes.register(1, EchoMessage.deserialize, lambda ctx, conn: ctx.message)
    server = Server(registry=echoes, reactor=reactor)
    replies = MessageRegistry()
    replies.register(1, EchoMessage.deserialize)  # without a handler: what comes answers a call
    connected = asyncio.Event()

    def on_connect(_conn: ClientConn) -> None:
        loop.call_soon_threadsafe(connected.set)  # it is called on a worker

    with attach(reactor):
        address = server.listen(("127.0.0.1", 0))
        client = ClientConn(address, registry=replies, reactor=reactor, on_connect=on_connect)
        client.start()
        await connected.wait()
        for text in ("Hello.", "Is this your loop?", "Goodbye."):
            call = client.call(EchoMessage(text.encode()), timeout=5.0, reply=EchoMessage)
            reply = await asyncio.wrap_future(call)
            say(f"The echo says: {reply.data.decode()}")
        # On another thread `stop` waits until all is over; on this one it would only begin.
        await asyncio.to_thread(server.stop)
    reactor.close()


if __name__ == "__main__":
    asyncio.run(main())
