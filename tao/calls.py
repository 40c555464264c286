"""Calls: a message that goes out, and the future of the one that answers it.

Contents: CorrelatingCodec, PendingCalls.

Owns which replies of one connection are awaited, and by whom. It neither sends nor receives: a client's
connection asks it to note a call, and gives it what comes in. Any thread, unless it says otherwise.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future, InvalidStateError
from functools import partial
from typing import Any, Protocol, TypeVar

from reactor import CloseReason, Reactor, Timeout
from tao.codec import Codec
from tao.context import Context
from tao.errors import ConnectionClosedError, TaoError
from tao.interfaces import WriteCloser
from tao.message import Message

__all__ = ["CorrelatingCodec", "PendingCalls"]

logger: logging.Logger = logging.getLogger("tao")

R = TypeVar("R")


class CorrelatingCodec(Codec, Protocol):
    """A codec whose messages say which of them belong together: it has one method more."""

    def correlation(self, message: object) -> Hashable | None:
        """What a request and its reply have in common, and no other request that is under way; None for
        a message that is neither. Of what is sent, and of what came."""
        ...


class _Call:
    """One that waits for its reply."""

    __slots__ = ("future", "key", "reply", "timer")

    def __init__(self, key: Hashable | None, reply: type) -> None:
        self.future: Future[Any] = Future()
        self.key = key
        self.reply = reply  # what it must be
        self.timer: Timeout | None = None  # the loop's thread


class PendingCalls:
    """The calls of one connection, from when they are sent until they are answered, or it ends.

    `write` sends a message, behind all that was written before; `unwanted` gets the messages that answer
    no call; `lose_count` is called with what has made it unknown which reply answers which call: it is to
    end the connection.
    """

    def __init__(
        self,
        reactor: Reactor,
        codec: Callable[[], Codec],
        write: Callable[[Any], object],
        unwanted: Callable[[Any], object],
        lose_count: Callable[[BaseException], object],
    ) -> None:
        self._reactor = reactor
        self._codec = codec  # the one of this moment
        self._write = write
        self._unwanted = unwanted
        self._lose_count = lose_count
        # Guards what follows, and holds two writers apart: calls stand here in the order on the wire.
        self._lock = reactor.system.lock()
        self._in_order: deque[_Call] = deque()
        self._by_key: dict[Hashable, _Call] = {}

    def call(self, message: Message, timeout: float | None, reply: type[R]) -> Future[R]:
        """Send it; the future of the reply. Raises what the write does, and then nothing waits."""
        if timeout is not None and not (math.isfinite(timeout) and timeout >= 0.0):
            raise ValueError(f"timeout is a number of seconds, or None, not {timeout!r}")
        correlation = _correlation_of(self._codec())
        key: Hashable | None = None
        if correlation is not None:
            key = correlation(message)
            if key is None:
                raise ValueError(f"{message!r} needs a correlation: its reply could not be told")
        call = _Call(key, reply)
        # As long as nobody else knows of it: Ctrl-C in here may leave the future's own lock taken.
        call.future.add_done_callback(partial(self._handle_done, call))
        with self._lock:
            if key in self._by_key:
                raise ValueError(f"a call with the correlation {key!r} is under way already")
            try:
                # It waits before it is sent: the reply may come before the write returns.
                if key is None:
                    self._in_order.append(call)
                else:
                    self._by_key[key] = call
                self._write(message)
            except Exception:
                if key is None:
                    self._in_order.pop()
                else:
                    del self._by_key[key]
                raise
            except BaseException as interruption:
                # Ctrl-C: nobody knows whether it was sent. In order, each reply could be the next call's.
                if key is None:
                    error = TaoError(
                        "a call was interrupted while it was sent: which reply answers which call cannot "
                        "be told any more"
                    )
                    error.__cause__ = interruption
                    self._lose_count(error)
                else:
                    self._by_key.pop(key, None)
                raise
        if timeout is not None:
            when = self._reactor.time() + timeout
            self._reactor.call_soon_threadsafe(self._set_timer, call, when)
        return call.future

    def _handle_done(self, call: _Call, future: Future[Any]) -> None:
        """It is answered, cancelled or given up, on whichever thread."""
        if future.cancelled():
            # `cancel` alone leaves those waiting who wait for several futures at once.
            future.set_running_or_notify_cancel()
        if call.key is not None:
            with self._lock:
                if self._by_key.get(call.key) is call:
                    del self._by_key[call.key]
        # One in order keeps its place: the reply that is on its way is not the next call's.
        self._reactor.post(partial(_cancel_timer, call))

    def _set_timer(self, call: _Call, when: float) -> None:
        """The loop's thread."""
        if not call.future.done():
            call.timer = self._reactor.call_at(when, self._expire, call)

    def _expire(self, call: _Call) -> None:
        """The loop's thread."""
        _fail(call.future, TimeoutError("no reply came in time"))

    def receive(self, context: Context[Any], _conn: WriteCloser) -> None:
        """The handler of what is registered without one. In the connection's order."""
        message = context.message
        correlation = _correlation_of(self._codec())
        with self._lock:
            call: _Call | None = None
            if correlation is not None:
                call = self._by_key.pop(correlation(message), None)
            elif self._in_order:
                call = self._in_order.popleft()
        if call is None:
            self._unwanted(message)
            return
        try:
            try:
                fits = isinstance(message, call.reply)
            except TypeError as error:  # a Protocol, say: the call has lost its place, and must end
                call.future.set_exception(error)
                return
            if fits:
                call.future.set_result(message)
            else:
                call.future.set_exception(
                    TypeError(f"the reply must be of type {call.reply.__name__}, not {message!r}")
                )
        except InvalidStateError:
            logger.debug("dropped %r: its call was cancelled, or had timed out", message)

    def end(self, peer: str, reason: CloseReason) -> None:
        """The connection has ended, and what came has been handled: no reply will come. Once."""
        with self._lock:
            calls = [*self._in_order, *self._by_key.values()]
            self._in_order.clear()
            self._by_key.clear()
        for call in calls:
            error = ConnectionClosedError(
                f"the connection to {peer} ended before a reply: {reason}"
            )
            error.__cause__ = reason.error
            _fail(call.future, error)

    def __len__(self) -> int:
        """Calls that keep a place."""
        return len(self._in_order) + len(self._by_key)


def _correlation_of(codec: Codec) -> Callable[[Any], Hashable | None] | None:
    correlation: Callable[[Any], Hashable | None] | None = getattr(codec, "correlation", None)
    return correlation


def _fail(future: Future[Any], error: BaseException) -> None:
    try:
        future.set_exception(error)
    except InvalidStateError:
        pass  # answered or cancelled this very moment


def _cancel_timer(call: _Call) -> None:
    """The loop's thread."""
    if call.timer is not None:
        call.timer.cancel()
