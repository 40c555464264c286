"""Servers and clients in every host."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import pytest

from reactor import ConnectionState, Reactor
from reactor.embed.asyncio import attach
from tao import (
    ClientConn,
    CloseCause,
    CloseReason,
    ConnectionOptions,
    MessageRegistry,
    Server,
    ServerConn,
    StopReport,
    TaoError,
)
from tests.reactor.embed.hosts import HostUnderTest
from tests.support import DEADLINE, LOCAL, Calls, Peer, Sample, as_bytes

POOLED, INLINE, REPLY = 1, 2, 3

QUICK = ConnectionOptions(linger_timeout=0.02)
"""For peers that close when the server has gone, and not before."""


def echo_registry() -> MessageRegistry:
    """Two messages that come back as a third, one by way of the workers."""
    made = MessageRegistry()
    made.register(POOLED, as_bytes, lambda context, conn: Sample(REPLY, context.message))
    made.register(
        INLINE, as_bytes, lambda context, conn: Sample(REPLY, context.message), inline=True
    )
    return made


def replies_registry(seen: Calls[bytes]) -> MessageRegistry:
    made = MessageRegistry()
    made.register(REPLY, as_bytes, lambda context, conn: seen.add(context.message))
    return made


def poll(host: HostUnderTest, condition: Callable[[], object], then: Callable[[], object]) -> None:
    """By the host's own timer; `run` has the deadline."""
    if condition():
        then()
    else:
        host.call_later(0.005, lambda: poll(host, condition, then))


def test_a_server_and_a_client_talk_while_the_host_goes_on(
    host: HostUnderTest, reactor: Reactor
) -> None:
    """All that a program needs: listen, attach; and in the end stop, which does not wait, and detach."""
    seen: Calls[bytes] = Calls()
    ticks: list[None] = []
    closed: Calls[CloseReason] = Calls()
    reports: list[StopReport] = []
    count = 300
    server = Server(
        registry=echo_registry(),
        reactor=reactor,
        on_close=lambda conn, reason: closed.add(reason),
    )

    def begin() -> None:
        host.tick(0.001, ticks)
        address = server.listen(LOCAL)
        attached = host.attach(reactor)
        client = ClientConn(address, registry=replies_registry(seen), reactor=reactor)
        client.start()
        # By the host's thread, between passes; by the client's workers it would be no different.
        poll(host, lambda: client.state is ConnectionState.OPEN, lambda: talk(client))

        def talk(client: ClientConn) -> None:
            for number in range(count):
                client.write(Sample(POOLED if number % 3 else INLINE, b"%d" % number))
            poll(host, lambda: len(seen) == count, stop)

        def stop() -> None:
            began = time.monotonic()
            reports.append(server.stop(DEADLINE))
            assert time.monotonic() - began < DEADLINE / 2, "it has waited for itself"
            poll(host, lambda: server.stop().finished and client.wait_closed(0.0), end)

        def end() -> None:
            attached.detach()
            host.stop()

    host.run(begin)
    assert seen.items == [b"%d" % number for number in range(count)]
    assert len(ticks) > 3
    assert not reports[0].finished
    assert server.stop() == StopReport(drained=1, aborted=0, finished=True)
    assert [reason.cause for reason in closed.items] == [CloseCause.STOPPED]


def test_a_stop_by_another_thread_waits_until_all_is_over(
    host: HostUnderTest, reactor: Reactor
) -> None:
    """And peers are served meanwhile, and timers run, by a host that has nothing else to do."""
    reports: Calls[StopReport] = Calls()
    times: Calls[float] = Calls()
    server = Server(registry=echo_registry(), reactor=reactor, options=QUICK)
    threads: list[threading.Thread] = []

    def begin() -> None:
        attached = host.attach(reactor)
        address = server.listen(LOCAL)
        server.schedule(0.01, lambda now, conn: times.add(now))

        def use() -> None:
            with Peer(address) as peer:
                for number in (POOLED, INLINE):
                    peer.send_frame(number, b"x")
                    assert peer.receive_frame() == (REPLY, b"x")
                times.wait(3)
                reports.add(server.stop(DEADLINE))
                assert peer.receive_to_end() == b""

        threads.append(threading.Thread(target=use))
        threads[0].start()

        def end() -> None:
            attached.detach()
            host.stop()

        poll(host, lambda: not threads[0].is_alive(), end)

    host.run(begin)
    assert reports.items == [StopReport(drained=0, aborted=1, finished=True)] or (
        reports.items == [StopReport(drained=1, aborted=0, finished=True)]
    )


def test_an_inline_handler_may_stop_and_detach(host: HostUnderTest, reactor: Reactor) -> None:
    """In a callback of the reactor's: the pass ends, nothing more comes, and others may go on with it."""
    registry = MessageRegistry()
    server = Server(registry=registry, reactor=reactor, options=QUICK)
    threads: list[threading.Thread] = []

    def begin() -> None:
        attached = host.attach(reactor)

        def stop(*_: object) -> None:
            assert not server.stop(0.5).finished
            attached.detach()
            host.stop()

        registry.register(1, as_bytes, stop, inline=True)
        address = server.listen(LOCAL)

        def use() -> None:
            with Peer(address) as peer:
                peer.send_frame(1)
                assert peer.is_cut_off()

        threads.append(threading.Thread(target=use))
        threads[0].start()

    host.run(begin)
    reactor.run_once(0)  # it is this thread's again
    while not server.stop(0.5).finished:
        reactor.run_once(0.01)
    threads[0].join(DEADLINE)
    assert not threads[0].is_alive()


def test_an_idle_server_makes_no_passes(host: HostUnderTest, reactor: Reactor) -> None:
    """After it has served, on a connection that stays open."""
    if host.name == "frames":
        pytest.skip("a loop of frames goes round by itself")
    server = Server(registry=echo_registry(), reactor=reactor)
    passes: list[int] = []
    peers: list[Peer] = []

    def begin() -> None:
        attached = host.attach(reactor)
        address = server.listen(LOCAL)

        def use() -> None:
            peer = Peer(address)
            peers.append(peer)
            for number in (POOLED, INLINE):
                peer.send_frame(number, b"x")
                assert peer.receive_frame() == (REPLY, b"x")

        thread = threading.Thread(target=use)
        thread.start()

        def look() -> None:
            passes.append(reactor.passes)
            if len(passes) == 1:
                host.call_later(0.15, look)
            else:
                server.stop()
                peers[0].close()
                poll(host, lambda: server.stop().finished, end)

        def end() -> None:
            attached.detach()
            host.stop()

        # A worker that has run out of work says so once more, in PARKING's time.
        poll(host, lambda: not thread.is_alive(), lambda: host.call_later(0.2, look))

    host.run(begin)
    assert passes[0] == passes[1]


def test_waiting_on_the_hosts_thread_is_refused(host: HostUnderTest, reactor: Reactor) -> None:
    """Where it would wait for itself for ever."""
    server = Server(registry=echo_registry(), reactor=reactor)

    def begin() -> None:
        attached = host.attach(reactor)
        client = ClientConn(server.listen(LOCAL), registry=MessageRegistry(), reactor=reactor)
        with pytest.raises(TaoError, match="wait for itself"), client:
            pytest.fail("it has been entered")

        def end() -> None:
            attached.detach()
            host.stop()

        server.stop()
        poll(host, lambda: server.stop().finished and client.wait_closed(0.0), end)

    host.run(begin)


def test_a_stop_of_what_nobody_drives_does_not_wait_for_its_grace() -> None:
    """Before it is attached, and when it has been detached: who drives it then finishes the stop."""
    reactor = Reactor()
    server = Server(registry=echo_registry(), reactor=reactor)
    server.listen(LOCAL)
    began = time.monotonic()
    assert not server.stop(DEADLINE).finished
    assert time.monotonic() - began < DEADLINE / 2
    while not server.stop().finished:
        reactor.run_once(0.01)
    reactor.close()


def test_a_call_is_awaited_where_the_client_is_driven() -> None:
    """In asyncio, client, server and the program's own tasks on one thread."""
    registry = MessageRegistry()
    registry.register(REPLY, as_bytes)
    opened: list[ServerConn] = []

    async def main() -> list[bytes]:
        reactor = Reactor()
        server = Server(
            registry=echo_registry(),
            reactor=reactor,
            on_connect=opened.append,
        )
        connected = asyncio.Event()
        loop = asyncio.get_running_loop()

        def on_connect(conn: ClientConn) -> None:
            loop.call_soon_threadsafe(connected.set)

        with attach(reactor):
            client = ClientConn(
                server.listen(LOCAL),
                registry=registry,
                reactor=reactor,
                on_connect=on_connect,
            )
            client.start()
            await asyncio.wait_for(connected.wait(), DEADLINE)
            calls = [
                client.call(Sample(POOLED, b"%d" % number), reply=bytes) for number in range(10)
            ]
            replies = await asyncio.wait_for(
                asyncio.gather(*map(asyncio.wrap_future, calls)), DEADLINE
            )
            client.close()
            assert await asyncio.to_thread(client.wait_closed, DEADLINE) is not None
            assert (await asyncio.to_thread(server.stop)).finished
        reactor.close()
        return replies

    assert asyncio.run(main()) == [b"%d" % number for number in range(10)]
    assert len(opened) == 1
