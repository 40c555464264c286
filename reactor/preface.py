"""What must come first on a connection, before TLS and before anything that is handled.

Owns the one interface between a connection, which has the bytes and the deadline, and what can read them.
"""

from __future__ import annotations

from typing import Protocol

__all__ = ["Preface"]


class Preface(Protocol):
    """Reads what a peer, or a proxy in front of it, sends before all else. The loop's thread."""

    @property
    def what(self) -> str:
        """What it waits for, for people: "X took too long", "the peer left before X"."""
        ...

    def feed(self, data: bytes) -> bytes | None:
        """More bytes that came. Those behind the preface if that is whole, which may be none; else None.

        It keeps what it has been given until then, and sees to it that this does not grow. Raises
        PrefaceError when what came is wrong.
        """
        ...
