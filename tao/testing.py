"""Servers and clients in a simulation, for tests of programs that use tao.

Contents: ServerArguments and ClientArguments (what is passed on), Simulation, simulation (a fixture for
pytest).

Owns the servers and clients that it has made, and ends them. They are real ones, with their loops, workers
and sockets; what they run on is `reactor.testing`'s: nothing listens on this machine, nothing waits for
real time, and a seed decides what the network and the threads do. The simulation's first thread, but for
what says otherwise.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, TypedDict, Unpack

import reactor.testing
from reactor import CloseReason, ConnectionOptions
from reactor.testing import Faults, SimulatedSocket, SimulationError
from tao.backoff import Backoff
from tao.backplane import Backplane
from tao.client import ClientConn
from tao.codec import Codec
from tao.data_source import DataSource
from tao.heartbeat import Heartbeat
from tao.rate import Rate
from tao.registry import MessageRegistry
from tao.server import Server
from tao.server_conn import ServerConn

__all__ = [
    "ClientArguments",
    "Faults",
    "ServerArguments",
    "Simulation",
    "SimulationError",
    "simulation",
]

HOST = "10.0.0.1"
"""Where servers listen, unless told otherwise: an address in nobody's network."""

TIMEOUT = 60.0
"""Seconds of the simulation's that a client may take to connect."""

GRACE = 30.0
"""Seconds of the simulation's that a server which the test has not stopped is given for its end."""


class ServerArguments(TypedDict, total=False):
    """The arguments of `Server` that a simulation does not see to by itself."""

    registry: MessageRegistry
    codec: Codec | None
    on_connect: Callable[[ServerConn], bool | None] | None
    on_message: Callable[[object, ServerConn], object] | None
    on_close: Callable[[ServerConn, CloseReason], object] | None
    on_error: Callable[[ServerConn, BaseException], object] | None
    buffer_size: int
    max_connections: int
    max_connections_per_address: int | None
    connection_rate: Rate | None
    frame_rate: Rate | None
    frame_timeout: float | None
    first_message_timeout: float | None
    when_full: Literal["refuse", "wait"]
    backlog: int
    memory_limit: int | None
    data_source: DataSource[object] | None
    tls: ssl.SSLContext | None
    heartbeat: Heartbeat | None
    close_on_error: bool
    options: ConnectionOptions | None
    backplane: Backplane | None


class ClientArguments(TypedDict, total=False):
    """The arguments of `ClientConn` that a simulation does not see to by itself."""

    registry: MessageRegistry
    codec: Codec | None
    on_connect: Callable[[ClientConn], bool | None] | None
    on_message: Callable[[object, ClientConn], object] | None
    on_close: Callable[[ClientConn, CloseReason], object] | None
    on_error: Callable[[ClientConn, BaseException], object] | None
    buffer_size: int
    close_on_error: bool
    connect_timeout: float
    frame_timeout: float | None
    tls: ssl.SSLContext | None
    server_hostname: str | None
    reconnect: Backoff | None
    offline_limit: int
    heartbeat: Heartbeat | None
    options: ConnectionOptions | None


class Simulation(reactor.testing.Simulation):
    """A network with servers and clients on it, about which `seed` alone decides.

    with Simulation(seed=1) as simulation:
        server = simulation.server(registry=registry)
        client = simulation.client(server, registry=registry)
        client.write(message)
        simulation.wait(lambda: replies)

    What waits, waits in the simulation: `client.wait_connected`, `server.stop`, `ctx.wait_cancelled` and so
    on; a handler that is to take long calls `simulation.sleep`. At the end of the block clients are closed,
    servers stopped and all that is left open is an error. See `reactor.testing.Simulation`.
    """

    def __init__(
        self, seed: int = 0, faults: Faults | None = None, *, interruptible: Iterable[str] = ()
    ) -> None:
        super().__init__(seed, faults, interruptible=interruptible)
        self._servers: list[tuple[Server, tuple[str, int]]] = []
        self._clients: list[ClientConn] = []

    def server(
        self,
        address: tuple[str, int] = (HOST, 0),
        *,
        worker_size: int = 4,
        **arguments: Unpack[ServerArguments],
    ) -> Server:
        """A server that listens. `arguments` are those of `Server`; loop and workers are seen to."""
        made = Server(
            worker_size=worker_size,
            reactor=self.reactor(),
            executor=self.executor(worker_size),
            **arguments,
        )
        self._servers.append((made, made.listen(address)))
        return made

    def client(
        self, server: Server | tuple[str, int], **arguments: Unpack[ClientArguments]
    ) -> ClientConn:
        """A client that is connected, to a server of this simulation's or to an address.

        `arguments` are those of `ClientConn`; loop and worker are seen to. Raises ConnectionClosedError
        when it cannot be connected; with `reconnect`, SimulationError after a minute of trying.
        """
        made = ClientConn(
            self.address(server), reactor=self.reactor(), executor=self.executor(1), **arguments
        )
        self._clients.append(made)
        made.start()
        if not made.wait_connected(TIMEOUT):
            raise SimulationError(f"{made!r} has not been connected in {TIMEOUT:g} s")
        return made

    def peer(self, server: Server | tuple[str, int]) -> SimulatedSocket:
        """A bare socket that is connected, to send what no client would. The caller closes it."""
        return self.connect(self.address(server))

    def address(self, server: Server | tuple[str, int]) -> tuple[str, int]:
        """Where a server of this simulation's listens."""
        if isinstance(server, tuple):
            return server
        for made, address in self._servers:
            if made is server:
                return address
        raise ValueError(
            f"{server!r} is none of this simulation's; make it with simulation.server()"
        )

    def close(self) -> None:
        """Close clients and stop servers, then end the simulation. Raises SimulationError for what is left.

        What a connection lost is told to its `on_close`, as ever.
        """
        if not self.scheduler.broken:
            for client in self._clients:
                client.close()
            for server, _ in self._servers:
                server.stop(GRACE)
            for client in self._clients:
                client.wait_closed(TIMEOUT)
        super().close()


def simulation(request: object) -> Iterator[Simulation]:
    """A fixture, still to be made one: `simulation = pytest.fixture(tao.testing.simulation)`.

    Its parameter, if it is given some, is the seed: with `params=range(100)` each test is run with a
    hundred of them, and the name of one that fails has its seed.
    """
    seed = getattr(request, "param", 0)  # pytest's request has it if there are parameters
    with Simulation(seed) as made:
        yield made
