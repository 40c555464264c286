"""What names a server program: its module, its options, what it needs to run."""

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Peer:
    """A server program as data. `requires` is a module without which it cannot run."""

    name: str
    module: str
    options: tuple[str, ...] = ()
    requires: str | None = None

    def command(self, cpu: int | None, certificate_file: Path | None = None) -> list[str]:
        """The command line that serves, on processor `cpu` and with TLS if they are given."""
        pin = () if cpu is None else ("--cpu", str(cpu))
        tls = () if certificate_file is None else ("--tls", str(certificate_file))
        return [sys.executable, "-m", self.module, *self.options, *pin, *tls]

    def is_available(self) -> bool:
        return self.requires is None or importlib.util.find_spec(self.requires) is not None
