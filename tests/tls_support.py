"""What the tests of TLS share: a certificate authority of their own, and an endpoint driven by hand.

Contents: Certificates, peer_context, TlsPeer, shake_hands, VERSIONS.

The peers here are the standard library's: they know nothing of the code that they test.
"""

from __future__ import annotations

import socket
import ssl
import warnings
from pathlib import Path
from types import TracebackType

import trustme

from tests.support import DEADLINE, Peer

__all__ = ["VERSIONS", "Certificates", "TlsPeer", "peer_context", "shake_hands"]

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]

CHUNK = 65_536


class Certificates:
    """An authority that signs what it is asked to, into files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._authority = trustme.CA()
        self._count = 0
        self.ca_file = folder / "ca.pem"
        self._authority.cert_pem.write_to_path(str(self.ca_file))
        self.server_file = self.issue("localhost", "127.0.0.1")

    def issue(self, *names: str) -> Path:
        """A file with a key and a certificate made out to `names`."""
        self._count += 1
        path = self._folder / f"{self._count}.pem"
        self._authority.issue_cert(*names).private_key_and_cert_chain_pem.write_to_path(str(path))
        return path

    def key_and_certificate(self, name: str) -> tuple[Path, Path]:
        """The key and the certificate in a file each."""
        issued = self._authority.issue_cert(name)
        key, certificate = self._folder / f"{name}.key", self._folder / f"{name}.crt"
        issued.private_key_pem.write_to_path(str(key))
        issued.cert_chain_pems[0].write_to_path(str(certificate))
        return key, certificate


def peer_context(
    certificates: Certificates,
    *,
    server_side: bool = False,
    version: ssl.TLSVersion | None = None,
    certificate_file: Path | None = None,
) -> ssl.SSLContext:
    """A context that owes nothing to `tao`; for one version only, if one is given."""
    if server_side:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate_file or certificates.server_file)
    else:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(certificates.ca_file)
        if certificate_file is not None:
            context.load_cert_chain(certificate_file)
    if version is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of the versions that are too old
            context.minimum_version = context.maximum_version = version
    return context


class TlsPeer:
    """A TLS endpoint over a socket, in two steps: what is put in goes out when `push` is called.

    So it is the test that says what shares a segment, and what is never sent at all.
    """

    def __init__(
        self,
        sock: socket.socket,
        context: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = "localhost",
    ) -> None:
        self.sock = sock
        self.sent = 0
        """Bytes of ciphertext that `push` has sent."""
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=server_side,
            server_hostname=None if server_side else server_hostname,
        )

    @classmethod
    def connect(cls, address: tuple[str, int], context: ssl.SSLContext) -> TlsPeer:
        """Connected, and no byte of TLS sent."""
        return cls(Peer(address).sock, context)

    @classmethod
    def accept(cls, listener: socket.socket, context: ssl.SSLContext) -> TlsPeer:
        """The server's end of a connection, and no byte of TLS sent."""
        return cls(Peer.accept(listener).sock, context, server_side=True)

    def take(self) -> bytes:
        """What is to go out; now it is the caller's to send."""
        return self._outgoing.read()

    def push(self, size: int | None = None) -> None:
        """Send what is to go out: all at once, or in segments of `size` bytes."""
        data = self.take()
        self.sent += len(data)
        for start in range(0, len(data), size or len(data) or 1):
            self.sock.sendall(data[start : start + (size or len(data))])

    def _pull(self) -> None:
        data = self.sock.recv(CHUNK)
        if not data:
            raise EOFError("the TCP stream ended, and no closing alert had come")
        self._incoming.write(data)

    def begin(self) -> None:
        """Put in the first message of the handshake."""
        with _expected():
            self.object.do_handshake()

    def handshake(self, size: int | None = None, *, push_last: bool = True) -> None:
        """The whole handshake; its last message stays for the next `push` if that is wished."""
        while True:
            try:
                self.object.do_handshake()
            except ssl.SSLWantReadError:
                self.push(size)
                self._pull()
            except ssl.SSLError:
                self.push()  # the alert
                raise
            else:
                break
        if push_last:
            self.push(size)

    def put(self, data: bytes) -> None:
        """Encrypt; goes out with the next `push`."""
        self.object.write(data)

    def send(self, data: bytes) -> None:
        """Encrypt, and send."""
        self.put(data)
        self.push()

    def receive(self, size: int) -> bytes:
        """Exactly `size` bytes of plaintext."""
        data = bytearray()
        while len(data) < size:
            piece = self._read(size - len(data))
            if not piece:
                raise EOFError(f"a closing alert came after {len(data)} bytes of {size}")
            data += piece
        return bytes(data)

    def receive_to_end(self) -> bytes:
        """All up to the closing alert. Raises EOFError when TCP ends without one."""
        data = bytearray()
        while piece := self._read(CHUNK):
            data += piece
        return bytes(data)

    def _read(self, size: int) -> bytes:
        while True:
            try:
                return self.object.read(size)
            except ssl.SSLWantReadError:
                self.push()  # an answer of TLS's own, if there is one
                self._pull()
            except ssl.SSLZeroReturnError:
                return b""

    def put_close(self) -> None:
        """Put in the closing alert: RFC 8446, 6.1. What comes can still be received."""
        with _expected():
            self.object.unwrap()

    def close(self) -> None:
        """Close the socket, with no closing alert. Twice is once."""
        self.sock.close()

    def __enter__(self) -> TlsPeer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class _expected:
    """`SSLWantReadError` is no error where bytes gather in memory until they are sent."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> bool:
        return kind is not None and issubclass(kind, ssl.SSLWantReadError)


def shake_hands(
    address: tuple[str, int], context: ssl.SSLContext, *, server_hostname: str = "localhost"
) -> Peer:
    """A Peer over the standard library's blocking TLS socket. Its end without an alert is an error."""
    peer = Peer(address)
    peer.sock.settimeout(DEADLINE)
    try:
        peer.sock = context.wrap_socket(
            peer.sock, server_hostname=server_hostname, suppress_ragged_eofs=False
        )
    except BaseException:
        peer.close()
        raise
    return peer
