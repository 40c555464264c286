"""A simulated system to test on: time, threads and a network that a seed alone decides about.

Whatever happens in a run happens again with its seed. `tao.testing` has servers and clients for it.
"""

from reactor.testing.clock import ManualClock
from reactor.testing.faults import Faults
from reactor.testing.network import Network, SimulatedPipe, SimulatedSocket
from reactor.testing.poller import SimulatedPoller
from reactor.testing.scheduler import Entry, Scheduler, SimulationError
from reactor.testing.simulation import Simulation
from reactor.testing.threads import (
    SimulatedCondition,
    SimulatedEvent,
    SimulatedExecutor,
    SimulatedLock,
    SimulatedReentrantLock,
    SimulatedThread,
)

__all__ = [
    "Entry",
    "Faults",
    "ManualClock",
    "Network",
    "Scheduler",
    "SimulatedCondition",
    "SimulatedEvent",
    "SimulatedExecutor",
    "SimulatedLock",
    "SimulatedPipe",
    "SimulatedPoller",
    "SimulatedReentrantLock",
    "SimulatedSocket",
    "SimulatedThread",
    "Simulation",
    "SimulationError",
]
