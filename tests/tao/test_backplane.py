"""Backplanes: what a server makes of them, and the one for servers of one process."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import pytest

from reactor import ForkError
from tao import (
    BackplaneEvent,
    BackplaneLink,
    BroadcastReport,
    ConnectionOptions,
    ConnectionState,
    Context,
    Envelope,
    Inbox,
    LineCodec,
    LocalBackplane,
    MessageRegistry,
    NotRegisteredError,
    Reach,
    Server,
    TypeLengthValueCodec,
    Watermark,
    WouldBlockError,
    WriteCloser,
)
from tao.backplane import BATCH, split_cluster_id
from tao.testing import Simulation
from tests.forking import in_child, needs_fork
from tests.redis_support import Reports
from tests.support import DEADLINE, LOCAL, Peer, Sample, as_bytes, wait_until
from tests.tao.crowd import crowd, fill
from tests.tao.members import hears_all, members, say


class Recorder:
    """A backplane that keeps what it is given, and through which a test can speak."""

    def __init__(self, room: int = 1_000_000) -> None:
        self.published: list[Envelope] = []
        self.net_ids: list[tuple[str, int]] = []
        self.member_id = ""
        self.left: list[float] = []
        self._room = room

    def join(self, member_id: str, inbox: Inbox) -> BackplaneLink:
        self.member_id = member_id
        self.inbox = inbox
        return self

    def publish(self, envelope: Envelope) -> bool:
        self.published.append(envelope)
        return len(self.published) <= self._room

    def add(self, net_id: int) -> None:
        self.net_ids.append(("add", net_id))

    def remove(self, net_id: int) -> None:
        self.net_ids.append(("remove", net_id))

    def counters(self) -> Mapping[str, int]:
        return {"published": len(self.published)}

    def leave(self, timeout: float) -> None:
        self.left.append(timeout)

    def arrives(self, *envelopes: Envelope) -> None:
        """Have the server deliver them, and wait for it."""
        done = threading.Event()
        self.inbox.post(envelopes, done.set)
        assert done.wait(DEADLINE)


# -- what a server does with one -----------------------------------------------------------------


def test_without_a_backplane_nothing_is_said_of_others() -> None:
    with members(None) as [alone]:
        assert alone.server.broadcast(Sample(1)) == BroadcastReport(1, 0, 0, others="none")
        assert alone.server.group("room").broadcast(Sample(1)).others == "none"
        assert alone.server.metrics().backplane == {}
        assert alone.server.member_id == "local"
        assert alone.peer.receive_frame() == (1, b"")
        assert alone.server.unicast(alone.conn.cluster_id, Sample(2))  # it works here too
        assert alone.peer.receive_frame() == (2, b"")
        with pytest.raises(NotRegisteredError, match="backplane"):
            alone.server.unicast("0123456789abcdef-1", Sample(1))


def test_what_is_said_to_many_is_published_with_its_number_and_value() -> None:
    plane = Recorder()
    with members(plane) as [one]:
        assert one.server.broadcast(Sample(5, b"all")).others == "queued"
        report = one.server.group("room").broadcast(Sample(6, b"some"), when_full="drop_oldest")
        assert report == BroadcastReport(0, 0, 0, others="queued")
        assert one.server.unicast("abc-7", Sample(7, b"one"))
        assert one.peer.receive_frame() == (5, b"all")
    assert plane.published == [
        Envelope(Reach.ALL, "", 5, b"all"),
        Envelope(Reach.GROUP, "room", 6, b"some", "drop_oldest"),
        Envelope(Reach.ONE, "abc-7", 7, b"one"),
    ]
    assert plane.net_ids == [("add", 1), ("remove", 1)]
    assert len(plane.left) == 1
    assert 0 < plane.left[0] <= 3


def test_where_there_is_no_room_the_caller_is_told_and_the_own_get_it() -> None:
    with members(Recorder(room=0)) as [one]:
        report = one.server.broadcast(Sample(1, b"all"))
        assert report == BroadcastReport(1, 0, 0, others="refused")
        assert one.peer.receive_frame() == (1, b"all")
        with pytest.raises(WouldBlockError, match="abc-7"):
            one.server.unicast("abc-7", Sample(1))


def test_what_arrives_is_delivered_to_whom_it_is_for() -> None:
    plane = Recorder()
    with members(plane) as [one], Peer(one.address) as second:
        assert wait_until(lambda: one.server.connection_count == 2)
        one.server.group("room").join(one.conn)
        plane.arrives(
            Envelope(Reach.ALL, "", 1, b"to all"),
            Envelope(Reach.GROUP, "room", 2, b"to the room"),
            Envelope(Reach.GROUP, "nobody's", 3, b"to nobody"),
            Envelope(Reach.ONE, f"{plane.member_id}-2", 4, b"to the second"),
            Envelope(Reach.ALL, "", 5, b"the end"),
        )
        assert one.peer.receive_frames(3) == [(1, b"to all"), (2, b"to the room"), (5, b"the end")]
        assert second.receive_frames(3) == [
            (1, b"to all"),
            (4, b"to the second"),
            (5, b"the end"),
        ]
        assert plane.published == []  # or it would go round for ever


def test_what_cannot_be_delivered_costs_the_others_nothing() -> None:
    plane = Recorder()
    with members(plane, codec=TypeLengthValueCodec(max_length=10)) as [one]:
        plane.arrives(
            Envelope(Reach.ALL, "", 1, b"x" * 11),
            Envelope(Reach.ONE, f"{plane.member_id}-99", 1, b"gone"),
            Envelope(Reach.ALL, "", 1, b"short"),
        )
        assert one.peer.receive_frame() == (1, b"short")
        assert one.server.metrics().backplane["undeliverable"] == 2


def test_each_connection_gets_it_in_its_own_codec() -> None:
    plane = Recorder()
    with members(plane) as [one]:
        one.conn.set_codec(LineCodec())
        plane.arrives(Envelope(Reach.ALL, "", 1, b"a line"))
        assert one.peer.receive(7) == b"a line\n"


def test_the_policy_for_full_receivers_comes_along() -> None:
    plane = Recorder()
    options = ConnectionOptions(output=Watermark(1000, 2000), output_limit=5000)
    with crowd(registry=MessageRegistry(), backplane=plane, options=options) as these:
        peer, slow = these.join(slow=True)
        fill(these, slow)
        plane.arrives(Envelope(Reach.ALL, "", 1, b"x" * 4000))
        assert these.server.metrics().backplane["receivers_refused"] == 1
        plane.arrives(Envelope(Reach.ALL, "", 1, b"x" * 4000, "close"))
        assert these.server.metrics().backplane["receivers_closed"] == 1
        assert slow.state is ConnectionState.CLOSED
        peer.close()


def test_a_long_batch_takes_turns_with_what_the_loop_has_else_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And stays in order: each turn delivers one, since no time is left for more."""
    monkeypatch.setattr("tao.relay.TURN", -1.0)
    plane = Recorder()
    registry = MessageRegistry()
    registry.register(1, as_bytes, lambda ctx, conn: Sample(2, ctx.message), inline=True)
    with members(plane, registry=registry) as [one]:
        passes = one.server.metrics().passes
        plane.arrives(*(Envelope(Reach.ALL, "", 1, b"%d" % number) for number in range(50)))
        hears_all(one, range(50))
        assert one.server.metrics().passes - passes >= 49
        one.peer.send_frame(1, b"still there")
        assert one.peer.receive_frame() == (2, b"still there")


def test_after_the_end_nothing_is_delivered_and_nothing_waits() -> None:
    plane = Recorder()
    with members(plane) as [one]:
        server = one.server
    plane.inbox.post([Envelope(Reach.ALL, "", 1, b"too late")], lambda: pytest.fail("delivered"))
    assert server.broadcast(Sample(1)).sent == 0


@pytest.mark.parametrize("backplane", [object(), "redis://localhost", 7])
def test_what_is_no_backplane_is_refused(backplane: Any) -> None:
    with pytest.raises(TypeError, match="RedisBackplane"):
        Server(registry=MessageRegistry(), backplane=backplane)


@pytest.mark.parametrize(
    "name",
    [
        *("", "7", "-7", "abc-", "abc-x", "abc--", "abc-٣", "a-" + "1" * 30),
        *("\ud800-1", "a b-1", "é-1", "a" * 65 + "-1", "a-b-1"),
    ],
)
def test_a_text_that_is_no_cluster_id(name: str) -> None:
    with pytest.raises(ValueError, match="cluster_id"):
        split_cluster_id(name)
    with members(None) as [alone], pytest.raises(NotRegisteredError):
        alone.server.unicast(name, Sample(1))


@needs_fork
def test_in_a_forked_child_it_is_refused() -> None:
    with members(LocalBackplane()) as [one]:

        def publish() -> None:
            with pytest.raises(ForkError):
                one.server.unicast("abc-7", Sample(1))

        assert in_child(publish) == 0


# -- servers of one process ----------------------------------------------------------------------


def test_a_broadcast_reaches_all_servers_and_each_connection_once() -> None:
    plane = LocalBackplane()
    with members(plane, plane, plane) as all_three:
        for sender in all_three:
            say(sender, range(100))
            for member in all_three:
                hears_all(member, range(100))
        assert repr(plane) == "<LocalBackplane of 3 servers>"
    assert repr(plane) == "<LocalBackplane of 0 servers>"


def test_a_unicast_finds_its_server() -> None:
    reports = Reports()
    plane = LocalBackplane(on_report=reports.add)
    with members(plane, plane) as [one, two]:
        assert one.conn.net_id == two.conn.net_id  # which is no use across servers
        assert one.conn.cluster_id != two.conn.cluster_id
        assert one.server.unicast(two.conn.cluster_id, Sample(1, b"from one"))
        assert two.peer.receive_frame() == (1, b"from one")
        assert two.server.unicast(two.conn.cluster_id, Sample(1, b"from home"))
        assert two.peer.receive_frame() == (1, b"from home")
        two.peer.close()
        assert wait_until(lambda: two.server.connection_count == 0)
        assert one.server.unicast(two.conn.cluster_id, Sample(1))
        [report] = reports.of(BackplaneEvent.UNREACHABLE)
        assert two.conn.cluster_id in report.detail
        assert report.count == 1


def test_groups_of_one_name_are_one() -> None:
    plane = LocalBackplane()
    with members(plane, plane) as [one, two]:
        for member in (one, two):
            member.server.group("room").join(member.conn)
        two.server.group("other").join(two.conn)
        report = one.server.group("room").broadcast(Sample(1, b"hello"))
        assert report == BroadcastReport(1, 0, 0, others="queued")
        assert one.peer.receive_frame() == two.peer.receive_frame() == (1, b"hello")
        assert one.server.group("other").broadcast(Sample(2, b"aside")).sent == 0
        assert two.peer.receive_frame() == (2, b"aside")


def test_a_handler_may_broadcast_through_it() -> None:
    plane = LocalBackplane()
    registry = MessageRegistry()

    def on_chat(ctx: Context[bytes], _conn: WriteCloser) -> None:
        assert ctx.server is not None
        ctx.server.broadcast(Sample(2, ctx.message))

    registry.register(1, as_bytes, on_chat)
    with members(plane, plane, registry=registry) as [one, two]:
        one.peer.send_frame(1, b"hello")
        assert one.peer.receive_frame() == two.peer.receive_frame() == (2, b"hello")


def test_what_waits_for_a_server_is_bounded_and_the_sender_is_told() -> None:
    """The other's loop is not run, so nothing that is for it can leave."""
    reports = Reports()
    plane = LocalBackplane(limit=10, on_report=reports.add)
    asleep = Server(registry=MessageRegistry(), backplane=plane)
    asleep.listen(LOCAL)
    with members(plane) as [one]:
        # What has been handed over waits in its loop: one batch, which began with the first.
        taken = [one.server.broadcast(Sample(1)).others for _ in range(20)]
        assert taken == ["queued"] * 11 + ["refused"] * 9
        assert len(one.peer.receive_frames(20)) == 20  # its own get all
        assert reports.count(BackplaneEvent.REFUSED) == 9
        assert one.server.metrics().backplane["refused"] == 9
    assert asleep.metrics().backplane["waiting"] == 10
    asleep.stop()
    assert asleep.metrics().backplane["waiting"] == 0


def test_more_than_a_batch_stays_in_order() -> None:
    plane = LocalBackplane()
    with members(plane, plane) as [one, two]:
        say(one, range(BATCH * 5))
        hears_all(two, range(BATCH * 5))


@pytest.mark.parametrize(
    ("arguments", "error"),
    [({"limit": 0}, ValueError), ({"limit": 1.5}, TypeError), ({"on_report": 7}, TypeError)],
)
def test_arguments_that_make_no_sense(arguments: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        LocalBackplane(**arguments)


def test_a_report_that_raises_hurts_nobody(caplog: pytest.LogCaptureFixture) -> None:
    def on_report(_report: object) -> None:
        raise ValueError("from on_report")

    with members(LocalBackplane(on_report=on_report)) as [one]:
        assert one.server.unicast("abc-7", Sample(1))
    assert "from on_report" in caplog.text


@pytest.mark.parametrize("seed", range(5))
def test_in_a_simulation(seed: int) -> None:
    heard: list[bytes] = []
    registry = MessageRegistry()
    registry.register(1, as_bytes, lambda ctx, conn: heard.append(ctx.message))
    plane = LocalBackplane()
    with Simulation(seed) as simulation:
        one = simulation.server(registry=MessageRegistry(), backplane=plane)
        two = simulation.server(("10.0.0.2", 0), registry=MessageRegistry(), backplane=plane)
        simulation.client(two, registry=registry)
        simulation.wait(lambda: two.connection_count == 1)
        for number in range(20):
            one.broadcast(Sample(1, b"%d" % number))
        simulation.wait(lambda: len(heard) == 20)
    assert heard == [b"%d" % number for number in range(20)]
