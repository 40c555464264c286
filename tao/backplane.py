"""Where broadcasts, unicasts and groups go beyond one server.

Contents: Reach, BackplaneEvent (enums); Envelope, BackplaneReport (values); Inbox, BackplaneLink, Backplane
(protocols); LocalBackplane.

Owns what a server and a backplane say to each other, and the backplane for several servers of one process.
That of many processes is `tao.redis_backplane`'s. It knows no connections: a server delivers to its own.
"""

from __future__ import annotations

import enum
import logging
import re
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tao.counts import check_count
from tao.group import WhenFull

__all__ = [
    "Backplane",
    "BackplaneEvent",
    "BackplaneLink",
    "BackplaneReport",
    "Envelope",
    "Inbox",
    "LocalBackplane",
    "Reach",
    "Reporter",
    "split_cluster_id",
]

logger: logging.Logger = logging.getLogger("tao")

BATCH = 64
"""Envelopes that are handed over at a time, by a LocalBackplane."""

# What a cluster_id may begin with. It often comes from a peer.
_MEMBER_ID = re.compile("[0-9a-zA-Z]{1,64}")


class Reach(enum.Enum):
    """Whom a message is for."""

    ALL = "all"
    """Every connection of every server."""
    GROUP = "group"
    """The members of a group, wherever they are."""
    ONE = "one"
    """The connection with a `cluster_id`."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """One message on its way to other servers."""

    reach: Reach
    """Whom it is for."""
    target: str
    """The group's name, or the connection's `cluster_id`; empty for all."""
    number: int
    """The message number."""
    value: bytes = field(repr=False)
    """What `serialize` returned."""
    when_full: WhenFull = "refuse"
    """What becomes of a receiver that has reached its limit."""

    @property
    def size(self) -> int:
        """Bytes that it is counted as, where it waits."""
        return len(self.value) + len(self.target) + OVERHEAD


OVERHEAD = 256
"""Bytes that an envelope is counted as besides its value: what its objects take, about."""


class BackplaneEvent(enum.Enum):
    """What a backplane reports."""

    CONNECTED = "connected"
    """The link is there, for the first time or again."""
    DISCONNECTED = "disconnected"
    """The link has broken, or cannot be had; it is tried again."""
    REFUSED = "refused"
    """Messages were not taken, since too much waits to be sent, or for what they are; the senders were told
    as well."""
    GIVEN_UP = "given up"
    """Messages were taken and will not be sent any more. Of those that were tried when the link broke, some
    may have arrived."""
    UNREACHABLE = "unreachable"
    """Unicasts went to connections that are gone, or to a server that went without confirming them."""
    MISSED = "missed"
    """Messages of other servers have not arrived here, and will not. Where the stream was trimmed before
    it was read, the number is that of all entries, this server's own among them."""
    RESET = "reset"
    """What carries the messages has begun anew, or gone back in time; what it had is lost."""
    MALFORMED = "malformed"
    """What arrived was no message of a server's; it was skipped."""


@dataclass(frozen=True, slots=True)
class BackplaneReport:
    """Something that somebody who runs servers should know of."""

    event: BackplaneEvent
    """What has happened."""
    count: int | None
    """How many messages, or connections' ids, it is about; None: it cannot be known, or is about none."""
    detail: str
    """For people."""
    error: BaseException | None = None
    """What went wrong, if it was that."""


class Inbox(Protocol):
    """The server's end of a link."""

    def post(self, envelopes: Sequence[Envelope], done: Callable[[], object]) -> None:
        """Have them delivered on the server's loop, in this order, and then call `done` there.

        Any thread; it does not wait. Who does not wait for `done` either could fill the memory. After
        the server's end nothing is delivered, and `done` is not called.
        """
        ...


class BackplaneLink(Protocol):
    """One server's place on a backplane. Any thread; nothing but `leave` waits."""

    def publish(self, envelope: Envelope) -> bool:
        """Take a message for the other servers. Returns False if there is no room for it, or after `leave`.

        What one thread publishes arrives everywhere in that order.
        """
        ...

    def add(self, net_id: int) -> None:
        """This server has that connection: unicasts may come for it."""
        ...

    def remove(self, net_id: int) -> None:
        """It has it no more."""
        ...

    def counters(self) -> Mapping[str, int]:
        """Numbers by name, for the server's metrics."""
        ...

    def leave(self, timeout: float) -> None:
        """Send what waits, in `timeout` seconds at the most, and end. Twice is once."""
        ...


class Backplane(Protocol):
    """What joins servers, so that broadcasts, unicasts and groups reach the connections of all of them."""

    def join(self, member_id: str, inbox: Inbox) -> BackplaneLink:
        """A server's link. `member_id` is no other server's, in whatever process, at any time.

        Called on the thread that first has the server listen; it must not wait. Threads that it needs are
        the link's.
        """
        ...


class Reporter:
    """Counts, logs and passes on what is to be reported. Any thread."""

    __slots__ = ("_counts", "_lock", "_name", "_on_report")

    def __init__(self, name: str, on_report: Callable[[BackplaneReport], object] | None) -> None:
        if on_report is not None and not callable(on_report):
            raise TypeError(f"on_report must be a function of a report, not {on_report!r}")
        self._name = name
        self._on_report = on_report
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()  # under the lock

    def count(self, name: str, count: int = 1) -> None:
        """Add to a counter."""
        with self._lock:
            self._counts[name] += count

    def report(
        self,
        event: BackplaneEvent,
        count: int | None,
        detail: str,
        error: BaseException | None = None,
    ) -> None:
        """Count it, log it, and tell whoever wants to be told. What that one raises is logged."""
        self.count(event.name.lower(), 1 if count is None else count)
        level = logging.INFO if event is BackplaneEvent.CONNECTED else logging.WARNING
        logger.log(level, "backplane %s: %s: %s", self._name, event.value, detail)
        if self._on_report is not None:
            try:
                self._on_report(BackplaneReport(event, count, detail, error))
            except Exception:
                logger.exception("a backplane's on_report raised")

    def counters(self) -> dict[str, int]:
        """All that there are, by name."""
        with self._lock:
            return dict(self._counts)


class LocalBackplane:
    """Joins servers of one process: for tests, and for programs that embed several.

    Pass the same object to each of them. It needs no threads: what one server publishes is posted to the
    loops of the others, of whom each may have `limit` messages waiting; what is over that is refused,
    which the sender's report says. Any thread.

    - `limit`: messages that may wait for each server.
    - `on_report(report)`: called with each BackplaneReport, on the thread where it comes up; what it is
      about is counted and logged in any case.

    Raises ValueError or TypeError for arguments that make no sense.
    """

    def __init__(
        self,
        *,
        limit: int = 10_000,
        on_report: Callable[[BackplaneReport], object] | None = None,
    ) -> None:
        check_count("limit", limit, "messages that may wait for a server")
        self._limit = limit
        self._on_report = on_report
        Reporter("", on_report)  # says now if it is no function
        self._lock = threading.Lock()
        self._links: dict[str, _LocalLink] = {}  # under the lock

    def join(self, member_id: str, inbox: Inbox) -> BackplaneLink:
        """A server's link; called by the server. Any thread."""
        link = _LocalLink(self, member_id, inbox, self._limit, self._on_report)
        with self._lock:
            self._links[member_id] = link
        return link

    def links(self) -> list[_LocalLink]:
        """Those of the servers that have joined and not left."""
        with self._lock:
            return list(self._links.values())

    def forget(self, member_id: str) -> None:
        """That server has left."""
        with self._lock:
            self._links.pop(member_id, None)

    def __repr__(self) -> str:
        return f"<LocalBackplane of {len(self._links)} servers>"


class _LocalLink:
    """One server's place. What waits for it is handed over by its own loop, some at a time."""

    def __init__(
        self,
        plane: LocalBackplane,
        member_id: str,
        inbox: Inbox,
        limit: int,
        on_report: Callable[[BackplaneReport], object] | None,
    ) -> None:
        self.member_id = member_id
        self._plane = plane
        self._inbox = inbox
        self._limit = limit
        self._reporter = Reporter(member_id, on_report)
        self._lock = threading.Lock()
        self._net_ids: set[int] = set()  # under the lock
        self._waiting: deque[Envelope] = deque()  # likewise
        self._handing_over = False  # likewise: a batch is with the inbox
        self._left = False

    def publish(self, envelope: Envelope) -> bool:
        if self._left:
            return False
        links = self._plane.links()
        if envelope.reach is Reach.ONE:
            member_id, net_id = split_cluster_id(envelope.target)
            links = [link for link in links if link.member_id == member_id and link.has(net_id)]
            if not links:
                detail = f"there is no connection {envelope.target} (any more)"
                self._reporter.report(BackplaneEvent.UNREACHABLE, 1, detail)
        refused = [link.member_id for link in links if link is not self and not link.put(envelope)]
        if refused:
            detail = f"too much waits for {', '.join(refused)}"
            self._reporter.report(BackplaneEvent.REFUSED, 1, detail)
            return False
        self._reporter.count("published")
        return True

    def has(self, net_id: int) -> bool:
        with self._lock:
            return net_id in self._net_ids

    def put(self, envelope: Envelope) -> bool:
        """Have it delivered here. Any thread."""
        with self._lock:
            if len(self._waiting) >= self._limit:
                return False
            self._waiting.append(envelope)
            begins = not self._handing_over
            self._handing_over = True
        if begins:
            self._hand_over()
        return True

    def _hand_over(self) -> None:
        """The thread that put the first, and then the loop's: one at a time, so the order stays."""
        with self._lock:
            batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            self._handing_over = bool(batch)
        if batch:
            self._reporter.count("delivered", len(batch))
            self._inbox.post(batch, self._hand_over)  # not under the lock: it may wake a loop

    def add(self, net_id: int) -> None:
        with self._lock:
            self._net_ids.add(net_id)

    def remove(self, net_id: int) -> None:
        with self._lock:
            self._net_ids.discard(net_id)

    def counters(self) -> Mapping[str, int]:
        return {**self._reporter.counters(), "waiting": len(self._waiting)}

    def leave(self, timeout: float) -> None:
        self._left = True
        self._plane.forget(self.member_id)
        with self._lock:
            self._waiting.clear()


def split_cluster_id(cluster_id: str) -> tuple[str, int]:
    """The server's id and the connection's number there. Raises ValueError for what is none."""
    member_id, _, number = cluster_id.rpartition("-")
    is_member = _MEMBER_ID.fullmatch(member_id)
    if not is_member or not (number.isascii() and number.isdigit()) or len(number) > 20:
        raise ValueError(f"a cluster_id is what conn.cluster_id gives, not {cluster_id!r}")
    return member_id, int(number)
