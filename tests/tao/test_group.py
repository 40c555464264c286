"""tao.group: named groups of connections, and Server.group."""

from __future__ import annotations

import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tao import (
    BroadcastReport,
    ConnectionOptions,
    ConnectionState,
    Context,
    Group,
    MessageRegistry,
    Server,
    ServerConn,
    Watermark,
    WriteCloser,
)
from tests.support import DEADLINE, LOCAL, Calls, Peer, Sample, as_bytes, wait_until
from tests.tao.crowd import crowd, fill, number_of, numbered


def test_a_name_is_the_same_group_each_time() -> None:
    server = Server(registry=MessageRegistry())
    room = server.group("room")
    assert server.group("room") is room
    assert server.group("other") is not room
    assert room.name == "room"
    assert Server(registry=MessageRegistry()).group("room") is not room


def test_many_threads_that_ask_at_once_get_the_same() -> None:
    server = Server(registry=MessageRegistry())
    together = threading.Barrier(8)

    def ask(_: int) -> list[Group[ServerConn]]:
        together.wait(DEADLINE)
        return [server.group(f"room {index}") for index in range(200)]

    with ThreadPoolExecutor(8) as executor:
        first, *others = executor.map(ask, range(8))
    for other in others:
        assert all(one is another for one, another in zip(first, other, strict=True))


def test_a_group_that_nobody_is_in_or_holds_is_forgotten() -> None:
    with crowd() as these:
        _, conn = these.join()
        groups = these.server._delivery.groups
        for index in range(100):
            these.server.group(f"room {index}").join(conn)
        gc.collect()
        assert len(groups) == 100
        these.server.group("room 0").leave(conn)
        held = these.server.group("room 1")
        gc.collect()
        assert len(groups) == 99
        conn.abort()
        assert wait_until(lambda: len(held) == 0)
        gc.collect()
        assert len(groups) == 1
        assert these.server.group("room 1") is held


def test_join_leave_members_len_and_in() -> None:
    with crowd() as these:
        conns = [these.join()[1] for _ in range(3)]
        room = these.server.group("room")
        assert len(room) == 0
        assert room.members() == []
        room.join(conns[0])
        room.join(conns[1])
        room.join(conns[1])
        assert len(room) == 2
        assert room.members() == conns[:2]
        assert conns[0] in room
        assert conns[2] not in room
        assert "'room', 2" in repr(room)
        room.leave(conns[0])
        room.leave(conns[0])
        room.leave(conns[2])
        assert room.members() == [conns[1]]


def test_members_is_a_copy() -> None:
    with crowd() as these:
        _, conn = these.join()
        room = these.server.group("room")
        room.join(conn)
        room.members().clear()
        assert len(room) == 1


def test_a_broadcast_is_for_its_members_alone() -> None:
    with crowd() as these:
        inside = [these.join() for _ in range(2)]
        outside, _ = these.join()
        room, empty = these.server.group("room"), these.server.group("empty")
        for _, conn in inside:
            room.join(conn)
        report = room.broadcast(numbered(1))
        assert report == BroadcastReport(sent=2, refused=0, closed=0)
        assert empty.broadcast(numbered(2)) == BroadcastReport(0, 0, 0)
        these.server.broadcast(numbered(3))
        for peer, _ in inside:
            assert [number_of(one)[1] for one in peer.receive_frames(2)] == [1, 3]
        assert number_of(outside.receive_frame()) == (0, 3)


def test_one_connection_in_many_groups_and_none() -> None:
    with crowd() as these:
        peer, conn = these.join()
        rooms = [these.server.group(name) for name in ("a", "b", "c")]
        for room in rooms:
            room.join(conn)
        rooms[1].leave(conn)
        for number, room in enumerate(rooms):
            room.broadcast(numbered(number))
        assert [number_of(one)[1] for one in peer.receive_frames(2)] == [0, 2]


@pytest.mark.parametrize("when_full", ["refuse", "drop_oldest", "close"])
def test_the_policy_is_the_servers(when_full: Any) -> None:
    options = ConnectionOptions(output=Watermark(1000, 2000), output_limit=50_000)
    with crowd(options=options) as these:
        peer, conn = these.join()
        _, slow = these.join(slow=True)
        room = these.server.group("room")
        room.join(conn)
        room.join(slow)
        fill(these, slow)
        report = these.on_loop(lambda: room.broadcast(numbered(1, 1000), when_full=when_full))
        expected = {"refuse": (1, 1, 0), "drop_oldest": (2, 0, 0), "close": (1, 0, 1)}
        assert (report.sent, report.refused, report.closed) == expected[when_full]
        assert number_of(peer.receive_frame()) == (0, 1)


def test_an_unknown_policy() -> None:
    policy: Any = "drop_newest"
    with pytest.raises(ValueError, match="drop_newest"):
        Server(registry=MessageRegistry()).group("room").broadcast(numbered(1), when_full=policy)


@pytest.mark.parametrize("ending", ["FIN", "RST", "close", "abort"])
def test_membership_ends_with_the_connection(ending: str) -> None:
    with crowd() as these:
        peer, conn = these.join()
        rooms = [these.server.group(name) for name in ("a", "b")]
        for room in rooms:
            room.join(conn)
        endings = {
            "FIN": peer.close,
            "RST": peer.reset,
            "close": conn.close,
            "abort": conn.abort,
        }
        endings[ending]()
        peer.close()
        assert wait_until(lambda: not any(len(room) for room in rooms))
        assert conn not in rooms[0]
        assert rooms[0].broadcast(numbered(1)) == BroadcastReport(0, 0, 0)


def test_who_has_closed_is_not_kept() -> None:
    with crowd() as these:
        _, conn = these.join()
        conn.abort()
        room = these.server.group("room")
        room.join(conn)  # the server may not have noticed yet
        assert len(room) == 0
        assert wait_until(lambda: these.server.connection_count == 0)
        room.join(conn)
        assert len(room) == 0


def test_who_joins_while_draining_leaves_in_the_end() -> None:
    release = threading.Event()
    begun: Calls[WriteCloser] = Calls()
    registry = MessageRegistry()

    def hold(_context: Context[bytes], conn: WriteCloser) -> None:
        begun.add(conn)
        assert release.wait(DEADLINE)

    registry.register(1, as_bytes, hold)
    with crowd(registry=registry) as these:
        peer, conn = these.join()
        room = these.server.group("room")
        peer.send_frame(1)
        begun.wait()
        conn.close()
        assert conn.state is ConnectionState.DRAINING
        room.join(conn)
        assert room.broadcast(numbered(1)) == BroadcastReport(sent=0, refused=0, closed=1)
        release.set()
        assert peer.receive_to_end() == b""
        peer.close()
        assert wait_until(lambda: len(room) == 0)


def test_joining_against_closing_keeps_nobody() -> None:
    """Whichever of the two comes first, and on whatever threads."""
    with crowd() as these:
        room = these.server.group("room")
        together = threading.Barrier(2)
        for _ in range(100):
            peer, conn = these.join()

            def end(peer: Peer = peer) -> None:
                together.wait(DEADLINE)
                peer.reset()

            with ThreadPoolExecutor(1) as executor:
                ended = executor.submit(end)
                together.wait(DEADLINE)
                room.join(conn)
                ended.result(DEADLINE)
        assert wait_until(lambda: these.server.connection_count == 0)
        assert wait_until(lambda: len(room) == 0)


@pytest.mark.parametrize("inline", [False, True], ids=["pooled", "inline"])
def test_rooms_of_a_chat(inline: bool) -> None:
    """Joined in on_connect, spoken to by handlers, the speaker among the listeners."""
    registry = MessageRegistry()

    def enter(conn: ServerConn) -> None:
        room.join(conn)

    def say(context: Context[bytes], _conn: WriteCloser) -> Sample:
        report = room.broadcast(Sample(2, context.message))
        return Sample(3, b"%d" % report.sent)

    registry.register(1, as_bytes, say, inline=inline)
    server = Server(registry=registry, on_connect=enter)
    room = server.group("room")
    with server.running(LOCAL) as address, Peer(address) as first, Peer(address) as second:
        assert wait_until(lambda: len(room) == 2)
        first.send_frame(1, b"hello")
        assert second.receive_frame() == (2, b"hello")
        assert first.receive_frames(2) == [(2, b"hello"), (3, b"2")]
    assert len(room) == 0


def test_who_is_refused_by_on_connect_is_in_no_room_afterwards() -> None:
    def enter(conn: ServerConn) -> bool:
        room.join(conn)
        return False

    server = Server(registry=MessageRegistry(), on_connect=enter)
    room = server.group("room")
    with server.running(LOCAL) as address:
        with Peer(address) as peer:
            assert peer.receive_to_end() == b""
        assert wait_until(lambda: server.connection_count == 0)
        assert len(room) == 0
