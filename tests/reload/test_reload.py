"""A short round of the reloads, and that a loss would be seen."""

from __future__ import annotations

import socket
import sys
import threading
from pathlib import Path

import pytest

from tests.reload.clients import Client, Tally
from tests.reload.record import message
from tests.reload.rounds import Crowd, run, sum_up
from tests.support import DEADLINE, frame, reset
from tests.tls_support import Certificates, peer_context

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGHUP is POSIX's")


@pytest.mark.parametrize(
    ("workers", "unix"), [(2, False), (1, True)], ids=["each its socket", "one for all"]
)
def test_reloads_refuse_nobody_and_lose_nothing(workers: int, unix: bool) -> None:
    outcome = run(
        1,
        workers=workers,
        plain=Crowd(clients=2, visitors=1),
        secure=Crowd(clients=1, visitors=3),
        unix=unix,
        say=lambda text: None,
    )
    assert outcome.good, str(outcome)
    assert outcome.handshakes > 3
    assert outcome.messages > 0
    assert outcome.connections > 3


def test_what_is_lost_or_handled_twice_is_seen() -> None:
    first, second, third = (message(1, number) for number in (1, 2, 3))
    tally = Tally(answered={first, second})
    assert sum_up(1, [tally], {first: 1, second: 1}, []).good
    lost = sum_up(1, [tally], {first: 1}, [])
    assert (lost.good, lost.lost) == (False, 1)
    assert sum_up(1, [tally], {first: 1, second: 1, third: 1}, []).lost == 1
    twice = sum_up(1, [tally], {first: 2, second: 1}, [])
    assert (twice.good, twice.twice) == (False, 1)


def test_a_client_sees_a_reset_and_a_port_that_nobody_listens_on() -> None:
    end = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(DEADLINE)
        address = listener.getsockname()
        client = Client(address, 1, end)
        client.start()
        accepted = listener.accept()[0]
        with accepted:
            accepted.settimeout(DEADLINE)
            accepted.recv(8 + 8)
            accepted.sendall(frame(1, message(1, 1)))
            reset(accepted)
        client.join(DEADLINE)
        assert client.tally.broken
        assert not client.tally.refused
    client = Client(address, 1, end)
    client.start()
    client.join(DEADLINE)
    assert client.tally.refused == 1


def test_a_handshake_that_is_broken_off_is_seen(tmp_path: Path) -> None:
    end = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(DEADLINE)
        context = peer_context(Certificates(tmp_path))
        client = Client(listener.getsockname(), 1, end, context)
        client.start()
        accepted = listener.accept()[0]
        with accepted:
            accepted.settimeout(DEADLINE)
            assert accepted.recv(1) == b"\x16"  # a handshake record; the rest is not read
            end.set()
            reset(accepted)
        client.join(DEADLINE)
    assert (client.tally.handshakes, client.tally.broken_off) == (1, 1)
    assert not client.tally.broken
    assert not sum_up(1, [client.tally], {}, []).good
