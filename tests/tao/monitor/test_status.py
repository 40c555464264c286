"""The monitor's /status: what real servers do, as it changes."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import tao.monitor.sampler
import tao.monitor.watch
from tao import Context, MessageRegistry, Server, WriteCloser
from tao.metrics import MetricsSnapshot
from tao.monitor import Monitor, monitor_on
from tao.monitor.sampler import TICKS
from tests.support import DEADLINE, LOCAL, Peer, Sample, as_bytes, wait_until
from tests.tao.monitor.support import NOTHING, ask, latest, status, status_when

ECHO, INLINE, WAIT, BLOCK = 1, 2, 3, 4


class Gate:
    """What handlers wait at."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def wait(self) -> None:
        """On whatever thread the handler is on."""
        self.entered.set()
        assert self.opened.wait(DEADLINE)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.opened.set()


@pytest.fixture
def monitor(monkeypatch: pytest.MonkeyPatch) -> Iterator[Monitor]:
    """Whose points come often: nobody shall wait for seconds."""
    monkeypatch.setattr(tao.monitor.sampler, "INTERVAL", 0.05)
    monkeypatch.setattr(tao.monitor.watch, "LIST_AGE", 0.0)
    with monitor_on(0) as monitor:
        yield monitor


def make_server(gate: Gate | None = None, **arguments: Any) -> Server:
    """Echo on a worker and on the loop; handlers that wait at the gate, on either."""
    registry = MessageRegistry()

    def on_echo(context: Context[bytes], _conn: WriteCloser) -> Sample:
        return Sample(ECHO, context.message)

    def wait(_context: Context[bytes], _conn: WriteCloser) -> None:
        assert gate is not None
        gate.wait()

    registry.register(ECHO, as_bytes, on_echo)
    registry.register(INLINE, as_bytes, on_echo, inline=True)
    registry.register(WAIT, as_bytes, wait)
    registry.register(BLOCK, as_bytes, wait, inline=True)
    return Server(registry=registry, **arguments)


def echo(peer: Peer, number: int = ECHO, size: int = 5) -> None:
    """There and back."""
    peer.send_frame(number, b"x" * size)
    peer.receive_frame()


# -- its form ------------------------------------------------------------------------------------


def test_without_a_server(monitor: Monitor) -> None:
    found = status(monitor)
    assert found["servers"] == {}
    assert found["shown"] is None
    assert found["handlers"] == []
    assert found["connections"] is None
    assert found["monitor"]["pid"] == os.getpid()


@pytest.mark.parametrize(
    "query",
    [
        "sort=colour",
        "limit=-1",
        "limit=x",
        f"limit={'9' * 10}",
        "since=nan",
        "since=x",
        "since=inf",
        "&".join(f"a{number}=1" for number in range(30)),
    ],
)
def test_a_question_that_makes_no_sense(monitor: Monitor, query: str) -> None:
    answer = ask(monitor, f"/status?{query}")
    assert answer.status == 400
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"


def test_head(monitor: Monitor) -> None:
    answer = ask(monitor, "/status", method="HEAD")
    assert (answer.status, answer.text) == (200, "")
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_it_is_for_reading(monitor: Monitor, method: str) -> None:
    answer = ask(monitor, "/status", method=method)
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")


# -- numbers follow ------------------------------------------------------------------------------


def test_messages_and_bytes_per_second_are_seen_and_end(monitor: Monitor) -> None:
    server = make_server()
    monitor.add("echo", server.metrics)
    with server.running(LOCAL) as address, Peer(address) as peer:
        status(monitor)

        def is_seen(found: Any) -> bool:
            echo(peer, size=100)
            return bool(latest(found, "echo")["messages"])

        point = latest(status_when(monitor, is_seen), "echo")
        assert point["bytes_in"]
        assert point["bytes_in"] == pytest.approx(108 * (point["messages"] or 0), rel=0.5)
        assert point["connections"] == 1
        assert status_when(monitor, lambda found: latest(found, "echo")["messages"] == 0)
        found = status_when(monitor, lambda found: latest(found, "echo")["queue"] == 0)
        now = found["servers"]["echo"]["now"]
        assert now["messages_in"] == now["handled"] > 0
        assert now["bytes_in"] == 108 * now["messages_in"]
        assert found["servers"]["echo"]["made"] == {
            "listening": [f"127.0.0.1:{address[1]}"],
            "max_connections": 1000,
            "workers": 20,
            "memory_limit": 256 << 20,
        }


def test_points_are_asked_for_from_a_time_on(monitor: Monitor) -> None:
    monitor.add("echo", make_server().metrics)
    found = status_when(monitor, lambda found: len(found["servers"]["echo"]["points"]) > 2)
    times = [point[0] for point in found["servers"]["echo"]["points"]]
    assert times == sorted(times)
    rest = status(monitor, f"since={times[-2]}")["servers"]["echo"]["points"]
    assert rest[0][0] == times[-1]


def test_errors_and_refusals(monitor: Monitor) -> None:
    server = make_server(max_connections=1)
    monitor.add("echo", server.metrics)
    with server.running(LOCAL) as address, Peer(address) as peer:
        echo(peer)
        status(monitor)
        for _ in range(3):
            with Peer(address) as refused:
                assert refused.is_cut_off()
        peer.send_frame(99)

        def counted(found: Any) -> bool:
            now = found["servers"]["echo"]["now"]
            return (now["connections_refused"], now["errors"]) == (3, {"UndefinedMessageError": 1})

        found = status_when(monitor, counted)
        points = found["servers"]["echo"]["points"]
        for name in ("errors", "refused"):
            at = found["columns"].index(name)
            assert any(point[at] for point in points)


def test_a_server_that_does_not_listen_yet(monitor: Monitor) -> None:
    server = make_server()
    monitor.add("echo", server.metrics)
    found = status(monitor)
    assert found["connections"] == {"sort": "bytes", "rows": [], "more": 0}
    assert found["servers"]["echo"]["made"]["listening"] == []
    with server.running(LOCAL) as address, Peer(address):
        status_when(monitor, lambda found: found["connections"]["rows"])
    status_when(monitor, lambda found: latest(found, "echo")["connections"] == 0)
    assert latest(status(monitor), "echo")["lag"] == 0.0, "a loop that has ended is no late one"


def test_a_source_that_is_no_server(monitor: Monitor) -> None:
    monitor.add("other", lambda: NOTHING)
    found = status(monitor)
    assert latest(found, "other")["connections"] == 0
    assert found["servers"]["other"]["made"] is None
    assert found["connections"] is None


def test_sources_come_and_go(monitor: Monitor) -> None:
    monitor.add("first", lambda: NOTHING)
    assert list(status(monitor)["servers"]) == ["first"]
    monitor.add("second", make_server().metrics)
    status_when(monitor, lambda found: list(found["servers"]) == ["first", "second"])
    assert status(monitor)["shown"] == "first"
    found = status(monitor, "server=second")
    assert found["shown"] == "second"
    assert found["connections"] is not None
    assert status(monitor, "server=nobody")["shown"] == "first"
    monitor.remove("first")
    status_when(monitor, lambda found: list(found["servers"]) == ["second"])


def test_a_source_that_raises_has_no_points(
    monitor: Monitor, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> MetricsSnapshot:
        raise LookupError("the source is broken")

    monitor.add("broken", broken)
    monitor.add("fine", lambda: NOTHING)
    found = status(monitor)
    assert found["servers"]["broken"] == {"now": None, "made": None, "points": []}
    assert latest(found, "fine")
    assert "the source is broken" in caplog.text


def test_a_source_that_hangs_holds_up_its_numbers_and_no_answer(
    monitor: Monitor, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tao.monitor.sampler, "FIRST_WAIT", 0.01)
    hangs = threading.Event()

    def source() -> MetricsSnapshot:
        if hangs.is_set():
            gate.wait()
        return NOTHING

    monitor.add("sometimes", source)
    status_when(monitor, lambda found: found["monitor"]["age"] is not None)
    hangs.set()
    assert gate.entered.wait(DEADLINE)
    status_when(monitor, lambda found: found["monitor"]["age"] > 0.3)
    assert ask(monitor, "/").status == 200
    hangs.clear()
    gate.opened.set()
    status_when(monitor, lambda found: found["monitor"]["age"] < 0.3)


def test_what_the_link_to_other_servers_counts_is_passed_on(monitor: Monitor) -> None:
    counted = dataclasses.replace(NOTHING, backplane={"published": 3}, errors={"KeyError": 2})
    monitor.add("linked", lambda: counted)
    now = status(monitor)["servers"]["linked"]["now"]
    assert (now["backplane"], now["errors"]) == ({"published": 3}, {"KeyError": 2})


# -- the loop, the queue, the handlers -----------------------------------------------------------


def test_a_loop_that_is_held_up_is_seen_while_it_is(monitor: Monitor, gate: Gate) -> None:
    server = make_server(gate)
    monitor.add("echo", server.metrics)
    with server.running(LOCAL) as address, Peer(address) as peer:
        status(monitor)
        peer.send_frame(BLOCK)
        assert gate.entered.wait(DEADLINE)
        status_when(monitor, lambda found: (latest(found, "echo")["lag"] or 0) > 0.2)
        gate.opened.set()
        status_when(monitor, lambda found: (latest(found, "echo")["lag"] or 0) < 0.2)


def test_connections_that_wait_for_a_worker(monitor: Monitor, gate: Gate) -> None:
    server = make_server(gate, worker_size=1)
    monitor.add("echo", server.metrics)
    with server.running(LOCAL) as address, ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(Peer(address)).send_frame(WAIT)
        found = status_when(monitor, lambda found: latest(found, "echo")["queue"] == 3)
        rows = status(monitor, "sort=busy")["connections"]["rows"]
        assert [row["busy"] is not None for row in rows].count(True) == 1
        assert rows[0]["busy"] is not None
        assert [row["unhandled"] for row in rows] == [1] * 4
        assert found["shown"] == "echo"
        gate.opened.set()
        status_when(monitor, lambda found: latest(found, "echo")["queue"] == 0)


def test_a_handler_that_does_not_return_is_first_and_its_time_grows(
    monitor: Monitor, gate: Gate
) -> None:
    server = make_server(gate)
    monitor.add("echo", server.metrics)
    with server.running(LOCAL) as address, Peer(address) as idle, Peer(address) as peer:
        echo(idle)
        peer.send_frame(WAIT)
        assert gate.entered.wait(DEADLINE)
        (row, other) = status_when(
            monitor, lambda found: (found["connections"]["rows"][0]["busy"] or 0) > 0.2, "sort=busy"
        )["connections"]["rows"]
        host, port = peer.sock.getsockname()
        assert row["peer"] == f"{host}:{port}"
        assert other["busy"] is None
        gate.opened.set()
        status_when(
            monitor, lambda found: all(r["busy"] is None for r in found["connections"]["rows"])
        )


@pytest.mark.parametrize("number", [ECHO, INLINE])
def test_handlers_are_timed_while_somebody_watches(monitor: Monitor, number: int) -> None:
    server = make_server()
    monitor.add("echo", server.metrics)
    with server.running(LOCAL) as address, Peer(address) as peer:

        def timed(found: Any) -> bool:
            echo(peer, number)
            return bool(found["handlers"]) and found["handlers"][0]["samples"] >= 3

        (row,) = status_when(monitor, timed)["handlers"]
    assert (row["number"], row["message"], row["handler"]) == (number, "bytes", "on_echo")
    assert row["inline"] is (number == INLINE)
    assert 0 < row["p50"] <= row["p95"] <= row["p99"] <= row["max"]


def test_the_slowest_handler_is_first(monitor: Monitor) -> None:
    registry = MessageRegistry()
    quick: Any = lambda context, conn: Sample(1)  # noqa: E731

    def slow(_context: Context[bytes], _conn: WriteCloser) -> Sample:
        time.sleep(0.005)
        return Sample(1)

    for number in range(1, 6):
        registry.register(number, as_bytes, slow if number == 3 else quick)
    server = Server(registry=registry)
    monitor.add("echo", server.metrics)
    with server.running(LOCAL) as address, Peer(address) as peer:

        def timed(found: Any) -> bool:
            for number in range(1, 6):
                echo(peer, number)
            return len(found["handlers"]) == 5

        rows = status_when(monitor, timed)["handlers"]
    assert rows[0]["number"] == 3
    assert rows[0]["p50"] >= 0.005


def test_servers_with_one_registry_have_times_of_their_own(monitor: Monitor) -> None:
    registry = MessageRegistry()
    registry.register(1, as_bytes, lambda context, conn: Sample(1))
    first, second = Server(registry=registry), Server(registry=registry)
    monitor.add("first", first.metrics)
    monitor.add("second", second.metrics)
    with first.running(LOCAL) as address, second.running(LOCAL), Peer(address) as peer:

        def timed(found: Any) -> bool:
            echo(peer)
            return bool(found["handlers"])

        status_when(monitor, timed, "server=first")
        assert status(monitor, "server=second")["handlers"] == []


def test_nobody_who_watches_costs_nothing(
    monitor: Monitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sampler ends, and the registry is as it was before it began."""
    server = make_server()
    monitor.add("echo", server.metrics)
    usual = server._registry.find(ECHO)

    def sampling() -> bool:
        return any(each.name == "tao-monitor-sampler" for each in threading.enumerate())

    with server.running(LOCAL) as address, Peer(address) as peer:
        ask(monitor, "/")
        ask(monitor, "/debug/vars")
        assert not sampling()
        status(monitor)
        assert sampling()
        assert wait_until(lambda: server._registry.find(ECHO) is not usual)
        monkeypatch.setattr(tao.monitor.sampler, "LINGERING", 0.0)
        assert wait_until(lambda: not sampling())
        assert server._registry.find(ECHO) is usual
        passes = server.metrics().passes
        echo(peer)
        assert server.metrics().passes - passes < TICKS
        monkeypatch.setattr(tao.monitor.sampler, "LINGERING", 10.0)
        # The first point of the next who watches is not of the time in between.
        assert latest(status(monitor), "echo")["messages"] is None


def test_closing_puts_all_back_as_it_was() -> None:
    server = make_server()
    usual = server._registry.find(ECHO)
    with server.running(LOCAL), monitor_on(0) as monitor:
        monitor.add("echo", server.metrics)
        status(monitor)
        assert wait_until(lambda: server._registry.find(ECHO) is not usual)
    assert server._registry.find(ECHO) is usual


# -- connections ---------------------------------------------------------------------------------


def test_a_row_has_what_one_wants_to_know(monitor: Monitor) -> None:
    server = make_server()
    monitor.add("echo", server.metrics)
    with server.running(LOCAL) as address, Peer(address) as peer:
        echo(peer, size=92)
        found = status_when(monitor, lambda found: found["connections"]["rows"][0]["held"] == 0)
        (row,) = found["connections"]["rows"]
        host, port = peer.sock.getsockname()
        times = {name: row.pop(name) for name in ("age", "idle")}
        assert 0 <= times["idle"] <= times["age"] < DEADLINE
        assert row == {
            "id": 1,
            "peer": f"{host}:{port}",
            "state": "OPEN",
            "busy": None,
            "unhandled": 0,
            "messages": 1,
            "bytes_in": 100,
            "bytes_out": 100,
            "unsent": 0,
            "held": 0,
            "not_reading": [],
        }


def test_the_list_is_bounded_and_says_what_is_left_out(monitor: Monitor) -> None:
    server = make_server()
    monitor.add("echo", server.metrics)
    with server.running(LOCAL) as address, ExitStack() as stack:
        peers = [stack.enter_context(Peer(address)) for _ in range(60)]
        for size, peer in enumerate(peers):
            echo(peer, size=size)
        found = status(monitor, "limit=7")["connections"]
        assert found["more"] == 53
        assert [row["bytes_in"] for row in found["rows"]] == [
            8 + size for size in range(59, 52, -1)
        ]
        assert len(status(monitor)["connections"]["rows"]) == 50
        assert status(monitor, "limit=0")["connections"]["more"] == 60
        assert status(monitor, "limit=999")["connections"]["more"] == 0


def test_the_orders_of_the_list(monitor: Monitor) -> None:
    server = make_server()
    monitor.add("echo", server.metrics)
    with (
        server.running(LOCAL) as address,
        Peer(address) as first,
        Peer(address) as second,
        Peer(address) as third,
    ):
        echo(first, size=1000)
        echo(second)
        echo(second)
        echo(second)
        echo(third)
        echo(third)
        echo(first)

        def order(sort: str) -> list[int]:
            return [row["id"] for row in status(monitor, f"sort={sort}")["connections"]["rows"]]

        assert order("bytes") == [1, 2, 3]
        assert order("messages") in ([2, 1, 3], [2, 3, 1])
        assert order("idle") == [2, 3, 1]
        assert order("oldest") == [1, 2, 3]
        assert order("newest") == [3, 2, 1]
        assert sorted(order("held")) == sorted(order("busy")) == [1, 2, 3]


def test_a_connection_that_is_not_read_from_says_why(monitor: Monitor, gate: Gate) -> None:
    server = make_server(gate, buffer_size=2)
    monitor.add("echo", server.metrics)
    with server.running(LOCAL) as address, Peer(address) as peer:
        for _ in range(10):
            peer.send_frame(WAIT)
        found = status_when(monitor, lambda found: found["connections"]["rows"][0]["not_reading"])
        (row,) = found["connections"]["rows"]
        assert row["not_reading"] == ["enough messages wait"]
        assert row["unhandled"] >= 2
        assert row["held"] > 0
        gate.opened.set()


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs Unix sockets")
def test_a_peer_may_have_any_name(monitor: Monitor, tmp_path: Path) -> None:
    server = make_server()
    monitor.add("<b>\"&'</b>", server.metrics)
    name = str(tmp_path / '"><img src=x onerror=alert(1)>')
    with server.running(str(tmp_path / "server")) as path, socket.socket(socket.AF_UNIX) as peer:
        peer.bind(name)
        peer.connect(path)
        found = status_when(monitor, lambda found: found["connections"]["rows"])
        assert found["connections"]["rows"][0]["peer"] == name
        assert list(found["servers"]) == ["<b>\"&'</b>"]
        assert json.dumps(found).isascii()


def test_many_who_watch_cost_one_list(monitor: Monitor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tao.monitor.watch, "LIST_AGE", 1000.0)
    server = make_server()
    monitor.add("echo", server.metrics)
    with server.running(LOCAL) as address, Peer(address) as peer:
        echo(peer)
        first = status(monitor)["connections"]
        echo(peer)
        assert status(monitor)["connections"] == first
        assert status(monitor, "sort=idle")["connections"]["rows"][0]["messages"] == 2
