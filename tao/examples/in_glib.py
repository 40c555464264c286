"""A server and a client in GLib's main loop, as in any GTK program."""

from __future__ import annotations

from gi.repository import GLib

from reactor import Reactor
from reactor.embed.glib import attach
from tao.examples._embedded import Conversation


def main() -> None:
    """Echo while a time-out of GLib's says the sentences."""
    loop = GLib.MainLoop()
    reactor = Reactor()
    conversation = Conversation(reactor, loop.quit)

    def tick() -> bool:
        conversation.go_on()
        return GLib.SOURCE_CONTINUE

    with attach(reactor):
        GLib.timeout_add(50, tick)
        loop.run()
    conversation.end()


if __name__ == "__main__":
    main()
