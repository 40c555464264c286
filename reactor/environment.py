"""What is the same for all connections of one owner.

Owns Environment: a value with what every connection of a server, or of a client, works with. It is made
once, and not for each connection, of which there may be many thousands. It does nothing by itself, and
ends nothing. The loop's thread reads it, and writers what is said to be for any thread.
"""

from __future__ import annotations

from reactor.connection_handler import LoopWaker
from reactor.connection_options import ConnectionOptions
from reactor.ledger import Ledger
from reactor.loop import Reactor

__all__ = ["Environment"]

TAKE_SIZE = 262_144
"""Bytes that leave the outbox for one send, or a quarter of the limit if that is less; what stays there
can still make room for younger frames."""


class Environment:
    """`waker` is told, on whatever thread, that something was posted to the loop; the reactor itself,
    unless it is another. Without `ledger`, nothing holds back what they hold together.
    """

    __slots__ = (
        "ledger",
        "options",
        "pause_on_output",
        "reactor",
        "take_size",
        "waker",
    )

    def __init__(
        self,
        reactor: Reactor,
        options: ConnectionOptions | None = None,
        *,
        waker: LoopWaker | None = None,
        pause_on_output: bool = True,
        ledger: Ledger | None = None,
    ) -> None:
        self.reactor: Reactor = reactor
        """Whose loop they are on."""
        self.options: ConnectionOptions = ConnectionOptions() if options is None else options
        """Their limits and deadlines."""
        self.waker: LoopWaker = reactor if waker is None else waker
        """Any thread."""
        self.pause_on_output: bool = pause_on_output
        """Whether a peer that does not read what it is sent is not read from either: it pays for
        itself. But of two ends that both did so, each could wait for the other to read, for ever: one
        must go on."""
        self.ledger: Ledger = Ledger(reactor) if ledger is None else ledger
        """What they hold together. Any thread, as it says."""
        self.take_size: int = min(TAKE_SIZE, self.options.output_limit // 4)
        """Bytes for one send."""

    def __repr__(self) -> str:
        return f"<Environment on {self.reactor!r}, {self.ledger!r}>"
