"""Fixtures: the hosts that there are here, one after the other, and reactors for them."""

from __future__ import annotations

import selectors
from collections.abc import Callable, Iterator

import pytest

from reactor import Reactor
from tests.reactor.embed.hosts import HOSTS, HostUnderTest, new_host

SELECTORS: dict[str, Callable[[], selectors.BaseSelector | None]] = {
    "descriptor": lambda: None,
    "waiter": selectors.SelectSelector,
}
"""One whose reactor a host can watch, and one whose reactor has no descriptor."""


@pytest.fixture(scope="session", params=HOSTS)
def host_name(request: pytest.FixtureRequest) -> str:
    """The name of a host that is there. What it keeps open for the process, it has opened before a
    test looks at what has been left."""
    name: str = request.param
    first = new_host(name)

    def begin() -> None:
        made = Reactor()
        first.attach(made).detach()
        made.close()
        first.stop()

    first.run(begin)
    first.close()
    return name


@pytest.fixture
def host(host_name: str) -> Iterator[HostUnderTest]:
    made = new_host(host_name)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(params=SELECTORS)
def reactor(request: pytest.FixtureRequest) -> Iterator[Reactor]:
    made = Reactor(selector=SELECTORS[request.param]())
    yield made
    made.close()
