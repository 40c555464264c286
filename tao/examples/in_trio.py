"""A server and a client in a trio program: a task of the nursery drives them."""

from __future__ import annotations

import trio

from reactor import Reactor
from reactor.embed.trio import attach
from tao.examples._embedded import Conversation


async def main() -> None:
    """Echo while a task of the program's own sleeps between two sentences."""
    reactor = Reactor()
    over = trio.Event()
    conversation = Conversation(reactor, over.set)
    async with trio.open_nursery() as nursery:
        embedding = attach(reactor, nursery)
        while not over.is_set():
            conversation.go_on()
            await trio.sleep(0.05)
        embedding.detach()  # its task ends, and with it the nursery
    conversation.end()


if __name__ == "__main__":
    trio.run(main)
