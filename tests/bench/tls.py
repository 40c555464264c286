"""What TLS needs that nothing else does: a load generator with it, and certificates of our own."""

import importlib.util
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.errors import BenchError
from tests.bench.load import compiled_load


@dataclass(frozen=True, slots=True)
class Tls:
    """The generator, compiled with TLS; the servers' key and certificate; who signed it."""

    load_program: Path
    certificate_file: Path
    ca_file: Path


@contextmanager
def prepared_tls() -> Iterator[Tls]:
    """All of it, in temporary folders that go away with the context.

    Raises BenchError, which says what to install, when something is missing.
    """
    if importlib.util.find_spec("trustme") is None:
        raise BenchError("certificates need the module trustme, which the extra bench brings")
    from tests.tls_support import Certificates

    with (
        compiled_load(tls=True) as program,
        tempfile.TemporaryDirectory(prefix="tao-bench-") as folder,
    ):
        certificates = Certificates(Path(folder))
        yield Tls(program, certificates.server_file, certificates.ca_file)
