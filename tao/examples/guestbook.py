"""A chat that remembers: what is said is written down in SQLite, and read to whoever comes later.

The messages are the chat's, and so is the client. What is new here is the DataSource: SQLite's
connections may not be shared by threads, so each worker gets one of its own, and all are closed in the
end. Read in this order: open_book, make_server, run_server.
"""

from __future__ import annotations

import argparse
import queue
import sqlite3
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from tao import (
    ClientConn,
    ConnectionClosedError,
    ConnectionMap,
    Context,
    DataSource,
    MessageRegistry,
    Server,
    ServerConn,
    TaoError,
    WouldBlockError,
    WriteCloser,
)
from tao.address import format_address
from tao.examples import _common, chat
from tao.examples.chat import ChatMessage
from tao.terminal import say

COMMANDS = {
    "server": "the book, and who stands around it (the default)",
    "client": "sends each line you type; ends on `bye` or at the end of the input",
    "demo": "a guest, another server with the same book, another guest; ends by itself",
}

HISTORY = 10
"""Entries that are read to who comes."""

MAX_SIZE = 4096
"""Bytes in an entry: a book that is kept must not be filled by one guest."""


def open_book(path: str) -> sqlite3.Connection:
    """The factory: called once on each thread that needs a connection.

    Raises TaoError for what cannot be opened, or is no book.
    """
    connection = None
    try:
        # It is used on this thread alone; but `close_all` will close it on another.
        connection = sqlite3.connect(path, check_same_thread=False)
        with connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS entries (id INTEGER PRIMARY KEY, text TEXT NOT NULL)"
            )
    except sqlite3.Error as error:
        if connection is not None:
            connection.close()
        raise TaoError(f"cannot open the book {path!r}: {error}") from error
    return connection


def last_entries(book: sqlite3.Connection) -> list[str]:
    """The last HISTORY of them, the oldest first."""
    rows = book.execute("SELECT text FROM entries ORDER BY id DESC LIMIT ?", (HISTORY,))
    return [text for (text,) in rows][::-1]


def add_entry(book: sqlite3.Connection, text: str) -> None:
    """In a transaction: when this returns, the entry is on the disk."""
    with book:
        book.execute("INSERT INTO entries (text) VALUES (?)", (text,))


def make_server(books: DataSource[sqlite3.Connection]) -> Server:
    """A server that writes into the book of whichever worker runs the handler."""
    present: ConnectionMap[int, ServerConn] = ConnectionMap()
    # Whoever comes while somebody speaks gets the entry once: from the book, or as it is said.
    turn = threading.Lock()
    registry = MessageRegistry()

    def on_connect(conn: ServerConn) -> None:
        with turn:
            for text in last_entries(books.get()):
                conn.write(ChatMessage(text))
            present.put(conn.net_id, conn)

    @registry.handler(ChatMessage, max_size=MAX_SIZE)
    def enter(ctx: Context[ChatMessage], _conn: WriteCloser) -> None:
        with turn:
            add_entry(books.get(), ctx.message.text)
            # To the one who speaks as well: it has been written down.
            for guest in present.values():
                try:
                    guest.write(ctx.message)
                except (ConnectionClosedError, WouldBlockError):
                    pass  # it is leaving, or has stopped reading; it may look it up later

    return Server(
        registry=registry,
        on_connect=on_connect,
        on_close=lambda conn, _reason: present.remove(conn.net_id),
        data_source=books,  # closed when the server has stopped
    )


def run_server(options: argparse.Namespace) -> int:
    """Serve until Ctrl-C."""
    books = DataSource(lambda: open_book(options.database), sqlite3.Connection.close)
    try:
        books.get()  # a book that cannot be opened is said now, and not to the first guest
        return _common.serve(make_server(books), options, "guestbook")
    finally:
        books.close_all()  # the server has, unless it never came to listen; twice is once


def run_demo(_options: argparse.Namespace) -> int:
    """The second server has nothing from the first but the file."""
    with tempfile.TemporaryDirectory() as directory:
        path = str(Path(directory, "guestbook.db"))
        for name in ("Ann", "Bob"):
            books = DataSource(lambda: open_book(path), sqlite3.Connection.close)
            try:
                with make_server(books).running(("127.0.0.1", 0)) as address:
                    say(f"The guestbook server listens on {format_address(address)}.")
                    visit(name, address, entries=1 if name == "Ann" else 2)
            finally:
                books.close_all()
    return 0


def visit(name: str, address: tuple[str, int], entries: int) -> None:
    """Write one line into the book, and read what is in it then."""
    heard: queue.SimpleQueue[str] = queue.SimpleQueue()
    registry = MessageRegistry()

    @registry.handler(ChatMessage)
    def hear(ctx: Context[ChatMessage], _conn: WriteCloser) -> None:
        heard.put(ctx.message.text)

    with ClientConn(address, registry=registry) as client:
        client.write(ChatMessage(f"{name} was here."))
        for _ in range(entries):
            say(f"    {name} reads: {heard.get(timeout=chat.DEMO_TIMEOUT)}")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = _common.command_line(
        "guestbook", "A chat that remembers what was said, in SQLite.", COMMANDS
    )
    parser.add_argument(
        "--database", metavar="FILE", default="guestbook.db", help="server: default: %(default)s"
    )
    parser.add_argument("--name", help="client: put NAME and a colon before each line")
    commands = {"server": run_server, "client": chat.run_client, "demo": run_demo}
    return _common.run(parser, commands, arguments)


if __name__ == "__main__":
    sys.exit(main())
