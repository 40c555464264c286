"""reactor.testing.network: what a program over TCP can tell. The same tests run on the real thing."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

import pytest

from reactor import READ, WRITE
from reactor.testing import Faults, Simulation
from tests.reactor.support import DEADLINE

RESET = struct.pack("ii", 1, 0)


class World:
    """Sockets, and what can be done here."""

    simulated = False

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def new_socket(self) -> socket.socket:
        """One that blocks, for DEADLINE at the most."""
        return self._kept(socket.socket())

    def _kept(self, sock: socket.socket) -> socket.socket:
        self._stack.callback(sock.close)
        sock.settimeout(DEADLINE)
        return sock

    def listener(self, backlog: int = 16) -> socket.socket:
        """It listens."""
        sock = self.new_socket()
        sock.bind(("127.0.0.1", 0))
        sock.listen(backlog)
        return sock

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """Two that are connected."""
        listener = self.listener()
        one = self.new_socket()
        one.connect(listener.getsockname())
        other, address = listener.accept()
        assert address == one.getsockname() == other.getpeername()
        assert one.getpeername() == other.getsockname()
        return one, self._kept(other)

    def ready(self, sock: socket.socket, what: int) -> bool:
        """Whether it is, or becomes so."""
        readers, writers = [sock] if what == READ else [], [sock] if what == WRITE else []
        return any(select.select(readers, writers, [], DEADLINE))


class SimulatedWorld(World):
    """The same, in a simulation."""

    simulated = True

    def __init__(self, stack: ExitStack, simulation: Simulation) -> None:
        super().__init__(stack)
        self._simulation = simulation

    def new_socket(self) -> socket.socket:
        return self._kept(self._simulation.network.socket())

    def ready(self, sock: socket.socket, what: int) -> bool:
        poller = self._simulation.open_poller()
        poller.register(sock.fileno(), what)
        try:
            return poller.poll(DEADLINE) == [(sock.fileno(), what)]
        finally:
            poller.close()


def real_worlds() -> Iterator[World]:
    """One."""
    with ExitStack() as stack:
        yield World(stack)


def simulated_worlds(seed: int, faults: Faults) -> Iterator[World]:
    """One."""
    with Simulation(seed, faults) as simulation, ExitStack() as stack:
        yield SimulatedWorld(stack, simulation)


# Without what makes a call fail that could do something: that is a fault, and not how TCP is.
FRAGMENTS = Faults(
    partial_send=0.5, partial_receive=0.5, full_send=0.0, spurious=0.0, buffer_size=5000
)


@pytest.fixture(params=["real", "simulated", *range(5)], ids=str)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """The system's, and simulated ones, the first of which does no harm."""
    if request.param == "real":
        yield from real_worlds()
    elif request.param == "simulated":
        yield from simulated_worlds(0, Faults.none())
    else:
        yield from simulated_worlds(request.param, FRAGMENTS)


def receive_to_end(sock: socket.socket) -> bytes:
    """All that comes up to the FIN."""
    data = b""
    while chunk := sock.recv(4096):
        data += chunk
    return data


def fails_in_the_end(call: Callable[[], object]) -> int | None:
    """The number of the error that a call comes to when it is made again and again."""
    for _ in range(100_000):
        try:
            call()
        except OSError as error:
            return error.errno
    return None


def test_what_is_sent_arrives_in_order(world: World) -> None:
    one, other = world.pair()
    data = bytes(range(256)) * 10
    one.sendall(data)
    one.shutdown(socket.SHUT_WR)
    assert receive_to_end(other) == data
    assert other.recv(10) == b""


def test_a_peer_that_has_finished_sending_still_receives(world: World) -> None:
    one, other = world.pair()
    one.shutdown(socket.SHUT_WR)
    assert other.recv(10) == b""
    other.sendall(b"reply")
    other.close()
    assert receive_to_end(one) == b"reply"


def test_after_the_fin_nothing_can_be_sent(world: World) -> None:
    one, _ = world.pair()
    one.shutdown(socket.SHUT_WR)
    with pytest.raises(BrokenPipeError):
        one.send(b"more")


def test_a_reset_is_told_once(world: World) -> None:
    one, other = world.pair()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    one.close()
    with pytest.raises(ConnectionResetError):
        other.recv(10)
    assert other.recv(10) == b""
    with pytest.raises(BrokenPipeError):
        other.send(b"more")
    with pytest.raises(OSError, match=os.strerror(errno.ENOTCONN)):
        other.shutdown(socket.SHUT_WR)
    with pytest.raises(OSError, match=os.strerror(errno.ENOTCONN)):
        other.getpeername()


def test_a_close_with_bytes_unread_is_a_reset(world: World) -> None:
    one, other = world.pair()
    one.sendall(b"unread")
    assert world.ready(other, READ)
    other.close()
    with pytest.raises(ConnectionResetError):
        one.recv(10)


def test_who_sends_to_one_that_has_closed_is_told(world: World) -> None:
    one, other = world.pair()
    other.close()
    assert fails_in_the_end(lambda: (one.send(b"x" * 1000), world.ready(one, READ))) in (
        errno.ECONNRESET,
        errno.EPIPE,
    )


def test_where_nobody_listens(world: World) -> None:
    listener = world.listener()
    address = listener.getsockname()
    listener.close()
    with pytest.raises(ConnectionRefusedError):
        world.new_socket().connect(address)


def test_a_listener_that_closes_resets_who_has_not_been_accepted(world: World) -> None:
    listener = world.listener()
    one = world.new_socket()
    one.connect(listener.getsockname())
    listener.close()
    with pytest.raises(ConnectionResetError):
        one.recv(10)


def test_two_cannot_listen_on_one_port(world: World) -> None:
    listener = world.listener()
    second = world.new_socket()

    def listen_too() -> None:
        second.bind(listener.getsockname())
        second.listen()

    with pytest.raises(OSError, match=os.strerror(errno.EADDRINUSE)):
        listen_too()


def test_without_blocking_nothing_is_waited_for(world: World) -> None:
    listener = world.listener()
    one, other = world.pair()
    for sock in (listener, one, other):
        sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        listener.accept()
    with pytest.raises(BlockingIOError):
        one.recv(10)
    with pytest.raises(BlockingIOError):
        one.recv_into(bytearray(10))
    assert not one.getblocking()


def test_a_full_buffer_has_room_when_it_has_been_read(world: World) -> None:
    one, other = world.pair()
    one.setblocking(False)
    assert fails_in_the_end(lambda: one.send(b"x" * 60_000)) == errno.EAGAIN
    other.setblocking(False)

    def send_more() -> int:
        try:
            return one.send(b"more")
        except BlockingIOError:
            return 0

    read = 0
    while not send_more():
        assert world.ready(other, READ)
        read += len(other.recv(60_000))
    assert read > 0


def test_a_connect_without_blocking(world: World) -> None:
    listener = world.listener()
    one = world.new_socket()
    one.setblocking(False)
    assert one.connect_ex(listener.getsockname()) == errno.EINPROGRESS
    assert world.ready(one, WRITE)
    assert one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    assert one.getpeername() == listener.getsockname()


def test_a_connect_without_blocking_that_is_refused(world: World) -> None:
    listener = world.listener()
    address = listener.getsockname()
    listener.close()
    one = world.new_socket()
    one.setblocking(False)
    assert one.connect_ex(address) == errno.EINPROGRESS
    assert world.ready(one, WRITE)
    assert one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
    assert one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0


def test_a_socket_that_is_not_connected(world: World) -> None:
    one = world.new_socket()
    for call in (one.getpeername, lambda: one.recv(1), lambda: one.shutdown(socket.SHUT_WR)):
        with pytest.raises(OSError, match=os.strerror(errno.ENOTCONN)):
            call()


def test_a_closed_socket(world: World) -> None:
    one, _ = world.pair()
    one.close()
    one.close()
    assert one.fileno() == -1
    for call in (lambda: one.recv(1), lambda: one.send(b"x"), one.getsockname):
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            call()


def test_numbers_of_descriptors_come_back_at_once(world: World) -> None:
    first = world.new_socket()
    number = first.fileno()
    world.new_socket()
    first.close()
    assert world.new_socket().fileno() == number


def test_several_buffers_are_one_stream(world: World) -> None:
    one, other = world.pair()
    sent = one.sendmsg([b"abc", memoryview(b"def")])
    one.shutdown(socket.SHUT_WR)
    assert receive_to_end(other) == b"abcdef"[:sent]


# -- what only the simulated one has ---------------------------------------------------------------


def test_a_limit_of_descriptors() -> None:
    with Simulation() as simulation:
        simulation.network.descriptor_limit = 2
        pair = [simulation.network.socket(), simulation.network.socket()]
        with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
            simulation.network.socket()
        assert simulation.open_spare() is None
        for sock in pair:
            sock.close()
        spare = simulation.open_spare()
        assert spare is not None
        simulation.close_spare(spare)


def test_a_name_is_looked_up() -> None:
    with Simulation() as simulation:
        simulation.network.names["two.example"] = ["10.0.0.7", "fd00::7"]
        assert simulation.addresses("two.example", 80) == [
            (socket.AF_INET, ("10.0.0.7", 80)),
            (socket.AF_INET6, ("fd00::7", 80)),
        ]
        with pytest.raises(socket.gaierror):
            simulation.addresses("nowhere.example", 80)


def test_a_host_that_is_not_there_lets_one_wait() -> None:
    with Simulation() as simulation:
        simulation.network.unreachable.add("10.0.0.7")
        with simulation.network.socket() as sock:
            sock.settimeout(3.0)
            begun = simulation.time
            with pytest.raises(TimeoutError):
                sock.connect(("10.0.0.7", 80))
            assert simulation.time == pytest.approx(begun + 3.0)
        with simulation.network.socket() as sock:
            begun = simulation.time
            with pytest.raises(TimeoutError):
                sock.connect(("10.0.0.7", 80))
            assert simulation.time == pytest.approx(begun + 127.0)  # as Linux does


def test_a_full_backlog_is_tried_again() -> None:
    with Simulation(faults=Faults.none()) as simulation, ExitStack() as stack:
        listener = stack.enter_context(simulation.network.socket())
        listener.bind(("10.0.0.1", 80))
        listener.listen(0)
        first = stack.enter_context(simulation.connect(("10.0.0.1", 80)))

        def accept_later() -> None:
            simulation.sleep(2.5)
            for _ in range(2):
                stack.enter_context(listener.accept()[0])

        thread = simulation.spawn(accept_later)
        begun = simulation.time
        stack.enter_context(simulation.connect(("10.0.0.1", 80)))
        assert simulation.time == pytest.approx(begun + 3.0)
        thread.join()
        assert first.getpeername() == ("10.0.0.1", 80)


def test_connections_do_not_wait_for_each_other() -> None:
    """Some overtake others; none overtakes itself."""
    orders = set()
    for seed in range(30):
        with Simulation(seed) as simulation, ExitStack() as stack:
            listener = stack.enter_context(simulation.network.socket())
            listener.bind(("10.0.0.1", 80))
            listener.listen(2)
            order: list[int] = []
            pairs = []
            for _ in range(2):
                one = stack.enter_context(simulation.connect(("10.0.0.1", 80)))
                pairs.append((one, stack.enter_context(listener.accept()[0])))

            def read(number: int, sock: socket.socket, into: list[int] = order) -> None:
                for _ in range(3):
                    assert sock.recv(1)
                    into.append(number)

            threads = [
                simulation.spawn(partial(read, number, other))
                for number, (_, other) in enumerate(pairs)
            ]
            for _ in range(3):
                for one, _ in pairs:
                    one.sendall(b"x")
            for thread in threads:
                thread.join()
            orders.add(tuple(order))
    assert len(orders) > 3
