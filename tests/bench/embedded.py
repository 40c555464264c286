"""The peers that serve on a reactor in another loop."""

from tests.bench.peer import Peer
from tests.bench.peers.embedded import HOSTS

__all__ = ["EMBEDDED_ASYNCIO", "EMBEDDED_NONE", "embedded_peers"]

REQUIRES = {
    "asyncio": None,
    "frames": None,
    "glib": "gi",
    "none": None,
    "qt": "PySide6",
    "tk": "tkinter",
}
"""What a host needs, where that is not a module of its own name."""


def embedded_name(host: str, handlers: str) -> str:
    """What the peer is called."""
    return f"{host}-{handlers}" if host != "none" else f"run-{handlers}"


def embedded_peers(handlers: str) -> tuple[Peer, ...]:
    """One for each host, the reactor's own `run` first."""
    return tuple(
        Peer(
            embedded_name(host, handlers),
            "tests.bench.peers.embedded",
            ("--host", host, "--handlers", handlers),
            requires=REQUIRES.get(host, host),
        )
        for host in HOSTS
    )


EMBEDDED_NONE = {handlers: embedded_name("none", handlers) for handlers in ("inline", "pool")}
EMBEDDED_ASYNCIO = {handlers: embedded_name("asyncio", handlers) for handlers in ("inline", "pool")}
