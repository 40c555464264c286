"""Hypothesis plays server and clients: it decides what happens, and finds the shortest story that fails.

The rules that must hold are the ledger's, as in the seeded runs; at the end of every story all is brought
to its end, and the books are balanced.
"""

from __future__ import annotations

import socket
from contextlib import ExitStack, suppress

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)

from reactor.testing import SimulatedSocket, SimulationError
from tao import ClientConn, ServerConn
from tests.simulate.ledger import (
    BAD,
    INLINE,
    LONGEST_FILLING,
    POOLED,
    UNHANDLED,
    UNKNOWN,
    Do,
    Name,
    Note,
)
from tests.simulate.scenario import EXPECTED, Run

KINDS = st.sampled_from([POOLED, INLINE, UNHANDLED, BAD, UNKNOWN])
SIZES = st.sampled_from([0, 1, 50, LONGEST_FILLING])

PAUSES = st.sampled_from([0.0005, 0.003, 0.1, 2.0])

FOR_THE_LOOP = st.sampled_from([Do.NOTHING, Do.REPLY, Do.RAISE, Do.CLOSE, Do.ABORT, Do.TIMER])
FOR_A_WORKER = st.sampled_from(list(Do))


class Service(RuleBasedStateMachine):
    """A server, clients, and bare sockets."""

    clients: Bundle[ClientConn] = Bundle("clients")
    peers: Bundle[SimulatedSocket] = Bundle("peers")

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.run: Run
        self.source = 0
        self.count = 0

    @initialize(seed=st.integers(0, 1 << 32))
    def begin(self, seed: int) -> None:
        self.run = Run(seed)
        self.stack.enter_context(self.run.playing())
        self.source = self.run.new_source()

    def teardown(self) -> None:
        if hasattr(self, "run") and self.run.simulation.scheduler.broken:
            # It cannot be brought to its end, and hypothesis has been told why.
            error = SimulationError("it was broken before")
            with suppress(SimulationError):
                self.stack.__exit__(SimulationError, error, None)
        else:
            self.stack.close()

    def note(self, kind: int, do: Do, size: int) -> Note:
        """A message of this thread's."""
        self.count += 1
        return Note(kind, Name(self.source, self.count), do, size)

    # -- clients ---------------------------------------------------------------------------------

    @rule(target=clients)
    def connect(self) -> ClientConn | MultipleResults[ClientConn]:
        try:
            return self.run.new_client()
        except OSError:
            return multiple()  # there are no descriptors for its loop

    @rule(client=clients, kind=KINDS, size=SIZES, times=st.sampled_from([1, 1, 20]))
    def write(self, client: ClientConn, kind: int, size: int, times: int) -> None:
        with suppress(*EXPECTED):
            for _ in range(times):
                self.run.write(client, self.note(kind, Do.NOTHING, size))

    @rule(client=clients, do=FOR_A_WORKER, size=SIZES)
    def ask_a_worker(self, client: ClientConn, do: Do, size: int) -> None:
        with suppress(*EXPECTED):
            self.run.write(client, self.note(POOLED, do, size))

    @rule(client=clients, do=FOR_THE_LOOP, size=SIZES)
    def ask_the_loop(self, client: ClientConn, do: Do, size: int) -> None:
        with suppress(*EXPECTED):
            self.run.write(client, self.note(INLINE, do, size))

    @rule(client=clients, pauses=st.booleans())
    def pause_or_resume(self, client: ClientConn, pauses: bool) -> None:
        (client.pause_reading if pauses else client.resume_reading)()

    @rule(client=clients)
    def set_timer(self, client: ClientConn) -> None:
        self.run.set_timer(client)

    @rule(client=clients)
    def close(self, client: ClientConn) -> None:
        client.close()

    @rule(client=clients)
    def abort(self, client: ClientConn) -> None:
        client.abort()

    # -- the server's ends -----------------------------------------------------------------------

    def some_connection(self, number: int) -> ServerConn | None:
        """One of the server's, if there are any."""
        conns = self.run.server.connections()
        return conns[number % len(conns)] if conns else None

    @rule(number=st.integers(0, 5), size=SIZES, times=st.sampled_from([1, 1, 20]))
    def serve(self, number: int, size: int, times: int) -> None:
        conn = self.some_connection(number)
        with suppress(*EXPECTED):
            for _ in range(times if conn is not None else 0):
                self.run.write(conn, self.note(POOLED, Do.NOTHING, size))

    @rule(number=st.integers(0, 5), politely=st.booleans())
    def end(self, number: int, politely: bool) -> None:
        conn = self.some_connection(number)
        if conn is not None:
            (conn.close if politely else conn.abort)()

    @rule(times=st.sampled_from([1, 10]))
    def broadcast(self, times: int) -> None:
        for _ in range(times):
            self.run.broadcast(2000 + self.source)

    # -- bare sockets ----------------------------------------------------------------------------

    @rule(target=peers)
    def dial(self) -> SimulatedSocket | MultipleResults[SimulatedSocket]:
        try:
            sock = self.run.simulation.connect(self.run.address, timeout=0.2)
        except OSError:
            return multiple()
        self.stack.callback(sock.close)
        return sock

    @rule(peer=peers, kind=KINDS, size=SIZES, kept=st.integers(0, 30))
    def speak(self, peer: SimulatedSocket, kind: int, size: int, kept: int) -> None:
        """A frame, which may be cut short: what comes next is taken for its rest."""
        data = self.note(kind, Do.REPLY, size).frame()
        with suppress(OSError):
            peer.sendall(data[:-kept] if 20 < kept < len(data) else data)

    @rule(peer=peers)
    def finish_speaking(self, peer: SimulatedSocket) -> None:
        with suppress(OSError):
            peer.shutdown(socket.SHUT_WR)

    @rule(peer=peers)
    def listen(self, peer: SimulatedSocket) -> None:
        with suppress(OSError):
            peer.recv(1000)

    @rule(peer=consumes(peers), politely=st.booleans())
    def hang_up(self, peer: SimulatedSocket, politely: bool) -> None:
        (peer.close if politely else peer.reset)()

    # -- the world -------------------------------------------------------------------------------

    @rule(seconds=PAUSES)
    def sleep(self, seconds: float) -> None:
        self.run.simulation.sleep(seconds)

    @rule(seconds=st.sampled_from([-3600.0, 0.5, 86_400.0]))
    def step_the_wall_clock(self, seconds: float) -> None:
        self.run.simulation.step_wall_clock(seconds)

    @rule(left=st.sampled_from([None, 0, 2]))
    def limit_descriptors(self, left: int | None) -> None:
        network = self.run.simulation.network
        network.descriptor_limit = None if left is None else len(network.open) + left

    @invariant()
    def nothing_is_broken(self) -> None:
        assert not self.run.ledger.broken_rules


TestService = Service.TestCase
TestService.settings = settings(
    max_examples=150,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
