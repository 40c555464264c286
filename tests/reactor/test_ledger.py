"""The byte ledger: its marks, and when it says that it is too much."""

from __future__ import annotations

import threading

from reactor import Ledger, Reactor
from reactor.allocator import largest_read
from reactor.ledger import PRESSED_READ_SIZE


def test_the_marks_of_a_limit(reactor: Reactor) -> None:
    ledger = Ledger(reactor, 8_000, 10)
    assert (ledger.low, ledger.high, ledger.write_limit, ledger.share) == (3_000, 4_000, 6_000, 200)


def test_it_counts_what_comes_and_goes(reactor: Reactor) -> None:
    ledger = Ledger(reactor, 8_000)
    ledger.post(300)
    ledger.move(20)
    ledger.move(-310)
    assert ledger.total == 10


def test_it_asks_for_help_above_the_high_mark_and_not_while_help_is_there(reactor: Reactor) -> None:
    asked: list[int] = []
    ledger = Ledger(reactor, 8_000, on_pressure=lambda: asked.append(ledger.total))
    ledger.post(4_000)
    assert asked == []
    ledger.move(1)
    assert asked == [4_001]
    ledger.post(1_000)
    ledger.move(1)
    assert asked == [4_001]
    ledger.ease()
    ledger.move(-1)  # what goes is no reason to ask
    assert asked == [4_001]
    ledger.post(1)
    assert asked == [4_001, 5_002]


def test_under_pressure_little_is_read_at_a_time(reactor: Reactor) -> None:
    ledger = Ledger(reactor, 8_000, on_pressure=lambda: None)
    assert ledger.largest_read == largest_read()
    ledger.move(4_001)
    assert "pressed" in repr(ledger)
    assert ledger.largest_read == PRESSED_READ_SIZE < largest_read()
    assert ledger.room < 256
    ledger.ease()
    assert not ledger.pressed
    assert ledger.room == 256
    assert ledger.largest_read == largest_read()


def test_above_the_write_limit_those_below_their_share_may_still_write(reactor: Reactor) -> None:
    ledger = Ledger(reactor, 8_000, 10)
    ledger.post(5_900)
    assert not ledger.refuses(100, 5_000)
    assert ledger.refuses(101, 5_000)
    assert not ledger.refuses(101, 99)
    assert ledger.refuses(101, 100)


def test_without_a_limit_it_only_counts(reactor: Reactor) -> None:
    ledger = Ledger(reactor)
    ledger.post(1 << 50)
    assert not ledger.refuses(1 << 50, 1 << 50)
    assert repr(ledger) == f"<Ledger {1 << 50} bytes>"


def test_its_repr_says_how_full_it_is(reactor: Reactor) -> None:
    ledger = Ledger(reactor, 8_000, on_pressure=lambda: None)
    ledger.post(10)
    assert repr(ledger) == "<Ledger 10 of 8000 bytes>"
    ledger.move(4_000)
    assert repr(ledger) == "<Ledger 4010 of 8000 bytes pressed>"


def test_what_many_threads_post_adds_up(reactor: Reactor) -> None:
    ledger = Ledger(reactor)

    def post() -> None:
        for _ in range(20_000):
            ledger.post(3)

    threads = [threading.Thread(target=post) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(20_000):  # the loop's side, at the same time
        ledger.move(-5)
    for thread in threads:
        thread.join()
    assert ledger.total == 4 * 20_000 * 3 - 20_000 * 5
