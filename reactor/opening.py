"""What must have come before a connection is OPEN: a preface, the handshake of TLS, or both in this order.

Owns the order of these steps, what each makes of the peer's bytes, and what it means when the peer leaves
in the middle of one. It has no socket: `reactor.connection` moves the bytes and the state, and gives each
step its time. The loop's thread only.
"""

from __future__ import annotations

from reactor.preface import Preface
from reactor.state import ConnectionEvent
from reactor.tls import TlsStream

__all__ = ["Opening"]


class Opening:
    """The steps of one connection. They are over when it is OPEN: then nobody needs this any more."""

    __slots__ = ("_begun", "_preface", "_secured", "_tls")

    def __init__(self, preface: Preface | None, tls: TlsStream | None) -> None:
        self._preface = preface  # None as well when it has come
        self._tls = tls
        self._begun = False  # whether a byte of the preface has come
        self._secured = False  # whether the handshake is done

    @property
    def event(self) -> ConnectionEvent:
        """What happens to the connection now that it has come so far."""
        if self._preface is not None:
            return ConnectionEvent.PREFACE
        if self._tls is None:
            return ConnectionEvent.CONNECTED
        return ConnectionEvent.SECURED if self._secured else ConnectionEvent.SECURE

    @property
    def over(self) -> bool:
        """Whether no step is left."""
        return self._preface is None and (self._tls is None or self._secured)

    @property
    def what(self) -> str:
        """What the present step waits for, for people."""
        return "the TLS handshake" if self._preface is None else self._preface.what

    def feed(self, data: bytes) -> bytes | None:
        """What came; with nothing, the step begins, if it is ours to begin. None, as long as it goes on;
        when it is done, the bytes behind it, which may be none.

        Then `event` has to happen before more is fed. Raises PrefaceError or ssl.SSLError when what came
        is wrong. In any case there may be something to `take`.
        """
        if self._preface is not None:
            if not data:
                return None
            self._begun = True
            rest = self._preface.feed(data)
            if rest is not None:
                self._preface = None
            return rest
        assert self._tls is not None
        self._tls.feed(data)
        self._secured = self._tls.handshake()
        # The peer's first message may have come with its last of the handshake; the session has it.
        return b"" if self._secured else None

    def take(self) -> bytes:
        """What is to be sent: the next message of the handshake, or the alert that says why not."""
        return b"" if self._tls is None else self._tls.take_ciphertext()

    @property
    def only_looked_at(self) -> bool:
        """Whether a peer that leaves now has only looked whether we are there, as load balancers do."""
        return self._preface is not None and not self._begun

    def broken_off(self) -> ConnectionResetError | None:
        """The error that it is when the peer leaves now; None if it is none."""
        if self.only_looked_at:
            return None
        if self._preface is not None:
            return ConnectionResetError(f"the peer left before the end of {self._preface.what}")
        return ConnectionResetError("the peer left during the TLS handshake")

    def __repr__(self) -> str:
        return "<Opening over>" if self.over else f"<Opening waits for {self.what}>"
