"""The file of a Unix socket that is listened on.

Contents: listen_on_path, SocketFile.

Owns the file's coming and going: one that a dead program has left behind is replaced, one that somebody
listens on never is; its mode is set before anybody can connect; and at the end the file is removed if it
still is the one that was made. It does not own the socket. Any thread.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

if sys.platform != "win32":  # where Python has no Unix sockets
    import fcntl

__all__ = ["SocketFile", "check_mode", "is_abstract", "listen_on_path"]

LOCK_TIMEOUT = 2.0
"""Seconds that others may hold the folder's lock: they hold it for the time of three system calls."""

LOCK_PAUSE = 0.01
"""Seconds between two looks at that lock; to wait for it in the kernel would have no end."""


def is_abstract(path: str) -> bool:
    """Whether it is a name of Linux's that has no file: it begins with a zero byte. unix(7)."""
    return path.startswith("\0")


def check_mode(path: str, mode: int | None) -> None:
    """Raises TypeError or ValueError for a file mode that is none, or that there is no file for."""
    if mode is None:
        return
    if type(mode) is not int:
        raise TypeError(f"mode is a file's mode, such as 0o660; not {mode!r}")
    if not 0 <= mode <= 0o777:
        raise ValueError(f"mode must be from 0 to 0o777, not {mode:#o}")
    if is_abstract(path):
        raise ValueError(
            f"an abstract name has no file, and mode={mode:#o} is a file's: use a path, or leave it out"
        )


def listen_on_path(sock: socket.socket, path: str, backlog: int, mode: int | None) -> None:
    """Bind a Unix socket to a path, or to an abstract name, and listen.

    A socket's file that nobody listens on is replaced. With `mode`, that becomes the file's; without, it
    is what the process's umask leaves. Raises OSError, EADDRINUSE if the path is taken.
    """
    if is_abstract(path):
        sock.bind(path)
        sock.listen(backlog)
        return
    with _folder_locked(path):
        try:
            sock.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not _is_stale(path):
                raise
            os.unlink(path)
            sock.bind(path)
        try:
            if mode is not None:
                os.chmod(path, mode)  # before listen: until then nobody can connect
            sock.listen(backlog)
        except OSError:
            os.unlink(path)
            raise


def _is_stale(path: str) -> bool:
    """Whether it is a socket that nobody listens on."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            # With a full backlog it is EAGAIN; without the right to connect, EACCES: neither is nobody.
            return probe.connect_ex(path) == errno.ECONNREFUSED
    except OSError:
        return False


@contextmanager
def _folder_locked(path: str) -> Iterator[None]:
    """One at a time of all that listen on a path in that folder by this function, in any process.

    Without it, two that find the same file left behind at the same moment could both replace it, the
    second what the first has just made. The lock is on the folder itself (flock(2)), so that no file of
    it stays. Where it cannot be had, as on a network's file system or in a folder that this process may
    not read, it is done without. Raises OSError, EADDRINUSE, if somebody else keeps it.
    """
    try:
        folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY)
    except OSError:
        yield
        return
    try:
        _lock(folder)
        yield
    finally:
        os.close(folder)  # which gives up the lock


def _lock(folder: int) -> None:
    if sys.platform == "win32":
        return
    end = time.monotonic() + LOCK_TIMEOUT
    while True:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > end:
                raise OSError(
                    errno.EADDRINUSE, "another program holds a lock on its folder"
                ) from None
        except OSError:
            return  # ENOLCK, EOPNOTSUPP: a file system without
        time.sleep(LOCK_PAUSE)


class SocketFile:
    """The file that a listening socket was bound to, to be removed when that is done with.

    It is made right after `listen`, and knows the file by its device and inode: as long as the socket is
    open, no other file has them.
    """

    __slots__ = ("_identity", "path")

    def __init__(self, path: str) -> None:
        self.path: str = os.path.abspath(path)
        """The whole path: whatever folder the process is in at the end."""
        self._identity = self._look()

    def _look(self) -> tuple[int, int] | None:
        try:
            found = os.lstat(self.path)
        except (
            OSError,
            ValueError,
        ):  # it is gone already; or the name is abstract, and has no file
            return None
        return found.st_dev, found.st_ino

    def remove(self) -> None:
        """Remove it, if it still is that file. To be called before the socket is closed."""
        if self._identity is None or self._look() != self._identity:
            return  # somebody has tidied up before us, or listens there now
        try:
            os.unlink(self.path)
        except OSError:
            pass  # likewise, at this very moment; or the folder has become read-only

    def __repr__(self) -> str:
        return f"<SocketFile {self.path}>"
