"""What the connections of one owner have in common."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from reactor import ConnectionOptions, Environment, Ledger, Reactor, Watermark
from reactor.environment import TAKE_SIZE
from tests.reactor.connections import Make


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    with closing(Reactor()) as reactor:
        yield reactor


def test_with_nothing_said_the_loop_is_woken_and_nothing_is_limited(reactor: Reactor) -> None:
    environment = Environment(reactor)
    assert environment.waker is reactor
    assert environment.options == ConnectionOptions()
    assert not environment.ledger.refuses(1 << 40, 0)


def test_what_is_given_is_used(reactor: Reactor) -> None:
    options, ledger = ConnectionOptions(drain_timeout=1.0), Ledger(reactor)
    environment = Environment(reactor, options, ledger=ledger, pause_on_output=False)
    assert (environment.options, environment.ledger) == (options, ledger)
    assert not environment.pause_on_output


@pytest.mark.parametrize(
    ("limit", "size"), [(1_000, 250), (4 * TAKE_SIZE, TAKE_SIZE), (1 << 30, TAKE_SIZE)]
)
def test_what_leaves_at_once_is_a_part_of_what_may_wait(
    reactor: Reactor, limit: int, size: int
) -> None:
    options = ConnectionOptions(output=Watermark(0, 500), output_limit=limit)
    assert Environment(reactor, options).take_size == size


def test_what_one_has_written_is_no_other_ones(make: Make) -> None:
    """Empty, they have the same; and nothing gets in there."""
    first, second = make(), make()
    first.write(b"first")
    first.connection.append_own(b"'s own")
    assert (second.connection.pending, second.connection.own) == (0, ())
    second.connection.append_own(b"second")
    second.connection.end()
    second.until_received(6)
    first.connection.end()
    first.until_received(11)
    assert (bytes(first.received), bytes(second.received)) == (b"first's own", b"second")
    assert first.connection.own == second.connection.own == ()
