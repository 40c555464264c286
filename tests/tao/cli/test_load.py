"""A load in this process, against a server on a loop of its own."""

from __future__ import annotations

import dataclasses
import json
import socket
import threading
import time
from pathlib import Path

import pytest

from tao import (
    Codec,
    Context,
    HeartBeatMessage,
    LengthPrefixedCodec,
    LineCodec,
    WriteCloser,
    load_server_tls,
)
from tao.address import parse_address
from tao.cli.load import Load, Plan, Progress, Result
from tests.support import DEADLINE, Peer, Sample
from tests.tao.cli.support import Answer, serving, where
from tests.tls_support import Certificates


def run(plan: Plan) -> Result:
    load = Load(plan)
    try:
        load.connect()
        return load.run(lambda _progress: None)
    finally:
        load.close()


def plan_for(address: str, **options: object) -> Plan:
    return Plan(address=parse_address(address), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [0, 1, 15, 16, 64, 300_000])
def test_every_reply_is_compared_and_counted(size: int) -> None:
    with serving() as address:
        result = run(plan_for(address, connections=3, in_flight=4, messages=50, size=size))
    assert (result.sent, result.received, result.wrong, result.unanswered) == (50, 50, 0, 0)
    assert (result.connected, result.errors, result.unsent) == (3, {}, 0)
    assert result.bytes_sent == result.bytes_received == 50 * (8 + size)
    assert result.latency.count == 50
    assert 0 < result.latency.minimum <= result.latency.maximum <= result.elapsed
    assert not result.failed


@pytest.mark.parametrize(
    ("name", "codec"), [("length", LengthPrefixedCodec()), ("line", LineCodec())]
)
def test_other_codecs(name: str, codec: Codec) -> None:
    with serving(codec=codec) as address:
        result = run(plan_for(address, codec=name, messages=20))
    assert (result.received, result.failed) == (20, False)


def test_tls(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    with serving(tls=load_server_tls(certificates.server_file)) as address:
        trusting = plan_for(
            address, messages=20, size=100_000, tls=True, tls_ca=str(certificates.ca_file)
        )
        result = run(trusting)
        assert (result.received, result.failed) == (20, False)
        result = run(dataclasses.replace(trusting, tls_ca=None))
    assert result.failed
    assert "CERTIFICATE_VERIFY_FAILED" in next(iter(result.errors))


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="the system has no Unix sockets")
def test_a_unix_socket(tmp_path: Path) -> None:
    with serving(address=str(tmp_path / "socket")) as address:
        assert run(plan_for(address, messages=5)).received == 5


def test_a_text_of_ones_own() -> None:
    heard = []

    def answer(ctx: Context[Sample], _conn: WriteCloser) -> Sample:
        heard.append(ctx.message.value)
        return ctx.message

    with serving(answer, number=5) as address:
        result = run(plan_for(address, number=5, value="Grüße", messages=2))
    assert heard == ["Grüße".encode()] * 2
    assert not result.failed


def upper(ctx: Context[Sample], _conn: WriteCloser) -> Sample:
    return Sample(1, b"another")


def renumbered(ctx: Context[Sample], _conn: WriteCloser) -> Sample:
    return Sample(2, ctx.message.value)


@pytest.mark.parametrize("answer", [upper, renumbered])
def test_a_wrong_reply_is_found_unless_any_will_do(answer: Answer) -> None:
    with serving(answer) as address:
        plan = plan_for(address, messages=10)
        result = run(plan)
        assert (result.received, result.wrong, result.failed) == (10, 10, True)
        assert "was sent, and" in result.example
        assert not run(dataclasses.replace(plan, compare=False)).failed


def test_more_replies_than_messages_are_wrong() -> None:
    def twice(ctx: Context[Sample], conn: WriteCloser) -> Sample:
        conn.write(ctx.message)
        return ctx.message

    with serving(twice) as address:
        result = run(plan_for(address, messages=10, compare=False))
    assert result.wrong
    assert "nothing was out" in result.example


def test_a_heartbeat_is_no_reply() -> None:
    def answer(ctx: Context[Sample], conn: WriteCloser) -> Sample:
        conn.write(HeartBeatMessage())
        return ctx.message

    with serving(answer) as address:
        result = run(plan_for(address, messages=10))
    assert (result.received, result.failed) == (10, False)


def test_replies_that_do_not_come_are_given_up() -> None:
    with serving(lambda _ctx, _conn: None) as address:
        result = run(plan_for(address, connections=2, in_flight=3, messages=10, timeout=0.1))
        assert (result.sent, result.received, result.unanswered) == (6, 0, 6)
        assert result.failed
        result = run(plan_for(address, in_flight=3, duration=0.05, timeout=0.1))
    assert (result.received, result.unanswered, result.failed) == (0, 3, True)


def test_a_connection_that_is_lost_is_told_of_and_the_others_go_on() -> None:
    ended = threading.Event()

    def answer(ctx: Context[Sample], conn: WriteCloser) -> Sample | None:
        if not ended.is_set():
            ended.set()
            conn.close()
            return None
        return ctx.message

    with serving(answer) as address:
        result = run(plan_for(address, connections=2, messages=100))
    assert result.errors == {"connection lost: closed by the server": 1}
    assert (result.sent, result.received, result.unanswered) == (100, 99, 1)


def test_what_was_due_on_a_lost_connection_is_sent_on_another() -> None:
    first = threading.Event()

    def answer(ctx: Context[Sample], conn: WriteCloser) -> Sample | None:
        if not first.is_set():
            first.set()
            time.sleep(0.1)  # meanwhile more becomes due
            conn.abort()
            return None
        return ctx.message

    with serving(answer) as address:
        result = run(plan_for(address, connections=2, rate=500.0, messages=100))
    assert sum(result.errors.values()) == 1
    assert (result.sent, result.received, result.unanswered, result.unsent) == (100, 99, 1, 0)


def test_when_all_are_lost_it_ends() -> None:
    def leave(ctx: Context[Sample], conn: WriteCloser) -> None:
        conn.abort()

    with serving(leave) as address:
        result = run(plan_for(address, connections=50, duration=DEADLINE))
    assert sum(result.errors.values()) == 50
    assert (result.received, result.unanswered) == (0, 50)


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = where(free.getsockname())
    result = run(plan_for(address, connections=3, messages=1))
    assert (result.connected, result.failed) == (0, True)
    assert result.errors == {"not connected: Connection refused": 3}


def test_what_cannot_be_decoded_ends_the_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        load = Load(plan_for(where(listener.getsockname()), messages=1))
        load.connect()
        with Peer.accept(listener) as peer:
            peer.send(b"\xff" * 8)
            result = load.run(lambda _progress: None)
        load.close()
    assert [reason.partition(" of ")[0] for reason in result.errors] == [
        "connection lost: FrameTooLargeError: a frame's value"
    ]


def stalling(pause: float) -> Answer:
    """One of its messages takes long."""
    stalled = threading.Event()

    def answer(ctx: Context[Sample], _conn: WriteCloser) -> Sample:
        if not stalled.is_set():
            stalled.set()
            time.sleep(pause)
        return ctx.message

    return answer


def test_with_a_rate_a_stall_counts_in_all_that_it_held_up() -> None:
    """And without one in the few that were out: what would have been sent is not seen to be late."""
    with serving(stalling(0.3)) as address:
        rated = run(plan_for(address, rate=500.0, messages=200, in_flight=1))
    with serving(stalling(0.3)) as address:
        unrated = run(plan_for(address, messages=200, in_flight=1))
    assert rated.received == unrated.received == 200
    late = 100_000_000  # nanoseconds
    # Of the 150 that were due in these 300 ms, those of the first 200 were late by 100 ms and more.
    assert rated.latency.count - rated.latency.below(late) >= 100
    assert 1 <= unrated.latency.count - unrated.latency.below(late) <= 20
    assert rated.lateness.percentile(0.5) > 0
    assert unrated.lateness.count == 0


def test_a_rate_is_kept() -> None:
    with serving() as address:
        result = run(plan_for(address, connections=3, rate=1000.0, duration=0.3))
    assert (result.sent, result.received, result.unsent) == (300, 300, 0)
    assert result.elapsed >= 299_000_000


def test_what_was_due_and_could_not_be_sent_is_told_of() -> None:
    with serving(lambda _ctx, _conn: None) as address:
        result = run(plan_for(address, rate=1000.0, messages=50, in_flight=10, timeout=0.1))
    assert (result.sent, result.unanswered, result.unsent) == (10, 10, 40)


def test_it_can_be_stopped_and_says_how_far_it_came() -> None:
    said: list[Progress] = []
    with serving() as address:
        load = Load(plan_for(address, duration=DEADLINE))

        def stop(progress: Progress) -> None:
            said.append(progress)
            load.stop()

        load.connect()
        result = load.run(stop)
        load.close()
    assert len(said) == 1
    assert 0 < said[0].received <= result.received
    assert said[0].elapsed < DEADLINE * 1e9
    assert not result.failed


def test_a_slow_reader_is_waited_for() -> None:
    """What the system does not take at once is sent when it does."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        load = Load(plan_for(where(listener.getsockname()), size=8 << 20, messages=1))
        load.connect()
        with Peer.accept(listener) as peer:

            def echo() -> None:
                number, value = peer.receive_frame()
                peer.send_frame(number, value)

            thread = threading.Thread(target=echo)
            thread.start()
            result = load.run(lambda _progress: None)
            thread.join()
        load.close()
    assert (result.received, result.failed) == (1, False)


def test_plans_and_results_go_by_way_of_json() -> None:
    plan = plan_for("127.0.0.1:80", rate=2.5, codec="line")
    assert Plan.from_json(json.loads(json.dumps(dataclasses.asdict(plan)))) == plan
    with serving() as address:
        result = run(plan_for(address, messages=10))
    copy = Result.from_json(json.loads(json.dumps(result.as_json())))
    assert copy.as_json() == result.as_json()
    copy.merge(result)
    assert (copy.received, copy.latency.count, copy.processes) == (20, 20, 2)
    assert copy.elapsed == result.elapsed
