"""RedisBackplane on a real redis-server: what goes right, and what goes wrong with it."""

from __future__ import annotations

import enum
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import tao.redis_publisher
import tao.redis_reader
from tao import Backoff, BackplaneEvent, RedisBackplane, TaoError, WouldBlockError
from tests.redis_support import RedisServer, Reports, needs_redis
from tests.support import DEADLINE, LOCAL, Sample, wait_until
from tests.tao.members import Member, hears_all, members, say
from tests.tls_support import Certificates

QUICK = Backoff(first=0.02, maximum=0.05)

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(scope="module")
def shared_redis() -> Iterator[RedisServer]:
    """One for all tests that leave it as it is; each uses a channel of its own."""
    with RedisServer() as made:
        yield made


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """One for a test that breaks it."""
    with RedisServer() as made:
        yield made


@contextmanager
def redis_ends(redis: RedisServer) -> Iterator[None]:
    """For one that has been started by hand."""
    try:
        yield
    finally:
        redis.__exit__()


def plane(redis: RedisServer, channel: str = "main", **arguments: Any) -> RedisBackplane:
    return RedisBackplane(
        redis.url, **{"channel": channel, "backoff": QUICK, "timeout": 0.3, **arguments}
    )


def is_linked(member: Member) -> bool:
    """Whether it reads and writes; nothing that a test sends after that is in doubt."""
    return member.server.metrics().backplane.get("connected", 0) >= 2


def all_linked(*these: Member) -> bool:
    return wait_until(lambda: all(map(is_linked, these)))


def counter(member: Member, name: str) -> int:
    return member.server.metrics().backplane.get(name, 0)


# -- what goes right -----------------------------------------------------------------------------


@needs_redis
def test_everybody_hears_everything_once_in_each_senders_order(shared_redis: RedisServer) -> None:
    planes = [plane(shared_redis, "all") for _ in range(3)]
    with members(*planes) as all_three:
        for sender in all_three:
            say(sender, range(1000))
            for member in all_three:
                hears_all(member, range(1000))
        assert all(counter(member, "received") == 2000 for member in all_three)
        assert all(counter(member, "published") == 1000 for member in all_three)
        assert all(counter(member, "missed") == 0 for member in all_three)


@needs_redis
def test_at_once_from_all_sides(shared_redis: RedisServer) -> None:
    """Each receiver gets all of each sender's, in that sender's order."""
    count = 300
    with members(*[plane(shared_redis, "sides")] * 3) as these:

        def shout(member: Member, name: int) -> None:
            for number in range(count):
                member.server.broadcast(Sample(name, b"%d" % number))

        threads = [
            threading.Thread(target=shout, args=(member, name)) for name, member in enumerate(these)
        ]
        for thread in threads:
            thread.start()
        for member in these:
            heard: dict[int, list[int]] = {}
            for name, value in member.peer.receive_frames(3 * count):
                heard.setdefault(name, []).append(int(value))
            assert heard == {name: list(range(count)) for name in range(3)}
        for thread in threads:
            thread.join()


@needs_redis
def test_channels_do_not_mix(shared_redis: RedisServer) -> None:
    with members(plane(shared_redis, "a"), plane(shared_redis, "b")) as [one, two]:
        assert all_linked(one, two)
        say(one, range(1))
        say(two, range(5, 6))
        hears_all(one, range(1))
        hears_all(two, range(5, 6))
        assert wait_until(lambda: counter(one, "published") and counter(two, "published"))
        assert counter(one, "received") == counter(two, "received") == 0


@needs_redis
def test_unicasts_and_groups(shared_redis: RedisServer) -> None:
    with members(*[plane(shared_redis, "groups")] * 2) as [one, two]:
        assert all_linked(one, two)
        assert one.server.unicast(two.conn.cluster_id, Sample(1, b"to you"))
        assert two.peer.receive_frame() == (1, b"to you")
        two.server.group("room").join(two.conn)
        assert one.server.group("room").broadcast(Sample(2, b"to some")).others == "queued"
        assert two.peer.receive_frame() == (2, b"to some")


@needs_redis
def test_a_unicast_that_is_too_large_is_not_told_to_wait(shared_redis: RedisServer) -> None:
    with members(*[plane(shared_redis, "large", message_limit=100)] * 2) as [one, two]:
        with pytest.raises(WouldBlockError, match="larger than the backplane takes"):
            one.server.unicast(two.conn.cluster_id, Sample(1, b"x" * 101))
        assert one.server.unicast(two.conn.cluster_id, Sample(1, b"x" * 100))


class Kind(enum.IntEnum):
    """As programs number their messages."""

    CHAT = 1


@needs_redis
def test_a_number_that_has_a_name_arrives_as_the_number_that_it_is(
    shared_redis: RedisServer,
) -> None:
    with members(*[plane(shared_redis, "numbers")] * 2) as [one, two]:
        assert all_linked(one, two)
        assert one.server.broadcast(Sample(Kind.CHAT, b"all")).others == "queued"
        assert two.peer.receive_frame() == (1, b"all")
        assert one.server.unicast(two.conn.cluster_id, Sample(Kind.CHAT, b"one"))
        assert two.peer.receive_frame() == (1, b"one")
        for wrong, error in ((1 << 31, ValueError), (1.5, TypeError)):
            with pytest.raises(error, match="message number"):
                one.server.unicast(two.conn.cluster_id, Sample(wrong, b""))  # type: ignore[arg-type]
        assert counter(one, "malformed") == counter(two, "malformed") == 0


@needs_redis
@pytest.mark.parametrize("name", ["x" * 1025, "é" * 513, "\ud800"])
def test_a_name_that_others_do_not_take_is_refused_and_holds_up_nothing(
    shared_redis: RedisServer, name: str
) -> None:
    """Names of rooms come from peers; in JSON they may have half a surrogate pair."""
    reports = Reports()
    channel = f"names{len(name)}"
    with members(
        plane(shared_redis, channel, on_report=reports.add), plane(shared_redis, channel)
    ) as [one, two]:
        assert all_linked(one, two)
        one.server.group(name).join(one.conn)
        report = one.server.group(name).broadcast(Sample(1, b"to the own"))
        assert (report.sent, report.others) == (1, "refused")
        assert one.peer.receive_frame() == (1, b"to the own")
        say(one, range(5))
        hears_all(two, range(5))
        [refused] = reports.wait_for(BackplaneEvent.REFUSED)
        assert (refused.count, "name" in refused.detail) == (1, True)
        assert reports.of(BackplaneEvent.DISCONNECTED) == []
        assert counter(two, "malformed") == counter(two, "missed") == 0


@needs_redis
@pytest.mark.parametrize("query", ["socket_timeout=0.05", "protocol=3", "encoding=latin-1"])
def test_what_the_links_rely_on_is_not_the_urls_to_change(
    shared_redis: RedisServer, query: str
) -> None:
    """An URL is often one that others use too."""
    reports = Reports()
    planes = [
        RedisBackplane(f"{shared_redis.url}?{query}", channel=query, on_report=reports.add)
        for _ in range(2)
    ]
    with members(*planes) as [one, two]:
        assert all_linked(one, two)
        # So long that a reader has waited for news in vain meanwhile.
        assert not wait_until(lambda: reports.of(BackplaneEvent.DISCONNECTED), 0.5)
        two.server.group("Zoë").join(two.conn)
        assert one.server.group("Zoë").broadcast(Sample(1, b"in")).others == "queued"
        assert two.peer.receive_frame() == (1, b"in")


@needs_redis
def test_a_message_of_each_kind_stays_in_the_senders_order(shared_redis: RedisServer) -> None:
    with members(*[plane(shared_redis, "kinds")] * 2) as [one, two]:
        assert all_linked(one, two)
        room = one.server.group("room")
        two.server.group("room").join(two.conn)
        for number in range(0, 300, 3):
            one.server.broadcast(Sample(1, b"%d" % number))
            one.server.unicast(two.conn.cluster_id, Sample(1, b"%d" % (number + 1)))
            room.broadcast(Sample(1, b"%d" % (number + 2)))
        hears_all(two, range(300))


@needs_redis
def test_binary_values_and_names_arrive_as_they_are(shared_redis: RedisServer) -> None:
    value = bytes(range(256)) * 100
    with members(*[plane(shared_redis, "binary")] * 2) as [one, two]:
        assert all_linked(one, two)
        two.server.group("Grüße \r\n 🙂").join(two.conn)
        one.server.group("Grüße \r\n 🙂").broadcast(Sample(-(1 << 31), value))
        assert two.peer.receive_frame() == (-(1 << 31), value)
        one.server.broadcast(Sample(1, b""))
        assert two.peer.receive_frame() == (1, b"")


@needs_redis
def test_who_comes_later_hears_what_is_said_from_then_on(shared_redis: RedisServer) -> None:
    with members(plane(shared_redis, "later")) as [one]:
        say(one, range(10))
        assert wait_until(lambda: counter(one, "published") == 10)
        time.sleep(0.002)  # ids are milliseconds: what was said in the same one is not told apart
        with members(plane(shared_redis, "later")) as [two]:
            say(one, range(10, 20))
            hears_all(two, range(10, 20))


@needs_redis
def test_tls_and_a_password_are_told_by_the_url(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    key, certificate = certificates.key_and_certificate("127.0.0.1")
    with socket.socket() as unused:
        unused.bind(LOCAL)
        port = unused.getsockname()[1]
    redis = RedisServer()
    redis.start(
        *("--tls-port", str(port), "--bind", "127.0.0.1", "--tls-auth-clients", "no"),
        *("--tls-cert-file", str(certificate), "--tls-key-file", str(key)),
        *("--tls-ca-cert-file", str(certificates.ca_file), "--requirepass", "secret"),
    )
    with redis_ends(redis):
        address = f"127.0.0.1:{port}?ssl_ca_certs={certificates.ca_file}"
        made = RedisBackplane(f"rediss://:secret@{address}", backoff=QUICK)
        with members(made, made) as [one, two]:
            say(one, range(10))
            hears_all(two, range(10))
        reports = Reports()
        wrong = RedisBackplane(f"rediss://:guess@{address}", backoff=QUICK, on_report=reports.add)
        with members(wrong, grace=0.0):
            reports.wait_for(BackplaneEvent.DISCONNECTED, 2)


@needs_redis
def test_the_stream_is_trimmed(shared_redis: RedisServer) -> None:
    with members(plane(shared_redis, "trimmed", stream_length=100)) as [one]:
        say(one, range(2000))
        assert wait_until(lambda: counter(one, "published") == 2000)
        with shared_redis.commands() as commands:
            reply = commands.send("XLEN", "tao:{trimmed}:stream")
        assert 100 <= int(reply[1:]) < 300


# -- the directory -------------------------------------------------------------------------------


@needs_redis
def test_a_unicast_to_who_has_gone_is_reported(shared_redis: RedisServer) -> None:
    reports = Reports()
    arguments = plane(shared_redis, "gone", on_report=reports.add)
    with members(arguments, plane(shared_redis, "gone")) as [one, two]:
        assert all_linked(one, two)
        two.peer.close()
        with shared_redis.commands() as commands:
            key = f"tao:{{gone}}:connections:{two.server.member_id}"
            place = f"tao:{{gone}}:position:{two.server.member_id}"
            assert wait_until(lambda: commands.send("GET", place).endswith(b":1\r\n"))
            assert wait_until(lambda: commands.send("SCARD", key) == b":1\r\n")
        assert one.server.unicast(two.conn.cluster_id, Sample(1))
        [report] = reports.wait_for(BackplaneEvent.UNREACHABLE)
        assert (report.count, two.conn.cluster_id in report.detail) == (1, True)
        say(one, range(2))  # and it leaves no gap that would look like something missed
        assert wait_until(lambda: counter(two, "received") == 2)
        assert counter(two, "missed") == 0


@needs_redis
def test_a_unicast_to_a_server_that_is_gone_is_reported(shared_redis: RedisServer) -> None:
    reports = Reports()
    with members(plane(shared_redis, "left", on_report=reports.add)) as [one]:
        assert all_linked(one)
        with members(plane(shared_redis, "left")) as [two]:
            assert all_linked(two)
        assert one.server.unicast(two.conn.cluster_id, Sample(1))
        reports.wait_for(BackplaneEvent.UNREACHABLE)


@needs_redis
def test_a_unicast_that_a_server_has_not_confirmed_when_it_goes_is_reported(
    shared_redis: RedisServer,
) -> None:
    """As if it had been killed: it is in the directory for a while, and takes nothing any more."""
    reports = Reports()
    dead = "0123456789abcdef"
    one_plane = plane(shared_redis, "dead", on_report=reports.add, directory_ttl=0.2)
    with members(one_plane) as [one], shared_redis.commands() as commands:
        assert all_linked(one)
        commands.send("SADD", f"tao:{{dead}}:connections:{dead}", "0", "1")
        commands.send("SET", f"tao:{{dead}}:position:{dead}", "0-0:1", "PX", "300")
        for _ in range(3):
            assert one.server.unicast(f"{dead}-1", Sample(1))
        assert wait_until(lambda: counter(one, "published") == 3)
        assert wait_until(lambda: reports.count(BackplaneEvent.UNREACHABLE) == 3)


@needs_redis
def test_a_unicast_to_a_connection_that_is_not_listed_yet_is_sent(
    shared_redis: RedisServer,
) -> None:
    """Its server lists up to number 1, and may have got number 2 a moment ago."""
    reports = Reports()
    there = "0123456789abcdef"
    with (
        members(plane(shared_redis, "new", on_report=reports.add)) as [one],
        shared_redis.commands() as commands,
    ):
        assert all_linked(one)
        commands.send("SADD", f"tao:{{new}}:connections:{there}", "0")
        commands.send("SET", f"tao:{{new}}:position:{there}", "0-0:1")
        assert one.server.unicast(f"{there}-2", Sample(1))
        assert wait_until(lambda: counter(one, "published") == 1)
        assert one.server.unicast(f"{there}-1", Sample(1))  # that one has been there, and is gone
        [report] = reports.wait_for(BackplaneEvent.UNREACHABLE)
        assert f"{there}-1 " in report.detail


@needs_redis
def test_a_unicast_that_has_been_delivered_is_confirmed(shared_redis: RedisServer) -> None:
    reports = Reports()
    one_plane = plane(shared_redis, "confirmed", on_report=reports.add, directory_ttl=0.2)
    with members(one_plane) as [one]:
        with members(plane(shared_redis, "confirmed", directory_ttl=0.2)) as [two]:
            assert all_linked(one, two)
            for _ in range(100):
                assert one.server.unicast(two.conn.cluster_id, Sample(1))
            assert len(two.peer.receive_frames(100)) == 100
        with shared_redis.commands() as commands:
            key = f"tao:{{confirmed}}:position:{two.server.member_id}"
            assert wait_until(lambda: commands.send("EXISTS", key) == b":0\r\n")
        # The others' positions have been asked for since then.
        refreshed = time.monotonic() + 0.2
        assert wait_until(lambda: time.monotonic() > refreshed)
        assert reports.of(BackplaneEvent.UNREACHABLE) == []


@needs_redis
def test_the_directory_is_kept_alive_and_written_again_when_it_is_lost(
    shared_redis: RedisServer,
) -> None:
    with (
        members(*[plane(shared_redis, "kept", directory_ttl=0.15)] * 2) as [one, two],
        shared_redis.commands() as commands,
    ):
        assert all_linked(one, two)
        key = f"tao:{{kept}}:connections:{two.server.member_id}"
        commands.send("DEL", key)
        assert wait_until(lambda: commands.send("SISMEMBER", key, "1") == b":1\r\n")
        expired = time.monotonic() + 0.4
        assert wait_until(lambda: time.monotonic() > expired)
        assert one.server.unicast(two.conn.cluster_id, Sample(1))
        assert two.peer.receive_frame() == (1, b"")
    with shared_redis.commands() as commands:
        assert commands.send("EXISTS", key) == b":0\r\n"  # removed with the server


# -- what goes wrong -----------------------------------------------------------------------------


def say_beside(member: Member, numbers: range) -> None:
    """Broadcast; the own peer has each at once, whatever Redis does."""
    for number in numbers:
        began = time.monotonic()
        member.server.broadcast(Sample(1, b"%d" % number))
        assert member.peer.receive_frame() == (1, b"%d" % number)
        assert time.monotonic() - began < DEADLINE / 2


@needs_redis
def test_a_redis_that_is_frozen_costs_nothing_but_time(own_redis: RedisServer) -> None:
    reports = Reports()
    with members(*[plane(own_redis, on_report=reports.add)] * 2) as [one, two]:
        assert all_linked(one, two)
        say_beside(one, range(10))
        hears_all(two, range(10))
        own_redis.freeze()
        say_beside(one, range(10, 100))
        # Its connections are given up, and made again, several times, with the same messages on them.
        reports.wait_for(BackplaneEvent.DISCONNECTED, 1)
        say_beside(one, range(100, 200))
        tried_again = time.monotonic() + 1.0
        assert wait_until(lambda: time.monotonic() > tried_again)
        own_redis.thaw()
        hears_all(two, range(10, 200))
        assert wait_until(lambda: counter(one, "waiting") == 0)
        say_beside(one, range(200, 210))
        hears_all(two, range(200, 210))
        assert reports.of(BackplaneEvent.GIVEN_UP) == reports.of(BackplaneEvent.MISSED) == []


@needs_redis
def test_a_redis_that_comes_back_with_its_data(own_redis: RedisServer) -> None:
    own_redis.kill()
    own_redis.start("--appendonly", "yes", "--appendfsync", "always")
    reports = Reports()
    with members(*[plane(own_redis, on_report=reports.add)] * 2) as [one, two]:
        assert all_linked(one, two)
        say_beside(one, range(100))
        hears_all(two, range(100))
        own_redis.kill()
        say_beside(one, range(100, 200))
        own_redis.start("--appendonly", "yes", "--appendfsync", "always")
        hears_all(two, range(100, 200))
        assert reports.of(BackplaneEvent.RESET) == reports.of(BackplaneEvent.MISSED) == []
        assert one.server.unicast(two.conn.cluster_id, Sample(2))  # it is in the directory still
        assert two.peer.receive_frame() == (2, b"")


@needs_redis
def test_a_redis_that_comes_back_empty_is_noticed(own_redis: RedisServer) -> None:
    reports = Reports()
    made = plane(own_redis, on_report=reports.add, directory_ttl=300.0)
    with members(*[made] * 2) as [one, two]:
        assert all_linked(one, two)
        say_beside(one, range(100))
        hears_all(two, range(100))
        own_redis.kill()
        say_beside(one, range(100, 200))
        own_redis.start()
        hears_all(two, range(100, 200))  # they had waited, and nothing else was lost
        reports.wait_for(BackplaneEvent.RESET)
        assert reports.of(BackplaneEvent.MISSED) == []
        with own_redis.commands() as commands:  # the directory is there again
            key = f"tao:{{main}}:connections:{two.server.member_id}"
            assert wait_until(lambda: commands.send("SISMEMBER", key, "1") == b":1\r\n")
        assert one.server.unicast(two.conn.cluster_id, Sample(2))
        assert two.peer.receive_frame() == (2, b"")


@needs_redis
def test_a_redis_whose_clock_has_gone_back_is_followed(own_redis: RedisServer) -> None:
    """Its ids are of the past, and what is added now is not behind what was read."""
    reports = Reports()
    with members(*[plane(own_redis, on_report=reports.add)] * 2) as [one, two]:
        assert all_linked(one, two)
        with own_redis.commands() as commands:
            future = f"{int(time.time() * 1000) + 3_600_000}-0"
            commands.send("XADD", "tao:{main}:stream", future, "not", "ours")
            assert wait_until(lambda: counter(two, "malformed") == 1)
            commands.send("DEL", "tao:{main}:stream")
            commands.send("XADD", "tao:{main}:stream", "5-1", "not", "ours")
            commands.send("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        reports.wait_for(BackplaneEvent.RESET, 2)
        say(one, range(50))
        hears_all(two, range(50))


@needs_redis
def test_what_was_trimmed_while_a_server_was_away_is_counted(own_redis: RedisServer) -> None:
    """The second server's reader is held up as by a slow loop; the stream goes on without it."""
    reports = Reports()
    two_plane = plane(own_redis, on_report=reports.add, stream_length=100)
    with members(plane(own_redis, stream_length=100), two_plane) as [one, two]:
        assert all_linked(one, two)
        say(one, range(1))
        hears_all(two, range(1))
        held, release = threading.Event(), threading.Event()

        def hold(_now: float, _conn: object) -> None:
            held.set()
            assert release.wait(DEADLINE)

        two.server.schedule(3600, hold)
        with own_redis.commands() as commands:
            # Nobody reads while clients' commands of that kind are not let through: ACL takes XREAD away.
            commands.send("ACL", "SETUSER", "default", "-xread")
            commands.send("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        reports.wait_for(BackplaneEvent.DISCONNECTED)
        say(one, range(1, 3001))
        assert wait_until(lambda: counter(one, "published") == 3001)
        with own_redis.commands() as commands:
            length = int(commands.send("XLEN", "tao:{main}:stream")[1:])
            commands.send("ACL", "SETUSER", "default", "+xread")
        first = 3001 - length
        hears_all(two, range(first, 3001))
        assert reports.count(BackplaneEvent.MISSED) == first - 1


@needs_redis
def test_what_waits_too_long_is_given_up_and_both_ends_say_so(own_redis: RedisServer) -> None:
    ours, theirs = Reports(), Reports()
    one_plane = plane(own_redis, on_report=ours.add, time_to_live=0.2)
    with members(one_plane, plane(own_redis, on_report=theirs.add)) as [one, two]:
        assert all_linked(one, two)
        say_beside(one, range(10))
        hears_all(two, range(10))
        own_redis.kill()
        say_beside(one, range(10, 60))
        assert wait_until(lambda: ours.count(BackplaneEvent.GIVEN_UP) == 50)
        own_redis.start()
        reports = ours.wait_for(BackplaneEvent.CONNECTED, 3)
        assert reports
        say_beside(one, range(60, 70))
        hears_all(two, range(60, 70))
        assert wait_until(lambda: theirs.count(BackplaneEvent.MISSED) == 50)


@needs_redis
@pytest.mark.parametrize(
    "bound", [{"outbox_entries": 10}, {"outbox_bytes": 10_000}, {"message_limit": 500}]
)
def test_a_full_outbox_refuses_and_says_so(own_redis: RedisServer, bound: dict[str, Any]) -> None:
    reports = Reports()
    with members(plane(own_redis, on_report=reports.add, **bound)) as [one]:
        assert all_linked(one)
        own_redis.freeze()
        results = [one.server.broadcast(Sample(1, b"x" * 1000)) for _ in range(50)]
        assert all(result.sent == 1 for result in results)  # each has reached the own connections
        refused = sum(result.others == "refused" for result in results)
        assert refused >= 40
        assert wait_until(lambda: reports.count(BackplaneEvent.REFUSED) == refused)
        assert counter(one, "waiting") == 50 - refused
        own_redis.thaw()
        assert wait_until(lambda: counter(one, "published") == 50 - refused)
        assert one.server.broadcast(Sample(1, b"x")).others == "queued"


@needs_redis
def test_a_reply_that_is_lost_makes_no_doubles(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis has added them, and the link breaks before it says so: they are sent again."""
    transact = tao.redis_connection.RedisConnection.transact
    lost: list[int] = []

    def lossy(self: Any, commands: Any) -> list[object]:
        replies = transact(self, commands)
        if commands[0][0] == "XADD" and len(lost) < 2:
            lost.append(len(commands))
            raise ConnectionResetError("the reply was lost")
        return replies

    monkeypatch.setattr("tao.redis_connection.RedisConnection.transact", lossy)
    with members(*[plane(own_redis)] * 2) as [one, two]:
        assert all_linked(one, two)
        say(one, range(100))
        hears_all(two, range(100))
        say(one, range(100, 110))
        hears_all(two, range(100, 110))
        assert wait_until(lambda: len(lost) == 2)
        assert wait_until(lambda: counter(two, "duplicates") == sum(lost))


@needs_redis
def test_without_a_redis_the_server_serves_and_stops(own_redis: RedisServer) -> None:
    """And joins when there is one: it has missed nothing that was said since it was there."""
    own_redis.kill()
    reports = Reports()
    with members(*[plane(own_redis, on_report=reports.add)] * 2, grace=0.5) as [one, two]:
        say_beside(one, range(10))
        reports.wait_for(BackplaneEvent.DISCONNECTED, 4)
        assert reports.of(BackplaneEvent.DISCONNECTED)[0].error is not None
        own_redis.start()
        hears_all(two, range(10))
        own_redis.kill()
        say_beside(two, range(10, 20))
        began = time.monotonic()
    # The grace is over for the second, whose messages could not be sent; and nothing waits longer.
    assert time.monotonic() - began < 5
    assert reports.count(BackplaneEvent.GIVEN_UP) == 10


@needs_redis
def test_a_stop_while_redis_is_frozen_ends_in_its_grace(own_redis: RedisServer) -> None:
    reports = Reports()
    with members(plane(own_redis, on_report=reports.add, timeout=60.0), grace=0.1) as [one]:
        assert all_linked(one)
        own_redis.freeze()
        say(one, range(10))
        began = time.monotonic()
    assert time.monotonic() - began < 5  # and not the minute that a reply may take
    assert reports.count(BackplaneEvent.GIVEN_UP) == 10
    assert not [thread for thread in threading.enumerate() if "backplane" in thread.name]
    own_redis.thaw()


@needs_redis
def test_a_stop_sends_what_waits(shared_redis: RedisServer) -> None:
    with members(plane(shared_redis, "flush")) as [two]:
        assert all_linked(two)
        with members(plane(shared_redis, "flush")) as [one]:
            say(one, range(3000))
        hears_all(two, range(3000))


@needs_redis
def test_a_loop_that_is_behind_makes_the_reader_wait(shared_redis: RedisServer) -> None:
    reading = threading.Event()
    with members(*[plane(shared_redis, "behind")] * 2) as [one, two]:
        assert all_linked(one, two)
        reactor = two.server._reactor
        assert reactor is not None
        reactor.call_soon_threadsafe(reading.wait, DEADLINE)
        count = tao.redis_reader.MAX_COUNT * 4
        say(one, range(count))
        assert wait_until(lambda: counter(one, "published") == count)
        # One batch is with the loop; a second may have been read. No more, whatever the time.
        assert counter(two, "received") <= tao.redis_reader.MAX_COUNT
        reading.set()
        hears_all(two, range(count))


# -- what is not ours ----------------------------------------------------------------------------

GOOD = {"s": "abcdef", "n": "1", "k": "all", "t": "", "w": "refuse", "m": "1", "v": "hello"}

BAD: list[dict[str, str]] = [
    {"nothing": "known"},
    {**GOOD, "more": "fields"},
    {**GOOD, "s": ""},
    {**GOOD, "s": "with blanks"},
    {**GOOD, "n": "0"},
    {**GOOD, "n": "-1"},
    {**GOOD, "n": "1.5"},
    {**GOOD, "n": "9" * 30},
    {**GOOD, "k": "some"},
    {**GOOD, "k": "one", "t": "nobody"},
    {**GOOD, "t": "x" * 2000},
    {**GOOD, "w": "perhaps"},
    {**GOOD, "m": "4294967296"},
    {**GOOD, "m": ""},
    {**GOOD, "v": "x" * 2000},
]


@needs_redis
def test_what_no_server_has_written_is_skipped_counted_and_reported(
    own_redis: RedisServer,
) -> None:
    reports = Reports()
    with (
        members(plane(own_redis, on_report=reports.add, message_limit=1000)) as [one],
        own_redis.commands() as commands,
    ):
        assert all_linked(one)
        for fields in BAD:
            parts = [part for pair in fields.items() for part in pair]
            commands.send("XADD", "tao:{main}:stream", "*", *parts)
        commands.send("XADD", "tao:{main}:stream", "*", "t", b"\xff\xfe", "k", b"\xff")
        parts = [part for pair in GOOD.items() for part in pair]
        commands.send("XADD", "tao:{main}:stream", "*", *parts)
        assert one.peer.receive_frame() == (1, b"hello")
        assert counter(one, "malformed") == len(BAD) + 1
        assert reports.count(BackplaneEvent.MALFORMED) == len(BAD) + 1
        assert counter(one, "disconnected") == 0


@needs_redis
def test_a_stream_that_is_something_else_is_reported_and_waited_for(
    own_redis: RedisServer,
) -> None:
    reports = Reports()
    with own_redis.commands() as commands:
        commands.send("SET", "tao:{main}:stream", "a text")
        with members(*[plane(own_redis, on_report=reports.add)] * 2) as [one, two]:
            say_beside(one, range(10))
            found = reports.wait_for(BackplaneEvent.DISCONNECTED, 2)
            assert any("WRONGTYPE" in str(report.error) for report in found)
            commands.send("DEL", "tao:{main}:stream")
            hears_all(two, range(10))


@needs_redis
def test_a_redis_that_has_no_room_is_tried_again(own_redis: RedisServer) -> None:
    reports = Reports()
    with (
        members(*[plane(own_redis, on_report=reports.add)] * 2) as [one, two],
        own_redis.commands() as commands,
    ):
        assert all_linked(one, two)
        commands.send("CONFIG", "SET", "maxmemory", "1")
        say_beside(one, range(10))
        found = reports.wait_for(BackplaneEvent.DISCONNECTED)
        assert "OOM" in str(found[0].error) or "maxmemory" in str(found[0].error)
        commands.send("CONFIG", "SET", "maxmemory", "0")
        hears_all(two, range(10))


# -- arguments -----------------------------------------------------------------------------------

URL = "redis://localhost:1"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"url": 7}, TypeError),
        ({"url": "http://localhost"}, ValueError),
        ({"channel": ""}, ValueError),
        ({"channel": "a b"}, ValueError),
        ({"channel": "{a}"}, ValueError),
        ({"channel": "x" * 101}, ValueError),
        ({"channel": b"main"}, TypeError),
        ({"stream_length": 99}, ValueError),
        ({"stream_length": "100"}, TypeError),
        ({"outbox_entries": 0}, ValueError),
        ({"outbox_bytes": 1}, ValueError),
        ({"message_limit": -1}, ValueError),
        ({"time_to_live": 0}, ValueError),
        ({"time_to_live": float("nan")}, ValueError),
        ({"directory_ttl": -1.0}, ValueError),
        ({"timeout": float("inf")}, ValueError),
        ({"backoff": 1.0}, TypeError),
        ({"on_report": "print"}, TypeError),
    ],
)
def test_arguments_that_make_no_sense(arguments: dict[str, Any], error: type[Exception]) -> None:
    pytest.importorskip("redis")
    with pytest.raises(error):
        RedisBackplane(**{"url": URL, **arguments})


def test_without_redis_py_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "redis.connection", None)
    with pytest.raises(TaoError, match=re.escape("pip install 'tao[redis]'")):
        RedisBackplane(URL)


def test_a_password_is_not_shown() -> None:
    pytest.importorskip("redis")
    shown = repr(RedisBackplane("redis://ann:secret@localhost:6379/3", channel="chat"))
    assert shown == "<RedisBackplane redis://localhost:6379/3, channel chat>"
