"""Signs of life.

Contents: Heartbeat (what the user asks for), HeartbeatKeeper (what keeps it up on one connection).

The keeper owns one time-out of the loop, however busy the connection is: it is not moved for every
message, but looks, when it expires, how long the silence has lasted, and comes back for the rest.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

from reactor import CloseCause, Connection, Pause, Reactor, Timeout
from tao.errors import TaoError
from tao.message import HeartBeatMessage, Message

__all__ = ["Heartbeat", "HeartbeatKeeper"]

logger: logging.Logger = logging.getLogger("tao")


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """Send a HeartBeatMessage when nothing has been sent for `interval` seconds; close a peer from
    which nothing has come for `timeout` seconds.

    The peer's interval should be well below this timeout: a third of it, say. Raises ValueError for
    times that are not positive and finite.
    """

    interval: float = 10.0
    timeout: float = 30.0

    def __post_init__(self) -> None:
        for name in ("interval", "timeout"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a positive number of seconds, not {value!r}")


class HeartbeatKeeper:
    """Keeps one connection's heartbeat, from its opening to its end. The loop's thread only."""

    __slots__ = ("_connection", "_heartbeat", "_reactor", "_timeout", "_write")

    def __init__(
        self,
        heartbeat: Heartbeat,
        reactor: Reactor,
        connection: Connection,
        write: Callable[[Message], object],
    ) -> None:
        self._heartbeat = heartbeat
        self._reactor = reactor
        self._connection = connection
        self._write = write
        self._timeout: Timeout = reactor.call_soon(self._look)

    def _look(self) -> None:
        connection, heartbeat, now = self._connection, self._heartbeat, self._reactor.time()
        # While we do not read, its silence means nothing: it is counted from when we read again.
        heard = max(connection.last_received, connection.reading_since)
        if connection.paused == Pause.OUTPUT:
            # Paused because it does not read what we send: what it does read is its sign of life.
            heard = max(heard, connection.last_sent)
        elif connection.paused:
            heard = now
        silent_until = heard + heartbeat.timeout
        if now >= silent_until:
            connection.abort(
                CloseCause.EXPIRED,
                TimeoutError(f"nothing came from the peer for {heartbeat.timeout:g} s"),
            )
            return
        quiet_until = connection.last_sent + heartbeat.interval
        if now >= quiet_until:
            self._send()
            quiet_until = now + heartbeat.interval
        self._timeout = self._reactor.call_at(min(silent_until, quiet_until), self._look)

    def _send(self) -> None:
        try:
            self._write(HeartBeatMessage(int(self._reactor.clock.unix() * 1e9)))
        except TaoError:
            pass  # so much waits to be sent that no heartbeat is missed; or it has just been closed
        except Exception as error:
            # Whatever its codec makes of a heartbeat, a silent peer is still to be given up.
            logger.warning("cannot send heartbeats: %s", error)

    def stop(self) -> None:
        """The connection is ending."""
        self._timeout.cancel()
