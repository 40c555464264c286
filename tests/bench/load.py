"""Compiles the load generator and runs it.

Owns the command line and the output format of ``load.c``; what a number means is said there.
"""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

from tests.bench.errors import BenchError

SOURCE = Path(__file__).with_name("load.c")
COMPILE_SECONDS = 120.0
# Beyond the generator's own hard limit, which is about 80 s longer than what it measures.
SPARE_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class LoadSpec:
    """What to ask of a server. `cpu` is the processor to stay on; None leaves it to the kernel."""

    port: int
    connections: int
    in_flight: int
    size: int
    seconds: float
    warm_up: float
    cpu: int | None
    host: str = "127.0.0.1"

    def arguments(self) -> list[str]:
        numbers = (self.port, self.connections, self.in_flight, self.size)
        durations = (self.seconds, self.warm_up)
        cpu = [] if self.cpu is None else [str(self.cpu)]
        return [self.host, *map(str, numbers), *map(str, durations), *cpu]


@dataclass(frozen=True, slots=True)
class LoadResult:
    """The generator's line of JSON.

    `messages` were answered within the `seconds` measured, in which the generator used
    `cpu_seconds`; `messages_total` counts those of the warm-up and of the end too.
    """

    connections: int
    in_flight: int
    size: int
    messages: int
    messages_total: int
    seconds: float
    cpu_seconds: float
    errors: int
    p50_us: float
    p90_us: float
    p99_us: float
    p99_9_us: float
    max_us: float


@contextmanager
def compiled_load() -> Iterator[Path]:
    """The compiled generator, in a temporary folder that goes away with the context."""
    with tempfile.TemporaryDirectory(prefix="tao-bench-") as folder:
        program = Path(folder) / "load"
        compiler = os.environ.get("CC", "cc")
        command = [compiler, "-O2", "-std=c11", "-o", str(program), str(SOURCE), "-lm"]
        try:
            subprocess.run(
                command, check=True, capture_output=True, text=True, timeout=COMPILE_SECONDS
            )
        except FileNotFoundError:
            raise BenchError(f"no C compiler: {compiler} was not found (set CC)") from None
        except subprocess.CalledProcessError as error:
            raise BenchError(f"{SOURCE.name} does not compile:\n{error.stderr}") from None
        yield program


def run_load(program: Path, spec: LoadSpec) -> LoadResult:
    """Put the load of `spec` on a server, wait for its end, and refuse anything but right replies.

    `subprocess.run` kills the process it started on every way out, Ctrl-C included.
    """
    try:
        done = subprocess.run(
            [str(program), *spec.arguments()],
            capture_output=True,
            text=True,
            check=False,  # the status is judged below
            timeout=spec.seconds + spec.warm_up + SPARE_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise BenchError("the load generator hung and was killed") from None
    if done.returncode != 0:
        raise BenchError(f"load generator: exit status {done.returncode}\n{done.stderr.strip()}")
    values = json.loads(done.stdout)
    return LoadResult(**{field.name: values[field.name] for field in fields(LoadResult)})
