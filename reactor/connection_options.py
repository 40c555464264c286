"""What a connection may hold, and how long its steps may take.

Owns the numbers and their checks. Immutable; any thread.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from reactor.buffers import Watermark

__all__ = ["ConnectionOptions"]


@dataclass(frozen=True, slots=True)
class ConnectionOptions:
    """What a connection may hold, and how long its steps may take: sizes in bytes, times in seconds.

    Raises ValueError for numbers that make no sense.
    """

    output: Watermark = field(default=Watermark(65_536, 262_144))
    """Bytes waiting to be sent between which a server's reading pauses and goes on. A client goes on
    reading, or the two could wait for each other; for it, `high` is where `write` returns False."""
    output_limit: int = 16_777_216
    """Bytes waiting to be sent over which `write` refuses."""
    input_high: int = 1_048_576
    """Bytes of messages that were read and not handled above which reading pauses; each message counts
    for a few hundred more than it has on the wire, for the objects that it is made of."""
    drain_timeout: float = 30.0
    """How long a closing connection may take to finish its handlers and send its bytes."""
    linger_timeout: float = 2.0
    """How long to wait for the peer's FIN after our own."""
    handshake_timeout: float = 10.0
    """How long the TLS handshake may take, from the first packet to the last; and, before it, the header
    of the PROXY protocol, where there must be one."""

    def __post_init__(self) -> None:
        if self.output_limit < self.output.high:
            raise ValueError(
                f"output_limit ({self.output_limit}) must not be below "
                f"the high watermark ({self.output.high})"
            )
        if self.input_high < 1:
            raise ValueError(
                f"input_high must be a number of bytes from 1 on, not {self.input_high!r}"
            )
        for name in ("drain_timeout", "linger_timeout", "handshake_timeout"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be at least 0 seconds, not {getattr(self, name)!r}")
