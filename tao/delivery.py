"""What a server says to its connections: to one, to those of a group, to all.

Owns the one frame that a message becomes for all its receivers, the report of what became of it, the
server's groups, and its place on the backplane: there a message goes on to the connections of other
servers, and from there theirs come. It does not say which connections there are, which is the server's,
nor how one sends, which is the session's. Any thread, but for what says otherwise.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from reactor import Connection, Ledger, Reactor, WorkerPool, WriteResult
from tao.backplane import Backplane, Envelope, Reach
from tao.codec import Codec
from tao.errors import NotRegisteredError, WouldBlockError
from tao.group import BroadcastReport, Group, Groups, WhenFull
from tao.message import Message
from tao.relay import ALONE, Relay, RelayedMessage, own_net_id
from tao.server_conn import ServerConn
from tao.session import Session

__all__ = ["Delivery"]

logger: logging.Logger = logging.getLogger("tao")

# Looking a member up in its class costs as much as a call before Python 3.12.
_ACCEPTED, _ABOVE_HIGH = WriteResult.ACCEPTED, WriteResult.ABOVE_HIGH


class Delivery:
    """One server's.

    `sessions` is the server's own table of its connections, by net_id: written by the loop's thread, looked
    up here by any. A broadcast takes a list of it, which is one step.

    Raises TypeError for what is no Backplane.
    """

    __slots__ = (
        "_backplane",
        "_codec",
        "_ledger",
        "_pool",
        "_reactor",
        "_relay",
        "_sessions",
        "groups",
    )

    def __init__(
        self, codec: Codec, sessions: Mapping[int, Session[ServerConn]], backplane: Backplane | None
    ) -> None:
        plane: object = backplane
        # A text has a `join` too, and a URL is what one might pass.
        if plane is not None and (
            isinstance(plane, str | bytes) or not callable(getattr(plane, "join", None))
        ):
            raise TypeError(f"backplane must be a Backplane, such as RedisBackplane, not {plane!r}")
        self._codec = codec
        self._sessions = sessions
        self._backplane = backplane
        self.groups: Groups[ServerConn] = Groups()
        # Set by `start`. As long as they are missing there are no connections.
        self._reactor: Reactor | None = None
        self._pool: WorkerPool | None = None
        self._ledger: Ledger | None = None
        self._relay: Relay | None = None  # set by `join`

    # -- the server's beginning and end ----------------------------------------------------------

    def start(self, reactor: Reactor, pool: WorkerPool, ledger: Ledger) -> None:
        """There may be connections from here on, on that loop, whose bytes `ledger` counts."""
        self._reactor, self._pool, self._ledger = reactor, pool, ledger

    def join(self) -> None:
        """Join the backplane, if there is one; after `start`.

        Twice is once. After a failure it tries again.
        """
        if self._backplane is not None and self._relay is None:
            assert self._reactor is not None
            self._relay = Relay(self._backplane, self._reactor, self._handle_relayed)

    def leave(self, timeout: float) -> None:
        """Leave the backplane: what waits is sent, in `timeout` seconds at the most."""
        if self._relay is not None:
            self._relay.leave(timeout)

    # -- who can be reached ----------------------------------------------------------------------

    @property
    def member_id(self) -> str:
        """See `Server.member_id`."""
        return ALONE if self._relay is None else self._relay.member_id

    def handle_come(self, net_id: int) -> None:
        """That connection is in the table. The loop's thread."""
        if self._relay is not None:
            self._relay.add(net_id)

    def handle_gone(self, net_id: int) -> None:
        """It is no longer. The loop's thread."""
        self.groups.leave_all(net_id)
        if self._relay is not None:
            self._relay.remove(net_id)

    def find(self, net_id: int) -> Session[ServerConn]:
        """The connection with that id. Raises NotRegisteredError when there is none."""
        session = self._sessions.get(net_id)
        if session is None:
            raise NotRegisteredError(
                f"there is no connection {net_id} (any more); whoever keeps ids must expect that"
            )
        return session

    def group(self, name: str) -> Group[ServerConn]:
        """See `Server.group`."""
        return self.groups.get(name, self._deliver_to)

    def counters(self) -> Mapping[str, int] | None:
        """The numbers of the backplane; None without one."""
        return None if self._relay is None else self._relay.counters()

    # -- messages --------------------------------------------------------------------------------

    def unicast(self, net_id: int | str, message: Message) -> bool:
        """See `Server.unicast`."""
        if isinstance(net_id, str):
            own = own_net_id(net_id, self.member_id)
            if own is None:
                if self._relay is None:
                    raise NotRegisteredError(
                        f"there is no connection {net_id} here; to reach other servers' pass backplane="
                    )
                return self._relay.unicast(net_id, message)
            net_id = own
        return self.find(net_id).write(message)

    def broadcast(self, message: Message, when_full: WhenFull) -> BroadcastReport:
        """See `Server.broadcast`."""
        report = self._deliver(list(self._sessions.values()), message, when_full)
        return self._pass_on(report, Reach.ALL, "", message, when_full)

    def _deliver_to(
        self, name: str, conns: Iterable[ServerConn], message: Message, when_full: WhenFull
    ) -> BroadcastReport:
        report = self._deliver([conn._session for conn in conns], message, when_full)
        return self._pass_on(report, Reach.GROUP, name, message, when_full)

    def _pass_on(
        self,
        report: BroadcastReport,
        reach: Reach,
        target: str,
        message: Message,
        when_full: WhenFull,
    ) -> BroadcastReport:
        """The report of what was delivered here, with what becomes of it elsewhere."""
        if self._relay is None:
            return report
        taken = self._relay.publish(reach, target, message, when_full)
        return replace(report, others="queued" if taken else "refused")

    def _handle_relayed(self, envelope: Envelope) -> BroadcastReport:
        """Another server's message for connections here. The loop's thread."""
        message = RelayedMessage(envelope.number, envelope.value)
        if envelope.reach is Reach.ONE:
            sessions = [self.find(own_net_id(envelope.target, self.member_id) or 0)]
        elif envelope.reach is Reach.GROUP:
            group = self.groups.find(envelope.target)
            sessions = [] if group is None else [conn._session for conn in group.members()]
        else:
            sessions = list(self._sessions.values())
        return self._deliver(sessions, message, envelope.when_full)

    def _deliver(
        self, sessions: Sequence[Session[ServerConn]], message: Message, when_full: WhenFull
    ) -> BroadcastReport:
        if when_full not in ("refuse", "drop_oldest", "close"):
            raise ValueError(f"when_full is 'refuse', 'drop_oldest' or 'close', not {when_full!r}")
        frame = self._codec.encode(message)
        unflushed: list[Connection] = []
        try:
            report = self._write_to(sessions, message, frame, when_full, unflushed)
            self._flush(unflushed)
        except BaseException:
            # Ctrl-C, say: one of them may have been written to, and not be among those to be flushed.
            self._flush([session.connection for session in sessions])
            raise
        return report

    def _flush(self, connections: Sequence[Connection]) -> None:
        if connections and self._reactor is not None and self._pool is not None:
            self._reactor.post(partial(Connection.flush_all, connections))
            self._pool.wake()

    def _write_to(
        self,
        sessions: Sequence[Session[ServerConn]],
        message: Message,
        frame: bytes,
        when_full: WhenFull,
        unflushed: list[Connection],
    ) -> BroadcastReport:
        """`frame` is the message, as the server's codec has it. Into `unflushed` come those that are to be
        flushed then."""
        # A hot path: all that does not differ from one receiver to the next is looked up before the loop.
        codec = self._codec
        reactor = self._reactor
        at_once = reactor is not None and reactor.in_loop_thread()
        drop_oldest = when_full == "drop_oldest"
        thread = threading.get_ident()
        refused = closed = sent = queued = 0
        try:
            for session in sessions:
                connection = session.connection
                own = frame
                if session.codec is codec:
                    if at_once and connection.send_at_once(frame):
                        sent += 1
                        continue
                else:
                    try:
                        own = session.codec.encode(message)
                    except Exception as error:
                        logger.warning(
                            "%s: its codec cannot encode a broadcast: %s", session.conn, error
                        )
                        refused += 1
                        continue
                if session.handler_thread == thread:
                    result = session.deliver_own(own, drop_oldest=drop_oldest)
                else:
                    result = connection.write(own, drop_oldest=drop_oldest, post=False)
                    if result is _ACCEPTED or result is _ABOVE_HIGH:
                        queued += len(own)
                if connection.outbox_size:
                    unflushed.append(connection)
                if result is _ACCEPTED or result is _ABOVE_HIGH:
                    sent += 1
                elif result is WriteResult.CLOSED:
                    closed += 1
                elif when_full == "close":
                    session.abort(error=WouldBlockError("it read too slowly for a broadcast"))
                    closed += 1
                else:
                    refused += 1
        finally:
            # Whatever else happens: what has been accepted is charged.
            if queued and self._ledger is not None:
                self._ledger.post(queued)
        return BroadcastReport(sent, refused, closed)

    def __repr__(self) -> str:
        return f"<Delivery as {self.member_id}, {self.groups!r}>"
