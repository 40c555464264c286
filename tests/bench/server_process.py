"""One running server: started, asked for its port, its processor time and its own figures, and ended.

Signals only the process it started, by its id. The server has a session of its own, so a Ctrl-C
in the terminal reaches the benchmark alone, which then ends its servers in order.
"""

import os
import select
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from tests.bench.errors import BenchError

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 10.0
STOP_SECONDS = 5.0
ERROR_TEXT_SIZE = 2000
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


class ServerProcess:
    """A context manager: the server listens on `port` inside the context and is gone after it.

    A program that measures itself, and serves nobody, has port 0.
    """

    def __init__(self, name: str, command: list[str]) -> None:
        self._name = name
        self._command = command
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - until _end
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def __enter__(self) -> Self:
        try:
            self._process = subprocess.Popen(
                self._command,
                bufsize=0,  # a request that nobody takes shall not be tried again by close()
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                start_new_session=True,
            )
            self.port = self._read_port(self._process)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()

    def cpu_seconds(self) -> float:
        """Processor time of all its threads so far, to a clock tick. Raises when it has died."""
        stat = (self._folder() / "stat").read_text()
        # proc(5): the name, in parentheses, may hold spaces; user and system time are 12 and 13
        # fields after it.
        after_name = stat.rpartition(")")[2].split()
        return (int(after_name[11]) + int(after_name[12])) / CLOCK_TICKS

    def ask(self, request: str, seconds: float) -> str:
        """The line that it answers within `seconds` to this one. For servers that take requests."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        try:
            process.stdin.write(request.encode() + b"\n")
        except BrokenPipeError:
            raise BenchError("takes no request any more") from None
        return self._read_line(process, "answer", seconds)

    def exact_cpu_seconds(self) -> float:
        """Processor time so far of the threads that there are, to a nanosecond.

        For a server that hardly uses any: `cpu_seconds` counts in ticks, and those it was not
        running at count for nothing.
        """
        # proc_pid_schedstat(5): the first number is the time spent on a processor.
        texts = self._of_threads("schedstat")
        return sum(int(text.split()[0]) for text in texts) / 1e9

    def wake_ups(self) -> int:
        """How often its threads so far gave up the processor to wait for something."""
        texts = self._of_threads("status")
        return sum(
            int(text.rpartition("\nvoluntary_ctxt_switches:")[2].split()[0]) for text in texts
        )

    def resident_bytes(self) -> int:
        """Its memory that is in the machine's, code and libraries included."""
        # Not the sum of status or statm, which threads bring up to date now and then only.
        text = (self._folder() / "smaps_rollup").read_text()
        return int(text.rpartition("\nRss:")[2].split()[0]) * 1024

    def _folder(self) -> Path:
        if self._process is None or self._process.poll() is not None:
            raise BenchError(self._describe("died while it was measured"))
        return Path(f"/proc/{self._process.pid}")

    def _of_threads(self, name: str) -> list[str]:
        texts = []
        for folder in sorted((self._folder() / "task").iterdir()):
            try:
                texts.append((folder / name).read_text())
            except (FileNotFoundError, ProcessLookupError):
                pass  # the thread has ended in between
        return texts

    def explain(self, error: BenchError) -> BenchError:
        """`error`, with what the server had to say about it."""
        died = self._process is not None and self._process.poll() is not None
        return BenchError(self._describe(f"{'died: ' if died else ''}{error}"))

    def _read_port(self, process: subprocess.Popen[bytes]) -> int:
        try:
            line = self._read_line(process, "port", START_SECONDS)
        except BenchError as error:
            raise BenchError(self._describe(str(error))) from None
        try:
            return int(line)
        except ValueError:
            raise BenchError(self._describe(f"printed {line!r} in place of a port")) from None

    def _read_line(self, process: subprocess.Popen[bytes], what: str, seconds: float) -> str:
        assert process.stdout is not None
        descriptor = process.stdout.fileno()
        deadline = time.monotonic() + seconds
        line = b""
        while not line.endswith(b"\n"):
            remaining = deadline - time.monotonic()
            if remaining <= 0 or not select.select([descriptor], [], [], remaining)[0]:
                raise BenchError(f"printed no {what} within {seconds:g} s")
            byte = os.read(descriptor, 1)
            if not byte:
                raise BenchError(f"ended before it printed its {what}")
            line += byte
        return line.decode().rstrip()

    def _describe(self, what: str) -> str:
        # pread, not seek: the server writes at the same file offset.
        descriptor = self._stderr.fileno()
        start = max(0, os.fstat(descriptor).st_size - ERROR_TEXT_SIZE)
        said = os.pread(descriptor, ERROR_TEXT_SIZE, start).decode(errors="replace").strip()
        return f"server {self._name} {what}" + (f"\nits error output:\n{said}" if said else "")

    def _end(self) -> None:
        process = self._process
        if process is not None:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                pass
            finally:  # a second Ctrl-C must not leave the server behind either
                process.kill()
                process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
        self._stderr.close()
