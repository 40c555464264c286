"""The backplane of servers in many processes, on many machines: a stream in Redis.

Contents: RedisBackplane, and its link: _RedisLink.

Owns the settings, and for each server that joins two threads: one writes (`tao.redis_publisher`), one reads
(`tao.redis_reader`). A server's own messages come back in the stream, and are passed over.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from tao.backoff import Backoff
from tao.backplane import (
    BackplaneLink,
    BackplaneReport,
    Envelope,
    Inbox,
    Reporter,
)
from tao.counts import check_count
from tao.redis_connection import RedisConnection
from tao.redis_publisher import RedisPublisher
from tao.redis_reader import RedisReader
from tao.redis_settings import RedisSettings

__all__ = ["RedisBackplane"]

logger: logging.Logger = logging.getLogger("tao")

MIB = 1 << 20

LAST_RESORT = 0.5
"""Seconds that a thread is given to end after its connection has been cut."""


class RedisBackplane:
    """Joins servers by a stream in Redis 7.0 or later. Needs `pip install 'tao[redis]'`. Any thread.

    One object serves any number of servers; each has two threads and two connections from its first
    `listen` until it has stopped. A Redis that is slow or gone holds up nobody: local delivery does not
    wait for it, and what is for others waits in an outbox. Servers on one `channel` reach each other. A
    group whose name has more than 1024 bytes in UTF-8, or is no text, is each server's own.

    - `url`: `redis://user:password@host:6379/0`; `rediss://` for TLS, `unix:///path` for a socket.
    - `channel`: a name for the servers that belong together; keys in Redis begin with `tao:{channel}`.
    - `stream_length`: entries that Redis keeps, about: a server that is away for longer misses some.
    - `outbox_entries`, `outbox_bytes`: what may wait to be sent by a server; at that, messages are refused.
    - `time_to_live`: seconds that a message may wait; after that it is given up.
    - `directory_ttl`: seconds after which a server that gives no sign of life counts as gone.
    - `timeout`: seconds for connecting, and for each reply.
    - `message_limit`: bytes in the largest value, to be sent or taken.
    - `backoff`: how long to wait between two attempts to connect.
    - `on_report(report)`: called with each BackplaneReport, on one of the threads; it must not be slow.
      What it is about is counted, in `server.metrics().backplane`, and logged in any case.

    Whoever can write into that Redis can send to every connection: keep it among yourselves. Raises
    ValueError or TypeError for arguments that make no sense, TaoError without redis-py.
    """

    def __init__(
        self,
        url: str,
        *,
        channel: str = "main",
        stream_length: int = 10_000,
        outbox_entries: int = 10_000,
        outbox_bytes: int = 16 * MIB,
        time_to_live: float = 30.0,
        directory_ttl: float = 15.0,
        timeout: float = 2.0,
        message_limit: int = MIB,
        backoff: Backoff | None = None,
        on_report: Callable[[BackplaneReport], object] | None = None,
    ) -> None:
        if not isinstance(url, str):
            raise TypeError(f"url is a text such as 'redis://localhost:6379/0', not {url!r}")
        if not isinstance(channel, str):
            raise TypeError(f"channel is the name of what the servers share, not {channel!r}")
        if not (0 < len(channel) <= 100 and channel.isprintable()) or set("{} ") & set(channel):
            raise ValueError(
                f"channel must be up to 100 printable characters without blanks and braces, "
                f"not {channel!r}"
            )
        check_count("stream_length", stream_length, "entries that Redis keeps", least=100)
        check_count("outbox_entries", outbox_entries, "messages that may wait")
        check_count("outbox_bytes", outbox_bytes, "bytes that may wait", least=1024)
        check_count("message_limit", message_limit, "bytes in the largest value", least=0)
        for name, value in (
            ("time_to_live", time_to_live),
            ("directory_ttl", directory_ttl),
            ("timeout", timeout),
        ):
            if not (math.isfinite(value) and value >= 0.01):
                raise ValueError(f"{name} must be at least 0.01 seconds, not {value!r}")
        if backoff is not None and not isinstance(backoff, Backoff):
            raise TypeError(f"backoff is a Backoff, such as Backoff(first=0.1), not {backoff!r}")
        Reporter("", on_report)  # says now if it is no function
        RedisConnection(url, timeout)  # likewise the URL, and whether there is redis-py
        self._on_report = on_report
        self._settings = RedisSettings(
            url=url,
            channel=channel,
            stream_length=stream_length,
            outbox_entries=outbox_entries,
            outbox_bytes=outbox_bytes,
            time_to_live=time_to_live,
            directory_ttl=directory_ttl,
            timeout=timeout,
            message_limit=message_limit,
            backoff=backoff or Backoff(first=0.1, maximum=5.0),
        )

    def join(self, member_id: str, inbox: Inbox) -> BackplaneLink:
        """A server's link, with its threads; called by the server. Any thread; it does not wait."""
        return _RedisLink(member_id, inbox, self._settings, Reporter(member_id, self._on_report))

    def __repr__(self) -> str:
        # Without user and password, which a log is no place for.
        url = urlsplit(self._settings.url)
        where = url.netloc.rpartition("@")[2] + url.path
        return f"<RedisBackplane {url.scheme}://{where}, channel {self._settings.channel}>"


class _RedisLink:
    """One server's place: an outbox that one thread empties, and another that fills the server's inbox."""

    def __init__(
        self, member_id: str, inbox: Inbox, settings: RedisSettings, reporter: Reporter
    ) -> None:
        self._reporter = reporter
        self._publisher = publisher = RedisPublisher(member_id, settings, reporter)
        self._reader = RedisReader(
            member_id, inbox, settings, reporter, publisher.look, publisher.set_position
        )
        # Daemons: a Redis that hangs is not to hang the end of the program.
        self._threads = [
            threading.Thread(target=self._publisher.run, name="tao-backplane-send", daemon=True),
            threading.Thread(target=self._reader.run, name="tao-backplane-read", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def publish(self, envelope: Envelope) -> bool:
        return self._publisher.put(envelope)

    def add(self, net_id: int) -> None:
        self._publisher.add(net_id)

    def remove(self, net_id: int) -> None:
        self._publisher.remove(net_id)

    def counters(self) -> Mapping[str, int]:
        return {**self._reporter.counters(), **self._publisher.waiting()}

    def leave(self, timeout: float) -> None:
        ends = time.monotonic() + timeout
        self._reader.stop()
        self._publisher.close(ends)
        publishing, reading = self._threads
        publishing.join(timeout)
        if publishing.is_alive():
            self._publisher.interrupt()
            publishing.join(LAST_RESORT)
        self._publisher.give_up_all("the server has stopped")
        reading.join(LAST_RESORT)
        for thread in self._threads:
            if thread.is_alive():
                text = (
                    "backplane: %s waits for Redis; it ends when that answers, or in some seconds"
                )
                logger.warning(text, thread.name)
