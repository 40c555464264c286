"""A server and a client in a gevent program, beside its greenlets."""

from __future__ import annotations

import gevent
from gevent.event import Event

from reactor import Reactor
from reactor.embed.gevent import attach
from tao.examples._embedded import Conversation


def main() -> None:
    """Echo while the main greenlet sleeps between two sentences."""
    reactor = Reactor()
    over = Event()
    conversation = Conversation(reactor, over.set)
    with attach(reactor):
        while not over.is_set():
            conversation.go_on()
            gevent.sleep(0.05)
    conversation.end()


if __name__ == "__main__":
    main()
