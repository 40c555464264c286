"""What most sessions never need."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from tao import Context, Heartbeat, MessageRegistry, Server, ServerConn, WriteCloser
from tao.session_extras import SessionExtras
from tests.support import LOCAL, Peer, Sample, as_bytes, frame, wait_until


def serve(
    use: Callable[[ServerConn], object], *, inline: bool, heartbeat: Heartbeat | None = None
) -> SessionExtras | None:
    """What a connection has whose handler has done that."""
    registry = MessageRegistry()

    def handle(context: Context[bytes], conn: WriteCloser) -> Sample:
        assert isinstance(conn, ServerConn)
        use(conn)
        return Sample(1, context.message)

    registry.register(1, as_bytes, handle, inline=inline)
    server = Server(registry=registry, heartbeat=heartbeat)
    with server.running(LOCAL) as address, Peer(address) as peer:
        peer.send(frame(1, b"hello"))
        assert peer.receive(len(frame(1, b"hello"))) == frame(1, b"hello")
        return server.connections()[0]._session._extras


@pytest.mark.parametrize("inline", [True, False], ids=["inline", "pooled"])
@pytest.mark.parametrize("replies", [True, False], ids=["replies", "silent"])
def test_one_that_is_idle_has_no_lists(inline: bool, replies: bool) -> None:
    registry = MessageRegistry()
    registry.register(1, as_bytes, lambda context, conn: None, inline=inline)
    registry.register(2, as_bytes, lambda context, conn: Sample(2), inline=inline)
    server = Server(registry=registry, on_connect=lambda conn: True)
    with server.running(LOCAL) as address, Peer(address) as peer:
        peer.send(frame(2))
        assert peer.receive_frame() == (2, b"")
        peer.send(frame(2 if replies else 1))
        [conn] = server.connections()
        session = conn._session
        connection = session.connection
        assert wait_until(
            lambda: (
                server.metrics().handled == 2
                and (connection.own, connection._outbox, session._inbox) == ((), (), [])
            )
        )


@pytest.mark.parametrize("inline", [True, False], ids=["inline", "pooled"])
def test_one_that_answers_and_is_idle_has_none(inline: bool) -> None:
    assert serve(lambda conn: None, inline=inline) is None


@pytest.mark.parametrize(
    ("use", "name"),
    [
        (lambda conn: conn.run_after(100.0, lambda now, conn: None), "timers"),
        (lambda conn: conn.authenticate("Bob"), "principal"),
        (lambda conn: conn._session.wait_cancelled(0), "cancelled"),
    ],
    ids=["timers", "principal", "cancelled"],
)
def test_one_is_made_by_the_first_that_needs_it(
    use: Callable[[ServerConn], object], name: str
) -> None:
    extras = serve(use, inline=False)
    assert extras is not None
    assert getattr(extras, name) is not None


def test_a_heartbeat_needs_one() -> None:
    extras = serve(lambda conn: None, inline=True, heartbeat=Heartbeat(interval=10, timeout=30))
    assert extras is not None
    assert extras.expectations is not None
    assert repr(extras) == "<SessionExtras of 1 parts>"


def test_threads_that_ask_at_once_get_the_same() -> None:
    seen: list[SessionExtras] = []

    def use(conn: ServerConn) -> None:
        begin = threading.Barrier(8)

        def ask() -> None:
            begin.wait()
            seen.append(conn._session._need_extras())

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert serve(use, inline=False) is seen[0]
    assert all(extras is seen[0] for extras in seen)
