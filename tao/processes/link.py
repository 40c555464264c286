"""The line between the parent and a worker: a pair of sockets, and words in lines.

Owns the vocabulary and the cutting into lines. Each end of a link is one thread's to read; any thread may
write. The end of the stream is how either side learns that the other process is gone, whatever ended it.

    worker says                     parent says
    loaded   the application is     serve        accept connections
    ready    its loop runs          stop SECONDS finish within this grace, and end
    alive    to ping, on the loop   ping         say that the loop goes round
                                    adopt SLOT   accept for that slot too: it has no worker
"""

from __future__ import annotations

import socket
import threading

__all__ = ["ADOPT", "ALIVE", "LOADED", "PING", "READY", "SERVE", "STOP", "Link"]

LOADED = "loaded"
READY = "ready"
ALIVE = "alive"
SERVE = "serve"
STOP = "stop"
PING = "ping"
ADOPT = "adopt"

READ_SIZE = 4096


class Link:
    """One end of a line. It owns its socket, which may block or not."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._rest = b""  # the reading thread: the beginning of a line
        self._sending = threading.Lock()

    def fileno(self) -> int:
        """The socket's, to wait on."""
        return self._socket.fileno()

    def read(self) -> list[str] | None:
        """The lines that have come; None at the end, which a reset is as well.

        Waits for the first if the socket blocks.
        """
        try:
            data = self._socket.recv(READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return []
        except OSError:
            return None
        if not data:
            return None
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [line.decode() for line in lines]

    def wait(self) -> bool:
        """Until there is something to read, which is left there; False if that is the end.

        For a socket that blocks. Any thread, before the first `read`.
        """
        try:
            return bool(self._socket.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    def send(self, *words: object) -> bool:
        """One line. Returns whether it was taken: not when the other end is gone, or does not read."""
        line = " ".join(map(str, words)).encode() + b"\n"
        with self._sending:
            try:
                # Lines of some bytes, of which few are under way: none is taken in part.
                self._socket.sendall(line)
            except OSError:
                return False
        return True

    def close(self) -> None:
        """Twice is once."""
        self._socket.close()

    def __repr__(self) -> str:
        return f"<Link {self._socket.fileno()}>"
