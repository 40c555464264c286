"""How it is told what went wrong on a connection.

Contents: log, log_error, tell, costs_connection.

Owns the words and levels of the log, the call of on_error, and the policy which errors cost a connection.
It does not close anything, nor decide when an error has its turn: `tao.session` does. The thread that has
the session, mostly a worker: on_error may block.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from tao.errors import (
    AdmissionError,
    ConnectionClosedError,
    FrameTooLargeError,
    NotRegisteredError,
    UndefinedMessageError,
)
from tao.interfaces import WriteCloser

__all__ = ["costs_connection", "log", "log_error", "tell"]

logger: logging.Logger = logging.getLogger("tao")

C = TypeVar("C", bound=WriteCloser)


def costs_connection(error: BaseException, close_on_error: bool) -> bool:
    """Whether it ends the connection, of what came up while a frame was decoded or handled."""
    # What is too large always does: whether it is found out from its header or from the whole frame
    # depends on how TCP has cut the stream.
    return isinstance(error, FrameTooLargeError) or (
        close_on_error
        and not isinstance(error, (UndefinedMessageError, NotRegisteredError, AdmissionError))
    )


def log(
    conn: WriteCloser, level: int, text: str, *values: object, error: BaseException | None = None
) -> None:
    """With the connection's id and peer as fields of the record, for handlers that use them."""
    if logger.isEnabledFor(level):
        extra = {"net_id": conn.net_id, "peer": conn.name}
        try:
            logger.log(level, "%s: " + text, conn, *values, exc_info=error, extra=extra)
        except Exception:
            pass  # a log that fails is no reason to lose a callback or a connection


def log_error(conn: WriteCloser, error: BaseException, refused: int | None) -> None:
    """As loud as it deserves. `refused` is how many messages were not let in so far, when it is time
    for a line about that."""
    if isinstance(error, AdmissionError):
        if refused is not None:
            log(conn, logging.WARNING, "%s (%d refused so far)", error, refused)
    elif isinstance(error, (UndefinedMessageError, NotRegisteredError, FrameTooLargeError)):
        log(conn, logging.WARNING, "%s", error)  # the peer's doing
    elif isinstance(error, ConnectionClosedError):
        log(conn, logging.INFO, "a handler wrote too late: %s", error)
    else:
        log(conn, logging.ERROR, "handling a message failed", error=error)


def tell(
    conn: C, error: BaseException, on_error: Callable[[C, BaseException], object] | None
) -> None:
    """Call on_error, if there is one. It may raise what it likes."""
    if on_error is not None:
        try:
            on_error(conn, error)
        except BaseException as failure:
            log(conn, logging.ERROR, "on_error raised", error=failure)
