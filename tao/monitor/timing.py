"""How long handlers take, by the kind of message.

Contents: HandlerTimes (of one kind), HandlerTimer (of one registry).

To read the clock for every message costs a server that does little else 7 in 100 of its rate. So
nothing is timed on the usual way. While somebody watches, `arm` has a stand-in take the place of a
registry's entry: the next message of that number finds it, puts the usual entry back as it is decoded,
and has its handler timed. That is one message of a kind at a time, and as many in a second as `arm` is
called; all others do not notice.

Which message that is, is a matter of when it comes and not of what it does: the samples are fair.
What has no handler of its own (`on_message`) is not timed.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from tao.context import Context
from tao.interfaces import WriteCloser
from tao.message import HEARTBEAT, Message
from tao.registry import Entry, Handler, MessageRegistry

__all__ = ["HandlerTimer", "HandlerTimes", "Listener"]

SAMPLES = 2048
"""Kept of each kind of message. At the rate at which they are taken, enough for WINDOW."""

WINDOW = 60.0
"""Seconds for which a sample counts."""

ARMED_AT_A_TIME = 32
"""Kinds of messages in one call of `arm`, which takes turns: a registry may have thousands."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One call of a handler."""

    when: float
    """Monotonic seconds at which it ended."""
    seconds: float


@dataclass(slots=True)
class HandlerTimes:
    """What is known about the handler of one kind of message. Written by workers, read by any thread."""

    number: int
    handler: str
    """Its name."""
    message: str
    """The name of the type of the last message that it was given."""
    inline: bool
    # Appended to by whichever thread has run the handler, which deque documents as safe.
    samples: deque[Sample] = field(default_factory=lambda: deque(maxlen=SAMPLES))

    def recent(self, now: float) -> list[float]:
        """Seconds that those took which ended in the last WINDOW, the shortest first."""
        return sorted(each.seconds for each in tuple(self.samples) if each.when > now - WINDOW)


Listener: TypeAlias = Callable[[Entry[object], object, Sample], object]
"""Called with the entry, the message and the sample, on the thread that has run the handler."""


class HandlerTimer:
    """Stand-ins for the entries of one registry.

    `listeners` are by the server to which a message may come; the registry may be others' too, and
    theirs is nobody's business here. `arm` and `disarm` are for one thread, which is the sampler's.
    """

    def __init__(self, registry: MessageRegistry) -> None:
        self.listeners: dict[object, Listener] = {}
        """Made anew for every change."""
        self._registry = registry
        self._stand_ins: dict[int, tuple[Entry[object], Entry[object]]] = {}
        self._next = 0  # whose turn it is

    def arm(self) -> None:
        """Have the next message of each kind timed, as far as it is not waited for already."""
        entries = [
            entry
            for entry in self._registry.entries()
            if entry.handler is not None and entry.number != HEARTBEAT
        ]
        for turn in range(min(len(entries), ARMED_AT_A_TIME)):
            entry = entries[(self._next + turn) % len(entries)]
            usual, stand_in = self._stand_ins.get(entry.number, (None, None))
            if entry is stand_in:
                continue  # no such message has come
            if entry is not usual or stand_in is None:
                stand_in = self._stand_in_for(entry)
                self._stand_ins[entry.number] = (entry, stand_in)
            self._registry.exchange(entry, stand_in)
        self._next = (self._next + ARMED_AT_A_TIME) % len(entries) if entries else 0

    def disarm(self) -> None:
        """Put all usual entries back."""
        for usual, stand_in in self._stand_ins.values():
            self._registry.exchange(stand_in, usual)
        self._stand_ins.clear()

    def _stand_in_for(self, entry: Entry[object]) -> Entry[object]:
        handler = entry.handler
        assert handler is not None
        stand_in: Entry[object] = replace(
            entry,
            deserialize=lambda value: self._deserialize(entry, stand_in, value),
            handler=self._timed(handler, entry),
        )
        return stand_in

    def _deserialize(self, entry: Entry[object], stand_in: Entry[object], value: bytes) -> object:
        self._registry.exchange(stand_in, entry)
        return entry.deserialize(value)

    def _timed(self, handler: Handler[object], entry: Entry[object]) -> Handler[object]:
        def run(context: Context[object], conn: WriteCloser) -> Message | None:
            begun = time.monotonic()
            try:
                return handler(context, conn)
            finally:
                now = time.monotonic()
                try:
                    listener = self.listeners.get(context.server)
                except LookupError:
                    listener = None  # a client's
                if listener is not None:
                    listener(entry, context.message, Sample(now, now - begun))

        return run
