"""Where figures come from: what somebody needs to judge them, and to take them again."""

import importlib.metadata
import os
import platform
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.peer import Peer
from tests.bench.workload import Conditions

# Options that change nothing about what is measured, and whether a value comes after them.
_OUTPUT_OPTIONS = {"--json": True, "--svg": True, "--markdown": False, "--check": False}


@dataclass(frozen=True, slots=True)
class Provenance:
    """The command, the machine, the versions, and how often and how long was measured.

    `seconds` and `warm_up` are those of each sample.
    """

    command: str
    python: str
    system: str
    processor: str
    processors: int
    placement: str
    packages: dict[str, str]
    rounds: int
    seconds: float
    warm_up: float

    def lines(self) -> list[str]:
        """It all in words, for a caption."""
        count = f"{self.processors} processor{'s' if self.processors != 1 else ''}"
        packages = [f"{name} {version}" for name, version in self.packages.items()]
        rounds = "one round" if self.rounds == 1 else f"{self.rounds} interleaved rounds"
        return [
            self.command,
            ", ".join([self.python, *packages, self.system, f"{count} ({self.processor})"]),
            f"medians and ranges of {rounds}, samples of {self.seconds:g} s "
            f"after {self.warm_up:g} s of warm-up; {self.placement}",
        ]


def provenance(
    arguments: Sequence[str], peers: Iterable[Peer], rounds: int, conditions: Conditions
) -> Provenance:
    """Of this process, started with `arguments`, which measures `peers`."""
    return Provenance(
        command=command_line(arguments),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        processor=_processor(),
        processors=os.cpu_count() or 1,
        placement=str(conditions.placement),
        packages=_versions({peer.requires for peer in peers if peer.requires}),
        rounds=rounds,
        seconds=conditions.seconds,
        warm_up=conditions.warm_up,
    )


def command_line(arguments: Sequence[str]) -> str:
    """What to type for the same measurement, without where its results go."""
    kept = []
    rest = iter(arguments)
    for argument in rest:
        name, has_value, _ = argument.partition("=")
        if name not in _OUTPUT_OPTIONS:
            kept.append(argument)
        elif _OUTPUT_OPTIONS[name] and not has_value:
            next(rest, None)
    return shlex.join(["python", "-m", "tests.bench", *kept])


def _processor() -> str:
    """The model, where the kernel tells it; else the architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _versions(modules: Iterable[str]) -> dict[str, str]:
    """Of the distributions of these names; what is no distribution has none."""
    versions = {}
    for module in sorted(modules):
        try:
            versions[module] = importlib.metadata.version(module)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
