"""What runs on a connection, at either end.

Owns the way of a message: from the bytes that came, through the codec and the registry, to its
handler on the loop or on a worker, and of the reply back to the connection. It does not own the socket
or the state (`reactor.connection`), nor say how connections come about (`tao.server`, `tao.client`).

Elsewhere is what is the same for all connections of an owner (`tao.service`), the form in which a message
waits (`tao.waiting`), who is let in (`tao.admission`), who is late (`tao.expectations`), how errors are
told (`tao.reports`), and what only some connections have: timers (`tao.timers`), calls (`tao.calls`).

Order is its promise: the messages of one connection are handled one at a time, in the order in which
they came, whichever thread handles them; so are its timers, and the callbacks on_connect, on_message,
on_error and on_close. What waits stands in `_inbox`. The loop's thread alone takes things from there:
for a worker, as one batch, when none of this connection's is out; or, if they are to run inline, for
itself.
"""

from __future__ import annotations

import contextvars
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import Any, Generic, NoReturn, TypeVar

from reactor import (
    CloseCause,
    CloseReason,
    Connection,
    ConnectionState,
    Pause,
    Preface,
    ReactorClosedError,
    ReceiveBuffer,
    SocketAddress,
    TlsStream,
    WriteResult,
)
from tao.admission import Admission, ends_stream
from tao.calls import PendingCalls
from tao.codec import Codec, Frame
from tao.context import Context
from tao.errors import (
    AdmissionError,
    ConnectionClosedError,
    FrameTooLargeError,
    NotRegisteredError,
    TaoError,
    WouldBlockError,
)
from tao.expectations import Expectations
from tao.interfaces import MessageServer, WriteCloser
from tao.message import Message
from tao.metrics import SAMPLING, SAMPLING_MASK, SLOW, Traffic
from tao.rate import TokenBucket
from tao.refused_writes import not_open, too_much
from tao.registry import Entry
from tao.reports import costs_connection, log, log_error, tell
from tao.service import Service
from tao.session_extras import SessionExtras
from tao.timers import ConnectionTimers
from tao.waiting import MESSAGE_COST, NO_MESSAGE, Item, as_item, call, held_by, owed

__all__ = ["Session"]

C = TypeVar("C", bound=WriteCloser)
R = TypeVar("R")

# Ends after which what waits is still seen through: a peer that has finished sending wants its
# answers, and a server that stops owes them. After any other end, nothing that waits is begun.
_SEEN_THROUGH = frozenset({CloseCause.PEER_CLOSED, CloseCause.STOPPED})

# Looking a member up in its class costs as much as a call before Python 3.12.
_OPEN, _DRAINING = ConnectionState.OPEN, ConnectionState.DRAINING

_ENDING = (ConnectionState.DRAINING, ConnectionState.LINGERING, ConnectionState.CLOSED)

# What a session has for its input until a frame comes in pieces: many never need one of their own.
# Only looked at.
_NOTHING_KEPT = ReceiveBuffer()

# And for what waits, until something does. Only looked at.
_NOTHING_WAITS: list[Item] = []


class Session(Generic[C]):
    """The life of one connection above its bytes.

    Implements `reactor.ConnectionHandler` (for the loop) and `reactor.Job` (for a worker).
    """

    __slots__ = (
        "_backlog",
        "_batch",
        "_batch_held",
        "_calls",
        "_charged",
        "_closed_with",
        "_context",
        "_decoded_by",
        "_extras",
        "_find",
        "_held",
        "_inbox",
        "_input",
        "_interrupted",
        "_left",
        "_on_message",
        "_opened",
        "_reactor",
        "_reads_backlog",
        "_service",
        "_took",
        "_written",
        "codec",
        "conn",
        "connection",
        "handler_thread",
        "host",
        "local_address",
        "made_at",
        "messages_in",
        "net_id",
        "remote_address",
    )

    def __init__(
        self,
        conn: C,
        net_id: int,
        service: Service[C, Session[C]],
        *,
        codec: Codec,
        remote_address: SocketAddress | None = None,
        local_address: SocketAddress | None = None,
        preface: Preface | None = None,
        tls: TlsStream | None = None,
        host: str = "",
        frame_bucket: TokenBucket | None = None,
    ) -> None:
        self.conn: C = conn
        self.net_id: int = net_id
        # What is the same for all is there; what is here beside it every message needs.
        self._service = service
        self._reactor = reactor = service.reactor
        self._on_message = service.on_message
        # What most connections never need. Made under the connection's lock.
        self._extras: SessionExtras | None = None
        # Written once, before it opens or then.
        self.remote_address: SocketAddress | None = remote_address
        self.local_address: SocketAddress | None = local_address
        self.host: str = host
        """What the server's limits of addresses count it under. The loop's thread."""
        self.made_at: float = reactor.pass_time
        """Monotonic seconds at which it was accepted, or a client began to connect."""
        # What context variables the handlers see and set: this connection's own, entered by one
        # worker at a time.
        self._context: contextvars.Context | None = None  # made on the first worker
        self.messages_in: int = 0
        """Frames received. Written on the loop's thread."""
        # Written by any thread, in one step each, the codec first. The loop and the worker look at
        # `_interrupted` between two messages: the codec has changed, or the connection has ended.
        # The loop's thread withdraws it, before it looks at what has happened.
        self.codec: Codec = codec
        """What encodes and decodes from here on."""
        self._interrupted = False
        # The loop's thread.
        self._decoded_by = codec  # what has decoded the messages in the inbox and the batch
        self._input = _NOTHING_KEPT  # `_own_input` makes one of its own
        self._backlog = False  # whether the input begins with frames for which there was no room
        # Whether that is being decoded: replies to some of it may be sent, and others are still to come.
        self._reads_backlog = False
        self._inbox = _NOTHING_WAITS  # `_own_inbox` makes one of its own
        # Bytes of what is in the inbox; what the ledger has of them and of the input; and of what is in the
        # batch, all of which it has.
        self._held = self._charged = self._batch_held = 0
        self._calls = False  # whether some of what waits, or is out, is no message
        self._opened = False  # whether it has ever been OPEN, and on_close is owed
        self._closed_with: CloseReason | None = None
        # A batch is the worker's from the pool's `submit` until the loop calls `finish`; None: none
        # is out. The queues in between hand it over, and all that was written before. The worker
        # writes `_left` for `finish` to read.
        self._batch: list[Item] | None = None
        self._left = 0
        self._took = 0.0
        # Bytes in the connection's `own`, which is what the handlers in hand have written: on the thread
        # that runs them, and 0 when there are none.
        self._written = 0
        self.handler_thread: int = 0
        """The number of the thread that runs a handler of this connection, or 0. A thread only asks whether
        it is its own number, which no other thread writes."""
        self.connection: Connection = Connection(
            service.environment, self, preface=preface, tls=tls
        )
        """The bytes below."""
        self._limit_frames(frame_bucket)

    def _limit_frames(self, bucket: TokenBucket | None) -> None:
        registry = self._service.registry
        # What needs no admission is found by this; with a limit for all frames, nothing is.
        if bucket is None:
            self._find = registry.find_open
        else:
            self._find = _find_nothing
            self._need_extras().admission = Admission(registry, bucket)

    def _need_extras(self) -> SessionExtras:
        """What only some connections have. Any thread that does not hold the connection's lock."""
        extras = self._extras
        if extras is None:
            made = SessionExtras()
            with self.connection.lock:
                extras = self._extras
                if extras is None:
                    extras = self._extras = made
        return extras

    # -- the hot path: decode, handle, reply ---------------------------------------------------------

    def handle_data(self, data: bytes) -> bytes | None:
        """Bytes came: make messages of them, and run inline handlers at once. The loop's thread.

        Returns a reply that is still to be sent.
        """
        codec = self.codec
        if self._input.begun or codec is not self._decoded_by or self._interrupted:
            joined = self._join_input(data)
            if joined is None:
                return None
            data = joined
        try:
            frames = codec.decode(data)
        except Exception as error:
            frames = _raising(error)
        # A request as most come: one frame, whose turn it is. Without a way of its own an inline echo has
        # 2 in 100 less, and a pooled one 6. Every sixteenth pass takes the other one, where it is timed.
        if type(frames) is tuple and len(frames) == 1 and not self._inbox and self._batch is None:
            # By way of a local, here and below: CPython 3.11 calls what is in a slot at twice the cost.
            find = self._find
            try:
                number, value, end = frames[0]
                entry = find(number)
            except Exception:
                entry = None  # a codec's defect, which comes up again where it is told of
            if entry is not None and end == len(data):
                if not entry.inline:
                    if self._submit_one(entry, value, data):
                        return None
                elif self._reactor.passes & SAMPLING_MASK:
                    deserialize, handler = entry.deserialize, entry.handler
                    assert handler is not None
                    frame = None
                    self.handler_thread = self._reactor.thread
                    try:
                        reply = handler(Context(deserialize(value), self), self.conn)
                        if reply is not None:
                            frame = codec.encode(reply)
                    except BaseException as error:
                        self._fail_one(error, data)
                    self.handler_thread = 0
                    self.messages_in += 1
                    if self._inbox or self._interrupted or self.connection.own:
                        self._after_one(frame)
                        return None
                    self._service.metrics.handled += 1
                    return frame
        self._handle_frames(frames, codec, data)
        return None

    def _after_one(self, frame: bytes | None) -> None:
        """The handler of the one message has written, raised, changed the codec or ended the connection."""
        self._service.metrics.handled += 1 - len(self._inbox)
        connection = self.connection
        if frame is not None:
            connection.append_own(frame)
        if connection.own:
            connection.end()
            self._written = 0
        self._after_decode()

    def _fail_one(self, error: BaseException, data: bytes) -> None:
        """Reading or handling the one message in `data` has raised."""
        if isinstance(error, (Exception, SystemExit)):
            self._line_up(self._failure(error, data, 0, len(data)))
        else:
            self._pass_on(error)

    def _submit_one(self, entry: Entry[object], value: bytes, data: bytes) -> bool:
        """Give the one message in `data` to a worker; False if it is not as simple as that."""
        handler = entry.handler or self._on_message
        connection = self.connection
        if handler is None or connection.paused or connection.state is not _OPEN:
            return False
        deserialize = entry.deserialize
        self.messages_in += 1
        try:
            message = deserialize(value)
        except BaseException as error:
            self._fail_one(error, data)
            self._after_decode()
            return True
        size = len(data)
        self._batch = [(handler, False, message, data, 0, size)]
        self._batch_held = held = size + MESSAGE_COST
        ledger = self._service.ledger
        ledger.moved += held - self._charged
        self._charged = 0
        self._service.pool.submit(self)
        if ledger.posted + ledger.moved > ledger.high:
            ledger.press()
        return True

    def _handle_frames(self, frames: Iterable[Frame], codec: Codec, data: bytes) -> None:
        """The general way: any number of frames, some of which may have to wait."""
        reactor = self._reactor
        begun = 0.0 if reactor.passes & SAMPLING_MASK else self._service.monotonic()
        conn, inbox, find = self.conn, self._inbox, self._find
        if inbox is _NOTHING_WAITS:
            self._inbox = inbox = []
        connection, ledger = self.connection, self._service.ledger
        high = connection.output.high
        replies: list[bytes] = []  # a worker's is no affair of ours: then no handler is run in here
        reply_frame = None  # what the last handler has returned: in line before the next one begins
        start = end = count = 0
        whole = False  # whether what is left over begins with a whole frame
        broken: BaseException | None = None
        alone = self._batch is None and not inbox
        if alone:
            replies = connection.begin()
            self.handler_thread = reactor.thread
        waiting = not alone
        try:
            for number, value, end in frames:
                count += 1
                entry = None
                try:
                    entry = find(number)
                    if entry is None:
                        entry = self._decide(number, len(value), waiting)
                        if entry is None:  # not before its turn: as if it had not been decoded
                            count -= 1
                            whole = True
                            break
                    deserialize, handler = entry.deserialize, entry.handler
                    message = deserialize(value)
                    if handler is None:
                        handler = self._on_message or self._no_handler(number)
                    if waiting or not entry.inline:
                        inbox.append((handler, entry.inline, message, data, start, end))
                        waiting = True
                        start = end
                        if len(inbox) < ledger.room:
                            continue
                        whole = True
                        break
                    if reply_frame is not None:
                        replies.append(reply_frame)
                        reply_frame = None
                    reply = handler(Context(message, self), conn)
                    if reply is not None:
                        reply_frame = codec.encode(reply)
                        self._written += len(reply_frame)
                except (Exception, SystemExit) as error:
                    if entry is None and ends_stream(error):
                        count -= 1
                        broken = error
                        break
                    inbox.append(self._failure(error, data, start, end))
                    waiting = True
                except BaseException as error:
                    self._pass_on(error)
                    start, whole = end, True
                    break
                start = end
                if self._interrupted or self._written > high:
                    whole = True
                    break
        except Exception as error:
            # The codec cannot go on. In its turn: what came before is handled and answered.
            broken = error
        except BaseException as error:
            # Ctrl-C in the codec, or between two steps in here. What has been begun is not begun again.
            self._pass_on(error)
            start, whole = end, True
        if alone:
            self.handler_thread = 0
            if replies:
                if reply_frame is not None:
                    replies.append(reply_frame)
                connection.end()
            else:
                connection.own = ()
                if reply_frame is not None:
                    connection.send(reply_frame)
            self._written = 0
            inline = count - len(inbox)
            if inline:
                self._service.metrics.handled += inline
                if begun:
                    self._service.metrics.observe(
                        inline, self._service.monotonic() - begun, weight=SAMPLING
                    )
        self.messages_in += count
        if not inbox:
            if start == len(data) and broken is None and not self._interrupted:
                return  # all was handled inline: the usual case of a server with such handlers
        elif alone:
            self._held += start - inbox[0][4] + MESSAGE_COST * len(inbox)
        else:
            self._held += start + MESSAGE_COST * count
        if broken is not None:
            self._fail_stream(broken, data[start:])
        elif start < len(data):
            self._keep(data[start:], whole)
        elif alone and inbox and not (inbox[0][1] or self._interrupted) and connection.undisturbed:
            # The usual case of several for a worker: what `_after_decode` would do, without its calls,
            # which were 2 in 100 of a pooled echo at 16 in flight.
            self._batch_held = held = self._held
            ledger.moved += held - self._charged
            self._held = self._charged = 0
            self._batch, self._inbox = inbox, _NOTHING_WAITS
            self._service.pool.submit(self)
            if ledger.posted + ledger.moved > ledger.high:
                ledger.press()
            return
        self._after_decode()

    def run(self, now: float) -> float:
        """Handle the batch. On a worker; one worker at a time has a session."""
        context = self._context
        if context is None:
            context = self._context = self._service.context.copy()
        return context.run(self._handle_batch, now)

    def _handle_batch(self, begun: float) -> float:
        batch, connection = self._batch, self.connection
        assert batch is not None
        replies = connection.begin()
        conn, codec, service = self.conn, self._decoded_by, self._service
        pool, monotonic = service.pool, service.monotonic
        left = len(batch)
        self.handler_thread = threading.get_ident()
        try:
            for handler, inline, message, _, _, _ in batch:
                if inline:
                    break  # the loop's, when its turn comes
                left -= 1
                try:
                    reply = handler(Context(message, self), conn)
                    if reply is not None:
                        frame = codec.encode(reply)
                        replies.append(frame)
                        self._written += len(frame)
                except BaseException as error:
                    self._report(error, self._service.options.close_on_error)
                if left:
                    high = connection.output.high
                    if self._interrupted or self._written - connection.own_size > high:
                        break  # in the second case the peer shall read before it gets more
                    if connection.own_size and connection.pending + self._uncollected > high:
                        break  # likewise: what was taken, by the loop or a writer, waits elsewhere
                    if monotonic() >= pool.quiet_until:
                        self._announce()  # the next handler may block
        finally:
            self.handler_thread = 0
            self._left = left
        now = monotonic()
        self._took = now - begun
        return now

    @property
    def _uncollected(self) -> int:
        """Bytes that the handlers in hand have written and nobody has collected yet."""
        return self._written - self.connection.own_size

    def collect(self) -> None:
        """Send what the batch has brought so far. The loop's thread."""
        if self._batch is not None:
            self.connection.collect()

    def finish(self) -> None:
        """The batch has been handled. The loop's thread."""
        connection = self.connection
        if not connection.own:
            connection.own = ()
        else:
            late = connection.end()
            self._written = 0
            if late and self._closed_with is not None:
                reason = self._closed_with
                self._closed_with = replace(reason, unsent=reason.unsent + late)
        batch, self._batch = self._batch, None
        assert batch is not None
        left = self._left
        handled = len(batch) - left
        if self._calls:
            handled = sum(item[0] not in NO_MESSAGE for item in batch[:handled])
            self._calls = left > 0 or bool(self._inbox)
        metrics = self._service.metrics
        metrics.handled += handled
        if handled and self._took > SLOW:
            metrics.observe(handled, self._took, weight=1)
        elif handled and not self._reactor.passes & SAMPLING_MASK:
            metrics.observe(handled, self._took, weight=SAMPLING)
        self._service.ledger.moved -= self._batch_held
        self._batch_held = 0
        self._took = 0.0  # as long as it is idle, no number of its own
        if left:
            self._own_inbox()[:0] = batch[-left:]
            self._held += held_by(batch[-left:])
        elif not (
            self._inbox
            or self._input.size
            or self._interrupted
            or connection.paused
            or connection.state is not _OPEN
        ):
            return  # the usual case: nothing has come in the meantime
        self._advance()

    # -- the inbox: whose turn it is -----------------------------------------------------------------

    def _advance(self) -> None:
        """Let go on whatever can. For when something has come free. The loop's thread."""
        if self._batch is not None:
            return
        self._interrupted = False
        if self.codec is not self._decoded_by:
            self._read_again()
        if (self._inbox or self._backlog) and not self._sees_through:
            self._drop_waiting()
        if self._closed_with is not None:
            if self._inbox:
                self._submit()
            else:
                self._finish(self._closed_with)
            return
        # A connection whose peer does not read has to wait; `handle_writable` comes back here.
        if not self.connection.paused & Pause.OUTPUT:
            while self._inbox and self._inbox[0][1] and self._may_go_on():
                self._run_inline(self._inbox.pop(0))
            # Unless a reply could not be sent: then the end is near, and nothing more is begun.
            if self._backlog and not self._inbox and self._closed_with is None:
                self._backlog = False
                self._reads_backlog = True
                try:
                    reply = self.handle_data(self._input.take())
                    if reply is not None:
                        self.connection.send(reply)
                finally:
                    self._reads_backlog = False
        self._after_decode()
        self.connection.check_drained()

    def _after_decode(self) -> None:
        """Send a batch off, and see to it that reading pauses and goes on as it should."""
        self._charge()
        if self._service.ledger.pressed:
            self.weigh()
        if self._batch is None and not self.connection.paused & Pause.OUTPUT:
            if self._inbox and not self._inbox[0][1] and not self._interrupted:
                self._submit()
            elif self._inbox or self._backlog or self._interrupted:
                self._reactor.post(self._advance)  # in the next pass: others have their turn first
        if (
            self._backlog
            or len(self._inbox) >= self._service.ledger.room
            or self._held + self._batch_held > self._service.options.connection.input_high
        ):
            self.connection.pause_reading(Pause.WORK)
        elif self.connection.paused & Pause.WORK:
            self.connection.resume_reading(Pause.WORK)

    def _submit(self) -> None:
        """Give all that waits to a worker, as one batch."""
        self._batch, self._inbox = self._inbox, _NOTHING_WAITS
        self._batch_held, self._held = self._held, 0
        self._service.ledger.moved += self._batch_held
        self._charge()
        self._service.pool.submit(self)

    def _run_inline(self, item: Item) -> None:
        """A message for the loop's thread that had to wait for its turn."""
        handler, _, message, data, start, end = item
        self._held -= end - start + MESSAGE_COST
        self._service.metrics.handled += 1
        connection = self.connection
        self.handler_thread = self._reactor.thread
        try:
            reply = handler(Context(message, self), self.conn)
            if reply is not None:
                connection.append_own(self._decoded_by.encode(reply))
        except (Exception, SystemExit) as error:
            self._own_inbox().insert(0, self._failure(error, data, start, end))
            self._held += end - start + MESSAGE_COST
        except BaseException as error:
            self._pass_on(error)
        self.handler_thread = 0
        if connection.own:
            connection.end()
            self._written = 0

    def _pass_on(self, error: BaseException) -> None:
        """Ctrl-C inside an inline handler ends the loop's run, as it should; but when the replies to
        what came before are on their way, and what came behind has been kept."""

        def interrupt() -> NoReturn:
            raise error

        self._reactor.post(interrupt)

    def _may_go_on(self) -> bool:
        return not (self._interrupted or self.connection.paused & Pause.OUTPUT)

    @property
    def _sees_through(self) -> bool:
        """Whether what waits is still to be handled, and answered. Any thread; a moment old."""
        state = self.connection.state
        return state is _OPEN or (state is _DRAINING and self.connection.cause in _SEEN_THROUGH)

    def is_idle(self) -> bool:
        """Whether nothing is under way that may still write. The loop's thread."""
        if self._batch is not None or self._inbox or self._backlog or self._reads_backlog:
            return False
        # What one codec took for the beginning of a frame may be whole ones to the next.
        return self.codec is self._decoded_by or not self._input.size

    def refuse(self, error: BaseException) -> None:
        """There are no workers any more; called instead of `run`. The loop's thread."""
        batch, self._batch = self._batch, None
        assert batch is not None
        if self.connection.state is ConnectionState.CLOSED:
            # What is left is owed to the application: here, if it cannot be elsewhere.
            self._batch = batch
            self.run(self._service.monotonic())
            self.finish()
        else:
            self._own_inbox()[:0] = batch
            self._held += self._batch_held
            self._service.ledger.moved -= self._batch_held
            self._batch_held = 0
            self._charge()
            self.connection.fail(error)

    # -- the inbox: what is put in and taken out -----------------------------------------------------

    def enqueue(self, function: Callable[[], object], *, owed: bool = False) -> None:
        """Run something that is no message in this connection's order. The loop's thread.

        What is `owed` is run even if the connection ends first: by this session, or, when it has
        begun its last call, by the one that `adopt`s what is left.
        """
        self._calls = True
        self._line_up(as_item(function, is_owed=owed))
        if self._batch is None:
            self._after_decode()
        else:
            self._charge()

    def adopt(self, former: Session[C]) -> None:
        """Run what another session of the same client owes and can no longer run. The loop's thread."""
        waiting, former._inbox = former._inbox, _NOTHING_WAITS
        former._held = 0
        former._charge()
        for handler, _, function, _, _, _ in waiting:
            if handler is owed:
                self.enqueue(function, owed=True)

    def _line_up(self, item: Item) -> None:
        """Behind all that waits."""
        self._own_inbox().append(item)
        self._held += item[5] - item[4] + MESSAGE_COST

    def _own_inbox(self) -> list[Item]:
        if self._inbox is _NOTHING_WAITS:
            self._inbox = []
        return self._inbox

    def _read_again(self) -> None:
        """The codec has changed: what was read ahead and not handled is the new one's to decode."""
        self._forget_rest()
        if self._extras is not None and self._extras.admission is not None:
            self._extras.admission.forget_front()
        self._decoded_by = self.codec
        self.messages_in -= sum(item[4] < item[5] for item in self._inbox)  # to be counted again
        pieces = [data[start:end] for _, _, _, data, start, end in self._inbox]
        pieces.append(self._input.take() if self._input.size else b"")
        # What came from no bytes stays: timers, callbacks.
        self._inbox[:] = [item for item in self._inbox if item[4] == item[5]]
        self._held = held_by(self._inbox)
        data = b"".join(pieces)
        self._backlog = bool(data)
        if data:
            self._own_input().put(data)
        self.connection.resume_reading(Pause.PROTOCOL)

    def _drop_waiting(self) -> None:
        """The end is one after which nothing more is begun, but for what the application is owed."""
        dropped = sum(item[0] not in NO_MESSAGE for item in self._inbox)
        if dropped:
            self._need_extras().unhandled += dropped
        self._inbox[:] = [item for item in self._inbox if item[0] is owed]
        self._held = held_by(self._inbox)
        self._backlog = False

    # -- input that cannot be decoded yet ------------------------------------------------------------

    def _join_input(self, data: bytes) -> bytes | None:
        """Behind what is kept; None as long as there is no use in looking at it."""
        kept = self._own_input()
        data = kept.pass_over(data)
        if not data:
            return None
        if self.codec is self._decoded_by and not self._interrupted:
            joined = kept.join(data)
            self._charge()
            if self._service.ledger.pressed:
                self.weigh()
            return joined
        # What was read before these, and not handled, is the new codec's too: `_advance` will see to
        # it when the handler that has changed it returns.
        kept.append(data)
        self._backlog = True
        self._after_decode()
        return None

    def _keep(self, data: bytes, whole: bool) -> None:
        """Put back what cannot be decoded yet: for want of bytes, or, if it is whole, of room."""
        needed = 0
        if not whole:
            self._begin_deadline()
            try:
                header = self._decoded_by.header(data)
                if header is not None:
                    number, header_size, value_size = header
                    needed = header_size + value_size
                    whole = not self._decide_front(number, value_size)  # not before its turn
            except Exception as error:  # its value is not waited for, whatever it is
                if isinstance(error, TaoError) and not ends_stream(error):
                    self.messages_in += 1
                    self._line_up(self._failure(error, b"", 0, 0))
                    self._own_input().skip(max(0, needed - len(data)))
                else:
                    self._fail_stream(error, data)
                return
        self._backlog = whole
        if whole:
            # Not late as long as it is not its turn, and a deadline that comes due then is not set again:
            # what of it is still missing when it is looked at next has its time from there on.
            self._forget_rest()
        self._own_input().put(data, needed)

    def _own_input(self) -> ReceiveBuffer:
        if self._input is _NOTHING_KEPT:
            self._input = ReceiveBuffer()
        return self._input

    def _decide(self, number: int, size: int, waits: bool) -> Entry[object] | None:
        """See `Admission.decide`."""
        return self._admitting().decide(
            number,
            size,
            self._service.monotonic(),
            authenticated=self.principal is not None,
            waits=waits,
        )

    def _decide_front(self, number: int, size: int) -> bool:
        """Whether the frame that is coming is let in; False: not before its turn. Raises if not."""
        entry = self._find(number)
        if entry is None:
            waits = self._batch is not None or bool(self._inbox)
            authenticated = self.principal is not None
            return (
                self._admitting().decide_front(
                    number,
                    size,
                    self._service.monotonic(),
                    authenticated=authenticated,
                    waits=waits,
                )
                is not None
            )
        if entry.max_size is not None and size > entry.max_size:
            raise FrameTooLargeError(size, entry.max_size, f"a value of message number {number}")
        return True

    def _admitting(self) -> Admission:
        extras = self._need_extras()
        if extras.admission is None:
            extras.admission = Admission(self._service.registry, None)
        return extras.admission

    def _begin_deadline(self) -> None:
        """There is part of a frame; if it was not there before, its time begins."""
        seconds = self._service.options.frame_timeout
        if seconds is not None:
            self._expecting().expect_rest(seconds, self.messages_in)

    def _forget_rest(self) -> None:
        if self._extras is not None and self._extras.expectations is not None:
            self._extras.expectations.forget_rest()

    def _is_partial(self) -> bool:
        return self._input.begun and not self._backlog

    # -- bytes held ----------------------------------------------------------------------------------

    def _charge(self) -> None:
        """Have the ledger say what is held now, beside the batch, of what has been read."""
        ledger = self._service.ledger
        held = self._held + self._input.size
        ledger.moved += held - self._charged
        self._charged = held
        if ledger.posted + ledger.moved > ledger.high:
            ledger.press()

    def weigh(self) -> None:
        """Read on, or not, as is fair when all connections together hold too much. The loop's thread."""
        ledger, connection = self._service.ledger, self.connection
        connection.squeeze(ledger.share if ledger.pressed else None)
        paused = connection.paused & Pause.MEMORY
        if not (ledger.pressed and self.bytes_held > ledger.share):
            if paused:
                connection.resume_reading(Pause.MEMORY)
        elif not paused:
            self._need_extras().starved_since = self._reactor.pass_time
            connection.pause_reading(Pause.MEMORY)
        else:
            # The beginning of a frame that never gets its turn to come in whole would be held for ever:
            # also the peer's end is not heard of as long as nothing is read.
            limit = self._service.options.frame_timeout
            if (
                limit is not None
                and self._reactor.pass_time - self._need_extras().starved_since > limit
                and self._batch is None
                and not (self._inbox or self._backlog)
            ):
                self._expire(
                    f"memory was short, and there was none for the rest of a frame in {limit:g} s"
                )

    @property
    def bytes_held(self) -> int:
        """Bytes that were read and not handled, and that wait to be sent. Any thread; a moment old."""
        read = self._charged + self._batch_held
        return read + self.connection.pending + max(0, self._uncollected)

    # -- errors --------------------------------------------------------------------------------------

    def _failure(self, error: BaseException, data: bytes, start: int, end: int) -> Item:
        """An error that came up on the loop, as an item: on_error may block, and has its turn."""
        handler = call if isinstance(error, AdmissionError) else owed
        close = costs_connection(error, self._service.options.close_on_error)
        self._calls = True
        return (handler, False, partial(self._report, error, close), data, start, end)

    def _fail_stream(self, error: BaseException, data: bytes) -> None:
        """Nothing from `data` on can be understood. In its turn: what came before is answered."""
        self._calls = True
        report = partial(self._report_broken, error, len(data))
        self._line_up((owed, False, report, data, 0, len(data)))
        self.connection.pause_reading(Pause.PROTOCOL)

    def _report_broken(self, error: BaseException, size: int) -> None:
        """No other codec has been set meanwhile: so many bytes will never be a message. On a worker."""
        self._need_extras().undecoded = size
        # One that has not been let in, behind a message that has ended the connection, would not even
        # have been read, had it come a moment later.
        if not isinstance(error, AdmissionError) or self._sees_through:
            self._report(error, True)

    def _report(self, error: BaseException, close: bool) -> None:
        """Tell the application, then close if that is the policy. On a worker."""
        extras = self._need_extras()
        extras.reported = error
        self._reactor.post(partial(self._service.metrics.count_error, error))
        refused = None
        if isinstance(error, AdmissionError) and extras.admission is not None:
            refused = extras.admission.note_refusal()
        log_error(self.conn, error, refused)
        self._tell(error)
        if (
            close and self._opened
        ):  # before that, a kept timer has raised: no fault of the connection's
            self.close(CloseCause.FAILED, error)

    def _tell(self, error: BaseException) -> None:
        tell(self.conn, error, self._service.callbacks.on_error)

    def _no_handler(self, number: int) -> NoReturn:
        raise NotRegisteredError(
            f"message number {number} is registered without a handler, and there is no on_message; "
            f"pass one of the two"
        )

    # -- from the opening to the end -----------------------------------------------------------------

    def introduce(
        self,
        remote_address: SocketAddress | None,
        local_address: SocketAddress | None,
        host: str,
        frame_bucket: TokenBucket | None,
    ) -> None:
        """A preface has said who the peer is, and where it has connected to; None: who it seems to be.

        Before it opens, on the loop's thread.
        """
        if remote_address is not None:
            self.remote_address = remote_address
            self.local_address = local_address
        self.host = host
        self._limit_frames(frame_bucket)

    def fail_to_open(self, error: OSError) -> None:
        """There will be no connection. The loop's thread."""
        self.connection.fail(error)

    def handle_open(self) -> None:
        """The state is OPEN."""
        self._opened = True
        if self.remote_address is None:
            self.remote_address = self.connection.address("remote")
        if self.local_address is None:
            self.local_address = self.connection.address("local")
        heartbeat = self._service.options.heartbeat
        if heartbeat is not None:
            self._expecting().expect_signs_of_life(heartbeat, self.write)
        seconds = self._service.options.first_message_timeout
        if seconds is not None:
            self._expecting().expect_message(seconds, lambda: not self.messages_in)
        if self._service.callbacks.on_connect is not None:
            # Owed, and queued before anything is sent: however soon the connection ends, on_connect
            # comes before on_close.
            self.enqueue(self._on_connect, owed=True)
        on_open = self._service.on_open
        if on_open is not None:
            on_open(self)

    def _on_connect(self) -> None:
        on_connect = self._service.callbacks.on_connect
        assert on_connect is not None
        if on_connect(self.conn) is False:
            self.close(CloseCause.REFUSED)

    def _expecting(self) -> Expectations:
        extras = self._need_extras()
        if extras.expectations is None:
            extras.expectations = Expectations(
                self._reactor, self.connection, self._is_partial, self._expire
            )
        return extras.expectations

    def _expire(self, text: str) -> None:
        self.close(CloseCause.EXPIRED, TimeoutError(text))

    @property
    def timers(self) -> ConnectionTimers:
        """What sets this connection's timers, and ends them. Any thread."""
        extras = self._need_extras()
        with self.connection.lock:
            timers = extras.timers
            if timers is not None:
                return timers
            timers = extras.timers = ConnectionTimers(
                self._reactor, self.enqueue, self.connection.lock
            )
        # From here on `_end_timers` would find them. If it has been here before, the end had begun.
        if self.connection.state in _ENDING:
            timers.end()
        return timers

    def _end_timers(self, extras: SessionExtras) -> None:
        if extras.timers is not None:
            extras.timers.end()
        if extras.expectations is not None:
            extras.expectations.end()

    def handle_draining(self) -> None:
        """The state is DRAINING."""
        if self._extras is not None:
            self._end_timers(self._extras)
            if self.cancelled:
                self._wake_waiting()
        if not self.is_idle():
            self._advance()

    def handle_writable(self) -> None:
        """The peer has read."""
        # Not at once: what sends may be `handle_data`, below, which has not yet put where `_advance`
        # looks what it has decoded, and may be inside a handler.
        self._reactor.post(self._advance)

    def handle_closed(self, reason: CloseReason) -> None:
        """The state is CLOSED. on_close comes when the handler in hand has returned."""
        self._closed_with = reason
        self._interrupted = True
        reported = None if self._extras is None else self._extras.reported
        if reason.error is not None and reason.error is not reported:
            self._service.metrics.count_error(reason.error)
        if (
            not self._opened
            and reason.error is not None
            and self._service.callbacks.on_error is not None
        ):
            # There is no on_close for what was never open: somebody shall hear of it all the same.
            self._calls = True
            self._line_up(as_item(partial(self._tell, reason.error), is_owed=True))
        if self._extras is not None:  # else nobody waits, or can begin to: the state has moved
            self._end_timers(self._extras)
            self._wake_waiting()
        # Not at once: `handle_data` may be under way below, where a reply could not be sent, and what
        # it has not decoded is still to be put where `_finish` counts it.
        self._reactor.post(self._advance)

    def _finish(self, reason: CloseReason) -> None:
        """Nothing of this connection runs any more. The loop's thread; once."""
        self._closed_with = None
        extras = self._extras
        if extras is not None:
            undecoded = self._input.size + extras.undecoded
            reason = replace(reason, unhandled=extras.unhandled, undecoded=undecoded)
        elif self._input.size:
            reason = replace(reason, undecoded=self._input.size)
        self._input = _NOTHING_KEPT
        self._held = 0
        self._charge()
        log(self.conn, logging.INFO, "%s", reason)
        if extras is not None and extras.pending_calls is not None:
            extras.pending_calls.end(self.conn.name, reason)
        if self._service.callbacks.on_close is None or not self._opened:
            self._service.on_gone(self, reason)
            return
        self._calls = True
        self._batch = [as_item(partial(self._on_close, reason))]
        self._service.pool.submit(self)

    def _on_close(self, reason: CloseReason) -> None:
        on_close = self._service.callbacks.on_close
        assert on_close is not None
        try:
            on_close(self.conn, reason)
        except BaseException as failure:
            log(self.conn, logging.ERROR, "on_close raised", error=failure)
        self._reactor.post(partial(self._service.on_gone, self, reason))

    # -- any thread: what is written -----------------------------------------------------------------

    def write(self, message: Message) -> bool:
        """Encode a message and queue it. See `Conn.write`."""
        return self.write_frame(self.codec.encode(message))

    def write_frame(self, frame: bytes) -> bool:
        """Queue what is encoded already."""
        if self.handler_thread == threading.get_ident():
            return self._write_own(frame)
        result = self.connection.write(frame)
        if result is WriteResult.ACCEPTED:
            return True
        if result is WriteResult.ABOVE_HIGH:
            return False
        raise self._closed_error() if result is WriteResult.CLOSED else self._full_error()

    def _write_own(self, frame: bytes) -> bool:
        """By the handler in hand: in line with the replies of those before it."""
        if self._reactor.forked:
            raise self._reactor.fork_error()
        connection = self.connection
        if not self._sees_through:
            raise self._closed_error()
        pending = connection.pending + self._uncollected + len(frame)
        if pending > self._service.options.connection.output_limit or self._service.ledger.refuses(
            len(frame), pending - len(frame)
        ):
            raise self._full_error()
        connection.append_own(frame)
        self._written += len(frame)
        if self._batch is not None and self._service.monotonic() >= self._service.pool.quiet_until:
            self._announce()
        return pending <= connection.output.high

    def _announce(self) -> None:
        """On a worker: have the loop collect what there is."""
        self._reactor.post(self.collect)
        self._reactor.wake()

    def deliver_own(self, frame: bytes, *, drop_oldest: bool) -> WriteResult:
        """A frame for many, of whom this connection's own handler is the sender."""
        try:
            self._write_own(frame)  # in line with what it has written
            return WriteResult.ACCEPTED
        except ConnectionClosedError:
            return WriteResult.CLOSED
        except WouldBlockError:  # to be refused again, or to make room
            result = self.connection.write(frame, drop_oldest=drop_oldest, post=False)
            if result in (WriteResult.ACCEPTED, WriteResult.ABOVE_HIGH):
                self._service.ledger.post(len(frame))
            return result

    def _closed_error(self) -> ConnectionClosedError:
        return not_open(self.conn, self.connection.state)

    def _full_error(self) -> WouldBlockError:
        waiting = self.connection.pending + max(0, self._uncollected)
        limit = self._service.options.connection.output_limit
        return too_much(self.conn, waiting, limit, self._service.ledger)

    def call(self, message: Message, timeout: float | None, reply: type[R]) -> Future[R]:
        """Send a message; the future of its reply. See `ClientConn.call`."""
        extras = self._need_extras()
        with self.connection.lock:
            calls = extras.pending_calls
            if calls is None:
                calls = extras.pending_calls = PendingCalls(
                    self._reactor,
                    lambda: self.codec,
                    self._write_in_line,
                    self._handle_unwanted,
                    lambda error: self.abort(CloseCause.FAILED, error),
                )
                # From here on what comes without a handler may be a reply.
                self._on_message = calls.receive
        return calls.call(message, timeout, reply)

    def _write_in_line(self, message: Message) -> None:
        """As `write`, but where other threads' writes are, even for the handler in hand."""
        result = self.connection.write(self.codec.encode(message))
        if result is WriteResult.CLOSED:
            raise self._closed_error()
        if result is WriteResult.FULL:
            raise self._full_error()

    def _handle_unwanted(self, message: Any) -> None:
        """It answers no call. On a worker."""
        on_message = self._service.callbacks.on_message
        if on_message is not None:
            on_message(message, self.conn)
        else:
            self._report(
                NotRegisteredError(f"{message!r} answers no call, and there is no on_message"),
                False,
            )

    # -- any thread: what is decided -----------------------------------------------------------------

    def close(
        self, cause: CloseCause = CloseCause.CLOSED, error: BaseException | None = None
    ) -> None:
        """See `Conn.close`."""
        if self.connection.close(cause, error) and cause not in _SEEN_THROUGH:
            self._interrupted = True

    def abort(
        self, cause: CloseCause = CloseCause.ABORTED, error: BaseException | None = None
    ) -> bool:
        """See `Conn.abort`. Returns whether there was something to abort."""
        aborted = self.connection.abort(cause, error)
        if aborted:
            self._interrupted = True
        return aborted

    def authenticate(self, principal: object) -> None:
        """See `Conn.authenticate`."""
        if principal is None:
            raise ValueError("None stands for nobody: a principal must be something else")
        if self._reactor.forked:
            raise self._reactor.fork_error()
        self._need_extras().principal = principal

    def set_codec(self, codec: Codec) -> None:
        """See `Conn.set_codec`."""
        if self._reactor.forked:
            raise self._reactor.fork_error()
        self.codec = codec
        self._interrupted = True
        if self.handler_thread != threading.get_ident():
            # Whoever runs a handler looks at `_interrupted` after it; nobody else would.
            self._reactor.post(self._advance)
            self._service.pool.wake()

    def on_loop(self, function: Callable[[int], object], argument: int) -> None:
        """Call a method of the connection's on the loop's thread: now, if this is it."""
        if self._reactor.in_loop_thread():
            function(argument)
        else:
            try:
                self._reactor.call_soon_threadsafe(function, argument)
            except ReactorClosedError:
                pass  # then there is nothing to pause or to resume

    # -- any thread: what handlers and others ask ----------------------------------------------------

    @property
    def principal(self) -> object:
        """Whom the application has authenticated; None: nobody."""
        return None if self._extras is None else self._extras.principal

    @property
    def pending_calls(self) -> PendingCalls | None:
        """What has been called and not answered, if anything ever was called."""
        return None if self._extras is None else self._extras.pending_calls

    @property
    def server(self) -> MessageServer | None:
        """Whose connection it is; a client's is nobody's."""
        return self._service.server

    @property
    def cancelled(self) -> bool:
        """Whether replies are no longer wanted."""
        state = self.connection.state
        return state is ConnectionState.CLOSED or (
            state in (ConnectionState.DRAINING, ConnectionState.LINGERING)
            and self.connection.cause is not CloseCause.PEER_CLOSED
        )

    def wait_cancelled(self, timeout: float | None = None) -> bool:
        """Sleep until `cancelled`."""
        extras = self._need_extras()
        with self.connection.lock:
            event = extras.cancelled
            if event is None:
                event = extras.cancelled = self._reactor.system.event()
        # Looked at after the event can be seen by whoever cancels, so that one of the two notices.
        if not self.cancelled:
            event.wait(timeout)
        return self.cancelled

    def _wake_waiting(self) -> None:
        with self.connection.lock:
            event = None if self._extras is None else self._extras.cancelled
        if event is not None:
            event.set()

    def monotonic(self) -> float:
        """The loop's time, in seconds, for the deadlines of contexts."""
        return self._service.monotonic()

    @property
    def heart_beat(self) -> float:
        """The Unix time in seconds of the last byte's arrival, by our own clock."""
        clock = self._reactor.clock
        return clock.unix() - (clock.monotonic() - self.connection.last_received)

    @property
    def traffic(self) -> Traffic:
        """What has passed so far."""
        connection = self.connection
        return self.messages_in, connection.bytes_received, connection.bytes_sent

    @property
    def batch(self) -> object:
        """What a worker has, or is about to get; None if nothing. Any thread; a moment old.

        To tell one batch from the next, and to be let go soon.
        """
        return self._batch

    @property
    def unhandled(self) -> int:
        """Messages that came whose handlers have not returned. Any thread; a moment old."""
        batch = self._batch
        return len(self._inbox) + (0 if batch is None else len(batch))


def _raising(error: Exception) -> Iterator[Frame]:
    """For a decoder that has raised at once: as one that does so when it is asked for its first frame."""
    yield from ()
    raise error


def _find_nothing(_number: int) -> Entry[object] | None:
    """For a session that lets nothing in without having looked at it."""
    return None
