"""What a slow handler of one connection costs the fast ones of the others."""

import socket
import threading
from types import TracebackType
from typing import Self

from tests.bench.echo import (
    ASYNCIO_EXECUTOR,
    ECHO_COLUMNS,
    TAO_POOL,
    TWISTED_THREADS,
    UVLOOP_EXECUTOR,
    measure_echo,
    peers_named,
)
from tests.bench.errors import BenchError
from tests.bench.open_connections import HOST, SECONDS_PER_REPLY, exchange
from tests.bench.peers.frames import SLOW_TYPE
from tests.bench.peers.work import SLOW_SECONDS
from tests.bench.server_process import ServerProcess
from tests.bench.workload import Case, Column, Conditions, Grid, Sample, Workload

SIZE = 64


class SlowClient:
    """A context manager: within it one connection always has a slow message unanswered.

    Its exit raises BenchError when a reply was wrong or late, or when there was none at all.
    """

    def __init__(self, port: int) -> None:
        self._address = (HOST, port)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._error: Exception | None = None
        self.replies = 0

    def _run(self) -> None:
        try:
            with socket.create_connection(self._address, timeout=SECONDS_PER_REPLY) as sock:
                while not self._is_over.is_set():
                    exchange(sock, SLOW_TYPE, self.replies, SIZE)
                    self.replies += 1
        except (BenchError, OSError) as error:
            self._error = error

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_over.set()
        self._thread.join()
        if error is not None:
            return
        if self._error is not None or not self.replies:
            raise BenchError(f"the slow connection: {self._error or 'was never answered'}")


def measure(server: ServerProcess, case: Case, conditions: Conditions) -> Sample:
    """The fast ones alone, then beside the slow one; all but the first two figures are the latter's."""
    alone = measure_echo(server, case, conditions)
    with SlowClient(server.port) as slow:
        beside = measure_echo(server, case, conditions)
    return {
        "p99_beside_to_alone": beside["p99_us"] / alone["p99_us"],
        "p99_alone_us": alone["p99_us"],
        "slow_replies": slow.replies,
        **beside,
    }


WORKLOAD = Workload(
    name="slow-beside-fast",
    summary="fast messages beside a slow handler",
    peers=peers_named(
        TAO_POOL, ASYNCIO_EXECUTOR, UVLOOP_EXECUTOR, TWISTED_THREADS, work="slow-beside-fast"
    ),
    grid=Grid(connections=(50,), in_flight=(1,), sizes=(SIZE,)),
    reference=ASYNCIO_EXECUTOR,
    headline=Column("p99_beside_to_alone", "p99 beside/alone", decimals=2, less_is_better=True),
    columns=(
        Column("p99_alone_us", "p99 us alone"),
        Column("slow_replies", "slow replies"),
        Column("messages_per_second", "messages/s"),
        *ECHO_COLUMNS,
    ),
    measure=measure,
    note=(
        f"One more connection has a message that its handler sleeps {SLOW_SECONDS * 1e3:g} ms for, always."
        " Less is better. All columns\nbut the one that says so are of the fast messages beside it."
    ),
)
