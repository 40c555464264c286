"""The file of a Unix socket: it replaces what is dead, nothing that lives, and goes when it is ours."""

from __future__ import annotations

import errno
import os
import socket
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from reactor import SocketFile, listen
from reactor import socket_file as module
from tests.support import DEADLINE

pytestmark = pytest.mark.skipif(
    not hasattr(socket, "AF_UNIX"), reason="a system without Unix sockets"
)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Short, by being relative: a Unix address has a hundred bytes or so."""
    monkeypatch.chdir(tmp_path)
    return "socket"


def leave_behind(path: str) -> None:
    """What a program that was killed leaves."""
    listen(path).close()
    assert stat.S_ISSOCK(os.lstat(path).st_mode)


def check_answers(path: str, sock: socket.socket) -> None:
    """Whoever connects to the path reaches that socket."""
    sock.settimeout(DEADLINE)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        sock.accept()[0].close()


def mode_of(path: str) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


# -- what is there already -----------------------------------------------------------------------


def test_what_was_left_behind_is_replaced(path: str) -> None:
    leave_behind(path)
    with listen(path) as sock:
        check_answers(path, sock)


def test_a_socket_that_is_listened_on_is_not(path: str) -> None:
    with listen(path) as sock:
        with pytest.raises(OSError, match="stop the program that listens there") as caught:
            listen(path)
        assert caught.value.errno == errno.EADDRINUSE
        sock.settimeout(DEADLINE)
        sock.accept()[0].close()  # the one that asked whether somebody is there
        check_answers(path, sock)


def test_nor_one_whose_backlog_is_full(path: str) -> None:
    """connect(2): EAGAIN, which is not nobody's."""
    with listen(path, backlog=0) as sock, ExitStack() as stack:
        for _ in range(100):
            waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
            waiting.setblocking(False)
            if waiting.connect_ex(path):
                break
        else:
            pytest.fail("the backlog has no end")
        with pytest.raises(OSError, match="listens there"):
            listen(path)
        sock.settimeout(DEADLINE)
        sock.accept()[0].close()


@pytest.mark.parametrize("kind", ["file", "folder", "link", "pipe"])
def test_what_is_no_socket_stays(path: str, kind: str) -> None:
    if kind == "file":
        Path(path).write_text("precious")
    elif kind == "folder":
        os.mkdir(path)
    elif kind == "link":
        leave_behind("other")
        os.symlink("other", path)
    else:
        os.mkfifo(path)
    before = os.lstat(path)
    with pytest.raises(OSError, match="choose another path") as caught:
        listen(path)
    assert caught.value.errno == errno.EADDRINUSE
    assert os.lstat(path) == before


def take(
    path: str, begin: threading.Barrier, had: list[socket.socket], errors: list[OSError]
) -> None:
    begin.wait(DEADLINE)
    try:
        had.append(listen(path))
    except OSError as error:
        errors.append(error)


def test_of_many_that_find_it_at_once_one_has_it(path: str) -> None:
    """Each alone would replace what was left behind; none may replace what another has just made."""
    for _ in range(20):
        leave_behind(path)
        had: list[socket.socket] = []
        errors: list[OSError] = []
        begin = threading.Barrier(4)
        threads = [threading.Thread(target=take, args=(path, begin, had, errors)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)
        with ExitStack() as stack:
            for sock in had:
                stack.enter_context(sock)
            assert len(had) == 1
            assert [error.errno for error in errors] == [errno.EADDRINUSE] * 3
            while True:  # those that asked whether somebody is there
                try:
                    had[0].accept()[0].close()
                except BlockingIOError:
                    break
            check_answers(path, had[0])


@contextmanager
def folder_locked() -> Iterator[None]:
    """By another process, as any program may."""
    program = textwrap.dedent(
        """
        import fcntl, os, sys
        fcntl.flock(os.open(".", os.O_RDONLY), fcntl.LOCK_EX)
        print("locked", flush=True)
        sys.stdin.read()
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == b"locked\n"
        yield
        other.stdin.close()


def test_a_folder_that_somebody_keeps_locked(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOCK_TIMEOUT", 0.0)
    with folder_locked(), pytest.raises(OSError, match="holds a lock on its folder") as caught:
        listen(path)
    assert caught.value.errno == errno.EADDRINUSE
    assert not os.path.exists(path)
    listen(path).close()


def test_a_folder_that_cannot_be_read_is_not_locked(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Write and search are enough to listen in it. The superuser may read it all the same."""

    def no_right(*_arguments: Any) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", no_right)
    leave_behind(path)
    with listen(path) as sock:
        check_answers(path, sock)


# -- its mode ------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o600, 0o666])
def test_its_mode(path: str, mode: int) -> None:
    with listen(path, mode=mode):
        assert mode_of(path) == mode


def test_without_a_mode_it_is_the_umask_s(path: str) -> None:
    before = os.umask(0o027)
    try:
        with listen(path):
            assert mode_of(path) == 0o750
    finally:
        os.umask(before)


def test_what_cannot_have_its_mode_is_not_left_behind(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: Any) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chmod", fail)
    with pytest.raises(OSError, match="Operation not permitted"):
        listen(path, mode=0o600)
    assert not os.path.exists(path)


@pytest.mark.parametrize("mode", [-1, 0o1000, 0o100644])
def test_modes_that_there_are_not(path: str, mode: int) -> None:
    with pytest.raises(ValueError, match="from 0 to 0o777"):
        listen(path, mode=mode)
    assert not os.path.exists(path)


@pytest.mark.parametrize("mode", ["660", 6.0, True])
def test_modes_are_ints(path: str, mode: Any) -> None:
    with pytest.raises(TypeError, match="0o660"):
        listen(path, mode=mode)


def test_an_abstract_name_has_no_mode() -> None:
    with pytest.raises(ValueError, match="no file"):
        listen("\0nobody", mode=0o600)


# -- its end -------------------------------------------------------------------------------------


def test_it_is_removed(path: str) -> None:
    with listen(path):
        file = SocketFile(path)
        assert repr(file) == f"<SocketFile {os.path.abspath(path)}>"
        file.remove()
        assert not os.path.exists(path)
        file.remove()


def test_it_is_found_from_another_folder(path: str, tmp_path: Path) -> None:
    with listen(path):
        file = SocketFile(path)
        os.chdir("/")
        file.remove()
    assert not (tmp_path / path).exists()


def test_another_s_is_not_removed(path: str) -> None:
    with listen(path):
        file = SocketFile(path)
        os.unlink(path)
        with listen(path) as other:
            file.remove()
            check_answers(path, other)


def test_one_that_is_gone(path: str) -> None:
    with listen(path):
        file = SocketFile(path)
        os.unlink(path)
        file.remove()
    SocketFile("no/such/folder/socket").remove()
    SocketFile("\0abstract").remove()
