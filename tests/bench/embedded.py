"""The peers that serve on a reactor in another loop, and what the workloads with them have in common."""

from tests.bench.echo import ECHO_COLUMNS, ECHO_HEADLINE, measure_echo
from tests.bench.peer import Peer
from tests.bench.peers.embedded import HOSTS
from tests.bench.workload import Grid, Workload

__all__ = ["embedded_echo", "embedded_name", "embedded_peers"]

REQUIRES = {
    "asyncio": None,
    "glib": "gi",
    "none": None,
    "qt": "PySide6",
    "tk": "tkinter",
}
"""What a host needs, where that is not a module of its own name."""


def embedded_name(host: str, handlers: str) -> str:
    """What the peer is called."""
    return f"run-{handlers}" if host == "none" else f"{host}-{handlers}"


def embedded_peers(handlers: str) -> tuple[Peer, ...]:
    """One for each host, and one for the reactor's own `run`."""
    return tuple(
        Peer(
            embedded_name(host, handlers),
            "tests.bench.peers.embedded",
            ("--host", host, "--handlers", handlers),
            requires=REQUIRES.get(host, host),
        )
        for host in HOSTS
    )


def embedded_echo(name: str, summary: str, handlers: str) -> Workload:
    """Echo by each of them."""
    return Workload(
        name=name,
        summary=summary,
        peers=embedded_peers(handlers),
        grid=Grid(connections=(50,), in_flight=(1, 16), sizes=(64,)),
        reference=embedded_name("none", handlers),
        headline=ECHO_HEADLINE,
        columns=ECHO_COLUMNS,
        measure=measure_echo,
        note=(
            "The same server each time: on the reactor's own loop (run), and in loops that the reactor is\n"
            "attached to, in which a turn of it takes a millisecond at the most."
        ),
    )
