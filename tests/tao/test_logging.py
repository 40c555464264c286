"""What is logged, at which level, and with which fields."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator

import pytest

from tao import (
    ClientConn,
    CloseReason,
    ConnectionClosedError,
    Context,
    MessageRegistry,
    Server,
    ServerConn,
    WriteCloser,
)
from tests.support import LOCAL, Calls, Peer, Sample, as_bytes, frame, wait_until


class Records(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.records: Calls[logging.LogRecord] = Calls()

    def emit(self, record: logging.LogRecord) -> None:
        """Whatever thread it comes from."""
        self.records.add(record)

    def at(self, level: int) -> list[logging.LogRecord]:
        """Those of that level, or above."""
        return [record for record in self.records.items if record.levelno >= level]


@pytest.fixture
def records() -> Iterator[Records]:
    """Everything that both packages log during the test."""
    kept = Records()
    loggers = [logging.getLogger(name) for name in ("tao", "reactor")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
        logger.addHandler(kept)
    yield kept
    for logger, level in zip(loggers, before, strict=True):
        logger.removeHandler(kept)
        logger.setLevel(level)


def registry_of_all() -> MessageRegistry:
    """Message 1 echoes, 2 does so inline; 3 and 4 raise, on a worker and inline."""
    registry = MessageRegistry()

    def fail(_context: Context[bytes], _conn: WriteCloser) -> None:
        raise ZeroDivisionError("on purpose")

    registry.register(1, as_bytes, lambda context, conn: Sample(1, context.message))
    registry.register(2, as_bytes, lambda context, conn: Sample(2, context.message), inline=True)
    registry.register(3, as_bytes, fail)
    registry.register(4, as_bytes, fail, inline=True)
    return registry


def fields(record: logging.LogRecord) -> tuple[object, object]:
    """The connection's id and peer, as a handler of records finds them."""
    return getattr(record, "net_id", None), getattr(record, "peer", None)


def peer_name(peer: Peer) -> str:
    """As a record should have it."""
    host, port = peer.sock.getsockname()
    return f"{host}:{port}"


# -- what is nobody's fault ----------------------------------------------------------------------


def test_a_refused_connection_is_a_warning_without_a_traceback(records: Records) -> None:
    server = Server(registry=registry_of_all(), max_connections=1)
    with server.running(LOCAL) as address, Peer(address) as first:
        first.send_frame(1)
        first.receive_frame()
        with Peer(address) as second:
            name = peer_name(second)
            assert second.is_cut_off()
    [refusal] = records.at(logging.WARNING)
    assert refusal.levelno == logging.WARNING
    assert refusal.exc_info is None
    assert "max_connections" in refusal.getMessage()
    assert fields(refusal)[1] == name


def test_a_connection_that_on_connect_refuses_is_no_error(records: Records) -> None:
    server = Server(registry=registry_of_all(), on_connect=lambda conn: False)
    with server.running(LOCAL) as address, Peer(address) as peer:
        assert peer.receive_to_end() == b""
        peer.close()
        assert wait_until(lambda: server.connection_count == 0)
    assert records.at(logging.WARNING) == []


@pytest.mark.parametrize("when", ["idle", "in a frame", "while it is answered"])
def test_a_peers_reset_is_no_error(records: Records, when: str) -> None:
    reasons: Calls[CloseReason] = Calls()
    late: Calls[BaseException] = Calls()
    entered: Calls[WriteCloser] = Calls()
    registry = registry_of_all()

    def answer_too_late(_context: Context[bytes], conn: WriteCloser) -> None:
        entered.add(conn)
        reset_seen = wait_until(lambda: str(conn.state) == "CLOSED")
        assert reset_seen
        try:
            conn.write(Sample(1))
        except ConnectionClosedError as error:
            late.add(error)
            raise

    registry.register(5, as_bytes, answer_too_late)
    server = Server(registry=registry, on_close=lambda conn, reason: reasons.add(reason))
    with server.running(LOCAL) as address, Peer(address) as peer:
        name = peer_name(peer)
        peer.send_frame(2)
        peer.receive_frame()
        if when == "in a frame":
            peer.send(frame(1, b"half")[:10])
        elif when == "while it is answered":
            peer.send_frame(5)
            entered.wait()
        peer.reset()
        reasons.wait()
    if when == "while it is answered":
        assert len(late) == 1
    assert records.at(logging.WARNING) == []
    assert all(record.exc_info is None for record in records.records.items)
    [ending] = [
        record for record in records.at(logging.INFO) if "ConnectionReset" in record.getMessage()
    ]
    assert fields(ending) == (1, name)


# -- what is the application's -------------------------------------------------------------------


@pytest.mark.parametrize("number", [3, 4], ids=["pooled", "inline"])
@pytest.mark.parametrize("close_on_error", [False, True])
def test_a_handler_that_raises_is_one_error_with_its_traceback(
    records: Records, number: int, close_on_error: bool
) -> None:
    server = Server(registry=registry_of_all(), close_on_error=close_on_error)
    with server.running(LOCAL) as address, Peer(address) as peer:
        name = peer_name(peer)
        peer.send_frame(number)
        if close_on_error:
            assert peer.is_cut_off()
        else:
            peer.send_frame(1)
            assert peer.receive_frame() == (1, b"")
        peer.close()
        assert wait_until(lambda: server.connection_count == 0)
    [record] = records.at(logging.WARNING)
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ZeroDivisionError)
    formatted = logging.Formatter().format(record)
    assert "in fail" in formatted
    assert fields(record) == (1, name)


def raising(*_: object) -> None:
    """A callback with a defect."""
    raise ZeroDivisionError("on purpose")


def timed(conn: ServerConn) -> None:
    """Its timer raises."""
    conn.run_after(0.0, raising)


CALLBACKS: dict[str, Callable[[], Server]] = {
    "on_connect": lambda: Server(registry=registry_of_all(), on_connect=raising),
    "on_close": lambda: Server(registry=registry_of_all(), on_close=raising),
    "a timer": lambda: Server(registry=registry_of_all(), on_connect=timed),
}


@pytest.mark.parametrize("which", CALLBACKS)
def test_a_callback_that_raises_is_one_error_with_its_traceback(
    records: Records, which: str
) -> None:
    server = CALLBACKS[which]()
    with server.running(LOCAL) as address:
        with Peer(address) as peer:
            name = peer_name(peer)
            if which != "on_close":
                assert peer.is_cut_off()
            else:
                peer.send_frame(1)
                peer.receive_frame()
        assert wait_until(lambda: server.connection_count == 0)
    [record] = records.at(logging.WARNING)
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ZeroDivisionError)
    assert fields(record) == (1, name)


def test_an_on_error_that_raises_is_an_error_of_its_own(records: Records) -> None:
    server = Server(registry=registry_of_all(), on_error=raising)
    with server.running(LOCAL) as address:
        with Peer(address) as peer:
            peer.send_frame(3)
            assert peer.is_cut_off()
        assert wait_until(lambda: server.connection_count == 0)
    first, second = records.at(logging.WARNING)
    assert {first.levelno, second.levelno} == {logging.ERROR}
    assert "on_error" in second.getMessage()
    assert fields(second)[0] == 1


# -- what is the peer's --------------------------------------------------------------------------


def test_a_message_that_is_not_registered_is_a_warning(records: Records) -> None:
    server = Server(registry=registry_of_all())
    with server.running(LOCAL) as address, Peer(address) as peer:
        name = peer_name(peer)
        peer.send(frame(77) + frame(1))
        assert peer.receive_frame() == (1, b"")
        peer.close()
        assert wait_until(lambda: server.connection_count == 0)
    [record] = records.at(logging.WARNING)
    assert record.levelno == logging.WARNING
    assert record.exc_info is None
    assert "77" in record.getMessage()
    assert fields(record) == (1, name)


def test_an_end_says_who_and_why(records: Records) -> None:
    server = Server(registry=registry_of_all())
    with server.running(LOCAL) as address:
        with Peer(address) as peer:
            name = peer_name(peer)
            peer.send_frame(1)
            peer.receive_frame()
        assert wait_until(lambda: server.connection_count == 0)
    [record] = [record for record in records.at(logging.INFO) if fields(record)[0] == 1]
    assert record.levelno == logging.INFO
    assert "closed by the peer" in record.getMessage()
    assert fields(record) == (1, name)


# -- how much ------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 2], ids=["pooled", "inline"])
def test_nothing_is_logged_for_a_message(records: Records, number: int) -> None:
    logged: list[int] = []
    for count in (1, 200):
        before = len(records.at(logging.INFO))
        server = Server(registry=registry_of_all())
        with server.running(LOCAL) as address:
            with Peer(address) as peer:
                for _ in range(count):
                    peer.send_frame(number)
                    peer.receive_frame()
                server.broadcast(Sample(7))
                peer.receive_frame()
            assert wait_until(lambda server=server: server.connection_count == 0)  # type: ignore[misc]
        logged.append(len(records.at(logging.INFO)) - before)
    assert logged[0] == logged[1]


# -- clients -------------------------------------------------------------------------------------


def test_a_clients_handler_that_raises_says_which_client(records: Records) -> None:
    errors: Calls[BaseException] = Calls()
    server = Server(registry=MessageRegistry(), on_connect=lambda conn: conn.write(Sample(3)))
    with server.running(LOCAL) as address:
        client = ClientConn(
            address,
            registry=registry_of_all(),
            on_error=lambda conn, error: errors.add(error),
        )
        client.start()  # and no more: it may be over before anybody has seen it open
        errors.wait()
        net_id = client.net_id
        client.wait_closed()
    [record] = records.at(logging.ERROR)
    assert record.exc_info is not None
    assert fields(record) == (net_id, f"{address[0]}:{address[1]}")


def test_a_client_that_cannot_connect_warns_without_a_traceback(records: Records) -> None:
    with socket.create_server(LOCAL) as sock:
        address = sock.getsockname()
    client = ClientConn(address, registry=MessageRegistry())
    client.start()
    with pytest.raises(ConnectionClosedError):
        client.wait_connected(10.0)
    [record] = records.at(logging.WARNING)
    assert record.levelno == logging.WARNING
    assert record.exc_info is None
    assert fields(record) == (client.net_id, f"{address[0]}:{address[1]}")
