"""A workload as data: which peers, under which cases, what one sample is and how it is shown.

A workload lives in a module of its own in `tests.bench.workloads`, under the name WORKLOAD.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from tests.bench.peer import Peer
from tests.bench.processors import Placement
from tests.bench.server_process import ServerProcess
from tests.bench.tls import Tls

Sample = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Case:
    """One point of a workload's grid. `size` is the number of bytes of a value."""

    connections: int
    in_flight: int
    size: int

    def __str__(self) -> str:
        return f"{self.connections} connections, {self.in_flight} in flight, {self.size} bytes"


@dataclass(frozen=True, slots=True)
class Operation:
    """A case without connections: `name` is done to `count` of something.

    `resident` others of the kind are there all the while.
    """

    name: str
    count: int
    resident: int = 0

    def __str__(self) -> str:
        beside = f" beside {self.resident:,} others" if self.resident else ""
        return f"{self.name} {self.count:,}{beside}"


AnyCase: TypeAlias = Case | Operation


class Cases(Protocol):
    """What a workload goes through."""

    def cases(self) -> tuple[AnyCase, ...]: ...


@dataclass(frozen=True, slots=True)
class Grid:
    """Every combination of these is a case."""

    connections: tuple[int, ...]
    in_flight: tuple[int, ...]
    sizes: tuple[int, ...]

    def cases(self) -> tuple[Case, ...]:
        return tuple(
            Case(*point) for point in product(self.connections, self.in_flight, self.sizes)
        )


@dataclass(frozen=True, slots=True)
class Operations:
    """These, one after the other."""

    operations: tuple[Operation, ...]

    def cases(self) -> tuple[Operation, ...]:
        return self.operations


@dataclass(frozen=True, slots=True)
class Conditions:
    """What is the same for every sample of a run. Durations are in seconds.

    `tls` is there if one of the run's workloads needs it.
    """

    load_program: Path
    seconds: float
    warm_up: float
    placement: Placement
    tls: Tls | None = None


@dataclass(frozen=True, slots=True)
class Column:
    """How one figure of a sample is shown. Past `suspicious_above` a cell is marked.

    `less_is_better` matters where ratios are taken of the figure: a cost is good below one.
    """

    key: str
    title: str
    decimals: int = 0
    suspicious_above: float | None = None
    less_is_better: bool = False


@dataclass(frozen=True, slots=True)
class Workload:
    """What to measure, as data.

    `headline` is the figure of which ratios to the peer `reference` are taken. `measure` takes one
    sample of a server that is running and has served nothing yet, in one of the cases of `grid`; its
    keys are those of `columns` and the headline's. It raises BenchError when it cannot. `note` goes
    below the tables, for the reader who wonders what they show. With `needs_tls` the servers are
    started with TLS.
    """

    name: str
    summary: str
    peers: tuple[Peer, ...]
    grid: Cases
    reference: str
    headline: Column
    columns: tuple[Column, ...]
    measure: Callable[[ServerProcess, Any, Conditions], Sample]
    note: str = ""
    needs_tls: bool = False
