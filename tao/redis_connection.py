"""One connection to Redis, as a backplane's threads use it; and what stands in its stream.

Contents: RedisConnection, Command, StreamId; Arrival, is_target, encode_entry, decode_entry,
parse_id.

Owns the use of redis-py: it makes connections (addresses, TLS, passwords), packs commands and parses
replies; when to connect again is its callers' affair. One thread uses a connection, but for `interrupt`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, cast

from tao.backplane import Envelope, Reach, split_cluster_id
from tao.codec import INT32_MAX, INT32_MIN
from tao.errors import TaoError
from tao.group import WhenFull

__all__ = [
    "Arrival",
    "Command",
    "RedisConnection",
    "StreamId",
    "decode_entry",
    "encode_entry",
    "is_target",
    "parse_id",
]

Command: TypeAlias = "tuple[str | bytes | int, ...]"

StreamId: TypeAlias = tuple[int, int]
"""An entry's id: milliseconds of Redis's clock, and a number within them. They are in order."""

MAX_TARGET = 1024
"""Bytes in the longest name of a group, in UTF-8."""

_FIELDS = (b"s", b"n", b"k", b"t", b"w", b"m", b"v")
_MEMBER = re.compile(rb"[0-9a-zA-Z]{1,64}")
_ID = re.compile(rb"(\d{1,20})-(\d{1,20})")
_NUMBER = re.compile(rb"-?\d{1,20}")
_POLICIES = frozenset({"refuse", "drop_oldest", "close"})


class _Wire(Protocol):
    """What is used of redis-py's connections, which have no types for it."""

    def pack_commands(self, commands: Sequence[Command]) -> object: ...
    def send_packed_command(self, command: object) -> object: ...
    def read_response(self, disable_decoding: bool = False) -> object: ...
    def disconnect(self) -> object: ...


class RedisConnection:
    """Connects when it is first used, and again after `close`. Nothing is tried twice here.

    `timeout` is in seconds, for connecting and for each reply, whatever the URL says of that. Raises
    TaoError without redis-py, and ValueError for a URL that makes no sense; later what redis-py raises.
    """

    def __init__(self, url: str, timeout: float) -> None:
        try:
            from redis.backoff import NoBackoff
            from redis.connection import ConnectionPool, parse_url
            from redis.exceptions import ResponseError
            from redis.retry import Retry
        except ImportError as error:
            raise TaoError(
                "RedisBackplane needs redis-py: use pip install 'tao[redis]', or another backplane"
            ) from error
        options: dict[str, object] = {
            "protocol": 2,  # replies of one shape
            "encoding": "utf-8",  # of names
            "encoding_errors": "strict",
            "retry": Retry(NoBackoff(), 0),
            "socket_timeout": timeout,
        }
        if not url.startswith("unix:"):
            options |= {"socket_connect_timeout": timeout, "socket_keepalive": True}
        parse: Callable[[str], Mapping[str, Any]] = parse_url  # which has no types
        # Not by `from_url`: there, what the URL says goes before.
        pool = ConnectionPool(**{**parse(url), **options})
        self._error: type[Exception] = ResponseError
        self._connection = cast(_Wire, pool.make_connection())
        self._interrupted = False

    def run(self, commands: Sequence[Command]) -> list[object]:
        """Send them all, then read a reply for each. A reply that is an error is in the list as one."""
        if not commands:
            return []
        if self._interrupted:
            raise ConnectionAbortedError("the backplane is leaving")
        connection = self._connection
        connection.send_packed_command(connection.pack_commands(commands))
        replies: list[object] = []
        for _ in commands:
            try:
                replies.append(connection.read_response(disable_decoding=True))
            except self._error as error:
                replies.append(error)
        return replies

    def transact(self, commands: Sequence[Command]) -> list[object]:
        """The same as one step for Redis: all of them happen, or none. Raises the error if none did."""
        *queued, done = self.run([("MULTI",), *commands, ("EXEC",)])
        if isinstance(done, Exception):
            raise next((reply for reply in queued if isinstance(reply, Exception)), done)
        assert isinstance(done, list)
        return done

    def interrupt(self) -> None:
        """Have the thread that waits for a reply wait no longer, and use it no more. Any thread."""
        self._interrupted = True
        self._connection.disconnect()  # shuts the socket down, which ends a recv under way

    def close(self) -> None:
        """Give the socket up. Twice is once."""
        self._connection.disconnect()


@dataclass(frozen=True, slots=True)
class Arrival:
    """An entry of the stream, read and checked."""

    sender: str
    """The member_id of the server that it came from."""
    sequence: int
    """That server's count of what it has sent: what was sent twice has the same."""
    envelope: Envelope


def is_target(target: str) -> bool:
    """Whether an entry can have it: it is short enough, and text that UTF-8 can say."""
    try:
        return len(target.encode()) <= MAX_TARGET
    except UnicodeEncodeError:
        return False


def encode_entry(sender: str, sequence: int, envelope: Envelope) -> Command:
    """The fields of an entry, as XADD takes them."""
    return (
        *(b"s", sender),
        *(b"n", sequence),
        *(b"k", envelope.reach.value),
        *(b"t", envelope.target),
        *(b"w", envelope.when_full),
        *(b"m", envelope.number),
        *(b"v", envelope.value),
    )


def decode_entry(fields: object, max_size: int) -> Arrival:
    """What XREAD gave. `max_size` is the number of bytes in the largest value.

    Raises ValueError for what no `encode_entry` has made: anybody may write into a Redis.
    """
    if not isinstance(fields, list) or len(fields) != 2 * len(_FIELDS):
        raise ValueError("an entry of the stream must have the fields of a message, and no others")
    if not all(isinstance(part, bytes) for part in fields):
        raise ValueError("an entry's fields must be bytes as Redis gives them, and no numbers")
    found: dict[bytes, bytes] = dict(zip(fields[::2], fields[1::2], strict=True))
    if set(found) != set(_FIELDS):
        raise ValueError("an entry of the stream must have the fields of a message, and no others")
    sender, target = found[b"s"], found[b"t"]
    if not _MEMBER.fullmatch(sender):
        raise ValueError(f"an entry's sender must be a server's member_id, not {sender[:80]!r}")
    sequence = _number(found[b"n"], 1, (1 << 63) - 1)
    number = _number(found[b"m"], INT32_MIN, INT32_MAX)
    if len(target) > MAX_TARGET:
        raise ValueError(
            f"an entry's target must have {MAX_TARGET} bytes at most, not {len(target)}"
        )
    if len(found[b"v"]) > max_size:
        raise ValueError(
            f"an entry's value must have {max_size} bytes at most, not {len(found[b'v'])}"
        )
    reach = Reach(found[b"k"].decode("ascii"))
    if reach is Reach.ONE:
        split_cluster_id(target.decode())
    when_full = found[b"w"].decode("ascii")
    if when_full not in _POLICIES:
        raise ValueError(
            f"an entry's policy must be one for a full receiver, not {when_full[:80]!r}"
        )
    envelope = Envelope(reach, target.decode(), number, found[b"v"], cast(WhenFull, when_full))
    return Arrival(sender.decode("ascii"), sequence, envelope)


def _number(text: bytes, least: int, most: int) -> int:
    if not _NUMBER.fullmatch(text) or not least <= int(text) <= most:
        raise ValueError(f"an entry's number must be from {least} to {most}, not {text[:80]!r}")
    return int(text)


def parse_id(text: object) -> StreamId:
    """An entry's id. Raises ValueError for what is none."""
    found = _ID.fullmatch(text) if isinstance(text, bytes) else None
    if found is None:
        raise ValueError(f"an entry's id must be two numbers and a dash, not {text!r}")
    return int(found[1]), int(found[2])
