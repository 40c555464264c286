"""The limits of a server: connections, in all and by address, the backlog, descriptors, bytes that wait."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tao import (
    ConnectionOptions,
    Context,
    MessageRegistry,
    Server,
    ServerConn,
    Watermark,
    WouldBlockError,
    WriteCloser,
)
from tests.support import DEADLINE, LOCAL, Calls, Peer, Sample, as_bytes, frame, wait_until
from tests.tao.crowd import Crowd, crowd, fill

ROOT = Path(__file__).resolve().parents[2]


def echo_registry() -> MessageRegistry:
    """Message 1 echoes on a worker, message 2 on the loop."""
    registry = MessageRegistry()
    registry.register(1, as_bytes, lambda context, conn: Sample(1, context.message))
    registry.register(2, as_bytes, lambda context, conn: Sample(2, context.message), inline=True)
    return registry


def check_served(peer: Peer) -> None:
    """It gets an answer."""
    peer.send_frame(1, b"x")
    assert peer.receive_frame() == (1, b"x")


# -- max_connections, refusing -------------------------------------------------------------------


def test_who_comes_when_it_is_full_is_refused() -> None:
    opened: Calls[ServerConn] = Calls()
    server = Server(registry=echo_registry(), max_connections=2, on_connect=opened.add)
    with server.running(LOCAL) as address, ExitStack() as stack:
        first, second = (stack.enter_context(Peer(address)) for _ in range(2))
        check_served(first)
        check_served(second)
        for count in (1, 2, 3):
            with Peer(address) as third:
                assert third.is_cut_off()
            assert server.metrics().connections_refused == count
        check_served(first)
        check_served(second)
        assert server.metrics().connections_total == 2
        assert len(opened) == 2

        first.close()
        assert wait_until(lambda: server.connection_count == 1)
        check_served(stack.enter_context(Peer(address)))
        assert server.metrics().connections_refused == 3


# -- max_connections, waiting --------------------------------------------------------------------


def waiting_server(**arguments: Any) -> Server:
    """It has room for two, and others wait."""
    return Server(registry=echo_registry(), max_connections=2, when_full="wait", **arguments)


def turn_over(peer: Peer, passes: int = 20) -> None:
    """Have the loop go round: what was ready to be accepted or read has been, or it never will."""
    for _ in range(passes):
        check_served(peer)


def test_who_waits_is_served_when_there_is_room() -> None:
    server = waiting_server()
    with server.running(LOCAL) as address, ExitStack() as stack:
        first, second, third, fourth = (stack.enter_context(Peer(address)) for _ in range(4))
        third.send_frame(1, b"third")
        fourth.send_frame(1, b"fourth")
        turn_over(first)
        turn_over(second)
        assert server.connection_count == 2
        assert server.metrics().connections_total == 2

        first.close()
        assert third.receive_frame() == (1, b"third")  # in the order in which they came
        turn_over(third)
        assert server.connection_count == 2
        second.reset()
        assert fourth.receive_frame() == (1, b"fourth")
        assert server.metrics().connections_total == 4
        assert server.metrics().connections_refused == 0


def test_room_is_made_again_and_again() -> None:
    server = waiting_server()
    with server.running(LOCAL) as address, ExitStack() as stack:
        peers = [stack.enter_context(Peer(address)) for _ in range(12)]
        for peer in peers:
            peer.send_frame(1, b"x")
        for peer in peers:
            assert peer.receive_frame() == (1, b"x")
            assert server.connection_count <= 2
            peer.close()
        assert server.metrics().connections_total == 12


def test_all_addresses_wait() -> None:
    server = waiting_server()
    other = server.listen(LOCAL)
    with server.running(LOCAL) as address, ExitStack() as stack:
        first, second = stack.enter_context(Peer(address)), stack.enter_context(Peer(other))
        check_served(second)
        waiting = [stack.enter_context(Peer(where)) for where in (address, other)]
        for peer in waiting:
            peer.send_frame(1, b"x")
        turn_over(first)
        assert server.connection_count == 2
        first.close()
        second.close()
        for peer in waiting:
            assert peer.receive_frame() == (1, b"x")
        assert server.metrics().connections_refused == 0


def test_an_address_that_is_added_while_it_is_full_waits_too() -> None:
    server = waiting_server()
    with server.running(LOCAL) as address, ExitStack() as stack:
        first, second = (stack.enter_context(Peer(address)) for _ in range(2))
        check_served(first)
        check_served(second)
        late = stack.enter_context(Peer(server.listen(LOCAL)))
        late.send_frame(1, b"late")
        turn_over(first)
        assert server.metrics().connections_refused == 0
        first.close()
        assert late.receive_frame() == (1, b"late")


def test_a_server_stops_while_others_wait() -> None:
    server = waiting_server()
    with server.running(LOCAL) as address, ExitStack() as stack:
        first, second, third = (stack.enter_context(Peer(address)) for _ in range(3))
        check_served(first)
        check_served(second)
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        for peer in (first, second, third):
            assert peer.is_cut_off()
            peer.close()
        stopping.join(DEADLINE)
        assert not stopping.is_alive()
        assert server.metrics().connections_total == 2


# -- by address ----------------------------------------------------------------------------------


def from_address(host: str, address: Any) -> Peer:
    """A peer that comes from another of this machine's addresses."""
    peer = Peer.__new__(Peer)
    peer.sock = socket.socket()
    try:
        peer.sock.settimeout(DEADLINE)
        peer.sock.bind((host, 0))
        peer.sock.connect(address)
    except OSError:
        peer.close()
        pytest.skip(f"this machine has no address {host}")
    return peer


def test_one_address_may_have_so_many_and_others_theirs() -> None:
    server = Server(registry=echo_registry(), max_connections_per_address=2)
    with server.running(LOCAL) as address, ExitStack() as stack:
        mine = [stack.enter_context(Peer(address)) for _ in range(2)]
        for peer in mine:
            check_served(peer)
        with Peer(address) as third:
            assert third.is_cut_off()
        others = [stack.enter_context(from_address("127.0.0.2", address)) for _ in range(2)]
        for peer in (*others, *mine):
            check_served(peer)
        with from_address("127.0.0.2", address) as third:
            assert third.is_cut_off()
        assert server.metrics().connections_refused == 2
        assert server.metrics().connections_total == 4

        mine[0].reset()
        assert wait_until(lambda: server.connection_count == 3)
        check_served(stack.enter_context(Peer(address)))
        with Peer(address) as third:
            assert third.is_cut_off()


def test_an_address_comes_and_goes_as_often_as_it_likes() -> None:
    server = Server(registry=echo_registry(), max_connections_per_address=1)
    with server.running(LOCAL) as address:
        for round_number in range(10):
            with Peer(address) as peer:
                check_served(peer)
                if round_number % 2:
                    peer.reset()
            assert wait_until(lambda: server.connection_count == 0)
        assert server.metrics().connections_refused == 0


def test_all_addresses_of_the_server_count_together() -> None:
    server = Server(registry=echo_registry(), max_connections_per_address=1)
    other = server.listen(LOCAL)
    with server.running(LOCAL) as address, Peer(address) as peer:
        check_served(peer)
        with Peer(other) as second:
            assert second.is_cut_off()


def test_a_unix_sockets_peers_have_no_address(tmp_path: Path) -> None:
    server = Server(registry=echo_registry(), max_connections_per_address=1)
    with server.running(str(tmp_path / "socket")) as address, ExitStack() as stack:
        for _ in range(3):
            check_served(stack.enter_context(Peer(address)))


# -- arguments and backlog -----------------------------------------------------------------------

COUNTS = ["max_connections", "max_connections_per_address", "backlog"]


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("value", [0, -1])
def test_limits_are_at_least_one(name: str, value: int) -> None:
    arguments: dict[str, Any] = {name: value}
    with pytest.raises(ValueError, match=name):
        Server(**arguments)


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("value", [True, 1.0, "1"])
def test_limits_are_ints(name: str, value: object) -> None:
    arguments: dict[str, Any] = {name: value}
    with pytest.raises(TypeError, match=name):
        Server(**arguments)


@pytest.mark.parametrize("value", ["", "Wait", None, True, "drop"])
def test_when_full_is_one_of_two(value: Any) -> None:
    with pytest.raises(ValueError, match="'refuse' or 'wait'"):
        Server(when_full=value)


def connected(address: Any, count: int, wanted: int) -> int:
    """How many of so many are taken by a backlog; returns early with as many as are `wanted`."""
    with ExitStack() as stack:
        socks = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in socks:
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                sock.connect(address)
        done: set[socket.socket] = set()

        def enough() -> bool:
            waiting = [sock for sock in socks if sock not in done]
            done.update(select.select([], waiting, [], 0.02)[1])
            return len(done) >= wanted

        wait_until(enough, timeout=DEADLINE if wanted == count else 0.3)
        return len(done)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a full backlog answers differently")
def test_the_backlog_is_as_long_as_it_is_said() -> None:
    """Nobody accepts: the loop does not run."""
    for backlog in (1, 64):
        server = Server(registry=MessageRegistry(), backlog=backlog)
        address = server.listen(LOCAL)
        try:
            if backlog == 1:
                assert connected(address, 12, wanted=5) < 5  # listen(2): one more than it says
            else:
                assert connected(address, 12, wanted=12) == 12
        finally:
            server.stop()


# -- descriptors ---------------------------------------------------------------------------------


@contextlib.contextmanager
def scarce_server() -> Iterator[tuple[str, int]]:
    """A server in a process that may open a dozen descriptors more; nothing fails there."""
    with subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error", "-m", "tests.tao.scarce_server"],
        cwd=ROOT,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            port = process.stdout.readline()
            assert port, process.communicate()[1]
            yield "127.0.0.1", int(port)
            _, errors = process.communicate("", timeout=DEADLINE)
            assert process.returncode == 0
            assert "Traceback" not in errors
        finally:
            process.kill()


def is_served(peer: Peer) -> bool:
    """Whether it gets an answer; if not, it is told so by an end, and does not hang."""
    try:
        check_served(peer)
    except (EOFError, ConnectionError):
        return False
    return True


@pytest.mark.skipif(sys.platform == "win32", reason="descriptors have no such limit there")
def test_a_server_without_descriptors_goes_on_and_says_who_was_refused() -> None:
    with scarce_server() as address, ExitStack() as stack:
        served: list[Peer] = []
        while len(served) < 100:
            peer = stack.enter_context(Peer(address))
            if not is_served(peer):
                break
            served.append(peer)
        assert 2 <= len(served) < 100

        # Those who are in are served on, and who asks learns how many were not let in.
        for peer in served:
            check_served(peer)
        served[0].send_frame(2)
        refused, open_now = map(int, served[0].receive_frame()[1].split())
        assert open_now == len(served)

        # When there is room, newcomers are served again, at most a retry later.
        served.pop().close()
        served.pop().close()

        def newcomer() -> bool:
            with Peer(address) as peer:
                return is_served(peer)

        assert wait_until(newcomer)
        assert refused >= 1, "refused for want of descriptors, and not counted"


# -- bytes that wait -----------------------------------------------------------------------------


def send_all(peer: Peer, data: bytes) -> threading.Thread:
    """Send on a thread of its own; it blocks when the server does not read."""
    thread = threading.Thread(target=peer.send, args=(data,), daemon=True)
    thread.start()
    return thread


def check_paused(these: Crowd, flooding: ServerConn, total: int) -> None:
    """The server has stopped reading from the peer that floods it, and serves others."""
    with Peer(these.address) as other:

        def traffic() -> int:
            # Of the flood alone: what others have brought is known.
            return these.server.metrics().bytes_in - 9 * rounds

        rounds = before = 0

        def settled() -> bool:
            nonlocal rounds, before
            before = traffic()
            for _ in range(20):
                check_served(other)
                rounds += 1
            return before > 0 and traffic() == before

        assert wait_until(settled)
        assert before < total
        assert flooding.pending < total


@pytest.mark.parametrize("number", [1, 2], ids=["pooled", "inline"])
def test_a_peer_that_asks_and_does_not_read_has_to_wait(number: int) -> None:
    """Past the high watermark nothing more is read from it; when it has read, all goes on."""
    value = b"x" * 1000
    count = 4000
    options = ConnectionOptions(output=Watermark(10_000, 20_000), output_limit=2_000_000)
    with crowd(registry=echo_registry(), options=options) as these:
        peer, conn = these.join(slow=True)
        sender = send_all(peer, frame(number, value) * count)
        assert wait_until(lambda: conn.pending > 20_000)
        check_paused(these, conn, count * 1008)
        assert conn.pending < 1_000_000  # the watermark, and one read's worth of answers
        for _ in range(count):
            assert peer.receive_frame() == (number, value)
        sender.join(DEADLINE)
        assert not sender.is_alive()
        # The peer may hold the last byte before the loop has come to count it as sent.
        assert wait_until(lambda: conn.pending == 0)


def test_a_worker_stops_for_what_another_writer_has_taken_from_its_handlers() -> None:
    """What is written after a handler's frame takes that along; it waits for the peer all the same."""
    begun: Calls[bytes] = Calls()
    registry = MessageRegistry()
    much = b"x" * 4_000_000

    def handle(context: Context[bytes], conn: WriteCloser) -> None:
        begun.add(context.message)
        conn.write(Sample(1, much))
        other = threading.Thread(target=conn.write, args=(Sample(1, b"another's"),))
        other.start()
        other.join()

    registry.register(5, as_bytes, handle)
    options = ConnectionOptions(output=Watermark(0, 100_000), output_limit=50_000_000)
    with crowd(registry=registry, options=options) as these:
        peer, conn = these.join(slow=True)
        peer.send(frame(5, b"first") + frame(5, b"second"))
        assert wait_until(lambda: conn.pending > 100_000)
        assert not wait_until(lambda: len(begun) > 1, 0.2)
        assert [peer.receive_frame()[1] for _ in range(4)] == [much, b"another's"] * 2
        assert begun.items == [b"first", b"second"]


def test_a_peer_that_asks_more_than_the_handlers_can_do_has_to_wait() -> None:
    release = threading.Event()
    handled: Calls[int] = Calls()
    registry = echo_registry()
    count = 4000

    def hold(context: Context[bytes], _conn: WriteCloser) -> None:
        assert release.wait(DEADLINE)
        handled.add(int.from_bytes(context.message[:4], "little"))

    registry.register(5, as_bytes, hold)
    with crowd(registry=registry, buffer_size=4) as these:
        peer, conn = these.join()
        values = (number.to_bytes(4, "little") + b"x" * 996 for number in range(count))
        sender = send_all(peer, b"".join(frame(5, value) for value in values))
        assert wait_until(lambda: these.server.metrics().bytes_in > 0)
        check_paused(these, conn, count * 1008)
        assert these.server.metrics().messages_in < 1000
        release.set()
        assert handled.wait(count) == list(range(count))
        sender.join(DEADLINE)
        assert not sender.is_alive()


def test_write_says_where_the_marks_are() -> None:
    """False above the high one; at the limit it is refused, and nothing is queued."""
    options = ConnectionOptions(output=Watermark(1000, 10_000), output_limit=30_000)
    with crowd(registry=MessageRegistry(), options=options) as these:
        peer, conn = these.join(slow=True)
        assert conn.write(Sample(1)) is True
        assert peer.receive_frame() == (1, b"")
        fill(these, conn)
        before = conn.pending
        assert 30_000 - 1008 < before <= 30_000
        with pytest.raises(WouldBlockError):
            conn.write(Sample(1, b"x" * 1000))
        assert conn.pending == before
        room = 30_000 - before
        assert conn.write(Sample(1, b"x" * (room - 8))) is False
        assert conn.pending == 30_000
