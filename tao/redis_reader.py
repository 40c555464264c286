"""What other servers send to this one by Redis: the thread that reads the stream.

Contents: RedisReader.

Owns one connection to Redis, the place in the stream, and what has been seen of each server. Reads on only
when the server's loop has delivered what came before. It trusts nothing that it reads.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from tao.backplane import BackplaneEvent, Envelope, Inbox, Reach, Reporter, split_cluster_id
from tao.redis_connection import Command, RedisConnection, StreamId, decode_entry, parse_id
from tao.redis_settings import RedisSettings

__all__ = ["RedisReader"]

logger: logging.Logger = logging.getLogger("tao")

BLOCK = 1.0
"""Seconds that Redis waits for news before it answers that there are none."""

MAX_COUNT = 512
"""Entries that are asked for at a time."""

READ_BYTES = 1 << 20
"""Bytes that they may have, about, by what the last ones had."""

MAX_SENDERS = 4096
"""Servers, those that are gone among them, of whom it is known what has been seen."""


@dataclass(slots=True)
class _Sender:
    """What has been seen of a server."""

    sequence: int
    """The number of its last message here."""
    excused: bool = False
    """Whether a gap behind that has been reported already."""


@dataclass(frozen=True, slots=True)
class _StreamState:
    """What XINFO says."""

    last: StreamId
    """The last entry that was ever added."""
    first: StreamId | None
    """The first that is still there; None: none is."""
    added: int
    """How many were ever added."""
    length: int


class RedisReader:
    """The reading end of one server. `run` is its thread's."""

    def __init__(
        self,
        member_id: str,
        inbox: Inbox,
        settings: RedisSettings,
        reporter: Reporter,
        on_connected: Callable[[], object],
        on_delivered: Callable[[StreamId], object],
    ) -> None:
        self._member_id = member_id
        self._on_connected = on_connected  # called on the thread
        self._on_delivered = on_delivered  # called on the thread, or the loop's
        self._inbox = inbox
        self._settings = settings
        self._reporter = reporter
        self._stopped = threading.Event()
        self._connection = RedisConnection(settings.url, settings.timeout + BLOCK)
        self._free = threading.Semaphore()  # taken while the loop has a batch
        # The thread's, all of it.
        self._joined_at = time.monotonic()
        self._began: StreamId | None = (
            None  # where it was when this server joined; None: not asked yet
        )
        self._last: StreamId = (0, 0)  # the last entry that was read
        self._index: int | None = None  # how many there were up to that one; None: unknown
        self._count = 16
        self._in_doubt = False  # whether to look at the stream itself before it is read on
        self._senders: OrderedDict[str, _Sender] = OrderedDict()

    def stop(self) -> None:
        """Read no more. Any thread; does not wait."""
        self._stopped.set()
        self._connection.interrupt()

    def run(self) -> None:
        """Read until stopped. Whatever goes wrong breaks the link, and it is tried again."""
        attempt = 0
        said_broken = False
        while not self._stopped.is_set():
            try:
                self._check()
                attempt, said_broken = 0, False
                self._on_connected()
                self._reporter.report(BackplaneEvent.CONNECTED, None, "there is a link to read by")
                while not self._stopped.is_set():
                    if self._in_doubt:
                        self._check()
                    else:
                        self._read()
            except Exception as error:
                self._connection.close()
                if self._stopped.is_set():
                    break
                if not said_broken:
                    said_broken = True
                    detail = f"nothing of the other servers can be read: {error}"
                    self._reporter.report(BackplaneEvent.DISCONNECTED, None, detail, error)
                self._stopped.wait(self._settings.backoff.delay(attempt))
                attempt += 1
        self._connection.close()

    # -- the stream ------------------------------------------------------------------------------

    def _read(self) -> None:
        """Wait for news, and take them."""
        block = int(BLOCK * 1000)
        [reply] = self._connection.run([self._xread("BLOCK", block)])
        if isinstance(reply, Exception):
            raise reply
        self._take(reply)
        if reply is None:
            self._in_doubt = self._index is None  # we are at its end, and can know now

    def _check(self) -> None:
        """Take news without waiting, and see in the same step whether the stream goes on where we were.

        Done after a break, and when we lag so far that the stream may be trimmed before we are there.
        """
        if self._began is None:
            self._begin()
        info, reply = self._connection.transact(
            [("XINFO", "STREAM", self._settings.stream), self._xread()]
        )
        if isinstance(reply, Exception):
            raise reply
        if self._compare(_stream_state(info)):
            self._take(reply)
        if not self._in_doubt:
            self._index = self._find_index()

    def _xread(self, *options: str | int) -> Command:
        place = f"{self._last[0]}-{self._last[1]}"
        stream = self._settings.stream
        return ("XREAD", "COUNT", self._count, *options, "STREAMS", stream, place)

    def _begin(self) -> None:
        """Where the stream was when this server joined, which may be a while ago: by Redis's own clock."""
        info, clock = self._connection.transact(
            [("XINFO", "STREAM", self._settings.stream), ("TIME",)]
        )
        elapsed = time.monotonic() - self._joined_at
        if isinstance(clock, Exception):
            raise clock
        assert isinstance(clock, list)
        seconds, microseconds = (int(part) for part in clock)
        joined = (int((seconds - elapsed) * 1000 + microseconds / 1000), 0)
        state = _stream_state(info)
        if state is None:
            self._last, self._index = (0, 0), 0
        elif state.last < joined:
            self._last, self._index = state.last, state.added
        else:
            self._last, self._index = joined, None
        self._began = self._last
        self._on_delivered(self._last)

    def _find_index(self) -> int | None:
        """The number of the last entry that was read, if nothing has been added since."""
        [info] = self._connection.run([("XINFO", "STREAM", self._settings.stream)])
        state = _stream_state(info)
        if state is None:
            return 0
        return state.added if state.last == self._last else self._index

    def _compare(self, state: _StreamState | None) -> bool:
        """Whether the stream that there is now goes on behind the place where we were; reports a gap."""
        index = self._index
        if state is None:
            if self._last != (0, 0):
                self._reset((0, 0), "the stream is gone")
            return False
        if state.last < self._last:
            assert self._began is not None
            # What was there before this server came is not for it; what it has seen, it knows.
            self._reset(min(self._began, state.last), "the stream has gone back")
            return False
        if index is not None and (state.first is None or state.first > self._last):
            gone = state.added - state.length
            if state.added < index or gone < index:
                self._reset(self._last, "the stream has begun anew")
            elif gone > index:
                self._excuse_gaps()
                missed = gone - index
                detail = f"{missed} messages were trimmed from the stream before they were read"
                self._reporter.report(BackplaneEvent.MISSED, missed, detail)
                self._index = gone
        return True

    def _reset(self, place: StreamId, why: str) -> None:
        # Gaps are told as such: by what each server has counted, they are exact.
        self._last, self._index = place, None if place != (0, 0) else 0
        detail = f"{why}: what had not been read of it is lost"
        self._reporter.report(BackplaneEvent.RESET, None, detail)

    def _excuse_gaps(self) -> None:
        for sender in self._senders.values():
            sender.excused = True

    # -- entries ---------------------------------------------------------------------------------

    def _take(self, reply: object) -> None:
        """What XREAD has returned: have the server deliver it, when it has delivered what was before."""
        entries = _entries_of(reply)
        self._in_doubt = len(entries) >= self._count
        if not entries:
            return
        envelopes: list[Envelope] = []
        malformed = missed = size = 0
        problem: ValueError | None = None
        for entry in entries:
            self._last = parse_id(entry[0])
            if self._index is not None:
                self._index += 1
            try:
                arrival = decode_entry(entry[1], self._settings.message_limit)
            except ValueError as error:
                malformed += 1
                problem = error
                continue
            envelope = arrival.envelope
            size += envelope.size
            gap = self._see(arrival.sender, arrival.sequence)
            if gap is None:
                continue
            missed += gap
            if self._is_for_us(envelope):
                envelopes.append(envelope)
        self._adapt_count(len(entries), size)
        if malformed:
            detail = f"{malformed} entries of the stream were skipped: {problem}"
            self._reporter.report(BackplaneEvent.MALFORMED, malformed, detail, problem)
        if missed:
            detail = f"{missed} messages of other servers have not come"
            self._reporter.report(BackplaneEvent.MISSED, missed, detail)
        self._hand_over(envelopes, self._last)

    def _see(self, name: str, sequence: int) -> int | None:
        """How many are missing before this one; None: it is our own, or has been seen."""
        if name == self._member_id:
            return None
        sender = self._senders.get(name)
        if sender is None:
            self._senders[name] = _Sender(sequence)
            if len(self._senders) > MAX_SENDERS:
                self._senders.popitem(last=False)
            return 0
        if sequence <= sender.sequence:
            self._reporter.count("duplicates")
            return None
        gap = 0 if sender.excused else sequence - sender.sequence - 1
        sender.sequence, sender.excused = sequence, False
        self._senders.move_to_end(name)
        return gap

    def _is_for_us(self, envelope: Envelope) -> bool:
        if envelope.reach is not Reach.ONE:
            return True
        return split_cluster_id(envelope.target)[0] == self._member_id

    def _adapt_count(self, entries: int, size: int) -> None:
        """As many the next time as fit, by the size that they have now; never suddenly many more."""
        fit = READ_BYTES // max(size // entries, 1)
        self._count = max(1, min(MAX_COUNT, fit, self._count * 2))

    def _hand_over(self, envelopes: Sequence[Envelope], place: StreamId) -> None:
        if not envelopes:
            # Nothing to wait for, unless something is under way: then the next of them will say it.
            if self._free.acquire(blocking=False):
                self._on_delivered(place)
                self._free.release()
            return
        while not self._free.acquire(timeout=BLOCK):
            if self._stopped.is_set():
                return
        if self._stopped.is_set():
            return
        self._reporter.count("received", len(envelopes))
        self._inbox.post(envelopes, partial(self._handle_delivered, place))

    def _handle_delivered(self, place: StreamId) -> None:
        """The loop's thread."""
        self._on_delivered(place)
        self._free.release()


def _entries_of(reply: object) -> list[Sequence[object]]:
    """The entries of the one stream that was asked for."""
    if reply is None:
        return []
    assert isinstance(reply, list)
    [(_, entries)] = reply
    assert isinstance(entries, list)
    return entries


def _stream_state(reply: object) -> _StreamState | None:
    """Of XINFO STREAM; None: there is no such stream. Raises what Redis answered else."""
    if isinstance(reply, Exception):
        if "no such key" in str(reply):
            return None
        raise reply
    assert isinstance(reply, list)
    found = dict(zip(reply[::2], reply[1::2], strict=True))
    added, length = found.get(b"entries-added"), found[b"length"]
    if not isinstance(added, int) or not isinstance(length, int):
        raise OSError("this Redis does not count a stream's entries: Redis 7.0 or later is needed")
    first = found[b"first-entry"]
    return _StreamState(
        last=parse_id(found[b"last-generated-id"]),
        first=None if first is None else parse_id(first[0]),
        added=added,
        length=length,
    )
