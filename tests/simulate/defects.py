"""Defects to be put in by hand (see `tests.simulate.planting`), by their kind.

Contents: DEFECTS.

`python -m tests.simulate --defects` puts them in, one after the other, and says which seed finds each.
`tests/README.md` lists them.
"""

from __future__ import annotations

from tests.simulate.planting import Defect, Edit

__all__ = ["DEFECTS"]


def _defect(name: str, *edits: str) -> Defect:
    """`edits`: where, old, new; once or several times."""
    return Defect(name, tuple(Edit(*edits[at : at + 3]) for at in range(0, len(edits), 3)))


_CONNECTION = "reactor.connection:Connection."
_INTAKE = "reactor.connection:Intake."
_QUEUE = "reactor.buffers:SendQueue."
_POOL = "reactor.workers:WorkerPool."
_WAKER = "reactor.waker:Waker."
_REACTOR = "reactor.loop:Reactor."
_SESSION = "tao.session:Session."
_TIMERS = "tao.timers:ConnectionTimers."
_ACCEPTOR = "reactor.acceptor:Acceptor."
_CONNECTOR = "reactor.connector:Connector."
_CLIENT = "tao.client:ClientConn."
_DELIVERY = "tao.delivery:Delivery."
_GATE = "tao.gate:Gate."
_STOPPING = "tao.stopping:Stopping."

LOST_WAKE_UPS = (
    _defect(
        "a wake-up sends no byte", _WAKER + "wake", "if self._armed", "if False and self._armed"
    ),
    _defect(
        "the waker is never armed", _WAKER + "arm", "if self._armed", "if False and self._armed"
    ),
    _defect(
        "the waker is armed after the queue was looked at",
        _REACTOR + "run",
        "self._pass(self.timeout())",
        "timeout = self.timeout(); self._waker.arm(); self._pass(timeout)",
        _REACTOR + "_pass",
        "self._waker.arm()",
        "pass",
    ),
    _defect("the loop sleeps over what is posted", _REACTOR + "timeout", "self._posted or ", ""),
    _defect(
        "what is called from another thread does not wake the loop",
        _REACTOR + "call_soon_threadsafe",
        "self._waker.wake()",
        "pass",
    ),
    _defect(
        "write does not wake the loop",
        _CONNECTION + "write",
        "self._environment.waker.wake()",
        "pass",
    ),
    _defect(
        "close does not wake the loop",
        _CONNECTION + "_end",
        "self.change_state(event)\n            self._environment.waker.wake()",
        "self.change_state(event)",
    ),
    _defect(
        "write thinks for ever that a flush is posted",
        _CONNECTION + "_flush",
        "self._flush_posted = False",
        "self._flush_posted = True",
    ),
    _defect(
        "a flush is forgotten between its posting and its run",
        _CONNECTION + "_flush",
        "        if not done or",
        "        self._flush_posted = True\n        if not done or",
    ),
    _defect(
        "a worker never wakes the loop",
        _POOL + "wake",
        " and self._monotonic() < self.quiet_until",
        "",
    ),
    _defect(
        "a drain ends without waking the loop",
        _POOL + "_park",
        "self._reactor.wake()",
        "pass",
    ),
    _defect(
        "a drain takes its next job without waking the loop",
        _POOL + "_drain",
        "self._reactor.wake()",
        "pass",
    ),
    _defect(
        "a drain ends without looking for what came last",
        _POOL + "_park",
        "if self._ready:",
        "if False:",
    ),
    _defect(
        "of two that end at once each leaves it to the other",
        _POOL + "_drain",
        "if not self._finish_posted:",
        "if len(finished) == 1:",
    ),
    _defect(
        "it is thought for ever that jobs are being taken back",
        _POOL + "_finish",
        "self._finish_posted = False",
        "pass",
    ),
    _defect(
        "jobs that have been run are not taken back", _POOL + "_drain", "post(self._finish)", "pass"
    ),
    _defect(
        "the pool looks once and never again",
        _POOL + "_watch",
        "if now < self.quiet_until",
        "if False",
    ),
    _defect(
        "the pool does not look whether drains are blocked",
        _POOL + "_watch",
        "self._start(max(1, drains))",
        "pass",
        _POOL + "_submit",
        "elif now - self._taken_at > PATIENCE:",
        "elif False:",
    ),
    _defect(
        "what a worker has announced is not looked at",
        _SESSION + "_announce",
        "self._reactor.wake()",
        "pass",
    ),
    _defect(
        "a broadcast does not wake the loop", _DELIVERY + "_flush", "self._pool.wake()", "pass"
    ),
    _defect(
        "a codec that is set wakes nobody",
        _SESSION + "set_codec",
        "self._service.pool.wake()",
        "pass",
    ),
)

DROPPED_WRITES = (
    _defect(
        "the rest of a partial write is dropped",
        _CONNECTION + "_transmit",
        "self._enqueue(memoryview(data)[sent:])",
        "pass",
    ),
    _defect(
        "a partial write is repeated from its beginning",
        _CONNECTION + "_transmit",
        "memoryview(data)[sent:]",
        "data",
    ),
    _defect(
        "a write that the kernel does not take is dropped",
        _CONNECTION + "_transmit",
        "            sent = 0\n",
        "            return True\n",
    ),
    _defect(
        "the queue forgets the rest of its head",
        _QUEUE + "advance",
        "buffers[0] = memoryview(head)[size:]",
        "buffers.popleft()",
    ),
    _defect(
        "the queue repeats its head",
        _QUEUE + "advance",
        "buffers[0] = memoryview(head)[size:]",
        "pass",
    ),
    _defect("the queue loses a byte of its head", _QUEUE + "advance", "[size:]", "[size + 1 :]"),
    _defect(
        "the rest waits for a socket that nobody watches",
        _CONNECTION + "_update_interest",
        "events |= WRITE",
        "pass",
    ),
    _defect(
        "the rest waits for a socket that nobody watches once it drains",
        _CONNECTION + "_update_interest",
        "if self._queue and state is not _CLOSED",
        "if self._queue and state is _OPEN",
    ),
    _defect(
        "a flush forgets its rest",
        _CONNECTION + "_flush",
        "            self._after_send()",
        "            pass",
    ),
    _defect(
        "a flush overtakes the queue",
        _CONNECTION + "_flush_in_steps",
        "if self._queue.size and not self._send_queue()",
        "if False",
    ),
    _defect("a reply overtakes the queue", _CONNECTION + "send", "or self._queue.size", ""),
    _defect(
        "a reply overtakes the outbox",
        _CONNECTION + "send",
        "(self.outbox_size and not first)",
        "False",
    ),
    _defect(
        "a broadcast overtakes the outbox", _CONNECTION + "send_at_once", "or self.outbox_size", ""
    ),
    _defect(
        "a broadcast overtakes the queue", _CONNECTION + "send_at_once", "or self._queue.size", ""
    ),
    _defect(
        "a broadcast overtakes what a handler has written",
        _CONNECTION + "send_at_once",
        "or len(self.own) > self._own_taken",
        "",
    ),
    _defect(
        "a frame is lost where the outbox is cut",
        _CONNECTION + "_take_outbox",
        "outbox)[:count]",
        "outbox)[: count + 1]",
    ),
    _defect(
        "FIN overtakes the queue",
        _CONNECTION + "check_drained",
        "if self._outbox or self._queue.size or self.state",
        "if self._outbox or self.state",
    ),
    _defect(
        "FIN overtakes the outbox",
        _CONNECTION + "check_drained",
        "if self._outbox or self._queue.size or self.state",
        "if self._queue.size or self.state",
    ),
    _defect(
        "a drain does not wait for handlers",
        _CONNECTION + "check_drained",
        " or not self._handler.is_idle()",
        "",
    ),
    _defect(
        "it is closed with bytes unread",
        _CONNECTION + "check_drained",
        "self._receive_nothing()",
        "self._handle_peer_fin()",
    ),
)

EARLY_ENDS = (
    _defect(
        "on_close while a batch is out",
        _SESSION + "_advance",
        "if self._batch is not None:\n            return",
        "if self._batch is not None and self._closed_with is None:\n            return",
    ),
    _defect(
        "on_close at once, whatever is under way",
        _SESSION + "handle_closed",
        "self._reactor.post(self._advance)",
        "self._finish(reason)",
    ),
    _defect(
        "on_close before what is owed",
        _SESSION + "_advance",
        "if self._inbox:\n                self._submit()",
        "if False:\n                self._submit()",
    ),
    _defect("on_close twice", _SESSION + "_finish", "self._closed_with = None", "pass"),
    _defect(
        "on_close twice, once from where it is told of",
        _SESSION + "_on_close",
        "on_close(self.conn, reason)",
        "on_close(self.conn, reason); on_close(self.conn, reason)",
    ),
    _defect("on_connect is not owed", _SESSION + "handle_open", ", owed=True", ""),
    _defect("on_close for what was never open", _SESSION + "_finish", " or not self._opened", ""),
    _defect(
        "no on_close after an end by force",
        _SESSION + "_finish",
        " or not self._opened:",
        " or not self._opened or reason.cause is CloseCause.ABORTED:",
    ),
    _defect(
        "handlers are begun after the end", _SESSION + "_advance", "self._drop_waiting()", "pass"
    ),
    _defect(
        "what waits is dropped after a half-close",
        _SESSION + "_advance",
        "and not self._sees_through:",
        "and self.connection.state is not ConnectionState.OPEN:",
    ),
    _defect(
        "bytes that came too late are not told of",
        _SESSION + "finish",
        "if late and",
        "if False and",
    ),
    _defect(
        "what was not handled is not told of",
        _SESSION + "_drop_waiting",
        "self._need_extras().unhandled += ",
        "0 + ",
    ),
    _defect(
        "stop returns before on_close",
        _SESSION + "handle_closed",
        "self._closed_with = reason",
        "self._closed_with = reason; self._service.on_gone(self, reason)",
    ),
    _defect(
        "stop has no end of its grace",
        _STOPPING + "hurry",
        "self._grace = self._reactor.call_at(ends, self._handle_grace_over)",
        "pass",
    ),
)

TIMERS_LEFT = (
    _defect(
        "timers outlive their connection", _SESSION + "_end_timers", "extras.timers.end()", "pass"
    ),
    _defect(
        "a heartbeat outlives its connection",
        "tao.heartbeat:HeartbeatKeeper.stop",
        "self._timeout.cancel()",
        "pass",
    ),
    _defect(
        "timers go on while it drains",
        _SESSION + "handle_draining",
        "self._end_timers(self._extras)",
        "pass",
    ),
    _defect(
        "timers go on after an abort",
        _SESSION + "handle_closed",
        "self._end_timers(self._extras)",
        "pass",
    ),
    _defect(
        "a deadline outlives its connection",
        _CONNECTION + "_finish",
        "self._cancel_deadline()",
        "pass",
    ),
    _defect(
        "a deadline replaces another that goes on",
        _CONNECTION + "_set_deadline",
        "self._cancel_deadline()",
        "pass",
    ),
    _defect(
        "a cancelled time-out that is due fires",
        "reactor.timing_wheel:Timeout.cancel",
        "        self._callback = None\n        slot = self._slot\n        if slot is not None:\n",
        "        slot = self._slot\n        if slot is not None:\n            self._callback = None\n",
    ),
    _defect(
        "a cancelled timer that waits for its turn runs",
        _TIMERS + "_run",
        "if self._timers is None or timer_id not in self._timers:",
        "if self._timers is None:",
        _TIMERS + "_run",
        "del self._timers[timer_id]",
        "self._timers.pop(timer_id, None)",
    ),
    _defect(
        "a timer runs after the end",
        _TIMERS + "_run",
        "self._timers is None or timer_id not in self._timers",
        "self._timers is not None and timer_id not in self._timers",
        _TIMERS + "_run",
        "if not timer.repeats",
        "if not timer.repeats and self._timers is not None",
    ),
    _defect(
        "a timer that was cancelled before it began is set",
        _TIMERS + "_start",
        " or timer_id not in self._timers",
        "",
    ),
    _defect(
        "a cancelled timer stays in the wheel",
        _TIMERS + "cancel",
        "if timeout is not None:",
        "if False:",
    ),
    _defect(
        "the end of the timers leaves them in the wheel",
        _TIMERS + "end",
        "timer.timeout.cancel()",
        "pass",
    ),
    _defect("timers can be set after the end", _TIMERS + "_set", "if self._ended:", "if False:"),
    _defect(
        "a timer of a worker's is set without the lock's look",
        _TIMERS + "_start",
        "if self._timers is None or timer_id not in self._timers:\n                return",
        "pass",
    ),
    _defect(
        "timers are early",
        _REACTOR + "put",
        "_ceil((when - self._origin) / TICK)",
        "math.floor((when - self._origin) / TICK) - 1",
        _REACTOR + "put",
        "if self._origin + tick * TICK < when:",
        "if False:",
    ),
    _defect(
        "a connect's deadline is left", _CONNECTOR + "_release", "self._deadline.cancel()", "pass"
    ),
    _defect(
        "a reconnect is left when the client is closed",
        _CLIENT + "_handle_gone",
        "self._retry.cancel()",
        "pass",
    ),
    _defect("an acceptor's retry is left", _ACCEPTOR + "close", "self._retry.cancel()", "pass"),
    _defect("the grace of stop is left", _STOPPING + "_check", "self._grace.cancel()", "pass"),
    _defect(
        "a draining connection has no deadline",
        _CONNECTION + "_begin_drain",
        'self._set_deadline(self._environment.options.drain_timeout, "sending what was left")',
        "pass",
    ),
    _defect(
        "a lingering connection has no deadline",
        _CONNECTION + "check_drained",
        "self._set_deadline(self._environment.options.linger_timeout, None)",
        "pass",
    ),
    _defect(
        "a connect has no deadline",
        _CONNECTOR + "_try_next",
        "self._deadline = self._reactor.call_later(self._timeout, self._handle_timeout)",
        "pass",
    ),
)

# What simulated runs, or other tests, have found before, put in again.
FOUND_BEFORE = (
    _defect(
        "what came too late is pending for ever",
        _CONNECTION + "end",
        "if self.fd < 0:",
        "if False:",
    ),
    _defect(
        "it is told of before all is counted",
        _SESSION + "handle_closed",
        "self._reactor.post(self._advance)",
        "self._advance()",
    ),
    _defect(
        "a handler is begun after the end",
        _SESSION + "_advance",
        " and self._closed_with is None:",
        ":",
        _SESSION + "handle_data",
        " or self._interrupted:",
        ":",
    ),
    _defect(
        "bytes of a broken stream are not counted",
        _SESSION + "_report_broken",
        "self._need_extras().undecoded = size",
        "pass",
    ),
    _defect(
        "a flush ends the draining before it has begun",
        _CONNECTION + "_begin_drain",
        "if self.state is _LINGERING:",
        "if False:",
    ),
)

OTHERS = (
    _defect(
        "reading does not go on when the peer has read",
        _CONNECTION + "_after_send",
        "self.resume_reading(Pause.OUTPUT)",
        "pass",
    ),
    _defect(
        "reading does not go on when there is room again",
        _SESSION + "_after_decode",
        "self.connection.resume_reading(Pause.WORK)",
        "pass",
    ),
    _defect(
        "reading goes on, and nobody waits for it",
        _CONNECTION + "resume_reading",
        "self._update_interest()",
        "pass",
    ),
    _defect(
        "a reply waits for nobody to say that there is room",
        _SESSION + "handle_writable",
        "self._reactor.post(self._advance)",
        "pass",
    ),
    _defect(
        "a change of codec loses the messages that wait",
        _SESSION + "_read_again",
        "pieces = [data[start:end] for _, _, _, data, start, end in self._inbox]",
        "pieces = []",
    ),
    _defect(
        "a change of codec loses what is not whole",
        _SESSION + "_read_again",
        'self._input.take() if self._input.size else b""',
        'b""',
    ),
    _defect(
        "a change of codec repeats the messages that wait",
        _SESSION + "_read_again",
        "self._inbox[:] = [item for item in self._inbox if item[4] == item[5]]",
        "pass",
    ),
    _defect(
        "a change of codec drops timers and callbacks",
        _SESSION + "_read_again",
        "self._inbox[:] = [item for item in self._inbox if item[4] == item[5]]",
        "self._inbox[:] = []",
    ),
    _defect(
        "a handler's own frames are overtaken by another's",
        _CONNECTION + "write",
        "if len(self.own) > self._own_taken:",
        "if False:",
    ),
    _defect(
        "a handler's own frames are sent again at its end",
        _CONNECTION + "end",
        "frames = frames[self._own_taken :]",
        "pass",
    ),
    _defect(
        "a handler's own frames are lost when it is collected",
        _CONNECTION + "collect",
        "self._send_lined_up(frames, waits)",
        "self._send_lined_up(frames[:-1], waits)",
    ),
    _defect(
        "the outbox's count forgets a handler's frames",
        _CONNECTION + "_to_outbox",
        "self.outbox_size += size",
        "pass",
    ),
    _defect(
        "the outbox's count keeps a frame that is gone",
        _CONNECTION + "_take_outbox",
        "self.outbox_size -= size",
        "self.outbox_size -= size - len(outbox[0])",
    ),
    _defect(
        "the queue's count is off by what was sent",
        _QUEUE + "append",
        "self.size += len(data)",
        "self.size += len(data) + 1",
    ),
    _defect(
        "what is handled stays charged",
        _SESSION + "finish",
        "self._service.ledger.moved -= self._batch_held",
        "pass",
    ),
    _defect(
        "a batch stays held",
        _SESSION + "finish",
        "self._batch_held = 0",
        "pass",
    ),
    _defect(
        "what is written is not charged",
        _CONNECTION + "write",
        "self._charged += size",
        "pass",
    ),
    _defect(
        "what is sent stays charged",
        _CONNECTION + "_flush",
        "self._environment.ledger.moved -= charged",
        "pass",
    ),
    _defect(
        "what a lost connection has held stays charged",
        _CONNECTION + "_finish",
        "self._environment.ledger.move(-charged)",
        "pass",
    ),
    _defect(
        "who waits for memory waits for ever",
        _SESSION + "weigh",
        "connection.resume_reading(Pause.MEMORY)",
        "pass",
    ),
    _defect(
        "what is in flight is counted for ever",
        _CONNECTION + "_flush",
        "self._in_flight = 0",
        "pass",
    ),
    _defect(
        "what makes room is not counted",
        _CONNECTION + "_drop_oldest",
        "self.frames_dropped += count",
        "pass",
    ),
    _defect(
        "what makes room is still counted as waiting",
        _CONNECTION + "_drop_oldest",
        "self.outbox_size -= dropped",
        "pass",
    ),
    _defect(
        "what is unsent is not told of",
        _CONNECTION + "_finish",
        "unsent = self.pending",
        "unsent = 0",
    ),
    _defect(
        "a write over the limit is accepted",
        _CONNECTION + "write",
        "if pending <= limit:\n                    if self._outbox",
        "if True:\n                    if self._outbox",
    ),
    _defect(
        "more messages wait than there is room for",
        _SESSION + "_handle_frames",
        "if len(inbox) < ledger.room:",
        "if True:",
    ),
    _defect(
        "a worker does not stop for a peer that does not read",
        _SESSION + "_handle_batch",
        "self._interrupted or self._written - connection.own_size > high",
        "self._interrupted",
    ),
    _defect(
        "what is left of a batch is dropped",
        _SESSION + "finish",
        "self._own_inbox()[:0] = batch[-left:]",
        "pass",
    ),
    _defect(
        "what is left of a batch comes later",
        _SESSION + "finish",
        "self._own_inbox()[:0] = batch[-left:]",
        "self._own_inbox().extend(batch[-left:])",
    ),
    _defect(
        "a message overtakes what waits",
        _SESSION + "_handle_frames",
        "waiting = not alone",
        "waiting = False",
    ),
    _defect(
        "a single message overtakes what waits",
        _SESSION + "handle_data",
        " and not self._inbox and self._batch is None",
        "",
    ),
    _defect(
        "a single message is not charged while a worker has it",
        _SESSION + "_submit_one",
        "ledger.moved += held - self._charged",
        "pass",
    ),
    _defect(
        "what has been read is set aside for ever",
        _INTAKE + "begin",
        "self._re",
        "lambda: self._re",
    ),
    _defect(
        "a reply is counted in flight for ever",
        _INTAKE + "send_replies",
        "connection._in_flight = 0",
        "pass",
    ),
    _defect(
        "two batches of one connection at once",
        _SESSION + "_after_decode",
        "if self._batch is None and not",
        "if not",
    ),
    _defect(
        "accepting does not go on after EMFILE",
        _ACCEPTOR + "_try_again",
        "self._update_interest()",
        "pass",
    ),
    _defect(
        "accepting does not go on when there is room again",
        _GATE + "handle_gone",
        "acceptor.resume()",
        "pass",
    ),
    _defect(
        "one connection more than is allowed",
        _GATE + "refusal",
        "connections >= self._most",
        "connections > self._most",
    ),
    _defect(
        "an event for a descriptor that is another's by now",
        _REACTOR + "_pass",
        "if mask and not (new and fd in new):",
        "if mask:",
    ),
    _defect(
        "an event that nobody waits for any more",
        _REACTOR + "_pass",
        "mask &= channel.events",
        "pass",
    ),
    _defect(
        "a descriptor is closed before it is unregistered",
        _CONNECTION + "_finish",
        "self._reactor.forget(self)",
        "pass",
    ),
    _defect(
        "the pipe is not emptied",
        _WAKER + "drain",
        "self.wakeups += len(self._receive(4096))",
        "pass",
    ),
    _defect(
        "a byte for every wake-up", _WAKER + "disarm", "self._armed.acquire(blocking=False)", "pass"
    ),
    _defect(
        "what was written while it was not connected is lost",
        _CLIENT + "_handle_open",
        "self._session.connection.send_all(frames)",
        "pass",
    ),
    _defect(
        "the peer's FIN is lost among what has been read",
        _INTAKE + "handle",
        "connection._handle_peer_fin()",
        "pass",
    ),
    _defect(
        "a half-close is taken for the end",
        _CONNECTION + "_handle_peer_fin",
        "if state is _DRAINING:\n            self._begin_drain()",
        "if False:\n            self._begin_drain()",
    ),
    _defect(
        "an abort sends FIN", _CONNECTION + "_reset", "if self._socket is not None:", "if False:"
    ),
    _defect(
        "waiting for a cancel is not ended",
        _SESSION + "_wake_waiting",
        "event.set()",
        "pass",
    ),
)

DEFECTS = {
    "a lost wake-up": LOST_WAKE_UPS,
    "a dropped partial write": DROPPED_WRITES,
    "an early or wrong on_close": EARLY_ENDS,
    "a timer left behind": TIMERS_LEFT,
    "found before": FOUND_BEFORE,
    "others": OTHERS,
}
