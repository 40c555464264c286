"""TLS for a connection, without a socket.

Owns one TLS session over two memory buffers: ciphertext in and out on one side, plaintext on the other.
It moves no bytes itself and knows no deadlines; `reactor.connection` does. The loop's thread only:
OpenSSL does not allow two threads in one session.
"""

from __future__ import annotations

import ssl

__all__ = ["TlsStream", "TlsTruncationError"]

PLAINTEXT_SIZE = 16_384
"""Bytes asked of one read: a record's most (RFC 8446, 5.1), for OpenSSL gives one at a time. Room for
them is allocated each time: a quarter of a megabyte would be mapped and unmapped, a fifth of an echo."""


class TlsTruncationError(ssl.SSLError):
    """The peer's stream ended without its closing alert: what came may not be all that was sent.

    RFC 8446, 6.1: an attacker who can cut a TCP connection must not be able to pass for its end.
    """

    def __init__(self) -> None:
        super().__init__(
            ssl.SSLErrorNumber.SSL_ERROR_EOF, "the peer ended the stream without a closing alert"
        )


class TlsStream:
    """One TLS session. Ciphertext to be sent gathers inside until `take_ciphertext`."""

    __slots__ = ("_incoming", "_object", "_outgoing", "closing", "ended", "held")

    def __init__(
        self, context: ssl.SSLContext, *, server_side: bool, server_hostname: str | None = None
    ) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=server_side,
            server_hostname=server_hostname,
        )
        self.ended: bool = False
        """Whether the peer's closing alert has come: it will send no more."""
        self.closing: bool = False
        """Whether our own closing alert is among the ciphertext: nothing can be sent any more."""
        self.held: bytes = b""
        """Plaintext that waits until the peer has done its part of a handshake in mid-stream."""

    @property
    def object(self) -> ssl.SSLObject:
        """The standard library's object: for the peer's certificate, the version, the cipher, ALPN."""
        return self._object

    def feed(self, ciphertext: bytes) -> None:
        """What came from the peer."""
        self._incoming.write(ciphertext)

    def feed_eof(self) -> None:
        """The peer's TCP stream has ended. Raises TlsTruncationError unless its alert came first."""
        if not self.ended:
            raise TlsTruncationError

    def handshake(self) -> bool:
        """Go on with the handshake; True when it is done. Raises ssl.SSLError when it has failed.

        Either way there may be ciphertext to send: the next message, or the alert that says why not.
        """
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def decrypt(self) -> bytes:
        """The plaintext of all that has come; `ended` may be true after it. Raises ssl.SSLError."""
        pieces: list[bytes] = []
        read, left, incoming = self._object.read, self._object.pending, self._incoming
        try:
            while piece := read(PLAINTEXT_SIZE):
                pieces.append(piece)
                if not (incoming.pending or left()):
                    break  # to be told so by an exception would cost as much as to decrypt a record
            else:
                self.ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.ended = True
        if self.held:
            self._write(b"")
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def encrypt(self, plaintext: bytes) -> bytes:
        """`plaintext` as ciphertext, behind what else there is to send. Raises ssl.SSLError.

        Into memory there is always room. But a context of TLS 1.2 that is not `tao`'s may let the peer
        begin another handshake in the middle; until that is done nothing can be written, and it is
        `held`: `decrypt` goes on with it.
        """
        if self.held:
            self._write(plaintext)
        else:
            try:
                self._object.write(plaintext)
            except ssl.SSLWantReadError:
                self.held = plaintext
        return self._outgoing.read()

    def _write(self, plaintext: bytes) -> None:
        """Behind what is held, and with it: OpenSSL wants to see the same bytes again, and takes more."""
        self.held += plaintext
        try:
            self._object.write(self.held)
        except ssl.SSLWantReadError:
            return
        self.held = b""

    def close(self) -> None:
        """Put our closing alert behind what there is to send. Twice is once."""
        if self.closing:
            return
        self.closing = True
        try:
            self._object.unwrap()
        except ssl.SSLError:
            pass  # "want read": the peer's alert has not come, and need not: RFC 8446, 6.1

    def take_ciphertext(self) -> bytes:
        """What is to be sent to the peer; empty when there is nothing."""
        return self._outgoing.read()

    def __repr__(self) -> str:
        return f"<TlsStream {self._object.version() or 'in handshake'}>"
