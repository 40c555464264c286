"""Compiles the load generator and runs it.

Owns the command line and the output format of ``generator/main.c``; what a number means is said in
``generator/common.h``.
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

SOURCES = Path(__file__).with_name("generator")
TLS_FLAGS = ("-DWITH_TLS", "-lssl", "-lcrypto")
TLS_NEEDS = (
    "TLS needs OpenSSL's headers and libraries: libssl-dev on Debian and Ubuntu, openssl-devel on"
    " Fedora"
)
COMPILE_SECONDS = 120.0
# Beyond the generator's own hard limit, which is about 80 s longer than what it measures.
SPARE_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class LoadSpec:
    """What to ask of a server. `cpu` is the processor to stay on; None leaves it to the kernel.

    With `ca_file` the connections speak TLS, and the server must show a certificate of that authority
    for `host`. With `churn` each connection carries one message and is closed: a message then counts,
    and is timed, from its connection's beginning to its end.
    """

    port: int
    connections: int
    in_flight: int
    size: int
    seconds: float
    warm_up: float
    cpu: int | None
    host: str = "127.0.0.1"
    ca_file: Path | None = None
    churn: bool = False

    def arguments(self) -> list[str]:
        numbers = (self.port, self.connections, self.in_flight, self.size)
        durations = (self.seconds, self.warm_up)
        churn = ["--churn"] if self.churn else []
        tls = [] if self.ca_file is None else ["--tls", str(self.ca_file)]
        cpu = [] if self.cpu is None else ["--cpu", str(self.cpu)]
        return [*churn, *tls, *cpu, self.host, *map(str, numbers), *map(str, durations)]


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
def compiled_load(*, tls: bool = False) -> Iterator[Path]:
    """The compiled generator, in a temporary folder that goes away with the context.

    Raises BenchError, which says what to install, where it cannot be compiled.
    """
    with tempfile.TemporaryDirectory(prefix="tao-bench-") as folder:
        program = Path(folder) / "load"
        compiler = os.environ.get("CC", "cc")
        sources = sorted(map(str, SOURCES.glob("*.c")))
        libraries = ["-lm", *TLS_FLAGS] if tls else ["-lm"]
        command = [compiler, "-O2", "-std=c11", "-o", str(program), *sources, *libraries]
        try:
            subprocess.run(
                command, check=True, capture_output=True, text=True, timeout=COMPILE_SECONDS
            )
        except FileNotFoundError:
            raise BenchError(f"no C compiler: {compiler} was not found (set CC)") from None
        except subprocess.CalledProcessError as error:
            needs = f" ({TLS_NEEDS})" if tls else ""
            raise BenchError(f"the load does not compile{needs}:\n{error.stderr}") from None
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
