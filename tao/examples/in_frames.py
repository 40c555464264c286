"""A server and a client in the loop of a game: each frame leaves them a part of its time."""

from __future__ import annotations

import time

from reactor import Reactor
from reactor.embed.frames import attach
from tao.examples._embedded import Conversation

FRAME = 1 / 60
"""Seconds from one frame to the next."""


def main() -> None:
    """Echo; every third frame says a sentence."""
    reactor = Reactor()
    over: list[bool] = []
    conversation = Conversation(reactor, lambda: over.append(True))
    with attach(reactor, budget=FRAME / 8) as frames:
        number = 0
        begun = time.monotonic()
        while not over:
            number += 1
            if number % 3 == 0:
                conversation.go_on()
            # Here the game would move and draw what there is; then:
            frames.step()
            time.sleep(max(0.0, begun + number * FRAME - time.monotonic()))
    conversation.end()


if __name__ == "__main__":
    main()
