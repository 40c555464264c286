"""What is served: an echo that notes every message that it has handled, before it replies.

Imported by the workers.
"""

from __future__ import annotations

import os

from tao import Context, MessageRegistry, Server, WriteCloser
from tests.reload.record import RECORD_FILE, record_of
from tests.support import Sample, as_bytes

__all__ = ["make_server"]

ECHO = 1


def make_server() -> Server:
    """Its handlers run on the pool, so that messages are under way when the worker is told to stop."""
    # O_APPEND: every write is whole, and behind what other processes have written.
    record = os.open(os.environ[RECORD_FILE], os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    def echo(ctx: Context[bytes], _conn: WriteCloser) -> Sample:
        os.write(record, record_of(ctx.message))
        return Sample(ECHO, ctx.message)

    registry = MessageRegistry()
    registry.register(ECHO, as_bytes, echo)
    return Server(registry=registry)
