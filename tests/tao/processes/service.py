"""`tao serve` as a process, looked at from outside.

Owns the process; its workers end with it, which every test sees by `gone`.
"""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

from tests.examples.support import Program
from tests.support import DEADLINE, Peer, wait_until
from tests.tao.processes.application import WHO

__all__ = ["APPLICATION", "Service", "alive", "end_by_force", "gone", "who"]

APPLICATION = "tests.tao.processes.application:server"


class Service(Program):
    """`tao serve` with these arguments, at a port that the system chooses unless they say where."""

    # Without the checks of memory, which are a fifth of what the start of a process takes.
    options = ("-W", "error")

    def __init__(self, *arguments: str, target: str = APPLICATION, bind: bool = True) -> None:
        where = ["--bind", "127.0.0.1:0"] if bind else []
        super().__init__(["-m", "tao", "serve", target, *where, *arguments])

    def logged(self, pattern: str, times: int = 1) -> list[str]:
        """What has matched on standard error, once it is there that often."""
        found: list[str] = []

        def search() -> bool:
            found[:] = [match[0] for match in re.finditer(pattern, self.errors)]
            return len(found) >= times

        assert wait_until(search), f"not {times} times {pattern!r} in {self.errors}"
        return found

    def workers(self) -> list[int]:
        """The processes that it has now."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text(encoding="ascii")
        return [int(number) for number in children.split()]

    def reload(self) -> None:
        """Have all workers replaced; returns when the old ones are gone."""
        before = set(self.workers())
        self.signal(signal.SIGHUP)
        assert wait_until(lambda: not before & set(self.workers())), self.errors

    def stop(self) -> int:
        """By SIGTERM; returns its exit status, when all workers are gone as well."""
        workers = self.workers()
        self.signal(signal.SIGTERM)
        status = self.wait()
        assert not [pid for pid in workers if alive(pid)]
        return status


def alive(pid: int) -> bool:
    """Whether there is such a process, and it is no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(") ")[2][0] not in "ZX"


def gone(pids: list[int]) -> bool:
    """Whether all of them are, sooner or later."""
    return wait_until(lambda: not any(map(alive, pids)), DEADLINE)


def who(peer: Peer) -> int:
    """The process at the other end."""
    peer.send_frame(WHO)
    return int(peer.receive_frame()[1])


def end_by_force(pid: int) -> None:
    """As the system does it to a process that takes too much memory."""
    os.kill(pid, signal.SIGKILL)
