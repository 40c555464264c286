"""Bytes that wait: to be sent, or for the rest of their frame; and how many are too many.

Contents: Watermark, SendQueue, ReceiveBuffer.

Owns the order of buffers and their count; does no I/O and takes no lock. The loop's thread
only.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

__all__ = ["ReceiveBuffer", "SendQueue", "Watermark"]

BUFFERS_PER_SEND = 64
"""Buffers handed to one `sendmsg`. Every system takes at least 16 (POSIX's _XOPEN_IOV_MAX)."""

JOIN_LIMIT = 65_536
"""Bytes up to which small buffers are copied into one: cheaper than a vector of them."""

VECTOR_SIZE = 262_144
"""Bytes from which on a vector is long enough."""


@dataclass(frozen=True, slots=True)
class Watermark:
    """A pair of marks, in bytes: above `high` production pauses, at `low` it goes on.

    Raises ValueError unless `low` is from 0 to `high`.
    """

    low: int
    high: int

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high:
            raise ValueError(f"a watermark needs 0 <= low <= high, not {self.low} and {self.high}")


class SendQueue:
    """Buffers in the order in which they are to be sent. `size` is their sum in bytes."""

    __slots__ = ("_buffers", "size")

    def __init__(self) -> None:
        # Made by the first buffer: most connections never need it, and it is larger than all else of them.
        self._buffers: deque[bytes | memoryview] | None = None
        self.size: int = 0

    def append(self, data: bytes | memoryview) -> None:
        """Add a buffer; it must not change from here on. An empty one is passed over. O(1)."""
        if data:
            if self._buffers is None:
                self._buffers = deque()
            self._buffers.append(data)
            self.size += len(data)

    def extend(self, buffers: list[bytes]) -> None:
        """Add several, in order."""
        for data in buffers:
            self.append(data)

    def peek(self) -> list[bytes | memoryview]:
        """What the next send should be given: one joined buffer, or a vector of large ones."""
        size = 0
        head: list[bytes | memoryview] = []
        buffers = self._buffers
        if buffers is None:
            return head
        for data in buffers:
            head.append(data)
            size += len(data)
            if size >= VECTOR_SIZE or len(head) == BUFFERS_PER_SEND:
                break
        if len(head) > 1 and size <= JOIN_LIMIT:
            joined = b"".join(head)
            for _ in head:
                buffers.popleft()
            buffers.appendleft(joined)
            return [joined]
        return head

    def advance(self, size: int) -> None:
        """Forget the first `size` bytes: they have been sent. Raises ValueError for more than there are."""
        if not 0 <= size <= self.size:
            raise ValueError(
                f"{size} bytes cannot have been sent of {self.size}; pass what the send has returned"
            )
        self.size -= size
        buffers = self._buffers
        while size and buffers:
            head = buffers[0]
            if len(head) > size:
                # A view, so that a large buffer is not copied again for each part of it.
                buffers[0] = memoryview(head)[size:]
                return
            size -= len(head)
            buffers.popleft()

    def clear(self) -> int:
        """Forget all; returns how many bytes that was."""
        size, self.size = self.size, 0
        self._buffers = None
        return size

    def __bool__(self) -> bool:
        return self.size > 0

    def __repr__(self) -> str:
        return f"<SendQueue {self.size} bytes in {len(self._buffers or ())} buffers>"


class ReceiveBuffer:
    """The incomplete end of what was received, kept until there is more.

    Chunks are kept as they came and joined once, when there is enough of them: a large frame that
    arrives in a thousand pieces is copied once and not a thousand times. Of a frame that nobody wants
    nothing is kept: `skip` says how much of what comes is still to be thrown away.
    """

    __slots__ = ("_chunks", "_to_skip", "begun", "needed", "size")

    def __init__(self) -> None:
        self._chunks: list[bytes] | None = None  # None: nothing is kept, as mostly
        self._to_skip = 0
        self.begun: bool = False
        """Whether what comes next goes on with something: with what is kept, or what is skipped."""
        self.size: int = 0
        """Bytes kept."""
        self.needed: int = 0
        """Bytes below which it is of no use to look at them again, as far as that is known."""

    def put(self, data: bytes, needed: int = 0) -> None:
        """Keep `data`, of which `needed` bytes make something whole. Only when nothing is kept."""
        self._chunks = [data]
        self.begun = True
        self.size = len(data)
        self.needed = needed

    def append(self, data: bytes) -> None:
        """Add `data` to what is kept, if anything is."""
        if self._chunks is None:
            self._chunks = []
        self._chunks.append(data)
        self.size += len(data)
        self.begun = self.size > 0

    def join(self, data: bytes) -> bytes | None:
        """Add `data`; hand out all that is kept if it may be enough, None if it cannot be."""
        self.append(data)
        return self.take() if self.size >= self.needed else None

    def take(self) -> bytes:
        """Hand out all that is kept."""
        chunks, self._chunks = self._chunks, None
        self.begun = False
        self.size = self.needed = 0
        if chunks is None:
            return b""
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def skip(self, size: int) -> None:
        """Have `pass_over` throw the next `size` bytes away. Only when nothing is kept."""
        self._to_skip = size
        self.begun = size > 0

    def pass_over(self, data: bytes) -> bytes:
        """What comes in `data` behind the bytes that are to be thrown away. Only when nothing is kept,
        or when there are none such."""
        skipped = min(self._to_skip, len(data))
        if not skipped:
            return data
        self.skip(self._to_skip - skipped)
        return data[skipped:]

    def __repr__(self) -> str:
        if self._to_skip:
            return f"<ReceiveBuffer skips {self._to_skip} bytes>"
        return f"<ReceiveBuffer {self.size} of {self.needed} bytes>"
