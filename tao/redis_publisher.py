"""What a server sends to the others by Redis: the outbox, and the thread that empties it.

Contents: RedisPublisher.

Owns the outbox, this server's part of the directory of connections, and one connection to Redis. What is
sent keeps its place in the outbox until Redis has answered. If no answer comes it is sent again with the
same numbers, by which the readers tell what they have seen.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from tao.backplane import BackplaneEvent, Envelope, Reach, Reporter, split_cluster_id
from tao.redis_connection import (
    Command,
    RedisConnection,
    StreamId,
    encode_entry,
    is_target,
    parse_id,
)
from tao.redis_settings import RedisSettings

__all__ = ["RedisPublisher"]

logger: logging.Logger = logging.getLogger("tao")

BATCH_ENTRIES = 256
BATCH_BYTES = 1 << 20
"""What goes into one transaction: enough to make the way there cheap, and not so much that Redis, which
does nothing else meanwhile, is held up."""

REPORT_INTERVAL = 1.0
"""Seconds between two reports of messages that were refused or given up: it may be all of them."""

MAX_CHANGES = 10_000
"""Changes of the directory that are noted one by one; when there are more it is written anew."""

MAX_UNCONFIRMED = 10_000
"""Milliseconds with unicasts that are told apart, for each server, as long as it has not confirmed them."""

SET_SIZE = 1000
"""Members of a set that are written by one command."""

SELF = 0
"""Stands in a server's set beside the numbers of its connections, which begin at 1: Redis keeps no set
that is empty."""


@dataclass(slots=True)
class _Waiting:
    """A message in the outbox."""

    envelope: Envelope
    expires: float
    """Monotonic seconds."""
    sequence: int = 0
    """Its number, once it has been tried."""


class RedisPublisher:
    """The outbox of one server. `run` is its thread's; the rest is any thread's, and does not wait."""

    def __init__(
        self,
        member_id: str,
        settings: RedisSettings,
        reporter: Reporter,
    ) -> None:
        self._member_id = member_id
        self._settings = settings
        self._reporter = reporter
        self._position: StreamId = (0, 0)  # written by others, in one step
        self._wake = threading.Condition()
        # Under its lock. Only the thread takes out of the outbox, at its head.
        self._outbox: deque[_Waiting] = deque()
        self._bytes = 0
        self._net_ids: set[int] = set()
        self._highest = 0  # of all that there have been: they are given in their order
        self._changes: dict[int, bool] = {}  # by connection: whether it has come or gone
        self._rewrite = True  # the directory, as a whole
        self._refused = 0  # since that was last reported
        self._closing = False
        self._ends = 0.0  # monotonic seconds, when closing
        self._refresh_at = 0.0  # monotonic seconds; written by others when it is to be now
        # The thread's.
        self._connection = RedisConnection(settings.url, settings.timeout)
        self._connected = False
        self._said_broken = False
        self._attempt = 0
        self._retry_at = self._report_at = 0.0  # monotonic seconds
        self._given_up = 0  # for their time, since that was last reported
        self._sequence = 0
        self._listed = 0  # up to which connection the directory in Redis is complete
        # Unicasts by the server that they are for, and the entry that shows when all of a batch have come.
        self._unconfirmed: dict[str, deque[tuple[StreamId, int]]] = {}

    # -- any thread ------------------------------------------------------------------------------

    def put(self, envelope: Envelope) -> bool:
        """Queue a message. Returns False if there is no room, or no time any more."""
        size = envelope.size
        with self._wake:
            room = (
                not self._closing
                and len(envelope.value) <= self._settings.message_limit
                and is_target(envelope.target)
                and len(self._outbox) < self._settings.outbox_entries
                and self._bytes + size <= self._settings.outbox_bytes
            )
            if not room:
                self._refused += 1
                if self._refused == 1:
                    self._wake.notify()  # it is reported
                return False
            self._outbox.append(_Waiting(envelope, time.monotonic() + self._settings.time_to_live))
            self._bytes += size
            if len(self._outbox) == 1:
                self._wake.notify()
        return True

    def add(self, net_id: int) -> None:
        """A connection has come."""
        with self._wake:
            self._net_ids.add(net_id)
            self._highest = max(self._highest, net_id)
            self._change(net_id, True)

    def remove(self, net_id: int) -> None:
        """A connection has gone."""
        with self._wake:
            self._net_ids.discard(net_id)
            self._change(net_id, False)

    def _change(self, net_id: int, present: bool) -> None:
        if self._rewrite:
            return
        self._changes[net_id] = present
        if len(self._changes) > MAX_CHANGES:
            self._changes.clear()
            self._rewrite = True
        self._wake.notify()

    def set_position(self, position: StreamId) -> None:
        """This server has delivered, or passed over, all up to that entry."""
        self._position = position

    def look(self) -> None:
        """Redis may be another than before: see now whether the link and the directory are there.

        An idle writer notices a break when it next writes, a reader at once.
        """
        with self._wake:
            self._refresh_at = 0.0
            self._wake.notify()

    def waiting(self) -> Mapping[str, int]:
        """What is in the outbox."""
        with self._wake:
            return {"waiting": len(self._outbox), "waiting_bytes": self._bytes}

    def close(self, ends: float) -> None:
        """Send what waits until `ends`, in monotonic seconds, and end."""
        with self._wake:
            self._closing = True
            self._ends = ends
            self._wake.notify()

    def interrupt(self) -> None:
        """End now."""
        self.close(0.0)
        self._connection.interrupt()

    def give_up_all(self, why: str) -> None:
        """Nobody will send it any more."""
        with self._wake:
            count = len(self._outbox)
            self._outbox.clear()
            self._bytes = 0
        self._report_given_up(count, why)
        self._report_losses()

    # -- the thread ------------------------------------------------------------------------------

    def run(self) -> None:
        """Send until closed. Whatever goes wrong breaks the link, and it is tried again."""
        try:
            while self._wait():
                try:
                    if not self._connected:
                        self._connect()
                    self._send()
                    self._attempt = 0
                except Exception as error:
                    self._handle_broken(error)
            self._say_farewell()
        finally:
            self._connection.close()

    def _wait(self) -> bool:
        """Until there is something to do. Returns False when there will be nothing any more."""
        while True:
            self._expire()
            now = time.monotonic()
            with self._wake:
                if self._closing and (now >= self._ends or not self._outbox):
                    return False
                if now >= self._retry_at and (
                    not self._connected
                    or self._outbox
                    or self._changes
                    or self._rewrite
                    or now >= self._refresh_at
                ):
                    return True
                until = self._refresh_at if self._connected else self._retry_at
                if self._outbox:
                    until = min(until, self._outbox[0].expires)
                if self._closing:
                    until = min(until, self._ends)
                if self._refused or self._given_up:
                    until = min(until, self._report_at)
                self._wake.wait(max(until - now, 0.0))

    def _expire(self) -> None:
        """Give up what has waited too long, and say what was refused."""
        now = time.monotonic()
        count = 0
        with self._wake:
            while self._outbox and self._outbox[0].expires <= now:
                given_up = self._pop()
                count += 1
                if not given_up.sequence and given_up.envelope.reach is not Reach.ONE:
                    # A gap, from which the readers see that they have missed it.
                    self._sequence += 1
        self._given_up += count
        if now >= self._report_at and (self._refused or self._given_up):
            self._report_at = now + REPORT_INTERVAL
            self._report_losses()

    def _pop(self) -> _Waiting:
        """Take the head out. Under the lock."""
        first = self._outbox.popleft()
        self._bytes -= first.envelope.size
        return first

    def _report_given_up(self, count: int, why: str) -> None:
        if count:
            detail = f"{count} messages for the other servers, {why}"
            self._reporter.report(BackplaneEvent.GIVEN_UP, count, detail)

    def _report_losses(self) -> None:
        count, self._given_up = self._given_up, 0
        self._report_given_up(count, f"after {self._settings.time_to_live:g} s without success")
        with self._wake:
            count, self._refused = self._refused, 0
        if count:
            detail = (
                f"{count} messages for the other servers, for want of room, for their size, or for a "
                f"group's name that is none"
            )
            self._reporter.report(BackplaneEvent.REFUSED, count, detail)

    def _connect(self) -> None:
        """Connect, and write the directory: Redis may have lost it, or another may be Redis now."""
        with self._wake:
            self._rewrite = True
        self._write_directory()
        self._connected = True
        self._said_broken = False
        self._reporter.report(BackplaneEvent.CONNECTED, None, "there is a link to send by")

    def _handle_broken(self, error: Exception) -> None:
        self._connection.close()
        self._connected = False
        self._retry_at = time.monotonic() + self._settings.backoff.delay(self._attempt)
        self._attempt += 1
        if not self._said_broken:
            self._said_broken = True
            self._reporter.report(
                BackplaneEvent.DISCONNECTED, None, f"nothing can be sent: {error}", error
            )

    def _send(self) -> None:
        """One round: the directory, then some of the outbox."""
        if self._rewrite:
            self._write_directory()
        with self._wake:
            changes, self._changes = self._changes, {}
            self._listed = self._highest
            batch = self._head()
        try:
            self._run(self._changed(changes))
        except BaseException:
            with self._wake:
                self._rewrite = True
            raise
        if time.monotonic() >= self._refresh_at:
            self._refresh()
        batch = self._reachable(batch)
        if batch:
            self._append(batch)

    def _head(self) -> list[_Waiting]:
        """What goes next; it stays where it is. Under the lock."""
        batch: list[_Waiting] = []
        size = 0
        for waiting in self._outbox:
            size += waiting.envelope.size
            if batch and (len(batch) >= BATCH_ENTRIES or size > BATCH_BYTES):
                break
            batch.append(waiting)
        return batch

    def _run(self, commands: list[Command]) -> list[object]:
        """Raises the first reply that is an error."""
        replies = self._connection.run(commands)
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return replies

    # -- the directory ---------------------------------------------------------------------------

    def _write_directory(self) -> None:
        with self._wake:
            present = [SELF, *self._net_ids]
            self._listed = self._highest
            self._changes.clear()
            self._rewrite = False
        key, lives = self._settings.directory(self._member_id), self._settings.directory_ms
        adding: list[Command] = [
            ("SADD", key, *present[start : start + SET_SIZE])
            for start in range(0, len(present), SET_SIZE)
        ]
        try:
            results = self._connection.transact(
                [
                    ("DEL", key),
                    *adding,
                    ("PEXPIRE", key, lives),
                    self._set_position(),
                ]
            )
            for result in results:
                if isinstance(result, Exception):
                    raise result
        except BaseException:
            with self._wake:
                self._rewrite = True
            raise
        self._refresh_at = time.monotonic() + self._settings.refresh_interval

    def _set_position(self) -> Command:
        """So that others see what has arrived here, and how complete the directory is."""
        milliseconds, number = self._position
        key = self._settings.position(self._member_id)
        value = f"{milliseconds}-{number}:{self._listed}"
        return ("SET", key, value, "PX", self._settings.directory_ms)

    def _changed(self, changes: dict[int, bool]) -> list[Command]:
        key = self._settings.directory(self._member_id)
        commands: list[Command] = []
        for name, present in (("SADD", True), ("SREM", False)):
            net_ids = [net_id for net_id, is_there in changes.items() if is_there is present]
            if net_ids:
                commands.append((name, key, *net_ids))
        if commands:
            # For those that have gone too: one may have come since the last time, and be listed by that.
            commands.append(self._set_position())
        return commands

    def _refresh(self) -> None:
        """Show that this server is there, and see which of the others are."""
        self._refresh_at = time.monotonic() + self._settings.refresh_interval
        members = list(self._unconfirmed)
        kept, _, *positions = self._run(
            [
                (
                    "PEXPIRE",
                    self._settings.directory(self._member_id),
                    self._settings.directory_ms,
                ),
                self._set_position(),
                *(("GET", self._settings.position(member)) for member in members),
            ]
        )
        if not kept:
            self._write_directory()
        for member, position in zip(members, positions, strict=True):
            self._confirm(member, None if position is None else _parse_position(position)[0])

    def _confirm(self, member: str, position: StreamId | None) -> None:
        """That server has delivered all up to there; or is gone."""
        waiting = self._unconfirmed[member]
        if position is None:
            count = sum(count for _, count in waiting)
            detail = f"{count} messages for connections of server {member}, which is gone"
            self._reporter.report(BackplaneEvent.UNREACHABLE, count, detail)
            waiting.clear()
        while waiting and position is not None and waiting[0][0] <= position:
            waiting.popleft()
        if not waiting:
            del self._unconfirmed[member]

    def _reachable(self, batch: list[_Waiting]) -> list[_Waiting]:
        """Without the unicasts for which there is no connection. Asks only if there are some.

        A connection that is so new that its server has not listed it yet is for that server to find.
        """
        unicasts = [waiting for waiting in batch if waiting.envelope.reach is Reach.ONE]
        if not unicasts:
            return batch
        targets = [split_cluster_id(waiting.envelope.target) for waiting in unicasts]
        servers = list({member for member, _ in targets})
        questions: list[Command] = [("GET", self._settings.position(member)) for member in servers]
        questions += [
            ("SISMEMBER", self._settings.directory(member), net_id) for member, net_id in targets
        ]
        answers = self._run(questions)
        positions = dict(zip(servers, answers, strict=False))
        gone: dict[int, str] = {}
        for waiting, (member, net_id), is_listed in zip(
            unicasts, targets, answers[len(servers) :], strict=True
        ):
            position = positions[member]
            is_new = position is not None and net_id > _parse_position(position)[1]
            # One that has been tried may have arrived: it is tried until that is known.
            if not (is_listed or is_new or waiting.sequence):
                gone[id(waiting)] = waiting.envelope.target
        if not gone:
            return batch
        with self._wake:
            kept = [waiting for waiting in self._outbox if id(waiting) not in gone]
            self._outbox = deque(kept)
            self._bytes = sum(waiting.envelope.size for waiting in kept)
        detail = f"there is no connection {', '.join(list(gone.values())[:10])} (any more)"
        self._reporter.report(BackplaneEvent.UNREACHABLE, len(gone), detail)
        return [waiting for waiting in batch if id(waiting) not in gone]

    # -- the stream ------------------------------------------------------------------------------

    def _append(self, batch: list[_Waiting]) -> None:
        """Have Redis add the batch, which is at the head of the outbox, in one step."""
        for waiting in batch:
            if not waiting.sequence:
                self._sequence += 1
                waiting.sequence = self._sequence
        settings = self._settings
        add: Command = ("XADD", settings.stream, "MAXLEN", "~", settings.stream_length, "*")
        results = self._connection.transact(
            [
                add + encode_entry(self._member_id, waiting.sequence, waiting.envelope)
                for waiting in batch
            ]
        )
        added = [index for index, result in enumerate(results) if isinstance(result, bytes)]
        if not added:
            raise next(result for result in results if isinstance(result, Exception))
        # What Redis has refused in front of what it has taken comes too late: the readers are past it.
        last = added[-1]
        with self._wake:
            for _ in range(last + 1):
                self._pop()
        self._reporter.count("published", len(added))
        self._report_given_up(last + 1 - len(added), "which Redis has refused")
        for index in added:
            envelope = batch[index].envelope
            if envelope.reach is Reach.ONE:
                self._expect(split_cluster_id(envelope.target)[0], parse_id(results[index]))

    def _expect(self, member: str, entry: StreamId) -> None:
        """That server will confirm it. Those of one millisecond are kept as one, with their number."""
        waiting = self._unconfirmed.setdefault(member, deque())
        if waiting and (waiting[-1][0][0] == entry[0] or len(waiting) >= MAX_UNCONFIRMED):
            waiting[-1] = entry, waiting[-1][1] + 1
        else:
            waiting.append((entry, 1))

    def _say_farewell(self) -> None:
        """The connections are gone; what has arrived stays known for those who still wait to hear it."""
        if not self._connected:
            return
        key = self._settings.directory(self._member_id)
        try:
            self._run([("DEL", key), self._set_position()])
        except Exception as error:
            logger.info("backplane %s: not signed off: %s", self._member_id, error)


def _parse_position(value: object) -> tuple[StreamId, int]:
    """What `_set_position` has written. Raises ValueError for what is none."""
    place, _, listed = value.partition(b":") if isinstance(value, bytes) else (b"", b"", b"")
    if not listed.isdigit():
        raise ValueError(f"a server's position must be an entry and a number, not {value!r}")
    return parse_id(place), int(listed)
