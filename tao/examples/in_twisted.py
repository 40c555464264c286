"""A server and a client beside what twisted's own reactor does."""

from __future__ import annotations

import importlib
from typing import Any

from reactor import Reactor
from reactor.embed.twisted import attach
from tao.examples._embedded import Conversation

# By name: it is an object that stands where its module stood, which no type describes.
host: Any = importlib.import_module("twisted.internet.reactor")


def main() -> None:
    """Echo while twisted's delayed calls say the sentences."""
    reactor = Reactor()
    conversation = Conversation(reactor, host.stop)

    def tick() -> None:
        conversation.go_on()
        host.callLater(0.05, tick)

    with attach(reactor, host):
        host.callWhenRunning(tick)
        host.run()
    conversation.end()


if __name__ == "__main__":
    main()
