"""How far something has come, while it goes on.

Contents: ProgressDisplay, PlainProgress, RichProgress, NoProgress, make_progress.

Owns what is drawn of it: a bar on a terminal, with the extra `cli`, and else a line, at most once a
second. It goes to standard error, so that standard output has the result alone. One thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, TextIO

__all__ = [
    "NoProgress",
    "PlainProgress",
    "ProgressDisplay",
    "RichProgress",
    "has_rich",
    "make_progress",
]

LINE_INTERVAL = 1.0
"""Seconds between two lines."""


class ProgressDisplay(Protocol):
    """A `with` statement lasts as long as it is shown."""

    def show(self, share: float, text: str) -> None:
        """How much of it is done, from 0 to 1, and what else there is to say, in a few words."""
        ...

    def __enter__(self) -> ProgressDisplay: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class NoProgress:
    """Nothing is shown. One thread."""

    def show(self, share: float, text: str) -> None:
        """Nothing."""

    def __enter__(self) -> NoProgress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass


class PlainProgress(NoProgress):
    """A line now and then. One thread."""

    def __init__(self, stream: TextIO, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._monotonic = monotonic
        self._last = monotonic()

    def show(self, share: float, text: str) -> None:
        """Unless the last line was less than a second ago."""
        now = self._monotonic()
        if now - self._last >= LINE_INTERVAL:
            self._last = now
            print(f"{share:4.0%}  {text}", file=self._stream, flush=True)

    def __repr__(self) -> str:
        return f"PlainProgress({self._stream!r})"


class RichProgress:
    """A bar that moves, by `rich`, and is gone in the end. One thread."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        self._progress = Progress(
            TextColumn("{task.fields[text]}"),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            console=Console(file=stream),
            transient=True,
        )
        self._task = self._progress.add_task("", total=1.0, text="")

    def show(self, share: float, text: str) -> None:
        """At once, or with the next of ten pictures a second."""
        self._progress.update(self._task, completed=share, text=text)

    def __enter__(self) -> RichProgress:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def __repr__(self) -> str:
        return f"<RichProgress {self._progress.tasks[0].percentage:.0f} %>"


def has_rich() -> bool:
    """Whether the extra `cli` is there."""
    try:
        import rich.progress  # noqa: F401
    except ImportError:
        return False
    return True


def make_progress(stream: TextIO, *, quiet: bool) -> ProgressDisplay:
    """What suits a stream."""
    if quiet:
        return NoProgress()
    if stream.isatty() and has_rich():
        return RichProgress(stream)
    return PlainProgress(stream)
