"""tao.context: what a handler is told."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from tao import ClientConn, Context, MessageRegistry, Server, WriteCloser
from tao.interfaces import MessageServer
from tests.support import DEADLINE, LOCAL, Calls, Peer, Sample, as_bytes, frame


class Source:
    """A session, as far as a context sees one."""

    net_id = 17
    server: MessageServer | None = None
    cancelled = False

    def monotonic(self) -> float:
        return 0.0

    def wait_cancelled(self, timeout: float | None = None) -> bool:
        return self.cancelled


def test_it_has_the_message_and_the_connections_id() -> None:
    context = Context("hello", Source())
    assert context.message == "hello"
    assert context.net_id == 17
    assert repr(context) == "<Context of 'hello' on connection 17>"


def test_a_value_that_nobody_has_set_is_none() -> None:
    assert Context("hello", Source()).value("key") is None


def test_with_value_leaves_the_first_as_it_was() -> None:
    outer = Context("hello", Source())
    inner = outer.with_value("key", 1)
    assert inner.value("key") == 1
    assert outer.value("key") is None
    assert inner.message == "hello"
    assert inner.net_id == 17


def test_the_innermost_value_counts_and_others_shine_through() -> None:
    context = Context("hello", Source()).with_value("a", 1).with_value("b", 2).with_value("a", 3)
    assert (context.value("a"), context.value("b"), context.value("c")) == (3, 2, None)


def test_two_contexts_from_one_do_not_share() -> None:
    base = Context("hello", Source()).with_value("base", 0)
    first, second = base.with_value("key", 1), base.with_value("key", 2)
    assert (first.value("key"), second.value("key")) == (1, 2)
    assert first.value("base") == second.value("base") == 0


def test_a_key_may_be_none_and_so_may_a_value() -> None:
    context = Context("hello", Source()).with_value(None, 5).with_value("key", None)
    assert context.value(None) == 5
    assert context.value("key") is None


@pytest.mark.parametrize("inline", [False, True])
def test_the_server_is_the_one_that_it_came_to(inline: bool) -> None:
    seen: Calls[tuple[MessageServer, int, int]] = Calls()
    registry = MessageRegistry()
    registry.register(
        1,
        as_bytes,
        lambda context, conn: seen.add((context.server, context.net_id, conn.net_id)),
        inline=inline,
    )
    server = Server(registry=registry)
    with server.running(LOCAL) as address, Peer(address) as peer:
        peer.send_frame(1)
        [(its_server, net_id, conn_id)] = seen.wait()
        assert its_server is server
        assert net_id == conn_id
        assert server.connection(net_id).net_id == net_id


def test_a_client_has_no_server() -> None:
    errors: Calls[BaseException] = Calls()
    registry = MessageRegistry()

    def handle(context: Context[bytes], conn: WriteCloser) -> None:
        try:
            assert context.server is None
        except LookupError as error:
            errors.add(error)

    registry.register(1, as_bytes, handle)
    server = Server(registry=MessageRegistry(), on_connect=lambda conn: conn.write(Sample(1)))
    with server.running(LOCAL) as address, ClientConn(address, registry=registry):
        [error] = errors.wait()
        assert "client" in str(error)


def waiting_server(seen: Calls[bool]) -> tuple[Server, threading.Event]:
    """A server whose handler of message 1 sleeps until it is cancelled; and a sign that it does."""
    begun = threading.Event()
    registry = MessageRegistry()

    def handle(context: Context[bytes], conn: WriteCloser) -> None:
        seen.add(context.cancelled)
        seen.add(context.wait_cancelled(0.0))
        begun.set()
        seen.add(context.wait_cancelled(DEADLINE))
        seen.add(context.cancelled)

    registry.register(1, as_bytes, handle)
    return Server(registry=registry), begun


ENDINGS: dict[str, Callable[[Server, Peer], object]] = {
    "close": lambda server, peer: server.connections()[0].close(),
    "abort": lambda server, peer: server.connections()[0].abort(),
    "reset by the peer": lambda server, peer: peer.reset(),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_handler_learns_that_its_connection_has_ended(ending: str) -> None:
    seen: Calls[bool] = Calls()
    server, begun = waiting_server(seen)
    with server.running(LOCAL) as address, Peer(address) as peer:
        peer.send_frame(1)
        assert begun.wait(DEADLINE)
        ENDINGS[ending](server, peer)
        assert seen.wait(4) == [False, False, True, True]


def test_a_handler_learns_that_the_server_stops() -> None:
    seen: Calls[bool] = Calls()
    server, begun = waiting_server(seen)
    with server.running(LOCAL) as address, Peer(address) as peer:
        peer.send_frame(1)
        assert begun.wait(DEADLINE)
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        assert seen.wait(4) == [False, False, True, True]
        assert peer.receive_to_end() == b""
        peer.close()
        stopping.join()


def test_a_peer_that_only_finished_sending_still_wants_its_answer() -> None:
    release = threading.Event()
    fins: Calls[bool] = Calls()
    registry = MessageRegistry()

    def handle(context: Context[bytes], conn: WriteCloser) -> Sample:
        assert release.wait(DEADLINE)
        # The FIN may be on its way still; a short wait looks again and again.
        fins.add(context.wait_cancelled(0.1))
        return Sample(2, b"answer")

    registry.register(1, as_bytes, handle)
    with Server(registry=registry).running(LOCAL) as address, Peer(address) as peer:
        peer.send_frame(1)
        peer.finish_sending()
        release.set()
        assert peer.receive_to_end() == frame(2, b"answer")
        assert fins.wait() == [False]


def test_many_may_wait_at_once() -> None:
    """Contexts may be handed on to other threads."""
    seen: Calls[bool] = Calls()
    contexts: Calls[Context[bytes]] = Calls()
    registry = MessageRegistry()
    registry.register(1, as_bytes, lambda context, conn: contexts.add(context))
    server = Server(registry=registry)
    with server.running(LOCAL) as address, Peer(address) as peer:
        peer.send(frame(1) * 3)
        threads = [
            threading.Thread(target=lambda c=context: seen.add(c.wait_cancelled(DEADLINE)))
            for context in contexts.wait(3)
        ]
        for thread in threads:
            thread.start()
        peer.reset()
        for thread in threads:
            thread.join()
        assert seen.items == [True] * 3
