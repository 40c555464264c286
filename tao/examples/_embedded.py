"""What the examples of hosts share: an echo server, and a client that talks to it, on one reactor.

It needs no host: what each of the examples adds is one.
"""

from __future__ import annotations

from collections.abc import Callable

from reactor import Reactor
from tao import ClientConn, Context, MessageRegistry, Server, WriteCloser
from tao.examples.echo import EchoMessage
from tao.terminal import say

__all__ = ["Conversation"]

SENTENCES = ("Hello.", "Is this your loop?", "Goodbye.")


class Conversation:
    """`go_on` says a sentence; when the last has come back, `on_over` is called, on the host's thread."""

    def __init__(self, reactor: Reactor, on_over: Callable[[], object]) -> None:
        self._reactor = reactor
        self._on_over = on_over
        echoes = MessageRegistry()
        echoes.register(1, EchoMessage.deserialize, lambda ctx, conn: ctx.message)
        self._server = Server(registry=echoes, reactor=reactor)
        replies = MessageRegistry()
        # Inline: on the reactor's thread, which is the host's, where its objects may be used.
        replies.register(1, EchoMessage.deserialize, self._on_reply, inline=True)
        address = self._server.listen(("127.0.0.1", 0))
        self._client = ClientConn(address, registry=replies, reactor=reactor, offline_limit=1000)
        self._client.start()
        self._said = self._heard = 0

    def go_on(self) -> None:
        """By a timer of the host's."""
        if self._said < len(SENTENCES):
            self._client.write(EchoMessage(SENTENCES[self._said].encode()))
            self._said += 1

    def _on_reply(self, ctx: Context[EchoMessage], _conn: WriteCloser) -> None:
        say(f"The echo says: {ctx.message.data.decode()}")
        self._heard += 1
        if self._heard == len(SENTENCES):
            self._on_over()

    def end(self) -> None:
        """When the host's loop has ended, and the reactor is detached: the rest is done here."""
        self._reactor.run_once(0)  # this thread drives it now: `stop` only begins here
        while not self._server.stop().finished:
            self._reactor.run_once(0.05)
        self._reactor.close()
