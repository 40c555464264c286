"""tao.refused_writes: the exception says what is the matter, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from reactor import Ledger, Reactor
from tao import ClientConn, ConnectionState
from tao.refused_writes import not_open, too_much


@pytest.fixture
def client() -> Iterator[ClientConn]:
    with closing(Reactor()) as reactor:
        yield ClientConn(("127.0.0.1", 1), reactor=reactor)


@pytest.mark.parametrize("state", ConnectionState)
def test_before_the_opening_it_is_another_matter_than_at_the_end(
    client: ClientConn, state: ConnectionState
) -> None:
    text = str(not_open(client, state))
    early = state in (
        ConnectionState.CONNECTING,
        ConnectionState.PREFACING,
        ConnectionState.HANDSHAKING,
    )
    assert ("wait_connected() comes first" in text) == early
    assert ("closing or closed" in text) != early
    assert text.startswith(str(client)) and "nothing was queued" in text


def test_whose_limit_it_is(client: ClientConn) -> None:
    with closing(Reactor()) as reactor:
        ledger = Ledger(reactor, 1000)
        assert "90 bytes wait" in str(too_much(client, 90, 100, ledger))
        assert "the limit is 100" in str(too_much(client, 90, 100, ledger))
        ledger.post(800)
        assert "hold 800 of 1000" in str(too_much(client, 90, 100, ledger))
        assert "the limit is 100" in str(too_much(client, 100, 100, ledger)), "its own comes first"
