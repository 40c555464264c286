"""An application whose worker gets SIGTERM at the least convenient moment: while its loop begins."""

from __future__ import annotations

import signal
import sys

from tao import MessageRegistry, Server

__all__ = ["server"]

server: Server = Server(registry=MessageRegistry())

_set_wakeup_fd = signal.set_wakeup_fd


def _interrupted(descriptor: int, /, *, warn_on_full_buffer: bool = True) -> int:
    before = _set_wakeup_fd(descriptor, warn_on_full_buffer=warn_on_full_buffer)
    if sys._getframe(1).f_globals["__name__"] == "reactor.waker":
        signal.set_wakeup_fd = _set_wakeup_fd  # once is enough
        signal.raise_signal(signal.SIGTERM)
    return before


signal.set_wakeup_fd = _interrupted
