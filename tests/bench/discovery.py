"""Finds the workloads: every module of `tests.bench.workloads`."""

import importlib
import pkgutil

from tests.bench import workloads
from tests.bench.workload import Workload


def find_workloads() -> dict[str, Workload]:
    """All workloads by name, in the order of their modules' names."""
    found: dict[str, Workload] = {}
    for module in pkgutil.iter_modules(workloads.__path__, f"{workloads.__name__}."):
        workload = importlib.import_module(module.name).WORKLOAD
        if not isinstance(workload, Workload) or workload.name in found:
            raise TypeError(f"{module.name}: WORKLOAD must be a Workload with a name of its own")
        found[workload.name] = workload
    return found
