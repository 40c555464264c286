"""Which message number means which message, and who handles it.

Contents: Handler, Entry, MessageRegistry, default_registry, register.

Owns the table from numbers to entries. It may be changed at any time from any thread, under a lock; it is
looked at without one: an entry is immutable, and getting it out of a dict is one step for every thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeAlias, TypeVar, cast

from tao.codec import check_number
from tao.conditions import Phase, Refusal
from tao.context import Context
from tao.errors import FrameTooLargeError
from tao.interfaces import WriteCloser
from tao.message import HEARTBEAT, HeartBeatMessage, Message
from tao.rate import Rate

__all__ = ["Entry", "Handler", "MessageRegistry", "default_registry", "register"]

M = TypeVar("M")
M_co = TypeVar("M_co", covariant=True)

Handler: TypeAlias = Callable[[Context[M], WriteCloser], Message | None]
"""Takes the context of a message and the connection; what it returns is sent as the reply."""


class Readable(Protocol[M_co]):
    """An object whose class says its number and reads its bytes: `type[Readable[M]]` is that class."""

    @property
    def message_number(self) -> int:
        """Which kind of message it is; see `Message`."""
        ...

    @classmethod
    def deserialize(cls, data: bytes, /) -> M_co:
        """The message whose value these bytes are."""
        ...


class MessageClass(Protocol[M_co]):
    """The same of the class itself: what a type checker goes by where the number is a `ClassVar`."""

    @property
    def message_number(self) -> int:
        """Which kind of message it is; see `Message`."""
        ...

    def deserialize(self, data: bytes, /) -> M_co:
        """The message whose value these bytes are."""
        ...


@dataclass(frozen=True, slots=True)
class Entry(Generic[M]):
    """What is known about a message number."""

    number: int
    deserialize: Callable[[bytes], M]
    handler: Handler[M] | None = None
    inline: bool = False
    max_size: int | None = None
    """Bytes in the largest value; None: what the codec allows."""
    phases: Phase = Phase.ANY
    rate: Rate | None = None
    refusal: Refusal = Refusal.CLOSE

    @property
    def is_guarded(self) -> bool:
        """Whether it takes more than the registry to say if such a message is let in."""
        return (
            self.phases != Phase.ANY
            or self.rate is not None
            or (self.max_size is not None and self.refusal is Refusal.SKIP)
        )


class MessageRegistry:
    """The messages that a server or a client understands. The heartbeat is in it from the start."""

    __slots__ = ("_entries", "_lock", "_open", "find", "find_open")

    def __init__(self) -> None:
        heartbeat = _forget(Entry(HEARTBEAT, HeartBeatMessage.deserialize, _ignore, inline=True))
        self._lock = threading.Lock()
        # Written under the lock. Those that are let in without a question once more, so that it costs
        # them nothing that others are guarded.
        self._entries: dict[int, Entry[object]] = {HEARTBEAT: heartbeat}
        self._open: dict[int, Entry[object]] = {HEARTBEAT: heartbeat}
        self.find: Callable[[int], Entry[object] | None] = self._entries.get
        """The entry of a number, or None. Any thread."""
        self.find_open: Callable[[int], Entry[object] | None] = self._open.get
        """The same, but None for one that `is_guarded`. Any thread."""

    def register(
        self,
        number: int,
        deserialize: Callable[[bytes], M],
        handler: Handler[M] | None = None,
        *,
        inline: bool = False,
        max_size: int | None = None,
        phases: Phase = Phase.ANY,
        rate: Rate | None = None,
        refusal: Refusal = Refusal.CLOSE,
    ) -> None:
        """Say how the messages with this number are read and, with `handler`, what is done with them.

        Without a handler they go to `on_message`. `inline` runs the handler on the loop's thread: for
        handlers that never block, and compute little, for they hold up every connection. `max_size`
        is the largest value, in bytes, that is accepted for this number; `phases` says whether it may
        come before the application has called `conn.authenticate`, after that, or at any time; `rate`
        how often, on one connection. What is not let in is refused from its header, as `refusal` says,
        and `on_error` is told; a codec whose frames have no header shows it by the whole frame.

        Raises ValueError for a number that is no int32 or is taken, TypeError for what is not
        callable, and either for conditions that make no sense.
        """
        check_number(number)
        if not callable(deserialize):
            raise TypeError(f"deserialize must be a function of bytes, not {deserialize!r}")
        if handler is not None and not callable(handler):
            raise TypeError(f"a handler must be a function of (context, conn), not {handler!r}")
        if inline and handler is None:
            raise ValueError(
                "inline=True needs a handler to run inline; pass one, or leave inline out"
            )
        if max_size is not None and max_size < 0:
            raise ValueError(f"max_size must be a number of bytes, not {max_size!r}")
        _check_conditions(phases, rate, refusal)
        if max_size is not None:
            deserialize = _bounded(number, deserialize, max_size)
        entry = _forget(
            Entry(number, deserialize, handler, inline, max_size, phases, rate, refusal)
        )
        with self._lock:
            # The heartbeat's own entry may be replaced, once: by who wants to see heartbeats.
            present = self._entries.get(number)
            if present is not None and present.handler is not _ignore:
                raise ValueError(
                    f"message number {number} is registered already; "
                    f"unregister it first, or give the new message another number"
                )
            self._entries[number] = entry
            if entry.is_guarded:
                self._open.pop(number, None)
            else:
                self._open[number] = entry

    def handler(
        self,
        message_class: type[Readable[M]] | MessageClass[M],
        *,
        inline: bool = False,
        max_size: int | None = None,
        phases: Phase = Phase.ANY,
        rate: Rate | None = None,
        refusal: Refusal = Refusal.CLOSE,
    ) -> Callable[[Handler[M]], Handler[M]]:
        """Register the decorated function for a class with `message_number` and `deserialize`.

        The rest is as for `register`. Raises TypeError for a class that lacks one of the two.
        """
        number = getattr(message_class, "message_number", None)
        deserialize = getattr(message_class, "deserialize", None)
        if not isinstance(number, int) or deserialize is None:
            raise TypeError(
                f"{message_class!r} needs a class attribute message_number and "
                f"a classmethod deserialize(data: bytes)"
            )

        def decorate(handler: Handler[M]) -> Handler[M]:
            self.register(
                number,
                deserialize,
                handler,
                inline=inline,
                max_size=max_size,
                phases=phases,
                rate=rate,
                refusal=refusal,
            )
            return handler

        return decorate

    def unregister(self, number: int) -> None:
        """Forget a number. Raises KeyError when it is not registered."""
        with self._lock:
            if self._entries.pop(number, None) is None:
                raise KeyError(
                    f"message number {number} is not registered; see `number in registry`"
                )
            self._open.pop(number, None)

    def entries(self) -> list[Entry[object]]:
        """All that are registered at this moment, the heartbeat's among them. Any thread."""
        with self._lock:
            return list(self._entries.values())

    def exchange(self, present: Entry[object], other: Entry[object]) -> bool:
        """Put `other` where `present` is, if it is; whether it was. Any thread.

        For a stand-in under the same number and conditions, such as one that times its handler once.
        """
        with self._lock:
            number = present.number
            if self._entries.get(number) is not present:
                return False
            self._entries[number] = other
            if not other.is_guarded:
                self._open[number] = other
            return True

    def __contains__(self, number: int) -> bool:
        return number in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<MessageRegistry of {sorted(self._entries)}>"


def _ignore(_context: Context[HeartBeatMessage], _conn: WriteCloser) -> None:
    """A heartbeat has done its work by arriving."""


def _forget(entry: Entry[M]) -> Entry[object]:
    """The same entry, among those of other types. That what is read by its decoder is what its handler
    takes was checked when it was made; whoever keeps the two together need not know what it is."""
    return cast(Entry[object], entry)


def _check_conditions(phases: Phase, rate: Rate | None, refusal: Refusal) -> None:
    if not isinstance(phases, Phase):
        raise TypeError(f"phases is a Phase, such as Phase.AFTER, not {phases!r}")
    if not phases:
        raise ValueError(
            "a message that is allowed in no phase would never be let in; pass Phase.BEFORE, AFTER or ANY"
        )
    if rate is not None and not isinstance(rate, Rate):
        raise TypeError(f"rate is a Rate, such as Rate(10), not {rate!r}")
    if not isinstance(refusal, Refusal):
        raise TypeError(f"refusal is Refusal.SKIP or Refusal.CLOSE, not {refusal!r}")


def _bounded(number: int, deserialize: Callable[[bytes], M], limit: int) -> Callable[[bytes], M]:
    """`deserialize` for values up to a limit. Most have none, and pay nothing for it."""

    def bounded(value: bytes) -> M:
        if len(value) > limit:
            raise FrameTooLargeError(len(value), limit, f"a value of message number {number}")
        return deserialize(value)

    return bounded


default_registry: MessageRegistry = MessageRegistry()
"""What servers and clients use that are not given another."""


def register(
    number: int,
    deserialize: Callable[[bytes], M],
    handler: Handler[M] | None = None,
    *,
    inline: bool = False,
    max_size: int | None = None,
    phases: Phase = Phase.ANY,
    rate: Rate | None = None,
    refusal: Refusal = Refusal.CLOSE,
) -> None:
    """`default_registry.register`."""
    default_registry.register(
        number,
        deserialize,
        handler,
        inline=inline,
        max_size=max_size,
        phases=phases,
        rate=rate,
        refusal=refusal,
    )
