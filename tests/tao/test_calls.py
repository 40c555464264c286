"""tao.calls: which message answers which call, and how a call ends that none answers."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import socket
import threading
import warnings
from collections.abc import Hashable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import pytest

from reactor import ConnectionOptions, Reactor, Watermark
from tao import (
    Backoff,
    ClientConn,
    CloseReason,
    Codec,
    ConnectionClosedError,
    Context,
    CorrelatingCodec,
    MessageRegistry,
    NotRegisteredError,
    Server,
    TypeLengthValueCodec,
    WouldBlockError,
    WriteCloser,
)
from tests.support import DEADLINE, LOCAL, Calls, Peer, Sample, as_bytes, frame, wait_until

REPLY, PUSHED = 2, 3


class Keyed(TypeLengthValueCodec):
    """The first byte of a value says which request and which reply belong together; 0: neither."""

    __slots__ = ()

    def correlation(self, message: Any) -> Hashable | None:
        value: bytes = message.value if isinstance(message, Sample) else message
        return value[:1] if value[:1] != b"\0" else None


_: CorrelatingCodec = Keyed()  # checked by mypy


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(LOCAL) as sock:
        yield sock


def registry(pushed: Calls[bytes] | None = None) -> MessageRegistry:
    """Replies have no handler, what the server pushes has one."""
    made = MessageRegistry()
    made.register(REPLY, as_bytes)
    if pushed is not None:
        made.register(PUSHED, as_bytes, lambda context, conn: pushed.add(context.message))
    return made


@contextmanager
def connected(listener: socket.socket, **options: Any) -> Iterator[tuple[ClientConn, Peer]]:
    """A client, and the server's end of its connection by hand."""
    options.setdefault("registry", registry())
    client = ClientConn(listener.getsockname(), **options)
    client.start()
    with Peer.accept(listener) as peer:
        assert client.wait_connected(DEADLINE)
        try:
            yield client, peer
        finally:
            client.abort()
            client.wait_closed(DEADLINE)


def error_of(future: Future[Any]) -> BaseException | None:
    return future.exception(DEADLINE)


# -- in order ------------------------------------------------------------------------------------


def test_replies_come_in_the_order_of_the_calls(listener: socket.socket) -> None:
    with connected(listener) as (client, peer):
        calls = [client.call(Sample(1, b"%d" % number)) for number in range(3)]
        assert peer.receive_frames(3) == [(1, b"0"), (1, b"1"), (1, b"2")]
        assert not any(call.done() for call in calls)
        peer.send(frame(REPLY, b"a") + frame(REPLY, b"b"))
        assert [call.result(DEADLINE) for call in calls[:2]] == [b"a", b"b"]
        assert not calls[2].done()
        peer.send_frame(REPLY, b"c")
        assert calls[2].result(DEADLINE) == b"c"


def test_a_message_with_a_handler_is_no_reply(listener: socket.socket) -> None:
    pushed: Calls[bytes] = Calls()
    with connected(listener, registry=registry(pushed)) as (client, peer):
        call = client.call(Sample(1))
        peer.send(frame(PUSHED, b"news") + frame(0, bytes(8)) + frame(REPLY, b"answer"))
        assert call.result(DEADLINE) == b"answer"
        assert pushed.items == [b"news"]


def test_what_nobody_has_called_for_is_on_messages(listener: socket.socket) -> None:
    """Before the first call, and after the last."""
    seen: Calls[bytes] = Calls()
    with connected(listener, on_message=lambda message, conn: seen.add(message)) as (client, peer):
        peer.send_frame(REPLY, b"before")
        seen.wait(1)
        call = client.call(Sample(1))
        peer.send(frame(REPLY, b"answer") + frame(REPLY, b"after"))
        assert call.result(DEADLINE) == b"answer"
        assert seen.wait(2) == [b"before", b"after"]


def test_what_nobody_wants_is_told_and_costs_nothing(listener: socket.socket) -> None:
    errors: Calls[BaseException] = Calls()
    with connected(listener, on_error=lambda conn, error: errors.add(error)) as (client, peer):
        call = client.call(Sample(1))
        peer.send(frame(REPLY, b"answer") + frame(REPLY, b"nobody's"))
        assert call.result(DEADLINE) == b"answer"
        assert isinstance(errors.wait(1)[0], NotRegisteredError)
        second = client.call(Sample(1))
        peer.send_frame(REPLY, b"second")
        assert second.result(DEADLINE) == b"second"
        assert len(errors) == 1


def test_calls_of_many_threads_get_their_own_replies() -> None:
    """What each thread sends comes back to it: calls stand in line as their frames do."""
    echoes = MessageRegistry()
    echoes.register(1, as_bytes, lambda context, conn: Sample(REPLY, context.message), inline=True)
    wrong: list[object] = []
    with (
        Server(registry=echoes).running(LOCAL) as address,
        ClientConn(address, registry=registry()) as client,
    ):

        def ask(name: int) -> None:
            for number in range(200):
                value = b"%d %d" % (name, number)
                reply = client.call(Sample(1, value)).result(DEADLINE)
                if reply != value:
                    wrong.append((value, reply))

        threads = [threading.Thread(target=ask, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE * 3)
            assert not thread.is_alive()
    assert wrong == []


def test_a_handler_may_call_and_keeps_its_place(listener: socket.socket) -> None:
    """Behind what it has written before; the reply is handled when it has returned."""
    replies: Calls[bytes] = Calls()
    made = registry()

    def on_start(context: Context[bytes], conn: WriteCloser) -> Sample:
        assert isinstance(conn, ClientConn)
        conn.write(Sample(1, b"written"))
        conn.call(Sample(1, b"called"), reply=bytes).add_done_callback(
            lambda future: replies.add(future.result())
        )
        return Sample(1, b"returned")

    made.register(4, as_bytes, on_start)
    with connected(listener, registry=made) as (_client, peer):
        peer.send_frame(4)
        assert peer.receive_frames(3) == [(1, b"written"), (1, b"called"), (1, b"returned")]
        peer.send_frame(REPLY, b"answer")
        assert replies.wait(1) == [b"answer"]


# -- by correlation ------------------------------------------------------------------------------


def test_replies_with_a_key_come_in_any_order(listener: socket.socket) -> None:
    seen: Calls[bytes] = Calls()
    with connected(listener, codec=Keyed(), on_message=lambda message, conn: seen.add(message)) as (
        client,
        peer,
    ):
        first, second = client.call(Sample(1, b"1?")), client.call(Sample(1, b"2?"))
        peer.send(
            frame(REPLY, b"2!")
            + frame(REPLY, b"\0push")
            + frame(REPLY, b"9!")
            + frame(REPLY, b"1!")
        )
        assert first.result(DEADLINE) == b"1!"
        assert second.result(DEADLINE) == b"2!"
        assert seen.wait(2) == [b"\0push", b"9!"]


def test_keys_are_checked_where_the_call_is_made(listener: socket.socket) -> None:
    with connected(listener, codec=Keyed()) as (client, peer):
        with pytest.raises(ValueError, match="needs a correlation"):
            client.call(Sample(1, b"\0"))
        first = client.call(Sample(1, b"1?"))
        with pytest.raises(ValueError, match="under way"):
            client.call(Sample(1, b"1 again?"))
        peer.send_frame(REPLY, b"1!")
        assert first.result(DEADLINE) == b"1!"
        again = client.call(Sample(1, b"1 again?"))
        assert peer.receive_frames(2) == [(1, b"1?"), (1, b"1 again?")]
        peer.send_frame(REPLY, b"1!!")
        assert again.result(DEADLINE) == b"1!!"


def test_a_key_is_free_again_when_its_call_has_been_given_up(listener: socket.socket) -> None:
    with connected(listener, codec=Keyed()) as (client, peer):
        assert client.call(Sample(1, b"1?")).cancel()
        assert isinstance(error_of(client.call(Sample(1, b"1?"), 0.01)), TimeoutError)
        call = client.call(Sample(1, b"1?"))
        peer.send_frame(REPLY, b"1!")
        assert call.result(DEADLINE) == b"1!"


# -- time-outs and cancelling --------------------------------------------------------------------


def test_a_call_times_out_and_keeps_its_place(listener: socket.socket) -> None:
    seen: Calls[bytes] = Calls()
    with connected(listener, on_message=lambda message, conn: seen.add(message)) as (client, peer):
        first, second = client.call(Sample(1), 0.02), client.call(Sample(1), DEADLINE)
        assert isinstance(error_of(first), TimeoutError)
        peer.send(frame(REPLY, b"late") + frame(REPLY, b"in time"))
        assert second.result(DEADLINE) == b"in time"
        peer.send_frame(REPLY, b"marker")
        assert seen.wait(1) == [b"marker"]


def test_a_time_out_of_nothing_is_over_at_once_and_the_message_is_sent(
    listener: socket.socket,
) -> None:
    with connected(listener) as (client, peer):
        call = client.call(Sample(1, b"sent"), 0.0)
        assert peer.receive_frame() == (1, b"sent")
        assert isinstance(error_of(call), TimeoutError)


@pytest.mark.parametrize("timeout", [-1.0, float("nan"), float("inf")])
def test_a_time_out_that_makes_no_sense_is_refused(listener: socket.socket, timeout: float) -> None:
    with connected(listener) as (client, peer):
        with pytest.raises(ValueError, match="timeout"):
            client.call(Sample(1, b"refused"), timeout)
        client.write(Sample(1, b"next"))
        assert peer.receive_frame() == (1, b"next")


def test_a_reply_in_time_takes_its_timer_along(listener: socket.socket) -> None:
    reactor = Reactor()
    client = ClientConn(listener.getsockname(), registry=registry(), reactor=reactor)
    client.start()
    thread = threading.Thread(target=reactor.run)
    thread.start()
    try:
        with Peer.accept(listener) as peer:
            assert client.wait_connected(DEADLINE)
            before = reactor.statistics().timeouts_waiting
            call = client.call(Sample(1), 3600.0)
            assert wait_until(lambda: reactor.statistics().timeouts_waiting == before + 1)
            peer.send_frame(REPLY, b"answer")
            assert call.result(DEADLINE) == b"answer"
            # The worker that brought the reply, and its timer, are seen to in the same way.
            assert wait_until(lambda: reactor.statistics().timeouts_waiting <= before)
            client.abort()
            assert client.wait_closed(DEADLINE) is not None
    finally:
        reactor.stop()
        thread.join(DEADLINE)
        reactor.close()


def test_a_cancelled_call_keeps_its_place_and_wakes_who_waits(listener: socket.socket) -> None:
    with connected(listener) as (client, peer):
        first, second = client.call(Sample(1)), client.call(Sample(1))
        waited: Calls[int] = Calls()
        thread = threading.Thread(
            target=lambda: waited.add(len(concurrent.futures.wait([first], DEADLINE).done))
        )
        thread.start()
        assert first.cancel()
        assert waited.wait(1) == [1]
        thread.join(DEADLINE)
        peer.send(frame(REPLY, b"dropped") + frame(REPLY, b"second"))
        assert second.result(DEADLINE) == b"second"
        assert first.cancelled()


# -- the end of the connection -------------------------------------------------------------------


def test_what_was_not_answered_fails_with_the_connection(listener: socket.socket) -> None:
    """After the replies that came, and before on_close."""
    order: Calls[str] = Calls()

    def on_close(conn: ClientConn, reason: CloseReason) -> None:
        order.add("on_close")

    with connected(listener, on_close=on_close) as (client, peer):
        calls = [client.call(Sample(1)) for _ in range(3)]
        calls[2].add_done_callback(lambda future: order.add("failed"))
        peer.receive_frames(3)
        peer.send_frame(REPLY, b"answer")
        peer.finish_sending()
        assert calls[0].result(DEADLINE) == b"answer"
        for call in calls[1:]:
            error = error_of(call)
            assert isinstance(error, ConnectionClosedError)
            assert "before a reply" in str(error)
            assert "closed by the peer" in str(error)
        assert order.wait(2) == ["failed", "on_close"]


def test_the_error_that_ended_it_is_the_cause(listener: socket.socket) -> None:
    with connected(listener) as (client, peer):
        call = client.call(Sample(1))
        peer.receive_frame()
        peer.reset()
        error = error_of(call)
        assert isinstance(error, ConnectionClosedError)
        assert isinstance(error.__cause__, ConnectionResetError)


@pytest.mark.parametrize("end", ["close", "abort"])
def test_this_sides_own_end_fails_them_too(listener: socket.socket, end: str) -> None:
    with connected(listener) as (client, peer):
        call = client.call(Sample(1))
        peer.receive_frame()
        getattr(client, end)()
        peer.close()
        assert isinstance(error_of(call), ConnectionClosedError)
        with pytest.raises(ConnectionClosedError):
            client.call(Sample(1))


def test_a_loop_that_is_ended_from_outside_fails_them(listener: socket.socket) -> None:
    client = ClientConn(listener.getsockname(), registry=registry())
    client.start()
    with Peer.accept(listener) as peer:
        assert client.wait_connected(DEADLINE)
        call = client.call(Sample(1))
        peer.receive_frame()
        client._reactor.stop()
        assert isinstance(error_of(call), ConnectionClosedError)
        assert client.wait_closed(DEADLINE) is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del client, call
        gc.collect()  # nobody is left who could close its socket


def test_without_a_connection_it_is_refused(listener: socket.socket) -> None:
    """And is not kept for the next, as a write is."""
    client = ClientConn(listener.getsockname(), registry=registry(), offline_limit=1000)
    with pytest.raises(ConnectionClosedError):
        client.call(Sample(1))
    client.start()
    with Peer.accept(listener) as peer:
        assert client.wait_connected(DEADLINE)
        call = client.call(Sample(1, b"first"))
        assert peer.receive_frame() == (1, b"first")
        peer.send_frame(REPLY, b"answer")
        assert call.result(DEADLINE) == b"answer"
    assert client.wait_closed(DEADLINE) is not None


def test_the_next_connection_begins_with_no_calls(listener: socket.socket) -> None:
    backoff = Backoff(first=0.01, jitter=0.0)
    client = ClientConn(listener.getsockname(), registry=registry(), reconnect=backoff)
    client.start()
    with Peer.accept(listener) as peer:
        assert client.wait_connected(DEADLINE)
        lost = client.call(Sample(1))
        peer.receive_frame()
    assert isinstance(error_of(lost), ConnectionClosedError)
    with Peer.accept(listener) as peer:
        assert client.wait_connected(DEADLINE)
        call = client.call(Sample(1))
        peer.receive_frame()
        peer.send_frame(REPLY, b"the new one's")
        assert call.result(DEADLINE) == b"the new one's"
        client.abort()
    assert client.wait_closed(DEADLINE) is not None


def test_a_reply_of_another_type_fails_its_call(listener: socket.socket) -> None:
    with connected(listener) as (client, peer):
        call = client.call(Sample(1), reply=str)
        peer.receive_frame()
        peer.send_frame(REPLY, b"bytes")
        error = error_of(call)
        assert isinstance(error, TypeError)
        assert "of type str" in str(error)
        second = client.call(Sample(1), reply=bytes)
        peer.receive_frame()
        peer.send_frame(REPLY, b"bytes")
        assert second.result(DEADLINE) == b"bytes"


def test_a_type_that_cannot_be_asked_for_fails_its_call_and_nothing_else(
    listener: socket.socket,
) -> None:
    with connected(listener) as (client, peer):
        call = client.call(Sample(1), reply=Codec)  # type: ignore[type-abstract]
        peer.receive_frame()
        peer.send_frame(REPLY, b"first")
        assert isinstance(error_of(call), TypeError)
        second = client.call(Sample(1), reply=bytes)
        peer.receive_frame()
        peer.send_frame(REPLY, b"second")
        assert second.result(DEADLINE) == b"second"


def test_a_write_that_is_refused_leaves_no_call(listener: socket.socket) -> None:
    options = ConnectionOptions(output=Watermark(10, 20), output_limit=100)
    with connected(listener, options=options) as (client, peer):
        with pytest.raises(WouldBlockError):
            client.call(Sample(1, bytes(200)))
        with pytest.raises(AttributeError):
            client.call(object())  # type: ignore[call-overload]
        call = client.call(Sample(1))
        assert peer.receive_frame() == (1, b"")
        peer.send_frame(REPLY, b"answer")
        assert call.result(DEADLINE) == b"answer"


# -- asyncio -------------------------------------------------------------------------------------


def test_asyncio_awaits_replies_cancels_and_times_out(listener: socket.socket) -> None:
    with connected(listener) as (client, peer):

        async def main() -> None:
            first = asyncio.wrap_future(client.call(Sample(1)))
            second = asyncio.wrap_future(client.call(Sample(1)))
            third = asyncio.wrap_future(client.call(Sample(1), 0.02))
            fourth = asyncio.wrap_future(client.call(Sample(1)))
            second.cancel()
            peer.send(b"".join(frame(REPLY, value) for value in (b"1", b"2")))
            assert await asyncio.wait_for(first, DEADLINE) == b"1"
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(third, DEADLINE)
            peer.send(b"".join(frame(REPLY, value) for value in (b"3", b"4")))
            assert await asyncio.wait_for(fourth, DEADLINE) == b"4"
            assert second.cancelled()

        asyncio.run(main())
