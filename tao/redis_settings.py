"""What a RedisBackplane's threads go by.

Owns the settings, checked by who makes them, and the names of the keys in Redis. Immutable; any thread.
"""

from __future__ import annotations

from dataclasses import dataclass

from tao.backoff import Backoff

__all__ = ["RedisSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisSettings:
    """See `RedisBackplane`, whose arguments they are; times are in seconds."""

    url: str
    channel: str
    stream_length: int
    outbox_entries: int
    outbox_bytes: int
    time_to_live: float
    directory_ttl: float
    timeout: float
    message_limit: int
    backoff: Backoff

    @property
    def stream(self) -> str:
        """The key of the stream. The braces keep all keys in one slot of a Redis Cluster."""
        return f"tao:{{{self.channel}}}:stream"

    def directory(self, member_id: str) -> str:
        """The key of the set of a server's connections."""
        return f"tao:{{{self.channel}}}:connections:{member_id}"

    def position(self, member_id: str) -> str:
        """The key of the last entry that a server has delivered."""
        return f"tao:{{{self.channel}}}:position:{member_id}"

    @property
    def directory_ms(self) -> int:
        """Milliseconds that both of a server's keys live without a refresh."""
        return max(int(self.directory_ttl * 1000), 1)

    @property
    def refresh_interval(self) -> float:
        """Seconds between two of those: two may fail."""
        return self.directory_ttl / 3
