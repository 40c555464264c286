"""ManualLoop: servers and clients in a time that stands still until a test lets it pass.

The sockets are real, so what is sent may need a moment; only timers wait for the clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from reactor import Reactor
from tao import ClientConn, Server
from tests.support import DEADLINE, ManualClock

__all__ = ["ManualLoop"]


class ManualLoop:
    """A reactor on the test's own thread, its clock, and the end of what runs on it."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.reactor = Reactor(clock=self.clock)
        self._servers: list[Server] = []
        self._clients: list[ClientConn] = []

    def add(self, *users: Server | ClientConn) -> None:
        """End them before the loop is closed."""
        self._servers += [user for user in users if isinstance(user, Server)]
        self._clients += [user for user in users if isinstance(user, ClientConn)]

    def until(self, condition: Callable[[], object]) -> None:
        """Run the loop until it holds. The clock stands still."""
        end = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < end, "what was waited for has not happened"
            self.reactor.run_once(0.002)

    def settle(self, passes: int = 5) -> None:
        """Give what must not happen its chance: a few passes that wait a little for sockets."""
        for _ in range(passes):
            self.reactor.run_once(0.002)

    def advance(self, seconds: float) -> None:
        """Let time pass, and let what follows from it happen."""
        self.clock.advance(seconds)
        self.settle()

    def __enter__(self) -> ManualLoop:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            for client in self._clients:
                client.abort()
            for server in self._servers:
                server.stop(0.0)
            if kind is None:
                self.until(lambda: all(client.wait_closed(0.0) for client in self._clients))
                self.until(lambda: all(server.stop(0.0).finished for server in self._servers))
        finally:
            self.settle()
            self.reactor.close()
