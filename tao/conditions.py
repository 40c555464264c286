"""On what conditions a message is let in.

Contents: Phase, Refusal, Objection.

Owns the words in which a registration says who may send a message, and an error why it was refused. What
is made of them is `tao.admission`'s. Any thread.
"""

from __future__ import annotations

import enum

__all__ = ["Objection", "Phase", "Refusal"]


class Phase(enum.Flag):
    """In which part of a connection's life a message may come."""

    BEFORE = enum.auto()
    """Until the application has called `conn.authenticate(principal)`."""
    AFTER = enum.auto()
    """From then on."""
    ANY = BEFORE | AFTER


class Refusal(enum.Enum):
    """What becomes of a message that is not let in."""

    SKIP = "it was skipped"
    """Its bytes are thrown away as they come; the connection stays."""
    CLOSE = "the connection is closed"
    """What came before it is handled and answered; nothing behind it is looked at."""

    def __str__(self) -> str:
        return self.value


class Objection(enum.Enum):
    """Why a message was not let in."""

    PHASE = "is not allowed in this phase of a connection"
    SIZE = "is larger than its max_size"
    RATE = "comes too often on this connection"
    ADDRESS_RATE = "is one too many from this address"

    def __str__(self) -> str:
        return self.value
