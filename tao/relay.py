"""A server's end of its backplane.

Contents: Relay, RelayedMessage, own_net_id.

Owns the link, from the first `listen` to the server's end, and the turn from messages to envelopes and
back. What it delivers to is `tao.delivery`'s. Nothing here is on the way of a message that a client sends.
"""

from __future__ import annotations

import logging
import operator
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from reactor import Reactor
from tao.backplane import Backplane, BackplaneLink, Envelope, Reach, split_cluster_id
from tao.codec import check_number
from tao.errors import NotRegisteredError, WouldBlockError
from tao.group import BroadcastReport, WhenFull
from tao.message import Message
from tao.rate import Rate, TokenBucket

__all__ = ["ALONE", "Relay", "RelayedMessage", "own_net_id"]

logger: logging.Logger = logging.getLogger("tao")

ALONE = "local"
"""The member_id of a server without a backplane."""

LINES = Rate(1, burst=10)
"""Lines that the log gets of messages that cannot be delivered; the numbers have all of them."""

TURN = 0.005
"""Seconds of a pass of the loop that deliveries take, give or take one; then others have a turn."""


class RelayedMessage:
    """A message of another server's, as its number and value."""

    __slots__ = ("_value", "message_number")

    def __init__(self, number: int, value: bytes) -> None:
        self.message_number: int = number
        self._value = value

    def serialize(self) -> bytes:
        """The value, as the sender's `serialize` has made it."""
        return self._value


class Relay:
    """One server's place on a backplane. Implements `tao.backplane.Inbox`. Any thread, mostly."""

    __slots__ = (
        "_deliver",
        "_ended",
        "_lines",
        "_link",
        "_pid",
        "_reactor",
        "_receivers_closed",
        "_receivers_refused",
        "_undeliverable",
        "member_id",
    )

    def __init__(
        self, backplane: Backplane, reactor: Reactor, deliver: Callable[[Envelope], BroadcastReport]
    ) -> None:
        self.member_id: str = secrets.token_hex(8)
        """No other server's, in whatever process: a server listens after the last fork before it."""
        self._reactor = reactor
        self._deliver = deliver  # called on the loop's thread
        self._ended = False
        # The loop's thread.
        self._undeliverable = self._receivers_refused = self._receivers_closed = 0
        self._lines = TokenBucket(LINES)
        self._pid = os.getpid()
        self._link: BackplaneLink = backplane.join(self.member_id, self)

    def publish(
        self, reach: Reach, target: str, message: Message, when_full: WhenFull = "refuse"
    ) -> bool:
        """Have the other servers deliver it. Returns whether it was taken. Raises ForkError in a child."""
        if os.getpid() != self._pid:
            raise self._reactor.fork_error()
        # The plain number: that of an enumeration may be written as its name.
        number = operator.index(check_number(message.message_number))
        envelope = Envelope(reach, target, number, bytes(message.serialize()), when_full)
        return self._link.publish(envelope)

    def unicast(self, cluster_id: str, message: Message) -> bool:
        """To a connection of another server's. Raises WouldBlockError when there is no room."""
        if not self.publish(Reach.ONE, cluster_id, message):
            raise WouldBlockError(
                f"too much waits for the other servers, this one is stopping, or the message is larger "
                f"than the backplane takes: nothing was queued for {cluster_id}; wait, or give it up"
            )
        return True

    def add(self, net_id: int) -> None:
        """A connection has come."""
        self._link.add(net_id)

    def remove(self, net_id: int) -> None:
        """It is gone."""
        self._link.remove(net_id)

    def post(self, envelopes: Sequence[Envelope], done: Callable[[], object]) -> None:
        """See `Inbox.post`."""
        if not self._ended:
            self._reactor.post(partial(self._take_turn, envelopes, 0, done))
            self._reactor.wake()

    def _take_turn(
        self, envelopes: Sequence[Envelope], start: int, done: Callable[[], object]
    ) -> None:
        """The loop's thread. One batch is under way at a time for each link, so the order stays."""
        if self._ended:
            return
        until = time.perf_counter() + TURN
        for index in range(start, len(envelopes)):
            try:
                report = self._deliver(envelopes[index])
            except Exception as error:
                # A value that this server's codec does not take, or a connection that has gone meanwhile:
                # the others are no worse for it.
                self._undeliverable += 1
                if self._lines.take(self._reactor.pass_time):
                    logger.warning("a message from the backplane cannot be delivered: %s", error)
            else:
                self._receivers_refused += report.refused
                self._receivers_closed += report.closed
            if time.perf_counter() > until and index + 1 < len(envelopes):
                self._reactor.post(partial(self._take_turn, envelopes, index + 1, done))
                return
        done()

    def counters(self) -> Mapping[str, int]:
        """The link's numbers by name, and what became of messages that came by it."""
        return {
            **self._link.counters(),
            "undeliverable": self._undeliverable,
            "receivers_refused": self._receivers_refused,
            "receivers_closed": self._receivers_closed,
        }

    def leave(self, timeout: float) -> None:
        """End the link: what waits is sent, in `timeout` seconds at the most."""
        self._ended = True
        self._link.leave(timeout)


def own_net_id(cluster_id: str, member_id: str) -> int | None:
    """The net_id, if the connection is that server's. Raises NotRegisteredError for what is no id."""
    try:
        member, net_id = split_cluster_id(cluster_id)
    except ValueError as error:
        raise NotRegisteredError(
            f"{error}; it is the key to a connection, and there is none"
        ) from None
    return net_id if member == member_id else None
