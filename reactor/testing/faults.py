"""What a simulated system does to those who run on it.

Owns probabilities and sizes; the dice are the scheduler's.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

__all__ = ["Faults"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """How often what happens: probabilities from 0 to 1, times in seconds, sizes in bytes.

    `Faults()` is a network and a machine as a program may meet them any day: what is sent arrives in
    other pieces and late, and threads take turns at inconvenient moments. Nothing breaks. `Faults.none()`
    does nothing of the kind; `Faults.harsh()` breaks things as well. Raises ValueError for what is no
    probability, no time or no size.
    """

    switch: float = 0.1
    """That another thread goes on, at each point where one may be interrupted."""
    interrupt: float = 0.0
    """The same between any two lines of the files that are `interruptible` (see Simulation)."""
    slowness: float = 0.02
    """That time passes at such a change of thread, `longest_pause` at the most."""
    longest_pause: float = 0.002
    """Seconds that may pass at a change of thread."""
    shortest_delay: float = 0.0
    """Seconds that a segment takes from one end to the other at the least."""
    longest_delay: float = 0.005
    """Seconds that it takes at the most. Each connection's segments stay in order."""
    slow_connections: float = 0.1
    """That a connection's delays are ten times as long."""
    partial_send: float = 0.2
    """That a send takes a part of what it is offered."""
    full_send: float = 0.05
    """That a send takes nothing, as if the buffer were full, though there is room."""
    partial_receive: float = 0.3
    """That a receive gives a part of what has come."""
    spurious: float = 0.02
    """That a poller tells of a descriptor which has nothing."""
    late_report: float = 0.1
    """That a poller tells of a descriptor only the next time, when it has others to tell of."""
    buffer_size: int = 65_536
    """Bytes that may be between two sockets, each way."""
    full_pipe: float = 0.0
    """That a wake-up finds its pipe full."""
    aborted_accept: float = 0.0
    """That a connection is gone when it is accepted."""
    no_descriptor: float = 0.0
    """That accept(2) fails with EMFILE."""
    reset: float = 0.0
    """That a segment is answered by the network's end of the connection: both ends get a RST."""
    outage: float = 0.0
    """That a segment, and with it what comes behind it, takes `outage_length` more."""
    outage_length: float = 3.0
    """Seconds that an outage lasts."""

    def __post_init__(self) -> None:
        sizes = ("longest_pause", "shortest_delay", "longest_delay", "buffer_size", "outage_length")
        for field in fields(self):
            value = getattr(self, field.name)
            if not value >= 0 or (value > 1 and field.name not in sizes):
                most = "at least 0" if field.name in sizes else "a probability from 0 to 1"
                raise ValueError(f"{field.name} cannot be {value!r}: it must be {most}")
        if self.shortest_delay > self.longest_delay or self.buffer_size < 1:
            raise ValueError("shortest_delay must not be above longest_delay, buffer_size be >= 1")

    @classmethod
    def none(cls) -> Faults:
        """A perfect machine, on which a thread runs until it waits."""
        return cls(
            switch=0.0,
            slowness=0.0,
            longest_delay=0.0,
            slow_connections=0.0,
            partial_send=0.0,
            full_send=0.0,
            partial_receive=0.0,
            spurious=0.0,
            late_report=0.0,
        )

    @classmethod
    def harsh(cls) -> Faults:
        """All of it: connections break too, and the system runs out of things."""
        return cls(
            switch=0.2,
            buffer_size=2048,
            full_pipe=0.02,
            aborted_accept=0.05,
            no_descriptor=0.05,
            reset=0.005,
            outage=0.002,
        )
