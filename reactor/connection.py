"""One TCP connection: a socket, its state, and the bytes on their way out.

Contents: Connection, Intake.

Owns the socket from `start` on, and closes it. Moves bytes and states; what the bytes mean is its
handler's affair. It runs on the loop's thread, but for `write`, `close` and `abort`, which any thread
may call.

What is written passes up to three places, in one order: `own`, to which a connection's handlers append
without a lock; the outbox, where all that waits for the loop is, and can still be dropped; the queue, for
what the kernel was offered and did not take.

What the state alone decides: whether a byte may be written (OPEN; in DRAINING only by what was under
way), and whether bytes are read (OPEN; before that for what must come first; LINGERING, to throw them
away).

Where the rest is: the states are in `reactor.state`, the steps before OPEN in `reactor.opening`, TLS itself
in `reactor.tls`, what the kernel wants of who ends a socket in `reactor.socket_ending`, and the sums of
what all connections hold in `reactor.ledger`.
"""

from __future__ import annotations

import logging
import socket
import ssl
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, Literal, TypeAlias, cast

from reactor.buffers import SendQueue, Watermark
from reactor.close_reason import CloseCause, CloseReason
from reactor.connection_handler import ConnectionHandler
from reactor.environment import Environment
from reactor.errors import PrefaceError
from reactor.loop import READ, WRITE, Reactor
from reactor.opening import Opening
from reactor.pause import Pause
from reactor.preface import Preface
from reactor.socket_ending import read_to_fin, reset_on_close, send_fin
from reactor.state import ConnectionEvent, ConnectionState, StateMachine
from reactor.system import SocketAddress
from reactor.timing_wheel import Timeout
from reactor.tls import TlsStream, TlsTruncationError
from reactor.waker import Lock, give_back
from reactor.write_result import WriteResult

__all__ = ["Connection", "Intake"]

logger: logging.Logger = logging.getLogger("reactor")

LARGE_FRAME = 4096
"""Bytes of a frame from which on a vector of them is cheaper than a copy."""

FIRST_READ = 4096
"""Bytes that a connection's first read asks for: enough for most requests, and as little as is read while
memory is short."""

READS_TO_SHRINK = 4
"""After so many that have brought much less than was asked for, and none that has brought all, less is
asked for."""

GATHERED_SIZE = 131_072
"""Bytes up to which what was read is set aside, see `Intake`; more is handled at once. With 4 KiB an inline
echo of 8 KiB had 14 in 100 less, of 64 KiB 3."""

GATHERED_READS = 32
"""So many such are handled together. With 16 an inline echo had 4 in 100 less, with 64 no more."""

LARGE_REPLY = 16_384
"""Bytes above which a reply does not wait for the handlers of others: many such would be held at once."""

REPLY_PATIENCE = 0.001
"""Seconds after which replies do not wait for the handlers of others any more."""

HANDLED_PER_LOOK = 8
"""After so many handlers it is looked at the clock."""

# Looking a member up in its class costs as much as a call before Python 3.12.
_CONNECTING, _OPEN, _DRAINING, _LINGERING, _CLOSED = (
    ConnectionState.CONNECTING,
    ConnectionState.OPEN,
    ConnectionState.DRAINING,
    ConnectionState.LINGERING,
    ConnectionState.CLOSED,
)
_CONNECTED, _PEER_FIN, _DRAINED = (
    ConnectionEvent.CONNECTED,
    ConnectionEvent.PEER_FIN,
    ConnectionEvent.DRAINED,
)
_FAILED, _PEER_CLOSED = CloseCause.FAILED, CloseCause.PEER_CLOSED
_ACCEPTED = WriteResult.ACCEPTED
_SENDING = (_OPEN, _DRAINING)
_OPENING = (ConnectionState.PREFACING, ConnectionState.HANDSHAKING)
_READING_ELSE = (*_OPENING, _LINGERING)

# How most ends are told of.
_CLEAN = {cause: CloseReason(cause) for cause in CloseCause}

_NOTHING_YET = (_FAILED, None, False)

# What a connection has for a queue until the kernel does not take all: most never need one of their own.
# Never appended to.
_NOTHING_QUEUED: Final = SendQueue()

Frames: TypeAlias = "list[bytes] | tuple[()]"
"""What waits, in order; the empty tuple as long as nothing does, which takes no memory."""


class Connection(StateMachine):
    """A socket, driven through the states of `reactor.state`.

    Its own channel: implements `reactor.loop.Watched`.
    """

    # Of these there may be many thousands, most of them idle: what is the same for all is in the
    # environment, and what most never need is made when it is. With a machine, a channel and empty lists
    # of its own, an idle connection of a server's took a third more.
    # What writers share with the loop is no class beside this one: with the outbox and `own` in an object
    # of their own, a write and its flush took 6 in 100 longer, and a connection was 7 in 100 larger.
    __slots__ = (
        "_charged",
        "_deadline",
        "_environment",
        "_flush_posted",
        "_handler",
        "_in_flight",
        "_intake",
        "_opening",
        "_outbox",
        "_own_taken",
        "_queue",
        "_reactor",
        "_read_for",
        "_read_size",
        "_small_reads",
        "_socket",
        "_tls",
        "_why",
        "bytes_received",
        "bytes_sent",
        "events",
        "fd",
        "frames_dropped",
        "last_received",
        "last_sent",
        "lock",
        "outbox_size",
        "output",
        "own",
        "own_size",
        "paused",
        "reading_since",
    )

    def __init__(
        self,
        environment: Environment,
        handler: ConnectionHandler,
        *,
        preface: Preface | None = None,
        tls: TlsStream | None = None,
    ) -> None:
        # The state: under the lock, whoever reads to decide, or moves it. A bare read tells what it was a
        # moment ago.
        StateMachine.__init__(self, _CONNECTING)
        self._environment = environment
        self._reactor = reactor = environment.reactor
        self._intake = reactor.shared(Intake)
        # The loop's thread. None for one that is OPEN, and for one that has nothing to wait for.
        self._opening = None if preface is None and tls is None else Opening(preface, tls)
        self._tls = tls  # the loop's thread
        self._handler = handler
        # No other connection's: a finalizer that the collector runs in the midst of one's `write` may write
        # to another.
        self.lock: Lock = reactor.system.lock()
        """For what several threads write. The layer above may use it too, for as short, and must not call
        in here while it holds it."""
        # Under the lock, whoever reads to decide or writes.
        self._outbox: Frames = ()
        self.outbox_size: int = 0
        """Bytes that were written and have not been offered to the kernel. Written under the lock."""
        self._flush_posted = False
        self._charged = 0  # bytes: what the ledger has of us
        self.own: Frames = ()
        """What the handlers in hand have written; empty when there are none. They append to it, without a
        lock, once `begin` or `append_own` has made a list of it; `collect` and `end` say who takes from
        it."""
        self._own_taken = 0  # under the lock: frames that have been taken from `own`
        self.own_size: int = 0
        """Bytes taken from `own`. Written under the lock."""
        # Why it ends, what went wrong, and whether that has been told. Under the lock; when it is CLOSED,
        # the loop's thread.
        self._why: tuple[CloseCause, BaseException | None, bool] = _NOTHING_YET
        # The loop's thread. `_in_flight` and the queue's size are read by writers too: a value that
        # is a moment old counts bytes that have just been sent, which errs on the safe side.
        self._queue: SendQueue = _NOTHING_QUEUED  # `_enqueue` makes one of its own
        self._in_flight = 0
        self._socket: socket.socket | None = None
        self.fd: int = -1
        """The descriptor's number; -1 when there is none yet, or any more. Written on the loop's thread."""
        self.events: int = 0
        """What the loop waits for; see `loop.Watched`."""
        self._deadline: Timeout | None = None
        self.paused: int = 0
        """The reasons for which reading is paused, see `Pause`. Written on the loop's thread."""
        self.output: Watermark = environment.options.output
        """The watermark that holds at present; see `squeeze`. Written on the loop's thread."""
        self._read_for = 0.0  # seconds of reading, up to when it last stopped
        self._read_size = FIRST_READ  # bytes that the next read asks for
        self._small_reads = 0  # that brought much less, since one was full
        self.bytes_received: int = 0
        """As they came from the socket: with TLS, ciphertext. Written on the loop's thread."""
        self.bytes_sent: int = 0
        """As the socket took them: with TLS, ciphertext. Written on the loop's thread."""
        self.frames_dropped: int = 0
        """Frames that have made room for younger ones. Under the lock."""
        self.reading_since: float = reactor.pass_time
        """Monotonic seconds since when it reads without a pause. Written on the loop's thread."""
        self.last_received: float = reactor.pass_time
        """Monotonic seconds of the last byte's arrival. Written on the loop's thread."""
        self.last_sent: float = reactor.pass_time
        """Monotonic seconds at which the kernel last took a byte. Written on the loop's thread."""

    # -- what it is at the moment ----------------------------------------------------------------

    @property
    def cause(self) -> CloseCause:
        """What set the end in motion; of no meaning before that. Any thread."""
        return self._why[0]

    @property
    def undisturbed(self) -> bool:
        """Whether it is OPEN and reads: nothing calls for attention. The loop's thread."""
        return self.state is _OPEN and not self.paused

    @property
    def pending(self) -> int:
        """Bytes accepted and not yet taken by the kernel. Any thread; a moment old at the most."""
        held = 0 if self._tls is None else len(self._tls.held)
        return self.outbox_size + self._in_flight + self._queue.size + held

    # -- writing, on any thread ------------------------------------------------------------------

    def write(self, data: bytes, *, drop_oldest: bool = False, post: bool = True) -> WriteResult:
        """Queue `data`; it is sent on the loop's next pass, after what was queued before it. Any thread.

        At the limit it is refused; with `drop_oldest`, the frames that have waited longest and have not
        been offered to the kernel yet make room for it; the CloseReason counts them. Without `post`, the
        caller sees to it that `flush` is called, and charges the ledger: for who writes to many.
        Raises ForkError in a forked child.
        """
        if self._reactor.forked:
            raise self._reactor.fork_error()
        size = len(data)
        lock, ledger = self.lock, self._environment.ledger
        limit = self._environment.options.output_limit
        own = 0
        try:
            lock.acquire()  # as in `end`
            try:
                if self.state is not _OPEN:
                    return WriteResult.CLOSED
                if len(self.own) > self._own_taken:
                    # What a handler has written before this, wherever it runs, goes out before it.
                    own = self._own_to_outbox()
                    self._charged += own
                pending = self.outbox_size + self._in_flight + self._queue.size + size
                if drop_oldest and pending > limit:
                    pending -= self._drop_oldest(pending - limit)
                if (
                    pending <= limit
                    and ledger.posted + ledger.moved + size > ledger.write_limit
                    and ledger.refuses(size, pending - size)
                ):
                    limit = 0  # there is room for it here, but not in all
                if pending <= limit:
                    if self._outbox:
                        self._outbox.append(data)
                    else:
                        self._outbox = [data]
                    self.outbox_size += size
                    self._charged += size
                posted = self._flush_posted
                if self._outbox:  # else there is nothing to flush, and `flush` is what clears it
                    self._flush_posted = True
                else:
                    posted = True
            finally:
                lock.release()
            if own:
                ledger.post(own)
            if post:
                if pending <= limit:
                    ledger.post(size)
                if not posted:
                    self._reactor.post(self.flush)
                    self._environment.waker.wake()
        except BaseException:
            self._recover()
            raise
        if pending > limit:
            return WriteResult.FULL
        return _ACCEPTED if pending <= self.output.high else WriteResult.ABOVE_HIGH

    def _recover(self) -> None:
        """After Ctrl-C at whatever step of a `write`, or before a flush has taken something: what is in
        line is sent all the same."""
        try:
            self._reactor.post(self.flush)
            self._environment.waker.wake()
        finally:
            give_back(self.lock)

    def _own_to_outbox(self) -> int:
        """How many bytes that is. Under the lock."""
        frames: Any = self.own[self._own_taken :]
        count, size = len(frames), sum(map(len, frames))
        # Nothing is called from here on: Ctrl-C between the two would have them sent twice.
        if self._outbox:
            self._outbox += frames
        else:
            self._outbox = frames
        self._own_taken += count
        self.outbox_size += size
        self.own_size += size
        return size

    def _to_outbox(self, frames: Sequence[bytes]) -> int:
        """Behind what is there; how many bytes that is. Under the lock."""
        size = sum(map(len, frames))
        if self._outbox:
            self._outbox += frames
        else:
            self._outbox = list(frames)
        self.outbox_size += size
        return size

    def _drop_oldest(self, size: int) -> int:
        """Make room for `size` bytes; how many it became, 0 if there is not so much. Under the lock."""
        dropped = 0
        for count, frame in enumerate(self._outbox, 1):
            dropped += len(frame)
            if dropped >= size:
                del cast("list[bytes]", self._outbox)[:count]  # in one step: there may be very many
                self.outbox_size -= dropped
                self.frames_dropped += count
                return dropped
        return 0

    # -- beginning -------------------------------------------------------------------------------

    def start(self, sock: socket.socket) -> None:
        """Take over a connected, non-blocking socket and begin. The loop's thread."""
        opening = self._opening
        if not self._move(_CONNECTED if opening is None else opening.event):
            sock.close()  # closed by another thread while it was connecting
            return
        self._socket = sock
        reactor = self._reactor
        now = reactor.pass_time if reactor.running else reactor.time()
        self.last_received = self.last_sent = self.reading_since = now
        try:
            reactor.watch(self, sock.fileno(), READ)
            self._go_on(b"")
        except Exception as error:
            self._handle_defect(error)

    def _move(self, event: ConnectionEvent) -> bool:
        """Whether the state had it; else another thread has ended the connection meanwhile."""
        with self.lock:
            if not self.accepts(event):
                return False
            self.change_state(event)
        return True

    def _go_on(self, data: bytes) -> None:
        """The state is OPEN, or that of a step before it; `data` are the first bytes for it, if some have
        come already."""
        if self._opening is not None:
            self._set_deadline(self._environment.options.handshake_timeout, self._opening.what)
            self._update_interest()
            self._feed_opening(self._opening, data)
            return
        self._handler.handle_open()
        if not self.undisturbed:
            self._update_interest()
        if self._tls is not None:
            self._handle_ciphertext(self._tls, data)  # the session may hold some of the peer's
        elif data and self.state is _OPEN:
            self._hand_up(data)

    def _feed_opening(self, opening: Opening, data: bytes) -> None:
        try:
            rest = opening.feed(data)
        except (PrefaceError, ssl.SSLError) as error:
            self._send_raw(opening.take())  # the alert that tells the peer why
            self.fail(error)
            return
        answer = opening.take()
        if answer:
            self._send_raw(answer)
        if rest is None:
            return
        if opening.over:
            self._opening = None
        # What read it may have found that this peer is not wanted, and closed the connection.
        if self._move(opening.event):
            self._cancel_deadline()
            self._go_on(rest)

    def _receive_opening(self) -> None:
        assert self._socket is not None
        assert self._opening is not None
        try:
            data = self._socket.recv(FIRST_READ)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            if isinstance(error, ConnectionResetError) and self._opening.only_looked_at:
                self._handle_peer_fin()
            else:
                self.fail(error)
            return
        if not data:
            self._handle_peer_fin()
            return
        self.last_received = self._reactor.pass_time
        self.bytes_received += len(data)
        self._feed_opening(self._opening, data)

    # -- TLS, once it is open --------------------------------------------------------------------

    def _handle_ciphertext(self, tls: TlsStream, data: bytes) -> None:
        self.last_received = self._reactor.pass_time
        self.bytes_received += len(data)
        tls.feed(data)
        try:
            plaintext = tls.decrypt()
        except ssl.SSLError as error:
            self._send_raw(tls.take_ciphertext())
            self.fail(error)
            return
        answer = tls.take_ciphertext()  # to a change of keys, say
        if answer:
            self._send_raw(answer)
        if plaintext:
            self._hand_up(plaintext)
        if tls.ended and self.state is _OPEN:
            self._handle_peer_fin()

    # -- the hot path: receive, hand up ----------------------------------------------------------

    def handle_ready(self, ready: int) -> None:
        """The socket is ready. For the loop alone to call."""
        if ready == READ and self.state is _OPEN:
            # One frame for all of this, try blocks without cost: it is run for every segment.
            sock = self._socket
            assert sock is not None
            try:
                asked = self._read_size
                if asked != FIRST_READ and asked > self._environment.ledger.largest_read:
                    asked = self._environment.ledger.largest_read  # memory is short
                data = sock.recv(asked)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                try:
                    self._intake.handle()  # what came before, should Ctrl-C have left it there
                finally:
                    self.fail(error)
                return
            size = len(data)
            try:
                if size >= asked or (asked != FIRST_READ and size * 16 < asked):
                    self._adapt_read_size(full=size >= asked)
                tls = self._tls
                if tls is None:
                    if size:
                        self.last_received = self._reactor.pass_time
                        self.bytes_received += size
                    received = self._intake.received
                    if not received:
                        self._intake.begin()
                    received.append((self, data))
                    if size > GATHERED_SIZE or len(received) >= GATHERED_READS:
                        self._intake.handle()
                elif size:
                    self._handle_ciphertext(tls, data)
                else:
                    self._handle_peer_fin()
            except Exception as error:
                self._handle_defect(error)
            return
        try:
            if ready & WRITE and self.state is not _CLOSED:
                if self.state in _SENDING:
                    self.flush()
                else:
                    self._send_queue()  # of a handshake
                self._after_send()
            if ready & READ:
                if self.state is _OPEN:
                    self.handle_ready(READ)
                elif self.state is _LINGERING:
                    self._receive_nothing()
                elif self.state in _OPENING:
                    self._receive_opening()
        except Exception as error:
            self._handle_defect(error)

    def _adapt_read_size(self, *, full: bool) -> None:
        """Ask for as much as comes, and not for very much more. As much has come as was asked for, or less
        than a sixteenth.

        A block is allocated for what is asked for, and what is not needed of it is given back. If that were
        nearly all, and what has come were kept, as messages are that wait: between thousands of such small
        ones no room for a large one is left, and the process had many times the memory that they take.
        """
        if full:
            self._small_reads = 0
            self._read_size = min(self._read_size * 4, self._environment.ledger.largest_read)
            return
        self._small_reads += 1  # a single one may be the end of a large message
        if self._small_reads == READS_TO_SHRINK:
            self._small_reads = 0
            self._read_size = max(self._read_size // 4, FIRST_READ)

    def _hand_up(self, data: bytes) -> None:
        reply = self._handler.handle_data(data)
        if reply is not None:
            self.send(reply)

    def _handle_defect(self, error: Exception) -> None:
        """Ours, or the handler's: whichever it is, it is this connection that pays."""
        logger.exception("%r failed", self)
        self.fail(error)

    # -- the hot path: what the handlers in hand have written ------------------------------------

    def begin(self) -> list[bytes]:
        """Where the handlers that are about to be run write, and what is returned for them is put, until
        `end`. The thread that runs them."""
        own = self.own
        if type(own) is list:
            return own  # Ctrl-C has ended those before: what they wrote goes out, too
        begun: list[bytes] = []
        self.own = begun
        return begun

    def append_own(self, frame: bytes) -> None:
        """Where one of the handlers in hand writes. The thread that runs them."""
        own = self.own
        if type(own) is list:
            own.append(frame)
        else:
            self.own = [frame]

    def collect(self) -> None:
        """Send what the handlers in hand have written to `own` so far. The loop's thread.

        They only append, and who takes something only moves the mark of what is taken, under the lock:
        the loop here, a writer on another thread in `write`.
        """
        if self.fd < 0:
            return  # it is over: `end` will say that they came too late
        with self.lock:
            frames = self.own[self._own_taken :]
            self._own_taken += len(frames)
            self.own_size += sum(map(len, frames))
            waits = self._line_up(frames)
        self._send_lined_up(frames, waits)

    def end(self) -> int:
        """As `collect`, when they have written their last. How many bytes came too late: it is over."""
        lock = self.lock
        try:
            lock.acquire()  # `with` costs three times as much, and this is run for every batch
        except BaseException:
            self._recover()
            raise
        try:
            frames: Sequence[bytes] = self.own
            self.own = ()
            if self._own_taken:
                frames = frames[self._own_taken :]
                self._own_taken = self.own_size = 0
            if self.fd < 0:
                return sum(map(len, frames))
            waits = bool(self._outbox or self._queue.size) and self._line_up(frames)
        finally:
            lock.release()
        if (
            waits
            or not frames
            or self._in_flight
            or self._tls is not None
            or self.state is not _OPEN
        ):
            self._send_lined_up(frames, waits)
        elif not (self._transmit(frames[0]) if len(frames) == 1 else self._transmit_all(frames)):
            self._after_send()
        return 0

    def _line_up(self, frames: Sequence[bytes]) -> bool:
        """Put frames from `own` behind what waits, if anything does; whether it does. Under the lock under
        which they were taken: what another thread writes from then on must not come before them."""
        if not frames or not (self._outbox or self._queue.size):
            return False
        self._to_outbox(frames)
        return True

    def _send_lined_up(self, frames: Sequence[bytes], waits: bool) -> None:
        """What `_line_up` has said of them. The loop's thread."""
        if waits:
            self.flush()
        elif frames:
            self.send(frames[0] if len(frames) == 1 else b"".join(frames), True)
        else:
            self._after_send()  # a writer has taken them, and nobody has looked at how much waits now

    # -- the hot path: send ----------------------------------------------------------------------

    def send_all(self, frames: list[bytes]) -> None:
        """As `send`, in one piece if that can be."""
        if frames and not (self.outbox_size or self._queue.size or self._in_flight):
            self.send(b"".join(frames))
        elif frames:
            with self.lock:
                self._to_outbox(frames)
            self.flush()

    def send(self, data: bytes, first: bool = False) -> None:
        """Send it now, behind what is queued; or, if it is `first`, before what has come into the outbox
        since that was empty. The loop's thread.

        For what was under way, which is accepted in DRAINING too, and never over the limit: the
        caller sees to it that it stops when enough waits. The one that does not look at which thread
        it is on: it is called for every reply, and that would be 1 in 100 of an echo.
        """
        if (
            (self.outbox_size and not first)
            or self._queue.size
            or self._in_flight
            or self.state not in _SENDING
        ):
            with self.lock:
                if first and self._outbox:
                    self._outbox.insert(0, data)
                    self.outbox_size += len(data)
                else:
                    self._to_outbox([data])
            self.flush()
            return
        if self._tls is not None:
            try:
                data = self._tls.encrypt(data)
            except ssl.SSLError as error:
                self._enqueue(data)  # to be counted as unsent
                self.fail(error)
                return
        # The usual case; without a queue in between it costs a quarter less.
        if not self._transmit(data):
            self._after_send()

    def send_at_once(self, data: bytes) -> bool:
        """Send it, if there is nothing that it would overtake; else do nothing. Whether it is sent, or
        queued as what comes next. The loop's thread."""
        if (
            self.state is not _OPEN
            or self.outbox_size
            or self._queue.size
            or self._in_flight
            or self._tls is not None
            or len(self.own) > self._own_taken
        ):
            return False
        if not self._transmit(data):
            self._after_send()
        return True

    def _transmit(self, data: bytes) -> bool:
        """Offer it to the kernel, with nothing queued before it, and queue what is not taken. Whether
        all was."""
        assert self._socket is not None
        try:
            sent = self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            self._enqueue(data)  # to be counted as unsent
            self._in_flight = 0
            self.fail(error)
            return False
        self.last_sent = self._reactor.pass_time
        self.bytes_sent += sent
        if sent == len(data):
            return True
        self._enqueue(memoryview(data)[sent:])
        return False

    def _transmit_all(self, frames: Sequence[bytes]) -> bool:
        """The same for several. Large ones are not copied into one; as the first is, so mostly are all."""
        if len(frames[0]) < LARGE_FRAME:
            return self._transmit(b"".join(frames))
        for frame in frames:
            self._enqueue(frame)
        self._in_flight = 0  # they are counted in the queue
        return self._send_queue()

    def _enqueue(self, data: bytes | memoryview) -> None:
        """Have it sent when the socket takes it, before all that is in the outbox."""
        if self._queue is _NOTHING_QUEUED:
            self._queue = SendQueue()
        self._queue.append(data)

    # -- flushing the outbox ---------------------------------------------------------------------

    def flush(self) -> None:
        """Send what was written, until the kernel takes no more. The loop's thread.

        What the kernel has not been offered stays in the outbox, frame by frame and unencrypted: from
        there it can still be dropped. As long as the kernel takes nothing, `_flush_posted` stays set:
        writers need not post, for this is called when the socket takes bytes again.
        """
        self._reactor.check_thread()
        self._flush()

    @staticmethod
    def flush_all(connections: Sequence[Connection]) -> None:
        """Flush each: for who has written to many of one loop's without `post`. The loop's thread."""
        if connections:
            connections[0]._reactor.check_thread()
        for connection in connections:
            try:
                connection._flush()
            except Exception as error:
                connection._handle_defect(error)

    def _flush(self) -> None:
        if self._in_flight:
            self._intake.send_replies()  # one is ours, and comes first
        if (
            self._queue.size
            or self._tls is not None
            or self.state is not _OPEN
            or self.outbox_size > self._environment.take_size
        ):
            self._flush_in_steps()
            return
        # The usual case: all that there is, in one send. A broadcast from another thread took a quarter
        # more without it.
        lock = self.lock
        try:
            lock.acquire()  # as in `end`
        except BaseException:
            self._recover()
            raise
        try:
            frames, self._outbox = self._outbox, ()
            self._in_flight, self.outbox_size = self.outbox_size, 0
            charged, self._charged = self._charged, 0
            self._flush_posted = False
        finally:
            lock.release()
        try:
            done = not frames or (
                self._transmit(frames[0]) if len(frames) == 1 else self._transmit_all(frames)
            )
        finally:  # also after Ctrl-C: nothing else would take them from the sums
            self._in_flight = 0
            self._environment.ledger.moved -= charged
        if not done or self.paused or self.state is not _OPEN:
            self._after_send()

    def _flush_in_steps(self) -> None:
        more = True
        while self.state in _SENDING:
            if self._queue.size and not self._send_queue():
                break
            if not more:
                break  # what is written from here on is posted anew
            with self.lock:
                frames = self._take_outbox()
                more = self._flush_posted
            if not frames:
                break
            try:
                if self._tls is None:
                    self._transmit_all(frames)
                else:
                    try:
                        self._enqueue(self._tls.encrypt(b"".join(frames)))
                    except ssl.SSLError as error:
                        self.fail(error)  # which counts what is in flight as unsent
                        break
            except BaseException:  # Ctrl-C: what is left has its turn in the next pass
                self._reactor.post(self.flush)
                raise
            finally:
                self._in_flight = 0
        self._after_send()

    def _take_outbox(self) -> Sequence[bytes]:
        """Frames for the next send: all of them, if they are not too many; else `_flush_posted` stays
        set. Under the lock."""
        outbox, self._in_flight = self._outbox, self.outbox_size
        most = self._environment.take_size
        if self.outbox_size <= most:
            self._outbox = ()
            self.outbox_size = 0
            self._flush_posted = False
            return outbox
        size = count = 0
        while size < most or not count:
            size += len(outbox[count])
            count += 1
        taken = outbox[:count]
        del cast("list[bytes]", outbox)[:count]
        self._in_flight = size
        self.outbox_size -= size
        self._flush_posted = True
        return taken

    def _send_queue(self) -> bool:
        """Offer the queue to the kernel; True when it has taken all of it."""
        queue = self._queue
        assert self._socket is not None
        try:
            while queue.size:
                head = queue.peek()
                offered = sum(map(len, head))
                sent = self._socket.sendmsg(head) if len(head) > 1 else self._socket.send(head[0])
                queue.advance(sent)
                self.last_sent = self._reactor.pass_time
                self.bytes_sent += sent
                if sent < offered:
                    return False  # the kernel's buffer is full: another call would only say so
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            self.fail(error)
            return False
        return True

    def _send_raw(self, data: bytes) -> None:
        """Send TLS's own ciphertext, behind what is queued."""
        self._enqueue(data)
        if self._socket is not None and self.state is not _CLOSED:
            self._send_queue()
            self._after_send()

    # -- what follows from sending ---------------------------------------------------------------

    def _after_send(self) -> None:
        """Off the usual path: something is queued, paused, or coming to its end."""
        if self.state is _CLOSED:
            return
        pending = self._settle()
        if pending > self.output.high:
            if self._environment.pause_on_output:
                self.pause_reading(Pause.OUTPUT)
        elif self.paused & Pause.OUTPUT and pending <= self.output.low:
            self.resume_reading(Pause.OUTPUT)
            self._handler.handle_writable()
        self._update_interest()
        self.check_drained()

    def _settle(self) -> int:
        """Have the ledger say what waits to be sent now; returns it. The loop's thread."""
        with self.lock:  # writers charge what they add
            pending = self.pending
            change = pending - self._charged
            self._charged = pending
        self._environment.ledger.move(change)
        return pending

    def squeeze(self, share: int | None) -> None:
        """Have the peer read before it asks for more as soon as `share` bytes wait for it, because memory
        is short; with None, as it was. The loop's thread."""
        usual = self._environment.options.output
        if share is None or share >= usual.high:
            output = usual
        else:
            output = Watermark(min(usual.low, share // 2), share)
        if output == self.output:
            return
        self.output = output
        if self.fd >= 0:
            self._after_send()

    # -- interest --------------------------------------------------------------------------------

    def pause_reading(self, why: int) -> None:
        """Read no more until `resume_reading` for the same reason. The loop's thread."""
        self._reactor.check_thread()
        self.paused |= why
        self._update_interest()

    def resume_reading(self, why: int) -> None:
        """Withdraw a reason for not reading. The loop's thread."""
        self._reactor.check_thread()
        self.paused &= ~why
        self._update_interest()

    def read_for(self) -> float:
        """Seconds for which it has been reading so far, pauses not counted. The loop's thread.

        What deadlines for the peer's bytes count in: while we do not read, they cannot come.
        """
        if not self.events & READ:
            return self._read_for
        return self._read_for + self._reactor.time() - self.reading_since

    def _update_interest(self) -> None:
        """What to wait for follows from the state, the pauses and the queue, and from nothing else."""
        if self.fd < 0:
            return
        state = self.state
        events = 0
        if state is _OPEN:
            events = 0 if self.paused else READ
        elif state in _READING_ELSE:
            events = READ
        if self._queue and state is not _CLOSED:
            events |= WRITE
        if events != self.events:
            if events & READ and not self.events & READ:
                self.reading_since = self._reactor.time()
            elif self.events & READ and not events & READ:
                self._read_for += self._reactor.time() - self.reading_since
            self._reactor.wait_for(self, events)

    # -- ending ----------------------------------------------------------------------------------

    def close(
        self, cause: CloseCause = CloseCause.CLOSED, error: BaseException | None = None
    ) -> bool:
        """Send what was accepted, then FIN, wait for the peer's, close. Any thread; does not wait.

        The state changes before this returns: no later write is accepted. Returns False when the
        connection is on its way out already; an error is noted all the same, if it is the first.
        Raises ForkError in a forked child.
        """
        return self._end(ConnectionEvent.CLOSE, cause, error)

    def abort(
        self, cause: CloseCause = CloseCause.ABORTED, error: BaseException | None = None
    ) -> bool:
        """Drop what is queued and send RST. Any thread. Returns False when it is closed already.

        Raises ForkError in a forked child.
        """
        return self._end(ConnectionEvent.ABORT, cause, error)

    def _end(self, event: ConnectionEvent, cause: CloseCause, error: BaseException | None) -> bool:
        if self._reactor.forked:
            raise self._reactor.fork_error()
        try:
            with self.lock:
                if not self.accepts(event):
                    if error is not None and self.state is not _CLOSED:
                        self._note(cause, error)  # it is ending, and this went wrong meanwhile
                    return False
                self._note(cause, error)
                # First, so that Ctrl-C between the two leaves no end that nobody follows.
                self._reactor.post(self._follow_end)
                self.change_state(event)
            self._environment.waker.wake()
        except BaseException:
            self._environment.waker.wake()
            raise
        return True

    def _follow_end(self) -> None:
        """Whoever has asked for the end has moved the state, or is just about to, under the lock."""
        with self.lock:
            state = self.state
        if state in (_DRAINING, _LINGERING):
            self._begin_drain()
        elif state is _CLOSED and not self._why[2]:
            self._reset()

    def _note(self, cause: CloseCause, error: BaseException | None) -> None:
        """Under the lock, before the state moves. The first cause stands, and the first error."""
        if self.state in (_DRAINING, _LINGERING):
            if self._why[1] is None:
                self._why = self._why[0], error, False
        else:
            self._why = cause, error, False

    def _leave(
        self, event: ConnectionEvent, cause: CloseCause, error: BaseException | None
    ) -> ConnectionState | None:
        """Move towards the end, and note why. The state it is in then; None if it has no such event any
        more."""
        with self.lock:
            if not self.accepts(event):
                return None
            self._note(cause, error)
            return self.change_state(event)

    def _handle_peer_fin(self) -> None:
        error: BaseException | None = None
        if self._opening is not None:
            error = self._opening.broken_off()
        elif self._tls is not None and self.state is _OPEN:
            try:
                self._tls.feed_eof()
            except TlsTruncationError as truncation:
                error = truncation
        state = self._leave(_PEER_FIN, _PEER_CLOSED, error)
        if state is None:
            return
        if state is _DRAINING:
            self._begin_drain()
        else:
            self._finish()

    def _begin_drain(self) -> None:
        if self.state is _LINGERING:
            # Between the call and now, a flush has sent the last byte, and FIN behind it.
            self._handler.handle_draining()
            return
        try:
            self._handler.handle_draining()
            self.check_drained()
        finally:
            if self.state is _DRAINING:  # it takes a while
                self._set_deadline(self._environment.options.drain_timeout, "sending what was left")
                self._update_interest()

    def check_drained(self) -> None:
        """Send FIN, if this is the end: DRAINING, nothing under way, nothing queued. Loop's thread."""
        if (
            self.state is not _DRAINING
            or self._in_flight  # a reply, which is about to be sent; then `_begin_drain` comes here
            or not self._handler.is_idle()
        ):
            return
        if self._tls is not None and not (self._tls.closing or self._outbox or self._queue.size):
            if self._tls.held:
                return  # nothing is read any more: the deadline ends it, and counts it as unsent
            self._tls.close()
            self._send_raw(self._tls.take_ciphertext())  # comes back here when it is sent
            return
        with self.lock:
            if self._outbox or self._queue.size or self.state is not _DRAINING:
                return
            state = self.change_state(_DRAINED)
            if self._tls is None and self.cause is _PEER_CLOSED:
                # Its FIN came first, and nothing comes behind it: to close sends ours.
                state = self.change_state(_PEER_FIN)
        if state is _CLOSED:
            self._finish()
            return
        assert self._socket is not None
        try:
            send_fin(self._socket)
        except OSError as error:
            self.fail(error)
            return
        self._receive_nothing()
        if self.state is _LINGERING:
            self._set_deadline(self._environment.options.linger_timeout, None)
            self._update_interest()

    def _receive_nothing(self) -> None:
        assert self._socket is not None
        try:
            ended = read_to_fin(self._socket)
        except OSError as error:
            self.fail(error)
            return
        if ended:
            self._handle_peer_fin()

    def _set_deadline(self, seconds: float, what: str | None) -> None:
        self._cancel_deadline()
        self._deadline = self._reactor.call_later(seconds, self._expire, what)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _expire(self, what: str | None) -> None:
        # A peer that never sends its FIN is no failure: it has had all our bytes, and its time.
        error = None if what is None else TimeoutError(f"{what} took too long")
        if self._leave(ConnectionEvent.EXPIRE, CloseCause.EXPIRED, error) is not None:
            self._finish()

    def fail(self, error: BaseException) -> None:
        """End it now: it cannot go on. The loop's thread. Nothing if it is closed already."""
        self._reactor.check_thread()
        if self._leave(ConnectionEvent.FAIL, _FAILED, error) is not None:
            self._finish()

    def _reset(self) -> None:
        if self._socket is not None:
            reset_on_close(self._socket)
        self._finish()

    def _finish(self) -> None:
        """The state is CLOSED; the one place where the descriptor is given up. Once."""
        if self._deadline is not None:
            self._cancel_deadline()
        if self.fd >= 0:
            self._reactor.forget(self)
        if self._socket is not None:
            self._socket.close()
        with self.lock:
            if self.own:
                self._own_to_outbox()
            unsent = self.pending
            self._queue = _NOTHING_QUEUED
            if self._tls is not None:
                self._tls.held = b""
            self._outbox = ()
            self.outbox_size = self._in_flight = 0
            charged, self._charged = self._charged, 0
        if charged:
            self._environment.ledger.move(-charged)
        cause, error, _ = self._why
        self._why = cause, error, True
        if error is None and not (unsent or self.frames_dropped):
            reason = _CLEAN[cause]
        else:
            reason = CloseReason(cause, error, unsent, self.frames_dropped)
        try:
            self._handler.handle_closed(reason)
        except Exception:  # nobody else's affair: others may be in the midst of theirs
            logger.exception("handle_closed of %r failed", self)

    # -- the rest --------------------------------------------------------------------------------

    @property
    def tls(self) -> TlsStream | None:
        """The TLS session; None for a connection without. The loop's thread."""
        return self._tls

    def fileno(self) -> int:
        """The descriptor's number; -1 when there is none. The loop's thread."""
        return self.fd

    def address(self, which: Literal["local", "remote"]) -> SocketAddress | None:
        """The `"local"` or `"remote"` address as the socket gives it; None when there is none."""
        if self._socket is None:
            return None
        try:
            named = self._socket.getsockname if which == "local" else self._socket.getpeername
            return cast(SocketAddress, named())
        except OSError:
            return None

    def __repr__(self) -> str:
        fd = "-" if self.fd < 0 else self.fd
        return f"<Connection {self.state} fd={fd} pending={self.pending}>"


class Intake:
    """What the connections of one loop have read in this pass, to be handled together.

    A pass reads from all that are ready, then hands up what has come, then sends what is returned for it.
    Each of the three goes faster by itself, for the interpreter need not warm up again behind every call of
    the kernel: with 50 connections that was 6 in 100 of an inline echo. What is set aside is bounded, in
    bytes and in number, and is handled before the pass's step 2 ends. The loop's thread.
    """

    # In the same module, for it is the middle of a connection's hot path: it does for many at a time, and
    # without a call for each, what `Connection` does for one.

    __slots__ = ("_monotonic", "_reactor", "_replies", "received")

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._monotonic = reactor.clock.monotonic
        self.received: list[tuple[Connection, bytes]] = []
        """Appended to by the connections, after `begin` if it is empty. No bytes: the peer's FIN."""
        # Each is counted as what its connection has in flight, and goes out before whatever is written
        # after it was returned.
        self._replies: deque[tuple[Connection, bytes]] = deque()

    def begin(self) -> None:
        """Have what is about to be received be handled in this pass."""
        self._reactor.call_after_events(self.handle)

    def handle(self) -> None:
        """Hand up what there is, and send what is returned for it."""
        received, replies, monotonic = self.received, self._replies, self._monotonic
        impatient = monotonic() + REPLY_PATIENCE
        taken = 0
        try:
            while received:
                for connection, data in received[:HANDLED_PER_LOOK]:
                    taken += 1
                    if connection._in_flight:
                        self.send_replies()  # one is its own: it has read twice, with Ctrl-C in between
                    if connection.fd < 0:
                        continue  # another one's handler has found out that its peer is gone
                    try:
                        if not data:
                            connection._handle_peer_fin()
                            continue
                        reply = connection._handler.handle_data(data)
                        if reply is None:
                            continue
                        if connection.outbox_size:
                            connection.send(reply)
                        else:
                            connection._in_flight = size = len(reply)
                            replies.append((connection, reply))
                            if size > LARGE_REPLY:
                                self.send_replies()
                    except Exception as error:
                        connection._handle_defect(error)
                del received[:taken]
                taken = 0
                if received and monotonic() > impatient:
                    self.send_replies()
                    impatient = monotonic() + REPLY_PATIENCE
        finally:
            del received[:taken]
            if received:  # Ctrl-C: the next pass has the rest
                self.begin()
            self.send_replies()

    def send_replies(self) -> None:
        """Send what has been returned so far; also from within, where one must not overtake another."""
        replies = self._replies
        try:
            while replies:  # one by one, for it may be called from within
                connection, reply = replies.popleft()
                if not connection._in_flight:
                    continue  # it has ended in the meantime, and counted this as unsent
                connection._in_flight = 0
                try:
                    if connection._queue.size or connection.state is not _OPEN:
                        connection.send(reply, True)
                    elif not connection._transmit(reply) or connection._charged:
                        connection._after_send()  # in the second case it was counted as waiting
                except Exception as error:
                    connection._handle_defect(error)
        finally:
            if replies:
                self.begin()

    def __repr__(self) -> str:
        return f"<Intake {len(self.received)} reads, {len(self._replies)} replies>"
