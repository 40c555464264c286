"""How `tao monitor` shows a monitor's status.

Contents: View, Lines (plain), Screen (by `rich`), full_text; then the units.

Owns the text. What comes from peers is made printable first, so that it cannot move the cursor. One thread.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Protocol, Self, TextIO, TypeAlias

__all__ = [
    "Lines",
    "Screen",
    "View",
    "full_text",
    "has_rich",
    "show_count",
    "show_seconds",
    "show_size",
]

HEADING_EVERY = 20
"""Lines."""

Status: TypeAlias = dict[str, Any]
Rows: TypeAlias = list[list[str]]


class View(Protocol):
    """Shows one status after the other. A `with` statement lasts as long as it is shown."""

    def show(self, status: Status) -> None:
        """The next one."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


def has_rich() -> bool:
    """Whether the extra `cli` is installed."""
    return importlib.util.find_spec("rich") is not None


# -- units ---------------------------------------------------------------------------------------


def show_count(value: float | None) -> str:
    """So many: `12.3k`."""
    return "-" if value is None else "".join(_scaled(value, 1000, ("", "k", "M", "G")))


def show_size(value: float | None) -> str:
    """Bytes: `1.50 MiB`."""
    return (
        "-" if value is None else " ".join(_scaled(value, 1024, ("B", "KiB", "MiB", "GiB", "TiB")))
    )


def show_seconds(value: float | None) -> str:
    """A time, of seconds: `2.50 ms`, `3 h 5 min`."""
    if value is None:
        return "-"
    if not value:
        return "0 s"
    for limit, factor, unit in ((1e-3, 1e6, "µs"), (1.0, 1e3, "ms"), (60.0, 1.0, "s")):
        if value < limit:
            return f"{_digits(value * factor)} {unit}"
    minutes, hours, days = int(value) // 60, int(value) // 3600, int(value) // 86_400
    if days:
        return f"{days} d {hours % 24} h"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min {int(value) % 60} s"


def _scaled(value: float, base: int, units: Sequence[str]) -> tuple[str, str]:
    index = 0
    while value >= base and index < len(units) - 1:
        value /= base
        index += 1
    plain = index == 0 and (value >= 10 or value == int(value))
    return f"{value:.0f}" if plain else _digits(value), units[index]


def _digits(value: float) -> str:
    return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f}"


def printable(text: object) -> str:
    """As it is, but for what a terminal would take for something else."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in str(text))


# -- what is shown -------------------------------------------------------------------------------


def _doing(row: Status) -> str:
    found = list(map(printable, row["not_reading"]))
    if row["busy"] is not None:
        found.insert(
            0, f"in a handler, {show_seconds(row['busy'])}" if row["busy"] else "in a handler"
        )
    elif row["unhandled"]:
        found.insert(0, "waits for a worker")
    return "; ".join(found)


_HANDLERS: tuple[tuple[str, Callable[[Status], str]], ...] = (
    ("handler", lambda row: printable(row["handler"])),
    ("message", lambda row: f"{printable(row['message'])} ({row['number']})"),
    ("timed", lambda row: str(row["samples"])),
    ("mean", lambda row: show_seconds(row["mean"])),
    ("p50", lambda row: show_seconds(row["p50"])),
    ("p95", lambda row: show_seconds(row["p95"])),
    ("p99", lambda row: show_seconds(row["p99"])),
    ("longest", lambda row: show_seconds(row["max"])),
)

_CONNECTIONS: tuple[tuple[str, Callable[[Status], str]], ...] = (
    ("peer", lambda row: printable(row["peer"])),
    ("id", lambda row: str(row["id"])),
    ("state", lambda row: printable(row["state"])),
    ("doing", _doing),
    ("age", lambda row: show_seconds(row["age"])),
    ("silent for", lambda row: show_seconds(row["idle"])),
    ("messages", lambda row: show_count(row["messages"])),
    ("in", lambda row: show_size(row["bytes_in"])),
    ("out", lambda row: show_size(row["bytes_out"])),
    ("unsent", lambda row: show_size(row["unsent"])),
    ("held", lambda row: show_size(row["held"])),
)


def _latest(status: Status, name: str) -> dict[str, float | None]:
    points = status["servers"][name]["points"]
    values = points[-1] if points else [None] * len(status["columns"])
    return dict(zip(status["columns"], values, strict=True))


def summary(status: Status, name: str) -> list[str]:
    """The numbers of one server, in a few lines."""
    server = status["servers"][name]
    now, made, last = server["now"], server["made"], _latest(status, name)
    head = [printable(name)]
    if now is not None:
        head.append(f"up {show_seconds(now['uptime'])}")
    if made is not None:
        head.append("on " + (", ".join(map(printable, made["listening"])) or "nothing"))
    most = "" if made is None else f" of {made['max_connections']}"
    memory = "" if made is None else f" of {show_size(made['memory_limit'])}"
    return [
        "  ".join(head),
        f"connections {show_count(last['connections'])}{most}, {show_count(last['opened'])}/s new; "
        f"messages {show_count(last['messages'])}/s, handled {show_count(last['handled'])}/s",
        f"bytes {show_size(last['bytes_in'])}/s in, {show_size(last['bytes_out'])}/s out; "
        f"held {show_size(last['held'])}{memory}; "
        f"errors {show_count(last['errors'])}/s, refused {show_count(last['refused'])}/s",
        f"handlers p50 {show_seconds(last['p50'])}, p95 {show_seconds(last['p95'])}, "
        f"p99 {show_seconds(last['p99'])}; queue {show_count(last['queue'])}; "
        f"loop lag {show_seconds(last['lag'])}",
    ]


def handlers_table(status: Status) -> Rows:
    """The slowest, with a heading."""
    return _table(_HANDLERS, status["handlers"][:10])


def connections_table(status: Status) -> Rows:
    """Those that were asked for, with a heading."""
    found = status["connections"]
    return _table(_CONNECTIONS, [] if found is None else found["rows"])


def _table(columns: Sequence[tuple[str, Callable[[Status], str]]], rows: Iterable[Status]) -> Rows:
    return [[title for title, _ in columns], *([show(row) for _, show in columns] for row in rows)]


def left_out(status: Status) -> str:
    """How many connections are not in the table."""
    found = status["connections"]
    return f"and {found['more']} more" if found is not None and found["more"] else ""


def full_text(status: Status) -> str:
    """All of it, as plain text."""
    lines: list[str] = []
    for name in status["servers"]:
        lines += [*summary(status, name), ""]
    for title, table in (
        (f"slowest handlers of {printable(status['shown'])}", handlers_table(status)),
        (f"connections of {printable(status['shown'])}", connections_table(status)),
    ):
        if len(table) > 1:
            lines += [title, *_aligned(table), ""]
    lines.append(left_out(status))
    return "\n".join(lines).rstrip() or "there is no server yet"


def _aligned(table: Rows) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]


# -- views ---------------------------------------------------------------------------------------

_LINE: tuple[tuple[str, int, Callable[[float | None], str]], ...] = (
    ("connections", 11, show_count),
    ("messages", 9, show_count),
    ("bytes_in", 10, show_size),
    ("bytes_out", 10, show_size),
    ("p50", 8, show_seconds),
    ("p99", 8, show_seconds),
    ("queue", 6, show_count),
    ("lag", 8, show_seconds),
    ("errors", 7, show_count),
)


class Lines:
    """A line for each server and look, as `vmstat` has it; for a pipe, or without `rich`."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._printed = 0

    def show(self, status: Status) -> None:
        """A line for each server."""
        width = max([6, *(len(printable(name)) for name in status["servers"])])
        for name in status["servers"]:
            if self._printed % HEADING_EVERY == 0:
                titles = "  ".join(title.rjust(size) for title, size, _ in _LINE)
                print(f"{'server':{width}}  {titles}", file=self._out)
            last = _latest(status, name)
            texts = "  ".join(show(last[title]).rjust(size) for title, size, show in _LINE)
            print(f"{printable(name):{width}}  {texts}", file=self._out, flush=True)
            self._printed += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass


class Screen:
    """The whole terminal, by `rich`, which is there when this is made."""

    def __init__(self) -> None:
        from rich.live import Live

        self._live = Live(screen=True, auto_refresh=False)

    def show(self, status: Status) -> None:
        """Everything, in place of what was there."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        # Text, and not str: what is between brackets in a name is no markup.
        parts: list[Text | Table] = []
        for name in status["servers"]:
            head, *rest = summary(status, name)
            parts += [Text(head, style="bold"), *map(Text, rest), Text()]
        for title, rows in (
            ("slowest handlers", handlers_table(status)),
            ("connections", connections_table(status)),
        ):
            table = Table(title=title, title_justify="left", title_style="bold", expand=True)
            for column in rows[0]:
                table.add_column(column, overflow="fold")
            for row in rows[1:]:
                table.add_row(*map(Text, row))
            parts.append(table)
        parts.append(Text(left_out(status)))
        self._live.update(Group(*parts), refresh=True)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.__exit__(kind, error, traceback)
