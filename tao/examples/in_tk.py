"""A server and a client in a Tk program."""

from __future__ import annotations

import tkinter

from reactor import Reactor
from reactor.embed.tk import attach
from tao.examples._embedded import Conversation


def main() -> None:
    """Echo while Tk says the sentences."""
    root = tkinter.Tk()
    tkinter.Label(root, text="An echo server is in here.").pack(padx=40, pady=40)
    reactor = Reactor()
    conversation = Conversation(reactor, root.quit)

    def tick() -> None:
        conversation.go_on()
        root.after(50, tick)

    with attach(reactor, root):
        root.after(50, tick)
        root.mainloop()
    conversation.end()
    root.destroy()


if __name__ == "__main__":
    main()
