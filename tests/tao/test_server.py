"""tao.server: listening, connections, schedules; how a server stops is in test_stop."""

from __future__ import annotations

import os
import socket
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from reactor import Reactor
from tao import (
    CloseReason,
    ConnectionState,
    MessageRegistry,
    NotRegisteredError,
    Server,
    ServerConn,
    TaoError,
)
from tests.support import (
    DEADLINE,
    LOCAL,
    Calls,
    Peer,
    Sample,
    as_bytes,
    descriptors,
    frame,
    wait_until,
)


def echo_registry() -> MessageRegistry:
    """Message 1 echoes."""
    registry = MessageRegistry()
    registry.register(1, as_bytes, lambda context, conn: Sample(1, context.message))
    return registry


def check_serves(address: Any) -> None:
    """A new connection is served."""
    with Peer(address) as peer:
        peer.send_frame(1, b"x")
        assert peer.receive_frame() == (1, b"x")


# -- arguments -----------------------------------------------------------------------------------

COUNTS = ["worker_size", "buffer_size", "max_connections"]


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("value", [0, -1])
def test_counts_are_at_least_one(name: str, value: int) -> None:
    arguments: dict[str, Any] = {name: value}
    with pytest.raises(ValueError, match=name):
        Server(**arguments)


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("value", [True, "5", 1.5, None])
def test_counts_are_ints(name: str, value: object) -> None:
    arguments: dict[str, Any] = {name: value}
    with pytest.raises(TypeError, match=name):
        Server(**arguments)


@pytest.mark.parametrize(
    "address", [None, 80, b"/tmp/x", ("127.0.0.1",), ("127.0.0.1", "80"), ["127.0.0.1", 80]]
)
def test_an_address_of_the_wrong_type(address: Any) -> None:
    server = Server()
    with pytest.raises(TypeError, match=r"\('127.0.0.1', 12345\)"):
        server.listen(address)


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_out_of_range(port: int) -> None:
    with pytest.raises(ValueError, match="from 0 to 65535"):
        Server().listen(("127.0.0.1", port))


def test_a_port_in_use_says_what_to_do() -> None:
    with socket.create_server(LOCAL) as taken:
        server = Server()
        with pytest.raises(OSError, match=r"another port.*0 lets the system choose") as caught:
            server.listen(taken.getsockname())
        assert str(taken.getsockname()[1]) in str(caught.value)


def test_a_host_that_is_not_this_machine() -> None:
    # From the block of addresses for documentation: nobody has them (RFC 5737).
    with pytest.raises(OSError, match=r"192\.0\.2\.1"):
        Server().listen(("192.0.2.1", 0))


def test_a_processs_pool_is_no_executor_for_handlers() -> None:
    with ProcessPoolExecutor(1) as executor, pytest.raises(TypeError, match="ProcessPoolExecutor"):
        Server(executor=executor).listen(LOCAL)


def test_a_server_that_never_listens_holds_no_descriptor() -> None:
    before = descriptors()
    server = Server(registry=echo_registry())
    assert descriptors() == before
    assert server.connection_count == 0
    assert repr(server) == "<Server not listening, 0 connections>"


def test_serving_without_listening() -> None:
    with pytest.raises(TaoError, match="listen"):
        Server().serve_forever()


# -- listening -----------------------------------------------------------------------------------


def test_port_zero_is_a_port_of_the_systems_choice() -> None:
    server = Server(registry=echo_registry())
    with server.running(LOCAL) as address:
        assert address[0] == "127.0.0.1"
        assert 0 < address[1] <= 65535
        assert f"127.0.0.1:{address[1]}" in repr(server)
        check_serves(address)


def test_two_addresses() -> None:
    server = Server(registry=echo_registry())
    first = server.listen(LOCAL)
    with server.running(LOCAL) as second:
        assert first != second
        check_serves(first)
        check_serves(second)


def test_one_more_address_while_it_runs() -> None:
    server = Server(registry=echo_registry())
    with server.running(LOCAL) as first:
        second = server.listen(LOCAL)
        check_serves(second)
        check_serves(first)


@pytest.mark.parametrize("inline", [False, True])
def test_a_handler_may_have_it_listen(inline: bool) -> None:
    registry = echo_registry()
    bound: Calls[Any] = Calls()
    registry.register(
        5, as_bytes, lambda context, conn: bound.add(server.listen(LOCAL)), inline=inline
    )
    server = Server(registry=registry)
    with server.running(LOCAL) as address, Peer(address) as peer:
        peer.send_frame(5)
        check_serves(bound.wait()[0])


def test_a_failed_listen_while_it_runs_harms_nothing() -> None:
    server = Server(registry=echo_registry())
    with server.running(LOCAL) as address:
        with pytest.raises(OSError, match="another port"):
            server.listen(address)
        check_serves(address)


def test_a_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    opened: Calls[ServerConn] = Calls()
    server = Server(registry=echo_registry(), on_connect=opened.add)
    with server.running(path) as address:
        assert address == path
        check_serves(path)
        assert opened.wait()[0].local_address == path
    assert not os.path.exists(path)


def test_a_socket_that_listens_already() -> None:
    sock = socket.create_server(LOCAL)
    server = Server(registry=echo_registry())
    with server.running(sock) as address:
        assert address == sock.getsockname()
        check_serves(address)
    assert sock.fileno() == -1  # it was handed over


def test_all_addresses_of_this_machine() -> None:
    with Server(registry=echo_registry()).running(("", 0)) as address:
        check_serves(("127.0.0.1", address[1]))


def test_ipv6() -> None:
    if not socket.has_ipv6:
        pytest.skip("there is no IPv6 here")
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("there is no IPv6 here")
    opened: Calls[ServerConn] = Calls()
    server = Server(registry=echo_registry(), on_connect=opened.add)
    with (
        server.running(("::1", 0)) as address,
        socket.create_connection(address[:2], timeout=DEADLINE) as sock,
    ):
        sock.sendall(frame(1, b"x"))
        assert sock.recv(100) == frame(1, b"x")
        assert opened.wait()[0].name == f"[::1]:{sock.getsockname()[1]}"


def test_start_blocks_until_the_stop() -> None:
    sock = socket.create_server(LOCAL)
    address = sock.getsockname()
    server = Server(registry=echo_registry())
    thread = threading.Thread(target=server.start, args=(sock,))
    thread.start()
    check_serves(address)
    assert thread.is_alive()
    server.stop()
    thread.join(DEADLINE)
    assert not thread.is_alive()


def test_running_stops_when_its_block_raises() -> None:
    server = Server(registry=echo_registry())
    bound: list[Any] = []

    def fail() -> None:
        with server.running(LOCAL) as address:
            bound.append(address)
            check_serves(address)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    [address] = bound
    with pytest.raises(ConnectionRefusedError):
        Peer(address)


def test_clients_that_came_before_the_loop_ran_are_served() -> None:
    server = Server(registry=echo_registry())
    address = server.listen(LOCAL)
    with Peer(address) as peer:
        peer.send_frame(1, b"early")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        assert peer.receive_frame() == (1, b"early")
        peer.close()
        server.stop()
        thread.join()


# -- connections ---------------------------------------------------------------------------------


def test_connections_beyond_the_maximum_are_refused() -> None:
    opened: Calls[ServerConn] = Calls()
    closed: Calls[ServerConn] = Calls()
    server = Server(
        registry=echo_registry(),
        max_connections=2,
        on_connect=opened.add,
        on_close=lambda conn, reason: closed.add(conn),
    )
    with server.running(LOCAL) as address, Peer(address) as first, Peer(address) as second:
        opened.wait(2)
        for _ in range(3):
            with Peer(address) as refused:
                assert refused.is_cut_off()
        for peer in (first, second):
            peer.send_frame(1, b"x")
            assert peer.receive_frame() == (1, b"x")
        assert (len(opened), len(closed), server.connection_count) == (2, 0, 2)
        first.close()
        assert wait_until(lambda: server.connection_count == 1)
        check_serves(address)


def test_connections_are_found_by_their_id() -> None:
    opened: Calls[ServerConn] = Calls()
    server = Server(registry=echo_registry(), on_connect=opened.add)
    with server.running(LOCAL) as address:
        with Peer(address), Peer(address):
            first, second = opened.wait(2)
            assert server.connection(first.net_id) is first
            assert server.connection(second.net_id) is second
            assert server.connection_count == 2
            assert set(server.connections()) == {first, second}
            with pytest.raises(NotRegisteredError):
                server.connection(first.net_id + second.net_id)
        assert wait_until(lambda: server.connection_count == 0)
        with pytest.raises(NotRegisteredError):
            server.connection(first.net_id)
        with pytest.raises(NotRegisteredError):
            server.unicast(first.net_id, Sample(1))
        assert server.connections() == []


# -- schedules -----------------------------------------------------------------------------------


def test_a_schedule_runs_on_every_connection_old_and_new() -> None:
    opened: Calls[ServerConn] = Calls()
    ticks: Calls[tuple[float, ServerConn]] = Calls()
    server = Server(registry=echo_registry(), on_connect=opened.add)
    with server.running(LOCAL) as address, Peer(address):
        opened.wait()
        server.schedule(0.01, lambda now, conn: ticks.add((now, conn)))
        with Peer(address):
            opened.wait(2)
            assert wait_until(lambda: {conn for _, conn in ticks.items} == set(opened.items))
            ticks.wait(6)


def test_a_schedule_may_be_set_before_the_server_runs() -> None:
    ticks: Calls[ServerConn] = Calls()
    server = Server(registry=echo_registry())
    address = server.listen(LOCAL)

    def tick(now: float, conn: ServerConn) -> None:
        conn.write(Sample(7))
        ticks.add(conn)

    server.schedule(0.01, tick)
    with server.running(LOCAL), Peer(address) as peer:
        assert peer.receive_frames(2) == [(7, b"")] * 2
        ticks.wait(2)


@pytest.mark.parametrize("interval", [0.0, -1.0, float("nan"), float("inf")])
def test_an_interval_that_makes_no_sense(interval: float) -> None:
    with pytest.raises(ValueError, match="interval"):
        Server().schedule(interval, lambda now, conn: None)


def test_a_schedule_needs_a_loop() -> None:
    with pytest.raises(TaoError, match="listen"):
        Server().schedule(1.0, lambda now, conn: None)


# -- executors and reactors of others ------------------------------------------------------------


def test_an_executor_of_ones_own_is_used_and_stays_open() -> None:
    names: Calls[str] = Calls()
    registry = MessageRegistry()
    registry.register(1, as_bytes, lambda context, conn: names.add(threading.current_thread().name))
    with ThreadPoolExecutor(2, thread_name_prefix="mine") as executor:
        server = Server(registry=registry, executor=executor)
        with server.running(LOCAL) as address, Peer(address) as peer:
            peer.send_frame(1)
            assert names.wait()[0].startswith("mine")
        assert executor.submit(lambda: 5).result(DEADLINE) == 5


def test_an_executor_that_was_shut_down_fails_the_connection_and_not_the_server() -> None:
    reasons: Calls[CloseReason] = Calls()
    registry = echo_registry()
    registry.register(2, as_bytes, lambda context, conn: Sample(2), inline=True)
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    server = Server(
        registry=registry, executor=executor, on_close=lambda conn, reason: reasons.add(reason)
    )
    with server.running(LOCAL) as address:
        with Peer(address) as peer:
            peer.send_frame(1)
            assert peer.is_cut_off()
        [reason] = reasons.wait()
        assert isinstance(reason.error, RuntimeError)
        with Peer(address) as peer:
            peer.send_frame(2)
            assert peer.receive_frame() == (2, b"")


def test_two_servers_on_one_loop() -> None:
    reactor = Reactor()
    thread = threading.Thread(target=reactor.run)
    thread.start()
    try:
        first = Server(registry=echo_registry(), reactor=reactor)
        second = Server(registry=echo_registry(), reactor=reactor)
        first_address, second_address = first.listen(LOCAL), second.listen(LOCAL)
        check_serves(first_address)
        check_serves(second_address)
        assert first.stop().finished
        check_serves(second_address)
        assert second.stop().finished
        assert reactor.running
    finally:
        reactor.stop()
        thread.join()
        reactor.close()


def test_a_loop_that_is_run_pass_by_pass() -> None:
    """As a foreign loop does it, on one thread with the listening and the peer."""
    reactor = Reactor()
    server = Server(registry=echo_registry(), reactor=reactor)
    with Peer(server.listen(LOCAL)) as peer:
        peer.send_frame(1, b"x")
        peer.sock.setblocking(False)
        received = b""

        def look() -> bool:
            nonlocal received
            reactor.run_once(0.01)
            try:
                received += peer.sock.recv(100)
            except BlockingIOError:
                pass
            return received == frame(1, b"x")

        assert wait_until(look)
        [conn] = server.connections()
        assert conn.state is ConnectionState.OPEN
        peer.close()

    def gone() -> bool:
        reactor.run_once(0.01)
        return server.connection_count == 0

    assert wait_until(gone)
    stopping = threading.Thread(target=server.stop)
    stopping.start()

    def stopped() -> bool:
        reactor.run_once(0.01)
        return not stopping.is_alive()

    assert wait_until(stopped)
    reactor.close()


def test_what_is_accepted_sends_at_once() -> None:
    """Nagle's algorithm is off, by way of the listening socket."""
    server = Server(registry=echo_registry())
    with server.running(LOCAL) as address, Peer(address):
        assert wait_until(lambda: server.connection_count == 1)
        [conn] = server.connections()
        sock = conn._session.connection._socket
        assert sock is not None
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
