"""A load in a process of its own.

Contents: LoadProcess, generate, progress_of.

Owns the process and what is said to it: a plan, a line that lets it begin, and the end of its input,
which stops it; it says when it is connected, how far it has come, and its result. All of that is JSON, an
object a line. A process of its own even where there is only one: what draws the progress must not hold up
what measures.
"""

from __future__ import annotations

import dataclasses
import json
import os
import queue
import subprocess
import sys
import threading
from types import TracebackType

from tao.cli.load import Load, Plan, Progress

__all__ = ["LoadProcess", "generate", "progress_of"]

PATIENCE = 5.0
"""Seconds in which a process ends by itself that has been told to."""

PROGRAM = "from tao.cli.load_process import generate; generate()"


class LoadProcess:
    """A process with a Load. What it says is put into `said`, as `(itself, object)`.

    An object has one entry: `ready`, how many connections there are; `progress`, the fields of a Progress;
    `result`, those of a Result; or `ended`, the exit status, last of all. Use it as a `with` statement:
    at the end the process is over. One thread; `said` is put in by another.
    """

    def __init__(
        self, plan: Plan, said: queue.SimpleQueue[tuple[LoadProcess, dict[str, object]]]
    ) -> None:
        self._said = said
        self._begun = False
        # It imports what this process would, from wherever that is.
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # A session of its own: Ctrl-C on the terminal is for us, and we still want its result.
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._say(json.dumps(dataclasses.asdict(plan)))

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._said.put((self, json.loads(line)))
        self._said.put((self, {"ended": self._process.wait()}))

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended, which it says itself

    def begin(self) -> None:
        """Let it send, now that all are connected."""
        self._begun = True
        self._say("begin")

    def stop(self) -> None:
        """Have it end, with the result so far. Twice is once."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            pass

    def __enter__(self) -> LoadProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        if not self._begun:
            self._process.kill()  # it may be in the middle of a connect, and has nothing to tell
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def __repr__(self) -> str:
        return f"<LoadProcess {self._process.pid}>"


def generate() -> None:
    """The process: a plan on standard input, and on standard output what comes of it."""
    load = Load(Plan.from_json(json.loads(sys.stdin.readline())))
    # Ended in the middle of a connect, it has no result to give.
    try:
        _say({"ready": load.connect()})
        if sys.stdin.readline():
            threading.Thread(target=_stop_at_the_end, args=(load,), daemon=True).start()
            result = load.run(lambda progress: _say({"progress": dataclasses.asdict(progress)}))
            _say({"result": result.as_json()})
    except BrokenPipeError:
        pass  # nobody listens any more
    finally:
        load.close()


def _stop_at_the_end(load: Load) -> None:
    # Not by `sys.stdin`, whose lock the interpreter wants at its end.
    while os.read(0, 1):
        pass
    load.stop()


def _say(said: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()


def progress_of(said: object) -> Progress:
    """What a process has said of its progress."""
    assert isinstance(said, dict)
    return Progress(**said)
