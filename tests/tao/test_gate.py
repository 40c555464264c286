"""tao.gate: who is let in, and what is told of the others; by hand, with times of the test's own.

What it is on sockets: test_limits, test_rates_of_addresses, test_proxied.
"""

from __future__ import annotations

import logging
import socket
from typing import Any, Literal, cast

import pytest

from reactor import Acceptor
from tao import Rate
from tao.address_limits import AddressLimits
from tao.gate import REFUSAL_LINES, Gate, host_of_peer
from tao.metrics import Metrics
from tao.proxy_protocol import TrustedProxies

PEER, OTHER = ("203.0.113.1", 40000), ("203.0.113.2", 40000)


class FakeAcceptor:
    """Says what was asked of it."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def pause(self) -> None:
        """Accept nobody."""
        self.asked.append("pause")

    def resume(self) -> None:
        """Accept again."""
        self.asked.append("resume")

    def close(self) -> None:
        """Accept nobody any more."""
        self.asked.append("close")


def make_gate(
    most: int = 2,
    when_full: Literal["refuse", "wait"] = "refuse",
    *,
    per_address: int | None = None,
    rate: Rate | None = None,
) -> tuple[Gate, AddressLimits, Metrics]:
    """A gate, and what it looks at and counts in."""
    limits, metrics = AddressLimits(per_address, rate, None), Metrics()
    return Gate(most, when_full, limits, metrics), limits, metrics


def add(gate: Gate, connections: int = 0) -> FakeAcceptor:
    """One more that it has."""
    acceptor = FakeAcceptor()
    gate.add(cast(Acceptor, acceptor), connections)
    return acceptor


# -- who is let in -------------------------------------------------------------------------------


def test_so_many_and_no_more() -> None:
    gate, _, _ = make_gate(2)
    assert gate.refusal(PEER, PEER[0], None, 0, 0.0) is None
    assert gate.refusal(PEER, PEER[0], None, 1, 0.0) is None
    assert gate.refusal(PEER, PEER[0], None, 2, 0.0) == "max_connections (2) is reached"


def test_the_limits_of_the_address_come_first() -> None:
    gate, limits, _ = make_gate(1, per_address=1)
    limits.enter(PEER[0])
    assert gate.refusal(PEER, PEER[0], None, 1, 0.0) == "max_connections_per_address (1) is reached"
    assert gate.refusal(OTHER, OTHER[0], None, 1, 0.0) == "max_connections (1) is reached"


def test_an_attempt_counts_though_there_is_no_room() -> None:
    gate, _, _ = make_gate(1, rate=Rate(1, per=10.0))
    assert gate.refusal(PEER, PEER[0], None, 1, 0.0) == "max_connections (1) is reached"
    why = gate.refusal(PEER, PEER[0], None, 0, 5.0)
    assert why is not None and why.startswith("connection_rate")
    assert gate.refusal(PEER, PEER[0], None, 0, 15.0) is None


def test_a_proxy_is_asked_for_nothing_but_who_it_is() -> None:
    gate, limits, _ = make_gate(2, per_address=1)
    limits.enter(PEER[0])
    proxies = TrustedProxies([PEER[0]])
    assert gate.refusal(PEER, "", proxies, 0, 0.0) is None
    assert gate.refusal(PEER, "", proxies, 2, 0.0) == "max_connections (2) is reached"
    assert gate.refusal(OTHER, "", proxies, 2, 0.0) == "it is none of trusted_proxies"


@pytest.mark.parametrize("address", ["", "/run/x", b"\0x", None])
def test_a_unix_sockets_peer_has_no_host(address: Any) -> None:
    assert host_of_peer(address) == ""


def test_the_host_of_a_peer() -> None:
    assert host_of_peer(PEER) == "203.0.113.1"
    assert host_of_peer(("2001:db8::1", 1, 0, 0)) == "2001:db8::1"


# -- what is told of the others ------------------------------------------------------------------


def test_who_is_refused_is_counted_told_of_and_closed(caplog: pytest.LogCaptureFixture) -> None:
    gate, _, metrics = make_gate()
    here, there = socket.socketpair()
    with here, there, caplog.at_level(logging.WARNING, "tao"):
        gate.refuse(here, PEER, None, "no room", 0.0)
        assert there.recv(1) == b""
    assert metrics.connections_refused == 1
    [record] = caplog.records
    assert record.getMessage() == "refused 203.0.113.1:40000: no room"
    assert getattr(record, "peer", None) == "203.0.113.1:40000"


def test_a_flood_is_none_of_lines(caplog: pytest.LogCaptureFixture) -> None:
    gate, _, metrics = make_gate()
    burst = REFUSAL_LINES.burst
    assert burst is not None
    with caplog.at_level(logging.WARNING, "tao"):
        for _ in range(burst + 5):
            gate.note_refusal("somebody", "no room", 0.0)
        assert len(caplog.records) == burst
        gate.note_refusal("somebody", "no room", 1.0)
        gate.note_refusal("somebody", "no room", 2.0)
    assert metrics.connections_refused == burst + 7
    assert [record.getMessage() for record in caplog.records[burst:]] == [
        "refused somebody: no room; 5 more before it",
        "refused somebody: no room",
    ]


# -- acceptors -----------------------------------------------------------------------------------


def test_all_acceptors_wait_while_it_is_full() -> None:
    gate, _, _ = make_gate(2, "wait")
    first = add(gate)
    gate.handle_come(1)
    assert first.asked == []
    gate.handle_come(2)
    second = add(gate, 2)
    assert first.asked == second.asked == ["pause"]
    gate.handle_gone(1)
    gate.handle_gone(0)
    assert first.asked == second.asked == ["pause", "resume"]


def test_one_that_refuses_goes_on_accepting() -> None:
    gate, _, _ = make_gate(1)
    acceptor = add(gate)
    gate.handle_come(1)
    late = add(gate, 1)
    gate.handle_gone(0)
    assert acceptor.asked == late.asked == []


def test_all_are_closed() -> None:
    gate, _, _ = make_gate()
    acceptors = [add(gate), add(gate)]
    gate.close()
    assert [acceptor.asked for acceptor in acceptors] == [["close"], ["close"]]
    assert repr(gate) == "<Gate for 2 connections, 2 acceptors>"
