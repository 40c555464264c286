"""tao.reports: which errors cost a connection, and how loud they are told."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing

import pytest

from reactor import Reactor
from tao import (
    AdmissionError,
    ClientConn,
    ConnectionClosedError,
    FrameTooLargeError,
    NotRegisteredError,
    Objection,
    Refusal,
    UndefinedMessageError,
)
from tao.reports import costs_connection, log, log_error, tell

REFUSED = AdmissionError(7, Objection.RATE, Refusal.SKIP)
TOO_LARGE = FrameTooLargeError(9, 8, "a value")


@pytest.fixture
def client() -> Iterator[ClientConn]:
    with closing(Reactor()) as reactor:
        yield ClientConn(("127.0.0.1", 1), reactor=reactor)


@pytest.mark.parametrize(
    ("error", "by_policy", "always"),
    [
        (ValueError("of a handler"), True, False),
        (SystemExit(1), True, False),
        (TOO_LARGE, True, True),
        (UndefinedMessageError(7), False, False),
        (NotRegisteredError("no handler"), False, False),
        (REFUSED, False, False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_what_costs_the_connection(error: BaseException, by_policy: bool, always: bool) -> None:
    assert costs_connection(error, True) == by_policy
    assert costs_connection(error, False) == always


@pytest.mark.parametrize(
    ("error", "refused", "level", "traceback"),
    [
        (ValueError("of a handler"), None, logging.ERROR, True),
        (TOO_LARGE, None, logging.WARNING, False),
        (UndefinedMessageError(7), None, logging.WARNING, False),
        (NotRegisteredError("no handler"), None, logging.WARNING, False),
        (ConnectionClosedError("gone"), None, logging.INFO, False),
        (REFUSED, 10, logging.WARNING, False),
        (REFUSED, None, None, False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_how_loud_it_is(
    client: ClientConn,
    caplog: pytest.LogCaptureFixture,
    error: BaseException,
    refused: int | None,
    level: int | None,
    traceback: bool,
) -> None:
    with caplog.at_level(logging.DEBUG, "tao"):
        log_error(client, error, refused)
    assert [record.levelno for record in caplog.records] == ([] if level is None else [level])
    for record in caplog.records:
        assert record.getMessage().startswith(f"{client}: ")
        assert (record.exc_info is not None and record.exc_info[1] is error) == traceback
        if refused is not None:
            assert "10 refused so far" in record.getMessage()


def test_a_record_has_the_connection_in_its_fields(
    client: ClientConn, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "tao"):
        log(client, logging.DEBUG, "not wanted")
        log(client, logging.INFO, "%d of %s", 3, "100%")
    [record] = caplog.records
    assert record.getMessage() == f"{client}: 3 of 100%"
    assert record.__dict__["net_id"] == client.net_id
    assert record.__dict__["peer"] == client.name


def test_on_error_may_raise(client: ClientConn, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[BaseException] = []

    def on_error(conn: ClientConn, error: BaseException) -> None:
        assert conn is client
        seen.append(error)
        raise KeyboardInterrupt

    tell(client, REFUSED, None)
    with caplog.at_level(logging.ERROR, "tao"):
        tell(client, REFUSED, on_error)
    assert seen == [REFUSED]
    [record] = caplog.records
    assert record.getMessage() == f"{client}: on_error raised"
