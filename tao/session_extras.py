"""What a session has that most never need.

Owns SessionExtras: a place for each, and when it comes into being. It does nothing: `tao.session` does.
"""

from __future__ import annotations

import threading

from tao.admission import Admission
from tao.calls import PendingCalls
from tao.expectations import Expectations
from tao.timers import ConnectionTimers

__all__ = ["SessionExtras"]


class SessionExtras:
    """Made by the first that is needed. Of the thousands of connections that are idle, few have one."""

    __slots__ = (
        "admission",
        "cancelled",
        "expectations",
        "pending_calls",
        "principal",
        "reported",
        "starved_since",
        "timers",
        "undecoded",
        "unhandled",
    )

    def __init__(self) -> None:
        # Made under the connection's lock, by whichever thread is the first to ask.
        self.timers: ConnectionTimers | None = None
        self.pending_calls: PendingCalls | None = None
        self.cancelled: threading.Event | None = None
        """What `wait_cancelled` sleeps on."""
        self.principal: object = None
        """Whom the application has authenticated. Written by any thread, in one step; never None again."""
        # The loop's thread.
        self.admission: Admission | None = None
        """Made by the first frame that needs it."""
        self.expectations: Expectations | None = None
        self.starved_since: float = 0.0
        """Monotonic seconds at which it was paused for want of memory."""
        self.unhandled: int = 0
        """Messages that came and were dropped, since it was at its end."""
        # By the thread that has the batch; read when that has ended.
        self.reported: BaseException | None = None
        """The last error that the application was told of."""
        self.undecoded: int = 0
        """Bytes after which the stream could not be understood."""

    def __repr__(self) -> str:
        made = (self.timers, self.pending_calls, self.cancelled, self.admission, self.expectations)
        return f"<SessionExtras of {sum(part is not None for part in made)} parts>"
