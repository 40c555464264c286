"""A worker as its parent sees it.

Owns the process, the parent's end of its link, and its status. The parent's thread.
"""

from __future__ import annotations

import enum
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from reactor import READ, Reactor, Timeout
from tao.processes.link import ADOPT, PING, SERVE, STOP, Link
from tao.processes.order import Order

__all__ = ["Child", "ChildStatus", "interpreter_flags"]


class ChildStatus(enum.Enum):
    """How far a worker is. It only goes down this list."""

    LOADING = "loading the application"
    LOADED = "loaded"
    STARTING = "told to serve"
    READY = "serving"
    LEAVING = "told to stop"
    ENDED = "ended"


class Child:
    """One worker process. `on_line(child, word)` gets what it says.

    Raises OSError when it cannot be started.
    """

    def __init__(
        self,
        reactor: Reactor,
        order: Order,
        environment: Mapping[str, str],
        on_line: Callable[[Child, str], object],
    ) -> None:
        self._reactor = reactor
        self._on_line = on_line
        self.slot: int = order.slot
        """Its place among the workers, from 0."""
        self.status: ChildStatus = ChildStatus.LOADING
        """Written by this class and the Supervisor alone."""
        self.ready_at: float = 0.0
        """When it began to serve: the loop's time in seconds. Of meaning once it is READY."""
        self.deadline: Timeout | None = None
        """When it is ended by force, if it is not ready, or has not ended, by then."""
        self.killed: bool = False
        """Whether it was ended by force."""
        self.answered: bool = True
        """Whether it has answered the last ping."""
        self._adopted: set[int] = set()
        self._dismissed = False  # before it could serve
        flags = interpreter_flags(sys.orig_argv)
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                order = replace(order, control=theirs.fileno())
                self._process = subprocess.Popen(
                    [sys.executable, *flags, "-m", "tao.processes.worker", order.dump()],
                    env=dict(environment),
                    pass_fds=order.descriptors(),
                    stdin=subprocess.DEVNULL,
                    # Not in the terminal's foreground group: Ctrl-C is for the parent, which passes it on.
                    process_group=0,
                )
            except BaseException:
                ours.close()
                raise
        ours.setblocking(False)
        self._link = Link(ours)
        reactor.register(self._link, READ, self._handle_readable)
        self._listening = True

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def _handle_readable(self, _ready: int) -> None:
        lines = self._link.read()
        if lines is None:
            self._hang_up()  # it ends, which the Supervisor learns by SIGCHLD
            return
        for line in lines:
            self._on_line(self, line)

    def serve(self) -> None:
        """Have it accept connections."""
        self.status = ChildStatus.STARTING
        self._link.send(SERVE)

    def ping(self) -> None:
        """Ask for a sign of life, unless an answer is owed already."""
        if self.answered:
            self.answered = False
            self._link.send(PING)

    def adopt(self, slot: int) -> None:
        """Have it accept for another slot as well."""
        if slot not in self._adopted:
            self._adopted.add(slot)
            self._link.send(ADOPT, slot)

    def stop(self, grace: float) -> None:
        """Have it finish within `grace` seconds. Again and again; the shortest holds."""
        if self.status in (ChildStatus.LOADING, ChildStatus.LOADED):
            # Nobody has connected to it, and it does not listen to us yet.
            self._dismissed = True
            self._process.terminate()
        else:
            self._link.send(STOP, grace)
        self.status = ChildStatus.LEAVING

    def kill(self) -> None:
        """End it at once."""
        self.killed = True
        self._process.kill()

    def set_deadline(self, seconds: float, on_over: Callable[[], object]) -> None:
        """Call that in so many seconds, in place of what was set before, unless it has ended."""
        self.clear_deadline()
        self.deadline = self._reactor.call_later(seconds, on_over)

    def clear_deadline(self) -> None:
        """Nothing is waited for. Twice is once."""
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None

    def has_ended(self) -> bool:
        """Whether the process is gone; then what it held here is given up. Does not wait."""
        if self._process.poll() is None:
            return False
        self._end()
        return True

    def wait(self) -> None:
        """Until it is gone: after `kill`."""
        self._process.wait()
        self._end()

    def how(self) -> str:
        """How it has ended, for people."""
        status = self._process.returncode
        if status is None:
            return "has not ended"
        return f"exit status {status}" if status >= 0 else f"signal {-status}"

    def left_well(self) -> bool:
        """Whether it has ended as it was to."""
        return self._process.returncode == 0 or self._dismissed

    def _end(self) -> None:
        self.status = ChildStatus.ENDED
        self.clear_deadline()
        self._hang_up()

    def _hang_up(self) -> None:
        if self._listening:
            self._listening = False
            self._reactor.unregister(self._link)
            self._link.close()

    def __repr__(self) -> str:
        return f"<Child {self.slot}, process {self.pid}: {self.status.value}>"


def interpreter_flags(arguments: Sequence[str]) -> list[str]:
    """The interpreter's own options in a command line such as `sys.orig_argv`: -X dev, -W error, -P."""
    flags: list[str] = []
    rest = iter(arguments[1:])
    for argument in rest:
        if not argument.startswith("-") or argument in ("-", "--"):
            break  # the program
        if argument.startswith(("-m", "-c")):
            break
        flags.append(argument)
        if argument in ("-X", "-W", "--check-hash-based-pycs"):
            flags.append(next(rest))
    return flags
