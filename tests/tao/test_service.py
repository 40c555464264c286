"""tao.service: what the sessions of one owner share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from reactor import Ledger, Reactor, WorkerPool
from tao import Context, MessageRegistry, ServerConn, TypeLengthValueCodec
from tao.service import Service
from tao.session import Session
from tao.session_options import Callbacks, SessionOptions

Shared = Service[ServerConn, Session[ServerConn]]


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    with closing(Reactor()) as reactor:
        yield reactor


def service_with(reactor: Reactor, callbacks: Callbacks[ServerConn]) -> Shared:
    return Service(
        reactor=reactor,
        pool=WorkerPool(reactor),
        registry=MessageRegistry(),
        callbacks=callbacks,
        options=SessionOptions(),
        ledger=Ledger(reactor),
        on_gone=lambda session, reason: None,
    )


def test_nobody_changes_it(reactor: Reactor) -> None:
    service: Any = service_with(reactor, Callbacks())
    with pytest.raises(FrozenInstanceError):
        service.options = SessionOptions()


def test_on_message_is_the_handler_of_what_has_none(reactor: Reactor) -> None:
    seen: list[tuple[object, ServerConn]] = []
    service = service_with(
        reactor, Callbacks(on_message=lambda message, conn: seen.append((message, conn)))
    )
    conn = ServerConn()
    session = Session(conn, 1, service, codec=TypeLengthValueCodec())

    handler = service.on_message
    assert handler is not None
    assert handler(Context("hello", session), conn) is None, "what it returns is no reply"
    assert seen == [("hello", conn)]


def test_and_there_is_none_without_it(reactor: Reactor) -> None:
    assert service_with(reactor, Callbacks()).on_message is None


def test_sessions_have_nothing_of_their_own_until_something_waits(reactor: Reactor) -> None:
    service = service_with(reactor, Callbacks())
    one, other = (
        Session(ServerConn(), number, service, codec=TypeLengthValueCodec()) for number in (1, 2)
    )
    reactor.run_once(0)
    one.enqueue(lambda: None)

    assert (one.unhandled, other.unhandled) == (1, 0)
