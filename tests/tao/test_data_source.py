"""tao.data_source: one resource for each thread, each closed once; and SQLite in a server's handlers."""

from __future__ import annotations

import gc
import logging
import sqlite3
import threading
import weakref
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, assert_type

import pytest

from tao import Context, MessageRegistry, Server, TaoError, WriteCloser
from tao.data_source import DataSource
from tests.support import DEADLINE, LOCAL, Peer, Sample, as_bytes
from tests.tao.stress import THREADS, at_once


class Resource:
    """Counts how often it is closed, and on which thread it was made."""

    def __init__(self) -> None:
        self.made_on = threading.get_ident()
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


def test_is_typed_as_what_the_factory_returns() -> None:
    db = DataSource(Resource, Resource.close)
    assert_type(db, DataSource[Resource])
    assert_type(db.get(), Resource)
    numbers = DataSource(lambda: 5)
    assert_type(numbers.get(), int)
    db.close_all()


def test_makes_nothing_before_it_is_asked() -> None:
    made: list[int] = []
    DataSource(lambda: made.append(1)).close_all()
    assert made == []


def test_one_for_each_thread() -> None:
    db = DataSource(Resource, Resource.close)
    found: list[list[Resource]] = [[] for _ in range(THREADS)]
    held = threading.Barrier(THREADS)

    def ask(index: int) -> None:
        found[index] = [db.get() for _ in range(50)]
        assert found[index][0].made_on == threading.get_ident()
        held.wait(DEADLINE)  # so that no thread's number is used again

    at_once(ask)
    assert all(len(set(resources)) == 1 for resources in found)
    firsts = [resources[0] for resources in found]
    assert len(set(firsts)) == THREADS
    assert [resource.closed for resource in firsts] == [0] * THREADS
    db.close_all()
    assert [resource.closed for resource in firsts] == [1] * THREADS


def test_a_factory_may_return_anything() -> None:
    calls: list[None] = []

    def make() -> None:
        calls.append(None)

    db = DataSource(make)
    assert [db.get(), db.get()] == [None, None]
    assert len(calls) == 1


def test_closed_once_however_often_it_is_asked_to() -> None:
    for _ in range(20):
        db = DataSource(Resource, Resource.close)
        resources: list[Resource] = []

        def make(db: DataSource[Resource] = db, made: list[Resource] = resources) -> None:
            made.append(db.get())

        for _ in range(THREADS):
            thread = threading.Thread(target=make)
            thread.start()
            thread.join(DEADLINE)
        at_once(lambda _index, db=db: db.close_all())  # type: ignore[misc]
        db.close_all()
        assert [resource.closed for resource in resources] == [1] * THREADS


def test_in_the_order_of_their_making() -> None:
    closed: list[str] = []
    db = DataSource(lambda: threading.current_thread().name, closed.append)
    for name in "abc":
        thread = threading.Thread(target=db.get, name=name)
        thread.start()
        thread.join(DEADLINE)
    db.close_all()
    assert closed == ["a", "b", "c"]


def test_not_to_be_had_when_all_are_closed() -> None:
    made: list[Resource] = []

    def make() -> Resource:
        made.append(Resource())
        return made[-1]

    db = DataSource(make, Resource.close)
    db.get()
    db.close_all()
    with pytest.raises(TaoError, match="closed"):
        db.get()  # on a thread that had one
    errors: list[Exception] = []

    def ask() -> None:
        try:
            db.get()
        except TaoError as error:
            errors.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join(DEADLINE)
    assert len(errors) == 1  # nor on one that had none
    assert len(made) == 1


def test_closed_while_one_is_made() -> None:
    """It can be neither handed out nor forgotten."""
    making, all_closed = threading.Event(), threading.Event()
    made: list[Resource] = []

    def make() -> Resource:
        making.set()
        assert all_closed.wait(DEADLINE)
        made.append(Resource())
        return made[0]

    db = DataSource(make, Resource.close)
    errors: list[Exception] = []

    def ask() -> None:
        try:
            db.get()
        except TaoError as error:
            errors.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    assert making.wait(DEADLINE)
    db.close_all()
    all_closed.set()
    thread.join(DEADLINE)
    assert len(errors) == 1
    assert made[0].closed == 1


def test_a_factory_that_raises_is_tried_again() -> None:
    attempts: list[int] = []

    def make() -> str:
        attempts.append(1)
        if len(attempts) < 3:
            raise OSError("not yet")
        return "at last"

    closed: list[str] = []
    db = DataSource(make, closed.append)
    for _ in range(2):
        with pytest.raises(OSError, match="not yet") as caught:
            db.get()
        assert caught.value.__context__ is None
    assert db.get() == "at last"
    assert db.get() == "at last"
    assert len(attempts) == 3
    db.close_all()
    assert closed == ["at last"]


def test_one_that_cannot_be_closed_does_not_keep_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    closed: list[str] = []

    def close(name: str) -> None:
        closed.append(name)
        if name != "b":
            raise OSError(f"{name} does not close")

    db = DataSource(lambda: threading.current_thread().name, close)
    for name in "abc":
        thread = threading.Thread(target=db.get, name=name)
        thread.start()
        thread.join(DEADLINE)
    with caplog.at_level(logging.ERROR, "tao"):
        db.close_all()
    assert closed == ["a", "b", "c"]
    assert [record.name for record in caplog.records] == ["tao", "tao"]
    assert [record.exc_info is not None for record in caplog.records] == [True, True]
    assert "a does not close" in caplog.text
    assert "c does not close" in caplog.text


def test_an_interrupted_close_all_goes_on_when_called_again() -> None:
    closed: list[str] = []

    def close(name: str) -> None:
        closed.append(name)
        if len(closed) == 1:
            raise KeyboardInterrupt

    db = DataSource(lambda: threading.current_thread().name, close)
    for name in "ab":
        thread = threading.Thread(target=db.get, name=name)
        thread.start()
        thread.join(DEADLINE)
    with pytest.raises(KeyboardInterrupt):
        db.close_all()
    db.close_all()
    assert closed == ["a", "b"]


@pytest.mark.parametrize("close", [None, Resource.close])
def test_keeps_none_when_all_are_closed(close: Callable[[Resource], object] | None) -> None:
    db = DataSource(Resource, close)
    reference = weakref.ref(db.get())
    gc.collect()
    assert reference() is not None
    db.close_all()
    gc.collect()
    assert reference() is None


@pytest.mark.parametrize(
    ("factory", "close", "what"),
    [(None, None, "factory"), ("db", None, "factory"), (Resource, "close", "close")],
)
def test_arguments_that_make_no_sense(factory: Any, close: Any, what: str) -> None:
    with pytest.raises(TypeError, match=f"{what} must be a function"):
        DataSource(factory, close)


def test_its_repr_says_how_many() -> None:
    db = DataSource(Resource)
    assert repr(db) == "<DataSource 0 resources>"
    db.get()
    assert repr(db) == "<DataSource 1 resources>"
    db.close_all()
    assert repr(db) == "<DataSource closed>"


def test_two_do_not_get_into_each_other_s_way() -> None:
    first, second = DataSource(lambda: "first"), DataSource(lambda: "second")
    assert [first.get(), second.get(), first.get()] == ["first", "second", "first"]
    first.close_all()
    assert second.get() == "second"


# -- with a database, and a server ---------------------------------------------------------------


@pytest.mark.parametrize("check", [True, False])
def test_sqlite_is_closed_on_another_thread_only_when_it_allows_that(
    check: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What the docstring warns of; and its example."""
    path = str(tmp_path / "test.db")
    db = DataSource(
        lambda: sqlite3.connect(path, check_same_thread=check), sqlite3.Connection.close
    )
    made, asked_to_close = threading.Event(), threading.Event()
    still_open: list[bool] = []

    def use() -> None:
        connection = db.get()
        made.set()
        assert asked_to_close.wait(DEADLINE)
        try:
            connection.execute("SELECT 1").close()
            still_open.append(True)
        except sqlite3.ProgrammingError:
            still_open.append(False)
        connection.close()

    thread = threading.Thread(target=use)
    thread.start()
    assert made.wait(DEADLINE)
    db.close_all()
    asked_to_close.set()
    thread.join(DEADLINE)
    assert still_open == [check]
    assert ("same thread" in caplog.text) == check


def test_handlers_use_one_connection_for_each_worker(tmp_path: Path) -> None:
    made: Counter[int] = Counter()
    used: list[tuple[int, sqlite3.Connection]] = []
    path = str(tmp_path / "test.db")

    def connect() -> sqlite3.Connection:
        made[threading.get_ident()] += 1
        return sqlite3.connect(path, check_same_thread=False)

    db = DataSource(connect, sqlite3.Connection.close)
    with db.get() as connection:
        connection.execute("CREATE TABLE numbers (value INTEGER)")
    registry = MessageRegistry()
    both_busy = threading.Barrier(2)

    def store(context: Context[bytes], _conn: WriteCloser) -> Sample:
        book = db.get()
        used.append((threading.get_ident(), book))
        if len(context.message) == 2:
            both_busy.wait(DEADLINE)  # two workers at the same time, whatever the pool does
        with book:
            book.execute("INSERT INTO numbers VALUES (?)", (len(context.message),))
        return Sample(1, b"stored")

    registry.register(1, as_bytes, store)
    server = Server(registry=registry, worker_size=4)
    with server.running(LOCAL) as address, Peer(address) as first, Peer(address) as second:
        for peer in (first, second):
            peer.send_frame(1, b"12")
        for peer in (first, second):
            assert peer.receive_frame() == (1, b"stored")
        for _ in range(20):
            first.send_frame(1, b"1")
            assert first.receive_frame() == (1, b"stored")
    (total,) = connection.execute("SELECT sum(value) FROM numbers").fetchone()
    db.close_all()
    assert total == 24
    assert set(made.values()) == {1}
    workers = {thread for thread, _ in used}
    assert 2 <= len(workers) <= 4
    assert len(set(used)) == len(workers), "a worker has had two connections"
    for book in {book for _, book in used}:
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            book.execute("SELECT 1")
