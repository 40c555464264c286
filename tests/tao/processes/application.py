"""An application for workers to serve, with which tests can find out and cause what they need.

It is imported by the workers alone. What a file says when the module is imported, as a program's own text
would, tells which code a worker has: NOTE_FILE names it.
"""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

from tao import Context, MessageRegistry, Server, WriteCloser
from tao.address import format_address
from tests.support import Sample, as_bytes

__all__ = [
    "ECHO",
    "HANG",
    "KILL",
    "NOTE",
    "NOTE_FILE",
    "PEER",
    "WHO",
    "fails_when_called",
    "make_server",
    "not_a_server",
    "server",
    "takes_arguments",
]


ECHO, WHO, KILL, HANG, NOTE, PEER = range(1, 7)

NOTE_FILE = "TAO_TEST_NOTE_FILE"
"""The variable with the name of a file that is read at the import. "fail" in it: the import fails."""

note = ""
if NOTE_FILE in os.environ:
    note = Path(os.environ[NOTE_FILE]).read_text(encoding="utf-8")
    if note == "fail":
        raise RuntimeError("the application was told to fail")
    if note == "hang":
        threading.Event().wait()

registry: MessageRegistry = MessageRegistry()
server: Server = Server(registry=registry)
not_a_server: int = 42


def _echo(ctx: Context[bytes], _conn: WriteCloser) -> Sample:
    return Sample(ECHO, ctx.message)


def _who(_ctx: Context[bytes], _conn: WriteCloser) -> Sample:
    return Sample(WHO, str(os.getpid()).encode())


def _note(_ctx: Context[bytes], _conn: WriteCloser) -> Sample:
    return Sample(NOTE, note.encode())


def _peer(_ctx: Context[bytes], conn: WriteCloser) -> Sample:
    return Sample(PEER, format_address(conn.remote_address).encode())


def _kill(_ctx: Context[bytes], _conn: WriteCloser) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _hang(_ctx: Context[bytes], _conn: WriteCloser) -> None:
    """The whole loop, for good."""
    threading.Event().wait()


registry.register(ECHO, as_bytes, _echo)
registry.register(WHO, as_bytes, _who)
registry.register(NOTE, as_bytes, _note)
registry.register(PEER, as_bytes, _peer)
registry.register(KILL, as_bytes, _kill)
registry.register(HANG, as_bytes, _hang, inline=True)


def make_server() -> Server:
    """As a function that is called in the worker."""
    return server


def takes_arguments(name: str) -> Server:
    """Not to be called without."""
    return server


def fails_when_called() -> Server:
    """As one whose database is not there."""
    raise RuntimeError("no database")
