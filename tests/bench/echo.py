"""The peers, and the columns and the sample of every workload that echoes frames."""

import time
from dataclasses import replace
from pathlib import Path

from tests.bench.errors import BenchError
from tests.bench.load import LoadSpec, run_load
from tests.bench.peer import Peer
from tests.bench.server_process import ServerProcess
from tests.bench.workload import Case, Column, Conditions, Grid, Sample, Workload

TAO_POOL = "tao-pool"
TAO_INLINE = "tao-inline"
ASYNCIO_EACH = "asyncio-each"
ASYNCIO_JOINED = "asyncio-joined"
ASYNCIO_BUFFERED = "asyncio-buffered"
ASYNCIO_EXECUTOR = "asyncio-executor"
ASYNCIO_EXECUTOR_ORDERED = "asyncio-executor-ordered"
UVLOOP_EACH = "uvloop-each"
UVLOOP_JOINED = "uvloop-joined"
UVLOOP_EXECUTOR = "uvloop-executor"
TWISTED_THREADS = "twisted-threads"
BARE_EPOLL = "bare-epoll"
BARE_MESSAGES = "bare-messages"


def _asyncio_peer(name: str, module: str, loop: str, *options: str) -> Peer:
    return Peer(
        name,
        f"tests.bench.peers.{module}",
        ("--loop", loop, *options),
        requires="uvloop" if loop == "uvloop" else None,
    )


def _tao_peer(name: str, handlers: str) -> Peer:
    return Peer(name, "tests.bench.peers.tao_server", ("--handlers", handlers), requires="tao")


ECHO_PEERS = (
    _tao_peer(TAO_POOL, "pool"),
    _tao_peer(TAO_INLINE, "inline"),
    _asyncio_peer(ASYNCIO_EACH, "asyncio_protocol", "asyncio", "--writes", "each"),
    _asyncio_peer(ASYNCIO_JOINED, "asyncio_protocol", "asyncio", "--writes", "joined"),
    _asyncio_peer(
        ASYNCIO_BUFFERED,
        "asyncio_protocol",
        "asyncio",
        "--writes",
        "joined",
        "--reads",
        "buffered",
    ),
    _asyncio_peer("asyncio-streams", "asyncio_streams", "asyncio"),
    _asyncio_peer(ASYNCIO_EXECUTOR, "asyncio_executor", "asyncio"),
    _asyncio_peer(UVLOOP_EACH, "asyncio_protocol", "uvloop", "--writes", "each"),
    _asyncio_peer(UVLOOP_JOINED, "asyncio_protocol", "uvloop", "--writes", "joined"),
    _asyncio_peer("uvloop-streams", "asyncio_streams", "uvloop"),
    Peer(BARE_EPOLL, "tests.bench.peers.bare_epoll"),
)
"""Those of the first benchmark: as frozen as that is."""

PEERS = (
    *ECHO_PEERS,
    _asyncio_peer(UVLOOP_EXECUTOR, "asyncio_executor", "uvloop"),
    _asyncio_peer(ASYNCIO_EXECUTOR_ORDERED, "asyncio_executor", "asyncio", "--order", "handled"),
    _asyncio_peer("uvloop-executor-ordered", "asyncio_executor", "uvloop", "--order", "handled"),
    Peer("gevent", "tests.bench.peers.gevent_server", requires="gevent"),
    Peer("trio", "tests.bench.peers.trio_server", requires="trio"),
    Peer("tornado", "tests.bench.peers.tornado_server", requires="tornado"),
    Peer("twisted", "tests.bench.peers.twisted_protocol", requires="twisted"),
    Peer(BARE_MESSAGES, "tests.bench.peers.bare_messages", requires="tao"),
    Peer(TWISTED_THREADS, "tests.bench.peers.twisted_threads", requires="twisted"),
)
"""All that there are."""


def peers_named(*names: str, work: str | None = None) -> tuple[Peer, ...]:
    """Some of PEERS, in the order of `names`; with handlers that do `work`, if it is given."""
    by_name = {peer.name: peer for peer in PEERS}
    chosen = [by_name[name] for name in names]
    if work is not None:
        chosen = [replace(peer, options=(*peer.options, "--work", work)) for peer in chosen]
    return tuple(chosen)


ECHO_HEADLINE = Column("messages_per_second", "messages/s")

# A generator that uses nearly all of its processor, not the server, is what limits the row.
GENERATOR_LIMIT = 0.9

ECHO_COLUMNS = (
    Column("p50_us", "p50 us"),
    Column("p90_us", "p90 us"),
    Column("p99_us", "p99 us"),
    Column("p99_9_us", "p99.9 us"),
    Column("max_us", "max us"),
    Column("server_us_per_message", "server us/msg", decimals=2),
    Column("server_cpu", "server cpu", decimals=2),
    Column("load_cpu", "load cpu", decimals=2, suspicious_above=GENERATOR_LIMIT),
)

ECHO_NOTE = (
    "Closed loop: each connection keeps its frames in flight, so latencies are those of a saturated"
    " server.\nbare-epoll parses nothing: the most that this load can draw from a Python server. "
    "load cpu is the share of\nits processor that the generator used; near 1 (marked !) the "
    "generator was the limit, not the server."
)


def measure_echo(server: ServerProcess, case: Case, conditions: Conditions) -> Sample:
    """One run of the load generator; every reply was right, or BenchError."""
    return sample_of_load(server, load_spec(server, case, conditions), conditions.load_program)


def load_spec(server: ServerProcess, case: Case, conditions: Conditions) -> LoadSpec:
    """What to ask of `server` in `case`; without TLS, on connections that stay."""
    return LoadSpec(
        port=server.port,
        connections=case.connections,
        in_flight=case.in_flight,
        size=case.size,
        seconds=conditions.seconds,
        warm_up=conditions.warm_up,
        cpu=conditions.placement.load,
    )


def sample_of_load(server: ServerProcess, spec: LoadSpec, program: Path) -> Sample:
    """One run of the load generator `program`; every reply was right, or BenchError."""
    cpu_before, started = server.cpu_seconds(), time.monotonic()
    load = run_load(program, spec)
    server_cpu, elapsed = server.cpu_seconds() - cpu_before, time.monotonic() - started
    if load.messages == 0:
        raise BenchError("not one reply fell into the measured time: measure for longer")
    return {
        "messages_per_second": load.messages / load.seconds,
        "p50_us": load.p50_us,
        "p90_us": load.p90_us,
        "p99_us": load.p99_us,
        "p99_9_us": load.p99_9_us,
        "max_us": load.max_us,
        "server_us_per_message": server_cpu / max(1, load.messages_total) * 1e6,
        "server_cpu": server_cpu / elapsed,
        "load_cpu": load.cpu_seconds / load.seconds,
    }


def echo_workload(name: str, summary: str, peers: tuple[Peer, ...], grid: Grid) -> Workload:
    """An echo under other conditions than the first one's, measured and shown as that is."""
    return Workload(
        name=name,
        summary=summary,
        peers=peers,
        grid=grid,
        reference=UVLOOP_EACH,
        headline=ECHO_HEADLINE,
        columns=ECHO_COLUMNS,
        measure=measure_echo,
        note=ECHO_NOTE,
    )


SINGLE_LOOP_PEERS = peers_named(
    TAO_POOL,
    TAO_INLINE,
    ASYNCIO_EACH,
    ASYNCIO_JOINED,
    ASYNCIO_BUFFERED,
    UVLOOP_EACH,
    UVLOOP_JOINED,
    BARE_EPOLL,
)
"""Those that stand for the others where all of them would take too long."""
