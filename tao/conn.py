"""What a server's and a client's connection have in common.

Owns nothing but the names that an application uses; the work is the session's. Every method may be
called from any thread, and none of them waits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar, cast, overload

from reactor import ConnectionState, Pause, SocketAddress
from tao.address import format_address
from tao.codec import Codec
from tao.context_key import ContextKey, PlainKey
from tao.interfaces import WriteCloser
from tao.message import Message
from tao.session import Session

__all__ = ["Conn"]

_first_value = threading.Lock()
"""Held for a moment by who keeps the first value with a connection, whichever it is."""

C = TypeVar("C", bound=WriteCloser)
T = TypeVar("T")


class Conn(Generic[C]):
    """A connection. Implements WriteCloser; what is passed to callbacks is the subclass, `C`."""

    __slots__ = ("__weakref__", "_session", "_values")

    _session: Session[C]  # set once, by the subclass, before anybody else sees the object

    def __init__(self) -> None:
        # Made by the first value. A single item is put in or got out in one step, whichever thread does it.
        self._values: dict[object, object] | None = None

    @property
    def net_id(self) -> int:
        """A number that no other connection of this server, or client of this program, has had."""
        return self._session.net_id

    @property
    def name(self) -> str:
        """For people: the peer's address."""
        return format_address(self.remote_address)

    @property
    def remote_address(self) -> SocketAddress:
        """The peer's address as the socket module gives it.

        A client that has not been connected yet has none: then, and only then, it is None, which its
        type passes over.
        """
        return cast(SocketAddress, self._session.remote_address)

    @property
    def local_address(self) -> SocketAddress:
        """This end's address as the socket module gives it; before there is one, as `remote_address`."""
        return cast(SocketAddress, self._session.local_address)

    @property
    def state(self) -> ConnectionState:
        """Where the connection is; a moment old by the time one looks at it."""
        return self._session.connection.state

    @property
    def heart_beat(self) -> float:
        """The Unix time, in seconds, at which the last byte came; by our own clock."""
        return self._session.heart_beat

    @property
    def pending(self) -> int:
        """Bytes that were written and that the system has not taken yet."""
        return self._session.connection.pending

    @property
    def bytes_held(self) -> int:
        """Bytes that it holds: read and not handled, or waiting to be sent; a message counts for a few
        hundred more than it has on the wire. A moment old."""
        return self._session.bytes_held

    def write(self, message: Message) -> bool:
        """Send a message: it is encoded now, and sent by the loop behind what was written before.

        Returns False when so much waits to be sent that it would be wise to wait (the connection's
        high watermark); the message will be sent all the same. Raises ConnectionClosedError when the
        connection is closing or closed, WouldBlockError when the limit is reached, both with nothing
        queued; and whatever the codec raises for what cannot be encoded.
        """
        return self._session.write(message)

    def close(self) -> None:
        """End in good order: what was written is sent, then FIN; no later write is accepted.

        A handler that runs is let finish; messages that came and were not begun are dropped, and
        counted in the CloseReason. Twice is once.
        """
        self._session.close()

    def abort(self) -> None:
        """End now: what is queued is dropped, and the peer gets a RST. Twice is once."""
        self._session.abort()

    @property
    def principal(self) -> object:
        """Whom `authenticate` was given, last; None as long as it has not been called."""
        return self._session.principal

    def authenticate(self, principal: object) -> None:
        """Say who the peer is, when it has shown that: anything but None.

        From here on messages are let in that are registered for `Phase.AFTER`, and those for
        `Phase.BEFORE` no more. Called by a handler, it holds for every message behind the one in hand;
        on another thread, for those whose turn comes after it. It cannot be taken back, but for
        another principal. A client that connects anew begins without one. Raises ValueError for None.
        """
        self._session.authenticate(principal)

    def set_codec(self, codec: Codec) -> None:
        """Encode and decode with another codec from here on.

        Called by a handler, it holds from the end of the message in hand: bytes behind that one which
        have been read, or even decoded, are decoded by the new codec. What the handler returns is
        still the old one's; what it writes after this call, the new one's.
        """
        self._session.set_codec(codec)

    @overload
    def context_value(self, key: ContextKey[T]) -> T | None: ...
    @overload
    def context_value(self, key: object) -> object: ...
    def context_value(self, key: object) -> object:
        """What `set_context_value` has put under `key`; None if nothing has.

        Under a ContextKey it is known of which type that is.
        """
        values = self._values
        return None if values is None else values.get(key)

    def set_context_value(self, key: ContextKey[T] | PlainKey, value: T) -> None:
        """Keep something of the application's with the connection: who has logged in, say.

        Of a ContextKey's type, if `key` is one. Any other key may be anything hashable.
        """
        if self._values is None:
            with _first_value:  # of two threads that come with the first
                if self._values is None:
                    self._values = {}
        self._values[key] = value

    def pause_reading(self) -> None:
        """Read no more from the peer, who will have to wait. Messages that have come are handled."""
        self._session.on_loop(self._session.connection.pause_reading, Pause.USER)

    def resume_reading(self) -> None:
        """Undo `pause_reading`."""
        self._session.on_loop(self._session.connection.resume_reading, Pause.USER)

    def run_at(self, when: float, callback: Callable[[float, C], object]) -> int:
        """Call `callback(now, conn)` at the Unix time `when`, in seconds, or at once if that is past.

        Returns an id for `cancel_timer`. The callback runs like a handler: on a worker, in this
        connection's order. It ends with the connection.
        """
        conn = self._session.conn
        return self._session.timers.run_at(when, bound(callback, conn))

    def run_after(self, delay: float, callback: Callable[[float, C], object]) -> int:
        """As `run_at`, in `delay` seconds."""
        conn = self._session.conn
        return self._session.timers.run_after(delay, bound(callback, conn))

    def run_every(self, interval: float, callback: Callable[[float, C], object]) -> int:
        """As `run_at`, every `interval` seconds. It does not drift; what is missed is skipped."""
        conn = self._session.conn
        return self._session.timers.run_every(interval, bound(callback, conn))

    def cancel_timer(self, timer_id: int) -> bool:
        """Call a timer off; its callback does not begin once this has returned.

        Returns whether it was still to run.
        """
        return self._session.timers.cancel(timer_id)

    def __repr__(self) -> str:
        kind = type(self).__name__
        return f"<{kind} {self.net_id} {self.name} {self.state}>"


def bound(callback: Callable[[float, C], object], conn: C) -> Callable[[float], object]:
    """A timer's callback with its connection. Raises TypeError for what cannot be called."""
    if not callable(callback):
        raise TypeError(f"a timer's callback must be a function of (now, conn), not {callback!r}")
    return lambda now: callback(now, conn)
