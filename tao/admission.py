"""Who is let in: what is decided of a message before anything is made of it.

Contents: Admission, ends_stream.

Owns, for one connection, the rates of its messages and the decision on the frame that begins its input.
The loop's thread only, but for what says otherwise. It reads no bytes: the session asks with a message
number and a size, which it has from a header or from a whole frame.

Frames are decoded ahead of their handling, and a handler may authenticate the connection, or change its
codec, and so what the frames behind its own are. That a pipelined `login` and `order` work, and that it
makes no difference how TCP has cut the stream, rests on this:

- **A decision is made once nothing that comes before can change it.** Authentication is never taken back.
  So a message that is allowed after it is let in as soon as the connection is authenticated, and one that
  is allowed only before it is refused then, be it ahead of its turn. As long as the connection is not, a
  message whose registration names a phase waits for its turn: until what came before it has been handled,
  be it inline or on a worker. Decoding stops in front of it, and reading pauses.
- **Bytes are thrown away in their turn only.** Of a frame that is still coming, and would be skipped,
  nothing is thrown away while a handler before it runs: with another codec they could mean something else.
  Until its turn has come it is as if it could not be decided: its value is not read.
- **One decision for each frame.** One that was let in by its header has its tokens taken, and is not asked
  about again when it is whole (`_front`). What another codec decodes anew are other frames: each is asked
  about, and takes its tokens.
- **Nothing behind a frame that closes the connection is decided.** Decoding stops there.
"""

from __future__ import annotations

from tao.conditions import Objection, Phase, Refusal
from tao.errors import AdmissionError, FrameTooLargeError, TaoError, UndefinedMessageError
from tao.rate import TokenBucket
from tao.registry import Entry, MessageRegistry

__all__ = ["Admission", "ends_stream"]


class Admission:
    """Decides for one connection.

    `frames` is the bucket of its peer's address, out of which each of its frames takes a token.
    """

    __slots__ = ("_buckets", "_frames", "_front", "_refused", "_registry")

    def __init__(self, registry: MessageRegistry, frames: TokenBucket | None) -> None:
        self._registry = registry
        self._frames = frames
        self._buckets: dict[int, TokenBucket] | None = None  # made by the first with a rate
        self._front: Entry[object] | None = (
            None  # of the frame that begins the input, if it has been let in
        )
        self._refused = 0  # reported so far; written by whichever thread reports, one at a time

    def decide(
        self, number: int, size: int, now: float, *, authenticated: bool, waits: bool
    ) -> Entry[object] | None:
        """The entry of a whole frame, whose value has `size` bytes; None: not before its turn.

        `waits` says that something before it is still to be handled; `now` is in monotonic seconds.
        Raises AdmissionError, FrameTooLargeError or UndefinedMessageError for what is not let in.
        """
        front, self._front = self._front, None
        if front is not None and front.number == number:
            return front
        entry = self._registry.find(number)
        if waits and _hangs_on_others(entry, authenticated):
            return None
        objection = self._objection(number, entry, size, now, authenticated)
        return self._enter(number, entry, objection, now)

    def decide_front(
        self, number: int, size: int, now: float, *, authenticated: bool, waits: bool
    ) -> Entry[object] | None:
        """The same of the frame that begins the input, and is still coming."""
        entry = self._front
        if entry is None or entry.number != number:
            self._front = None
            entry = self._registry.find(number)
            if waits and _hangs_on_others(entry, authenticated):
                return None
            objection = self._objection(number, entry, size, now, authenticated)
            if waits and objection is not None and not ends_stream(objection):
                return None
            self._front = entry = self._enter(number, entry, objection, now)
        return entry

    def _objection(
        self, number: int, entry: Entry[object] | None, size: int, now: float, authenticated: bool
    ) -> TaoError | None:
        """What the registry has against it."""
        if entry is None:
            return UndefinedMessageError(number)
        if not entry.phases & (Phase.AFTER if authenticated else Phase.BEFORE):
            return AdmissionError(number, Objection.PHASE, entry.refusal)
        if entry.max_size is not None and size > entry.max_size:
            if entry.refusal is Refusal.SKIP:
                return AdmissionError(number, Objection.SIZE, entry.refusal)
            return FrameTooLargeError(size, entry.max_size, f"a value of message number {number}")
        if entry.rate is not None and not self._bucket(entry).has_token(now):
            return AdmissionError(number, Objection.RATE, entry.refusal)
        return None

    def _enter(
        self, number: int, entry: Entry[object] | None, objection: TaoError | None, now: float
    ) -> Entry[object]:
        """Let it in, or raise. Refused or not, it is one more frame of its address."""
        if self._frames is not None and not self._frames.take(now):
            raise AdmissionError(number, Objection.ADDRESS_RATE, Refusal.CLOSE)
        if objection is not None or entry is None:
            raise objection or UndefinedMessageError(number)
        if entry.rate is not None:
            self._bucket(entry).take(now)
        return entry

    def _bucket(self, entry: Entry[object]) -> TokenBucket:
        """For a number with a rate. There are no more of them than registrations."""
        assert entry.rate is not None
        if self._buckets is None:
            self._buckets = {}
        bucket = self._buckets.get(entry.number)
        if bucket is None or bucket.rate != entry.rate:
            bucket = self._buckets[entry.number] = TokenBucket(entry.rate)
        return bucket

    def forget_front(self) -> None:
        """Another codec will decode what is kept: it may begin with another frame."""
        self._front = None

    def note_refusal(self) -> int | None:
        """One more is about to be reported. The count, if it is worth a line in the log: 1, 10, 100 ...;
        a flood of refusals is not to become one of lines. The thread that reports."""
        self._refused = count = self._refused + 1
        while count % 10 == 0:
            count //= 10
        return self._refused if count == 1 else None


def ends_stream(error: BaseException) -> bool:
    """Whether it costs the connection, of those that `Admission` raises."""
    if isinstance(error, AdmissionError):
        return error.refusal is Refusal.CLOSE
    return isinstance(error, FrameTooLargeError)


def _hangs_on_others(entry: Entry[object] | None, authenticated: bool) -> bool:
    """Whether a message before it, by authenticating the connection, would change what becomes of it."""
    return not authenticated and entry is not None and entry.phases != Phase.ANY
