"""What is called from the wrong thread, in the wrong place, or too late."""

from __future__ import annotations

import select
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

from reactor import (
    Acceptor,
    ConnectionOptions,
    Reactor,
    ReactorClosedError,
    ReactorError,
    ReentrancyError,
    WrongThreadError,
    listen,
)
from tao import (
    CloseCause,
    CloseReason,
    ConnectionClosedError,
    Context,
    LineCodec,
    MessageRegistry,
    NotRegisteredError,
    Server,
    ServerConn,
    TaoError,
    WriteCloser,
)
from tests.faults.support import INLINE, POOLED, Watched, check_alive
from tests.support import DEADLINE, LOCAL, Calls, Peer, Sample, as_bytes, frame, wait_until
from tests.tao.stress import THREADS, at_once

# -- the wake-up pipe ----------------------------------------------------------------------------


def test_a_loop_whose_wake_up_pipe_is_full() -> None:
    """A byte more does not fit, and none is needed: all that is posted runs, and the pipe is emptied."""
    reactor = Reactor()
    waker = reactor._waker
    for _ in range(200_000):  # more than a pipe holds: pipe(7)
        waker.arm()
        waker.wake()
    ran: Calls[tuple[int, int]] = Calls()
    thread = threading.Thread(target=reactor.run)
    try:

        def post(index: int) -> None:
            for number in range(200):
                reactor.call_soon_threadsafe(ran.add, (index, number))

        at_once(post)
        thread.start()
        at_once(post)
        ran.wait(2 * THREADS * 200)
        # It sleeps and is woken as ever.
        assert wait_until(lambda: reactor.timeout() is None)
        # The pipe is emptied a piece in each pass.
        assert wait_until(lambda: not select.select([waker.fileno()], [], [], 0)[0])
        settled: list[int] = [-1]

        def is_settled() -> bool:
            settled.append(reactor.statistics().wakeups)
            return settled[-1] == settled[-2]

        assert wait_until(is_settled)
        before = settled[-1]
        again = threading.Event()
        reactor.call_soon_threadsafe(again.set)
        assert again.wait(DEADLINE)
        assert reactor.statistics().wakeups <= before + 1
    finally:
        reactor.stop()
        thread.join()
        reactor.close()
    for index in range(THREADS):
        assert [number for of, number in ran.items if of == index] == [*range(200), *range(200)]


# -- after the end -------------------------------------------------------------------------------


def test_posts_from_other_threads_while_the_loop_is_closed() -> None:
    """Each post is run, or refused, or was accepted too late to be run: nothing else is raised."""
    for _ in range(20):
        reactor = Reactor()
        thread = threading.Thread(target=reactor.run)
        thread.start()
        ran: Calls[int] = Calls()
        refused: Calls[int] = Calls()

        def post(
            index: int,
            reactor: Reactor = reactor,
            ran: Calls[int] = ran,
            refused: Calls[int] = refused,
            thread: threading.Thread = thread,
        ) -> None:
            if index == 0:
                ran.wait()
                reactor.stop()
                thread.join()
                reactor.close()
                return
            while len(refused) < index:
                try:
                    reactor.call_soon_threadsafe(ran.add, index)
                except ReactorClosedError:
                    refused.add(index)

        at_once(post)
        after = len(ran)
        with pytest.raises(ReactorClosedError):
            reactor.call_soon_threadsafe(ran.add, 0)
        reactor.wake()
        reactor.stop()
        assert len(ran) == after


def test_every_verb_from_other_threads_while_the_server_stops() -> None:
    """Of the connections, and of the server: what is too late says so by an exception of tao's."""
    opened: Calls[ServerConn] = Calls()
    server = Server(
        registry=MessageRegistry(),
        on_connect=opened.add,
        options=ConnectionOptions(linger_timeout=0.05),
    )
    stopped = threading.Event()
    unexpected: Calls[BaseException] = Calls()

    def verbs(conn: ServerConn) -> list[Callable[[], object]]:
        return [
            lambda: conn.write(Sample(1)),
            lambda: server.broadcast(Sample(1)),
            lambda: server.unicast(conn.net_id, Sample(1)),
            lambda: conn.cancel_timer(conn.run_after(1.0, lambda now, conn: None)),
            lambda: conn.run_every(0.001, lambda now, conn: None),
            conn.pause_reading,
            conn.resume_reading,
            lambda: conn.set_codec(LineCodec()),
            server.metrics,
            server.connections,
            lambda: server.group("all").join(conn),
            conn.close,
            conn.abort,
        ]

    with ExitStack() as stack, server.running(LOCAL) as address:
        for _ in range(THREADS):
            stack.enter_context(Peer(address))
        conns = opened.wait(THREADS)

        def stop() -> None:
            server.stop()
            stopped.set()

        stopper = threading.Thread(target=stop)

        def call_all(index: int) -> None:
            if index == 0:
                stopper.start()
            after = 0
            while after < 2:
                after += stopped.is_set()  # once more when all is over
                for verb in verbs(conns[index])[: None if after else -2]:
                    try:
                        verb()
                    except (ConnectionClosedError, NotRegisteredError):
                        pass
                    except BaseException as error:
                        unexpected.add(error)

        at_once(call_all)
        stopper.join()
    assert unexpected.items == []
    assert server.connection_count == 0


# -- the wrong place -----------------------------------------------------------------------------

PLACES = ["pooled", "inline", "timer", "on_connect", "on_error", "on_message", "on_close"]


class Misplaced:
    """A server that does something in one of its handlers or callbacks, once."""

    def __init__(self, place: str, what: Callable[[ServerConn], object], **arguments: Any) -> None:
        self.outcomes: Calls[object] = Calls()
        self.reasons: Calls[CloseReason] = Calls()
        registry = MessageRegistry()
        registry.register(POOLED, as_bytes, self._echo)
        registry.register(INLINE, as_bytes, self._echo, inline=True)

        def act(conn: Any) -> None:
            if len(self.outcomes) == 0:
                try:
                    self.outcomes.add(what(conn))
                except Exception as error:
                    self.outcomes.add(error)

        def handle(_context: Context[bytes], conn: WriteCloser) -> None:
            if place == "timer":
                conn.run_after(0.0, lambda now, conn: act(conn))
            else:
                act(conn)

        if place != "on_message":
            registry.register(3, as_bytes, handle, inline=place == "inline")
        else:
            registry.register(3, as_bytes)
            arguments["on_message"] = lambda message, conn: act(conn)
        if place == "on_error":  # message 4 is not registered, and tells it so
            arguments["on_error"] = lambda conn, error: act(conn)
        if place == "on_connect":
            arguments["on_connect"] = act

        def on_close(conn: ServerConn, reason: CloseReason) -> None:
            if place == "on_close":
                act(conn)
            self.reasons.add(reason)

        self.server = Server(registry=registry, on_close=on_close, **arguments)
        self._trigger = frame(4) if place == "on_error" else frame(3)
        self._by_leaving = place == "on_close"

    @staticmethod
    def _echo(context: Context[bytes], _conn: WriteCloser) -> Sample:
        return Sample(POOLED, context.message)

    def outcome(self, peer: Peer) -> object:
        """What came of it, or what was raised; `peer` sets it off."""
        if self._by_leaving:
            peer.close()
        else:
            peer.send(self._trigger)
        return self.outcomes.wait()[0]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("method", ["run", "run_once", "close"])
def test_a_handler_cannot_run_or_close_the_loop(method: str, place: str) -> None:
    """A typed error, wherever it is tried; and the loop, the connection and the server go on."""
    reactor = Reactor()
    misplaced = Misplaced(place, lambda conn: getattr(reactor, method)(), reactor=reactor)
    address = misplaced.server.listen(LOCAL)
    thread = threading.Thread(target=reactor.run)
    thread.start()
    try:
        with Peer(address) as peer, Peer(address) as other:
            outcome = misplaced.outcome(peer)
            assert isinstance(outcome, (WrongThreadError, ReentrancyError))
            if place != "on_close":
                check_alive(peer)
            check_alive(other)
    finally:
        assert misplaced.server.stop().finished
        reactor.stop()
        thread.join()
        reactor.close()


@pytest.mark.parametrize("place", [*PLACES])
def test_a_write_behind_ones_own_close_is_refused(place: str) -> None:
    """In the handler that closes, in one of its callbacks, and in on_close itself."""

    def close_and_write(conn: ServerConn) -> None:
        conn.close()
        conn.close()
        conn.write(Sample(POOLED, b"too late"))

    misplaced = Misplaced(place, close_and_write)
    with misplaced.server.running(LOCAL) as address, Peer(address) as other:
        # The first connection acts; in on_connect that is whoever comes first.
        if place == "on_connect":
            assert isinstance(misplaced.outcomes.wait()[0], ConnectionClosedError)
            assert other.receive_to_end() == b""
            return
        with Peer(address) as peer:
            assert isinstance(misplaced.outcome(peer), ConnectionClosedError)
            if place != "on_close":
                assert peer.receive_to_end() == b""
        check_alive(other)
    assert CloseCause.CLOSED in {reason.cause for reason in misplaced.reasons.items} or (
        place == "on_close"
    )


@pytest.mark.parametrize("verb", ["close", "abort"])
@pytest.mark.parametrize("inline", [False, True], ids=["pooled", "inline"])
def test_handlers_that_end_each_others_connections(inline: bool, verb: str) -> None:
    """All at once, each another's and their own: every connection has its one on_close."""
    reasons: Calls[tuple[int, CloseReason]] = Calls()
    registry = MessageRegistry()

    def end_all(_context: Context[bytes], conn: WriteCloser) -> Sample:
        for other in server.connections():
            getattr(other, verb)()
        return Sample(POOLED, b"to nobody")

    registry.register(POOLED, as_bytes, end_all, inline=inline)
    server = Server(
        registry=registry, on_close=lambda conn, reason: reasons.add((conn.net_id, reason))
    )
    with server.running(LOCAL) as address, ExitStack() as stack:
        peers = [stack.enter_context(Peer(address)) for _ in range(20)]
        assert wait_until(lambda: server.connection_count == 20)
        for peer in peers:
            try:
                peer.send_frame(POOLED)
            except ConnectionError:
                pass  # it was quicker
        for peer in peers:
            try:
                assert frame(POOLED, b"to nobody").startswith(peer.receive_to_end())
            except ConnectionError:
                pass
            peer.close()
        assert wait_until(lambda: server.connection_count == 0)
    assert sorted(net_id for net_id, _ in reasons.items) == list(range(1, 21))


@pytest.mark.parametrize("place", PLACES)
def test_a_stop_from_anywhere_returns_and_holds(place: str) -> None:
    """Twice even, with different graces; it cannot wait there, and all is over soon after."""
    misplaced: Misplaced

    def stop_twice(_conn: ServerConn) -> object:
        misplaced.server.stop(grace=5.0)
        return misplaced.server.stop(grace=1.0).finished

    misplaced = Misplaced(place, stop_twice)
    with misplaced.server.running(LOCAL) as address, Peer(address) as peer:
        if place == "on_connect":
            assert misplaced.outcomes.wait() == [False]
        else:
            assert misplaced.outcome(peer) is False
        peer.close()
        assert misplaced.server.stop().finished
    assert len(misplaced.reasons) == 1


def test_a_context_outlives_its_handler() -> None:
    """Another thread has kept it, and the connection: it may still write, until there is nobody."""
    kept: Calls[tuple[Context[bytes], WriteCloser]] = Calls()
    registry = MessageRegistry()

    def keep(context: Context[bytes], conn: WriteCloser) -> None:
        kept.add((context, conn))

    registry.register(POOLED, as_bytes, keep)
    server = Server(registry=registry)
    with server.running(LOCAL) as address, Peer(address) as peer:
        peer.send_frame(POOLED, b"question")
        [(context, conn)] = kept.wait()
        conn.write(Sample(POOLED, b"answer to " + context.message))
        assert peer.receive_frame() == (POOLED, b"answer to question")
        assert not context.cancelled
        peer.close()
        assert context.wait_cancelled(DEADLINE)
        with pytest.raises(ConnectionClosedError):
            conn.write(Sample(POOLED))


# -- the wrong thread ----------------------------------------------------------------------------


def test_an_acceptor_is_not_closed_by_another_thread() -> None:
    reactor = Reactor()
    acceptor = Acceptor(reactor, listen(LOCAL), lambda sock, address: sock.close())
    thread = threading.Thread(target=reactor.run)
    thread.start()
    try:
        assert wait_until(reactor.in_other_thread)
        with pytest.raises(WrongThreadError):
            acceptor.close()
        with Peer(acceptor.address) as peer:
            assert peer.is_cut_off()  # accepted, and closed by our callback
    finally:
        reactor.stop()
        thread.join()
        acceptor.close()
        reactor.close()


def test_a_server_may_be_told_anything_from_any_thread() -> None:
    """Its methods find their way to the loop by themselves: no WrongThreadError gets out."""
    watched = Watched()
    with watched.server.running(LOCAL) as address, Peer(address) as peer:
        check_alive(peer)
        errors: Calls[BaseException] = Calls()

        def call(index: int) -> None:
            try:
                [conn] = watched.server.connections()
                conn.pause_reading()
                conn.resume_reading()
                conn.cancel_timer(conn.run_every(10.0, lambda now, conn: None))
                watched.server.schedule(10.0, lambda now, conn: None)
                watched.server.listen(LOCAL)
                watched.server.metrics()
            except (ReactorError, TaoError) as error:
                errors.add(error)

        at_once(call)
        assert errors.items == []
        check_alive(peer)
