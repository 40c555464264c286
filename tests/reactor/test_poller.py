"""Every poller keeps the same promises, over real descriptors."""

from __future__ import annotations

import os
import select
import selectors
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from reactor.poller import (
    READ,
    WRITE,
    EpollPoller,
    Poller,
    SelectorPoller,
    default_poller,
)
from tests.reactor.support import reset, socket_pair, tcp_pair

POLLERS: dict[str, Callable[[], Poller]] = {
    "default": default_poller,
    "select": lambda: SelectorPoller(selectors.SelectSelector()),
    "default selector": lambda: SelectorPoller(selectors.DefaultSelector()),
}
if hasattr(selectors, "PollSelector"):
    POLLERS["poll"] = lambda: SelectorPoller(selectors.PollSelector())

needs_epoll = pytest.mark.skipif(not hasattr(select, "epoll"), reason="a system without epoll")


@pytest.fixture(params=sorted(POLLERS))
def poller(request: pytest.FixtureRequest) -> Iterator[Poller]:
    made = POLLERS[request.param]()
    yield made
    made.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket_pair() as sockets:
        yield sockets


Pair = tuple[socket.socket, socket.socket]


def poll(poller: Poller, timeout: float | None) -> list[tuple[int, int]]:
    """What is ready, and for what: as the loop reads it."""
    return [
        (fd, mask if mask == READ else poller.events_of(mask)) for fd, mask in poller.poll(timeout)
    ]


def test_what_is_ready_is_reported_for_what_was_asked(poller: Poller, pair: Pair) -> None:
    left, right = pair
    fd = left.fileno()
    poller.register(fd, READ)
    assert poll(poller, 0) == []
    right.send(b"x")
    assert poll(poller, 0) == [(fd, READ)]
    assert poll(poller, 0) == [(fd, READ)]  # level-triggered

    poller.modify(fd, WRITE)
    assert poll(poller, 0) == [(fd, WRITE)]
    poller.modify(fd, READ | WRITE)
    assert poll(poller, 0) == [(fd, READ | WRITE)]
    left.recv(1)
    assert poll(poller, 0) == [(fd, WRITE)]

    poller.unregister(fd)
    assert poll(poller, 0) == []


def test_many_descriptors_are_reported_at_once(poller: Poller) -> None:
    pairs = [socket.socketpair() for _ in range(10)]
    try:
        for left, right in pairs:
            poller.register(left.fileno(), READ)
            right.send(b"x")
        assert sorted(poll(poller, 0)) == sorted((left.fileno(), READ) for left, _ in pairs)
        for left, _ in pairs[1:]:
            poller.unregister(left.fileno())
        assert poll(poller, 0) == [(pairs[0][0].fileno(), READ)]
    finally:
        for left, right in pairs:
            left.close()
            right.close()


@pytest.mark.parametrize("events", [READ, WRITE, READ | WRITE])
def test_a_reset_is_readiness_for_what_is_waited_for(poller: Poller, events: int) -> None:
    ours, peer = tcp_pair()
    with ours:
        poller.register(ours.fileno(), events)
        reset(peer)
        if events == READ:
            found = poll(poller, 10.0)  # until the RST is here
        else:
            poller.modify(ours.fileno(), READ)
            poll(poller, 10.0)
            poller.modify(ours.fileno(), events)
            found = poll(poller, 0)
        assert len(found) == 1
        fd, mask = found[0]
        assert fd == ours.fileno()
        assert mask & events == events
        poller.unregister(fd)


def test_a_fin_is_readability(poller: Poller) -> None:
    ours, peer = tcp_pair()
    with ours:
        poller.register(ours.fileno(), READ)
        peer.close()
        [(fd, mask)] = poll(poller, 10.0)
        assert (fd, mask & READ) == (ours.fileno(), READ)
        poller.unregister(fd)


def test_it_does_not_wake_before_its_time(poller: Poller, pair: Pair) -> None:
    poller.register(pair[0].fileno(), READ)
    for timeout in (0.0001, 0.0015, 0.02):
        start = time.monotonic()
        assert poll(poller, timeout) == []
        assert time.monotonic() - start >= timeout


def test_it_sleeps_until_something_is_ready(poller: Poller, pair: Pair) -> None:
    left, right = pair
    poller.register(left.fileno(), READ)
    right.send(b"x")
    assert poll(poller, None) == [(left.fileno(), READ)]


def test_its_own_descriptor_is_readable_when_something_is_ready(poller: Poller, pair: Pair) -> None:
    left, right = pair
    poller.register(left.fileno(), READ)
    number = poller.fileno()
    if number is None:
        pytest.skip("this one has none")
    assert select.select([number], [], [], 0)[0] == []
    right.send(b"x")
    assert select.select([number], [], [], 10.0)[0] == [number]
    left.recv(1)
    assert select.select([number], [], [], 0)[0] == []


def test_select_and_poll_have_no_descriptor() -> None:
    for name in {"select", "poll"} & set(POLLERS):
        made = POLLERS[name]()
        assert made.fileno() is None
        made.close()


def test_registering_twice_is_an_error(poller: Poller, pair: Pair) -> None:
    fd = pair[0].fileno()
    poller.register(fd, READ)
    with pytest.raises((KeyError, FileExistsError)):
        poller.register(fd, READ)
    poller.unregister(fd)


@needs_epoll
def test_the_default_is_epoll_where_there_is_one() -> None:
    made = default_poller()
    assert isinstance(made, EpollPoller)
    made.close()


@needs_epoll
def test_epoll_forgets_what_was_closed_before_it_was_unregistered() -> None:
    """close() takes a descriptor out of epoll by itself (epoll(7)), and leaves nothing to take out."""
    made = EpollPoller()
    reader, writer = os.pipe()
    made.register(reader, READ)
    os.close(reader)
    made.unregister(reader)
    assert poll(made, 0) == []
    os.close(writer)
    made.close()
