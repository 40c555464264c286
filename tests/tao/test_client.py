"""tao.client: a connection to a server; the server is a socket by hand, or a Server."""

from __future__ import annotations

import gc
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reactor import Connection, Reactor
from tao import (
    ClientConn,
    CloseCause,
    CloseReason,
    ConnectionClosedError,
    ConnectionState,
    Context,
    MessageRegistry,
    Server,
    ServerConn,
    TaoError,
    WriteCloser,
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


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A server that knows nothing of the project."""
    with socket.create_server(LOCAL) as sock:
        yield sock


def echo_registry() -> MessageRegistry:
    """Message 1 comes back as message 2."""
    registry = MessageRegistry()
    registry.register(1, as_bytes, lambda context, conn: Sample(2, context.message))
    return registry


def collecting_registry(seen: Calls[bytes], *numbers: int) -> MessageRegistry:
    """Keeps the values of messages with these numbers."""
    registry = MessageRegistry()
    for number in numbers:
        registry.register(number, as_bytes, lambda context, conn: seen.add(context.message))
    return registry


def closed_port() -> tuple[str, int]:
    """An address on which nobody listens."""
    with socket.create_server(LOCAL) as sock:
        address: tuple[str, int] = sock.getsockname()
    return address


# -- connecting and messages ---------------------------------------------------------------------


def test_it_connects_and_speaks_the_wire_format(listener: socket.socket) -> None:
    seen: Calls[bytes] = Calls()
    client = ClientConn(listener.getsockname(), registry=collecting_registry(seen, 7))
    assert client.state is ConnectionState.CONNECTING
    client.start()
    with Peer.accept(listener) as peer:
        assert client.wait_connected(DEADLINE) is True
        client.write(Sample(5, b"hello"))
        assert peer.receive_frame() == (5, b"hello")
        peer.send(frame(7, b"a") + frame(7, b"b")[:5])
        seen.wait(1)
        peer.send(frame(7, b"b")[5:])
        assert seen.wait(2) == [b"a", b"b"]
        client.close()
        assert peer.receive_to_end() == b""
        peer.close()
        reason = client.wait_closed(DEADLINE)
        assert reason is not None
        assert (reason.cause, reason.clean) == (CloseCause.CLOSED, True)


def test_messages_both_ways_with_a_server() -> None:
    seen: Calls[bytes] = Calls()
    count = 2000
    with (
        Server(registry=echo_registry()).running(LOCAL) as address,
        ClientConn(address, registry=collecting_registry(seen, 2)) as client,
    ):
        for index in range(count):
            client.write(Sample(1, b"%d" % index))
        assert seen.wait(count) == [b"%d" % index for index in range(count)]


def test_a_clients_handler_may_answer(listener: socket.socket) -> None:
    registry = echo_registry()
    registry.register(3, as_bytes, lambda context, conn: Sample(4, context.message), inline=True)
    client = ClientConn(listener.getsockname(), registry=registry)
    client.start()
    with Peer.accept(listener) as peer:
        peer.send(frame(1, b"a") + frame(3, b"b") + frame(1, b"c"))
        assert peer.receive_frames(3) == [(2, b"a"), (4, b"b"), (2, b"c")]
    client.wait_closed(DEADLINE)


def test_it_has_the_names_of_a_connection(listener: socket.socket) -> None:
    address = listener.getsockname()
    client = ClientConn(address, registry=MessageRegistry())
    other = ClientConn(address, registry=MessageRegistry())
    assert client.net_id != other.net_id
    assert client.name == f"127.0.0.1:{address[1]}"
    nowhere: object = client.remote_address
    assert nowhere is None
    client.start()
    with Peer.accept(listener) as peer:
        client.wait_connected(DEADLINE)
        assert client.remote_address == address
        assert client.local_address == peer.sock.getpeername()
        assert "OPEN" in repr(client)
    assert client.wait_closed(DEADLINE) is not None
    other.start()
    other.abort()
    assert other.wait_closed(DEADLINE) is not None


def test_the_callbacks_of_a_life(listener: socket.socket) -> None:
    order: Calls[Any] = Calls()
    registry = MessageRegistry()
    registry.register(7, as_bytes)
    client = ClientConn(
        listener.getsockname(),
        registry=registry,
        on_connect=lambda conn: order.add(("on_connect", conn)),
        on_message=lambda message, conn: order.add(("on_message", message, conn)),
        on_error=lambda conn, error: order.add(("on_error", type(error).__name__, conn)),
        on_close=lambda conn, reason: order.add(("on_close", reason.cause, conn)),
    )
    client.start()
    with Peer.accept(listener) as peer:
        peer.send(frame(7, b"x") + frame(9))
        order.wait(3)
    assert client.wait_closed(DEADLINE) is not None
    assert order.items == [
        ("on_connect", client),
        ("on_message", b"x", client),
        ("on_error", "UndefinedMessageError", client),
        ("on_close", CloseCause.PEER_CLOSED, client),
    ]


def test_a_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    seen: Calls[bytes] = Calls()
    with (
        Server(registry=echo_registry()).running(path),
        ClientConn(path, registry=collecting_registry(seen, 2)) as client,
    ):
        client.write(Sample(1, b"x"))
        assert seen.wait() == [b"x"]
        assert client.name == path


def test_a_name_is_resolved() -> None:
    seen: Calls[bytes] = Calls()
    with Server(registry=echo_registry()).running(LOCAL) as address:
        name = ("localhost", address[1])  # which may well be ::1 first, where nobody listens
        with ClientConn(name, registry=collecting_registry(seen, 2)) as client:
            client.write(Sample(1, b"x"))
            assert seen.wait() == [b"x"]


@pytest.mark.parametrize("close_on_error", [False, True])
def test_a_handler_that_raises(listener: socket.socket, close_on_error: bool) -> None:
    errors: Calls[BaseException] = Calls()
    registry = echo_registry()

    def fail(context: Context[bytes], conn: WriteCloser) -> None:
        raise ValueError("on purpose")

    registry.register(5, as_bytes, fail)
    client = ClientConn(
        listener.getsockname(),
        registry=registry,
        close_on_error=close_on_error,
        on_error=lambda conn, error: errors.add(error),
    )
    client.start()
    with Peer.accept(listener) as peer:
        peer.send(frame(5) + frame(1, b"x"))
        assert isinstance(errors.wait()[0], ValueError)
        if close_on_error:
            assert peer.receive_to_end() == b""
        else:
            assert peer.receive_frame() == (2, b"x")
    reason = client.wait_closed(DEADLINE)
    assert reason is not None
    assert reason.cause is (CloseCause.FAILED if close_on_error else CloseCause.PEER_CLOSED)


# -- what goes wrong -----------------------------------------------------------------------------


def test_a_refused_connection() -> None:
    errors: Calls[BaseException] = Calls()
    closed: Calls[CloseReason] = Calls()
    client = ClientConn(
        closed_port(),
        registry=MessageRegistry(),
        on_error=lambda conn, error: errors.add(error),
        on_close=lambda conn, reason: closed.add(reason),
    )
    client.start()
    with pytest.raises(ConnectionClosedError) as caught:
        client.wait_connected(DEADLINE)
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)
    [error] = errors.wait()
    assert isinstance(error, ConnectionRefusedError)
    reason = client.wait_closed(DEADLINE)
    assert reason is not None
    assert (reason.cause, reason.error) == (CloseCause.FAILED, error)
    with pytest.raises(ConnectionClosedError):
        client.write(Sample(1))
    assert len(closed) == 0  # it was never connected


def test_the_with_statement_raises_what_waiting_raises() -> None:
    with pytest.raises(ConnectionClosedError), ClientConn(closed_port()):
        pytest.fail("there is nobody to connect to")


def test_on_error_that_raises_does_not_hold_the_end_up() -> None:
    def on_error(conn: ClientConn, error: BaseException) -> None:
        raise ValueError("on purpose")

    client = ClientConn(closed_port(), registry=MessageRegistry(), on_error=on_error)
    client.start()
    assert client.wait_closed(DEADLINE) is not None


def test_a_name_that_does_not_exist() -> None:
    # A label may have 63 letters (RFC 1035): no resolver is ever asked for this one.
    client = ClientConn(("x" * 64, 80), registry=MessageRegistry())
    client.start()
    with pytest.raises(ConnectionClosedError) as caught:
        client.wait_connected(DEADLINE)
    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize("address", [None, 80, ("127.0.0.1", "80"), [("127.0.0.1", 80)]])
def test_an_address_of_the_wrong_type(address: Any) -> None:
    with pytest.raises(TypeError, match="an address is"):
        ClientConn(address)


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_port_that_cannot_be_connected_to(port: int) -> None:
    with pytest.raises(ValueError, match="from 1 to 65535"):
        ClientConn(("127.0.0.1", port))


@pytest.mark.parametrize("timeout", [0.0, -1.0, float("nan")])
def test_a_connect_timeout_that_makes_no_sense(timeout: float) -> None:
    with pytest.raises(ValueError, match="connect_timeout"):
        ClientConn(("127.0.0.1", 1), connect_timeout=timeout)


def test_a_server_that_does_not_answer_is_given_a_limited_time() -> None:
    """A backlog that is full leaves the SYN without an answer; on systems that do so."""
    with socket.socket() as sock:
        sock.bind(LOCAL)
        sock.listen(0)
        fillers = []
        try:
            for _ in range(4):
                filler = socket.socket()
                fillers.append(filler)
                filler.setblocking(False)
                filler.connect_ex(sock.getsockname())
            client = ClientConn(sock.getsockname(), registry=MessageRegistry(), connect_timeout=0.1)
            client.start()
            try:
                client.wait_connected(DEADLINE)
            except ConnectionClosedError as error:
                cause = error.__cause__
            else:
                client.abort()
                client.wait_closed(DEADLINE)
                pytest.skip("this system accepts more than it was asked to")
            assert isinstance(cause, TimeoutError)
            client.wait_closed(DEADLINE)
        finally:
            for filler in fillers:
                filler.close()


def test_starting_twice(listener: socket.socket) -> None:
    client = ClientConn(listener.getsockname(), registry=MessageRegistry())
    client.start()
    with pytest.raises(TaoError, match="started already"):
        client.start()
    client.abort()
    assert client.wait_closed(DEADLINE) is not None


def test_waiting_before_the_start() -> None:
    client = ClientConn(closed_port(), registry=MessageRegistry())
    with pytest.raises(TaoError, match="start"):
        client.wait_connected(0.0)
    with pytest.raises(TaoError, match="start"):
        client.wait_closed(0.0)
    client.start()
    assert client.wait_closed(DEADLINE) is not None


def test_waiting_takes_no_longer_than_it_is_told(listener: socket.socket) -> None:
    with ClientConn(listener.getsockname(), registry=MessageRegistry()) as client:
        assert client.wait_closed(0.01) is None
        assert client.wait_connected(0.0) is True
        Peer.accept(listener).close()


# -- the end -------------------------------------------------------------------------------------


def test_the_with_statement_loses_nothing(listener: socket.socket) -> None:
    received: Calls[bytes] = Calls()

    def serve() -> None:
        with Peer.accept(listener) as peer:
            received.add(peer.receive_to_end())

    thread = threading.Thread(target=serve)
    thread.start()
    data = [b"%06d" % index * 1000 for index in range(500)]
    with ClientConn(listener.getsockname(), registry=MessageRegistry()) as client:
        for value in data:
            client.write(Sample(1, value))
    assert client.state is ConnectionState.CLOSED
    thread.join()
    assert received.items == [b"".join(frame(1, value) for value in data)]


@pytest.mark.parametrize("verb", ["close", "abort"])
def test_ended_before_the_start(listener: socket.socket, verb: str) -> None:
    """Again and again: its thread may be faster than the one that starts it, or slower."""
    for _ in range(50):
        client = ClientConn(listener.getsockname(), registry=MessageRegistry())
        getattr(client, verb)()
        client.start()
        reason = client.wait_closed(DEADLINE)
        assert reason is not None
        assert reason.cause is (CloseCause.CLOSED if verb == "close" else CloseCause.ABORTED)
        with pytest.raises(ConnectionClosedError):
            client.wait_connected(DEADLINE)


def test_aborted_at_any_moment_of_its_beginning(listener: socket.socket) -> None:
    listener.settimeout(DEADLINE)
    for _ in range(50):
        client = ClientConn(listener.getsockname(), registry=MessageRegistry())
        client.start()
        client.abort()
        reason = client.wait_closed(DEADLINE)
        assert reason is not None
        assert reason.cause is CloseCause.ABORTED


def test_a_client_that_is_never_started_holds_nothing_when_it_is_gone() -> None:
    gc.collect()
    before = descriptors()
    client = ClientConn(("127.0.0.1", 1), registry=MessageRegistry())
    del client
    gc.collect()
    assert descriptors() == before


@pytest.mark.parametrize("inline", [False, True], ids=["pooled", "inline"])
@pytest.mark.parametrize("verb", ["close", "abort"])
def test_a_handler_may_end_its_own_connection(
    listener: socket.socket, verb: str, inline: bool
) -> None:
    registry = MessageRegistry()

    def end(context: Context[bytes], conn: WriteCloser) -> Sample:
        conn.write(Sample(6, b"before"))
        getattr(conn, verb)()
        return Sample(6, b"reply")

    registry.register(5, as_bytes, end, inline=inline)
    closed: Calls[CloseReason] = Calls()
    client = ClientConn(
        listener.getsockname(),
        registry=registry,
        on_close=lambda conn, reason: closed.add(reason),
    )
    client.start()
    with Peer.accept(listener) as peer:
        peer.send_frame(5)
        if verb == "close":
            assert peer.receive_to_end() == frame(6, b"before") + frame(6, b"reply")
        else:
            assert peer.is_cut_off()
    reason = client.wait_closed(DEADLINE)
    assert [reason] == closed.items
    assert reason is not None
    assert reason.cause is (CloseCause.CLOSED if verb == "close" else CloseCause.ABORTED)


@pytest.mark.parametrize("callback", ["on_connect", "on_close", "timer"])
def test_a_callback_may_end_it(listener: socket.socket, callback: str) -> None:
    def end(*arguments: object) -> None:
        client.close()

    def set_timer(conn: ClientConn) -> None:
        conn.run_after(0.0, end)

    client = ClientConn(
        listener.getsockname(),
        registry=MessageRegistry(),
        on_connect=end if callback == "on_connect" else set_timer if callback == "timer" else None,
        on_close=end if callback == "on_close" else None,
    )
    client.start()
    with Peer.accept(listener) as peer:
        if callback != "on_close":
            assert peer.receive_to_end() == b""
    assert client.wait_closed(DEADLINE) is not None


@pytest.mark.parametrize("inline", [False, True], ids=["pooled", "inline"])
@pytest.mark.parametrize("verb", ["wait_closed", "wait_connected"])
def test_waiting_inside_a_handler_is_refused(
    listener: socket.socket, verb: str, inline: bool
) -> None:
    errors: Calls[TaoError] = Calls()
    registry = MessageRegistry()

    def wait(context: Context[bytes], conn: WriteCloser) -> None:
        assert isinstance(conn, ClientConn)
        try:
            getattr(conn, verb)(DEADLINE)
        except TaoError as error:
            errors.add(error)

    registry.register(5, as_bytes, wait, inline=inline)
    client = ClientConn(listener.getsockname(), registry=registry)
    client.start()
    with Peer.accept(listener) as peer:
        peer.send_frame(5)
        assert "wait for itself" in str(errors.wait()[0])
    assert client.wait_closed(DEADLINE) is not None


def test_on_connect_may_refuse_the_server(listener: socket.socket) -> None:
    client = ClientConn(
        listener.getsockname(), registry=MessageRegistry(), on_connect=lambda conn: False
    )
    client.start()
    with Peer.accept(listener) as peer:
        assert peer.receive_to_end() == b""
    reason = client.wait_closed(DEADLINE)
    assert reason is not None
    assert reason.cause is CloseCause.REFUSED


def test_the_server_goes_away(listener: socket.socket) -> None:
    client = ClientConn(listener.getsockname(), registry=MessageRegistry())
    client.start()
    Peer.accept(listener).reset()
    reason = client.wait_closed(DEADLINE)
    assert reason is not None
    assert isinstance(reason.error, ConnectionResetError)
    with pytest.raises(ConnectionClosedError):
        client.write(Sample(1))


def test_the_server_stops_while_the_client_is_connected() -> None:
    opened: Calls[ServerConn] = Calls()
    seen: Calls[bytes] = Calls()
    server = Server(registry=echo_registry(), on_connect=opened.add)
    with server.running(LOCAL) as address:
        client = ClientConn(address, registry=collecting_registry(seen, 2))
        client.start()
        assert client.wait_connected(DEADLINE)
        opened.wait()
        client.write(Sample(1, b"x"))
        seen.wait()
        report = server.stop()
        assert (report.drained, report.aborted, report.finished) == (1, 0, True)
    reason = client.wait_closed(DEADLINE)
    assert reason is not None
    assert (reason.cause, reason.clean) == (CloseCause.PEER_CLOSED, True)


def test_no_thread_and_no_descriptor_is_left(listener: socket.socket) -> None:
    threads, open_before = set(threading.enumerate()), descriptors()
    clients = [ClientConn(listener.getsockname(), registry=echo_registry()) for _ in range(5)]
    peers = []
    for client in clients:
        client.start()
        peers.append(Peer.accept(listener))
        peers[-1].send_frame(1)
        assert peers[-1].receive_frame() == (2, b"")
    for client, peer in zip(clients, peers, strict=True):
        client.close()
        peer.close()
        assert client.wait_closed(DEADLINE) is not None
    assert descriptors() == open_before
    assert wait_until(lambda: set(threading.enumerate()) == threads)


# -- a loop of somebody else's -------------------------------------------------------------------


def test_one_loop_for_a_server_and_many_clients() -> None:
    reactor = Reactor()
    thread = threading.Thread(target=reactor.run)
    thread.start()
    threads, open_before = set(threading.enumerate()), descriptors()
    try:
        server = Server(registry=echo_registry(), reactor=reactor)
        address = server.listen(LOCAL)
        seen: Calls[bytes] = Calls()
        registry = collecting_registry(seen, 2)
        clients = [ClientConn(address, registry=registry, reactor=reactor) for _ in range(20)]
        for client in clients:
            client.start()
        for client in clients:
            assert client.wait_connected(DEADLINE)
        for index, client in enumerate(clients):
            client.write(Sample(1, b"%02d" % index))
        assert sorted(seen.wait(20)) == [b"%02d" % index for index in range(20)]
        for client in clients:
            client.close()
        for client in clients:
            reason = client.wait_closed(DEADLINE)
            assert reason is not None
            assert reason.clean
        assert server.stop().finished
        assert reactor.running
        assert reactor.statistics().channels == 0
        assert descriptors() == open_before
        assert wait_until(lambda: set(threading.enumerate()) == threads)
    finally:
        reactor.stop()
        thread.join()
        reactor.close()


def test_on_a_given_loop_a_refused_connection_ends_the_client_and_not_the_loop() -> None:
    reactor = Reactor()
    thread = threading.Thread(target=reactor.run)
    thread.start()
    try:
        client = ClientConn(closed_port(), registry=MessageRegistry(), reactor=reactor)
        client.start()
        with pytest.raises(ConnectionClosedError):
            client.wait_connected(DEADLINE)
        assert reactor.running
        assert wait_until(lambda: reactor.statistics().timeouts_waiting == 0)
    finally:
        reactor.stop()
        thread.join()
        reactor.close()


def test_a_client_on_a_loop_that_is_run_pass_by_pass(listener: socket.socket) -> None:
    reactor = Reactor()
    client = ClientConn(listener.getsockname(), registry=echo_registry(), reactor=reactor)
    client.start()

    def drive(state: ConnectionState) -> None:
        def look() -> bool:
            reactor.run_once(0.01)
            return client.state is state

        assert wait_until(look)

    drive(ConnectionState.OPEN)
    with Peer.accept(listener) as peer:
        client.write(Sample(5, b"x"))
        reactor.run_once(0.1)
        assert peer.receive_frame() == (5, b"x")
    drive(ConnectionState.CLOSED)
    reactor.run_once(0)
    reason = client.wait_closed(DEADLINE)
    assert reason is not None
    assert reason.cause is CloseCause.PEER_CLOSED
    reactor.close()


def test_its_addresses_are_there_before_it_is_open(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has waited for the connection, on whatever thread, may ask for them at once."""
    found: list[object] = []
    opens = Connection.start

    def start(connection: Connection, sock: socket.socket) -> None:
        found.append((client.remote_address, client.local_address))
        opens(connection, sock)

    monkeypatch.setattr(Connection, "start", start)
    client = ClientConn(listener.getsockname(), registry=MessageRegistry())
    client.start()
    with Peer.accept(listener) as peer:
        assert client.wait_connected(DEADLINE)
        assert found == [(listener.getsockname(), peer.sock.getpeername())]
        client.abort()
    assert client.wait_closed(DEADLINE) is not None
