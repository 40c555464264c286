"""How a TCP socket is ended: with FIN and the wait for the peer's, or with RST.

Owns what must be known of the kernel for it. When which is due, and that the descriptor is closed, is the
affair of `reactor.connection`. Non-blocking sockets; the loop's thread.
"""

from __future__ import annotations

import errno
import socket
import struct

__all__ = ["read_to_fin", "reset_on_close", "send_fin"]

LINGER_READS = 16
"""Reads in one pass that only throw away what a closing connection's peer still sends."""

LINGER_SIZE = 65_536
"""Bytes of each."""

RESET = struct.pack("ii", 1, 0)
"""struct linger: on, for no time; close() then sends a RST (socket(7), SO_LINGER)."""


def send_fin(sock: socket.socket) -> None:
    """Say that nothing more comes, behind what was sent.

    Raises OSError; ConnectionResetError when the peer has reset the connection meanwhile, which the kernel
    says in other words: that there is none.
    """
    try:
        sock.shutdown(socket.SHUT_WR)
    except OSError as error:
        if error.errno != errno.ENOTCONN:
            raise
        raise ConnectionResetError(errno.ECONNRESET, "the peer has reset the connection") from None


def read_to_fin(sock: socket.socket) -> bool:
    """Throw away what still comes; whether the peer's FIN was behind it. Raises OSError.

    To close with bytes unread would send RST and undo our last ones: RFC 1122, 4.2.2.13.
    """
    try:
        for _ in range(LINGER_READS):
            if not sock.recv(LINGER_SIZE):
                return True
    except (BlockingIOError, InterruptedError):
        pass
    return False


def reset_on_close(sock: socket.socket) -> None:
    """Have closing it drop what is queued in the kernel and send RST."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    except OSError:
        pass  # not connected any more: there is nobody to reset
