"""What handlers see of the framework.

Contents: WriteCloser, MessageServer.

Owns two protocols, so that the modules below the server need not import it. What each method does is
said at length where it is defined, in `tao.conn` and `tao.server`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar, overload

from reactor import ConnectionState, SocketAddress
from tao.codec import Codec
from tao.context_key import ContextKey, PlainKey
from tao.group import BroadcastReport, WhenFull
from tao.message import Message
from tao.stop_report import StopReport

__all__ = ["MessageServer", "WriteCloser"]


T = TypeVar("T")


class WriteCloser(Protocol):
    """A connection, as a handler sees it, at either end. Any thread; nothing here waits.

    It is open, or was: what has an address, a state and a name has them from the start.
    """

    @property
    def net_id(self) -> int:
        """A number that no other connection of this server, or client of this program, has had."""
        ...

    @property
    def name(self) -> str:
        """For people, in a log: the peer's address."""
        ...

    @property
    def state(self) -> ConnectionState:
        """Where the connection is; a moment old by the time one looks at it."""
        ...

    @property
    def heart_beat(self) -> float:
        """The Unix time, in seconds, at which the last byte came; by our own clock."""
        ...

    @property
    def remote_address(self) -> SocketAddress:
        """The peer's address as the socket module gives it."""
        ...

    @property
    def local_address(self) -> SocketAddress:
        """This end's address as the socket module gives it."""
        ...

    @property
    def principal(self) -> object:
        """Whom `authenticate` has named; None before that."""
        ...

    def write(self, message: Message) -> bool:
        """Send a message. False: so much waits that it would be wise to wait; it is sent all the same.

        Raises ConnectionClosedError or WouldBlockError, both with nothing queued: see `Conn.write`.
        """
        ...

    def close(self) -> None:
        """End in good order: what was written is sent, then FIN. Twice is once."""
        ...

    def abort(self) -> None:
        """End now: what is queued is dropped, and the peer gets a RST. Twice is once."""
        ...

    def authenticate(self, principal: object) -> None:
        """Say who is at the other end: see `Conn.authenticate`."""
        ...

    def set_codec(self, codec: Codec) -> None:
        """Encode and decode with another codec from here on: see `Conn.set_codec`."""
        ...

    @overload
    def context_value(self, key: ContextKey[T]) -> T | None: ...
    @overload
    def context_value(self, key: object) -> object: ...
    def context_value(self, key: object) -> object:
        """What `set_context_value` has put under `key`; None if nothing has."""
        ...

    def set_context_value(self, key: ContextKey[T] | PlainKey, value: T) -> None:
        """Keep something of the application's with the connection: who has logged in, say."""
        ...

    def pause_reading(self) -> None:
        """Read no more from the peer, who will have to wait. Messages that have come are handled."""
        ...

    def resume_reading(self) -> None:
        """Undo `pause_reading`."""
        ...

    def run_at(self, when: float, callback: Callable[[float, WriteCloser], object]) -> int:
        """Call `callback(now, conn)` at the Unix time `when`, in seconds. Returns the timer's id."""
        ...

    def run_after(self, delay: float, callback: Callable[[float, WriteCloser], object]) -> int:
        """As `run_at`, in `delay` seconds."""
        ...

    def run_every(self, interval: float, callback: Callable[[float, WriteCloser], object]) -> int:
        """As `run_at`, every `interval` seconds."""
        ...

    def cancel_timer(self, timer_id: int) -> bool:
        """Call a timer off. Returns whether it was still to run."""
        ...


class MessageServer(Protocol):
    """The server that a message came to, as its handler sees it. Any thread."""

    @property
    def connection_count(self) -> int:
        """Connections that there are now."""
        ...

    def broadcast(self, message: Message, *, when_full: WhenFull = "refuse") -> BroadcastReport:
        """Write a message to all connections: see `Server.broadcast`."""
        ...

    def unicast(self, net_id: int | str, message: Message) -> bool:
        """Write a message to one connection: see `Server.unicast`."""
        ...

    def connection(self, net_id: int) -> WriteCloser:
        """The connection with that id. Raises NotRegisteredError when there is none."""
        ...

    def stop(self, grace: float = 5.0) -> StopReport:
        """End the server, in `grace` seconds at the most. In a handler it does not wait for that."""
        ...
