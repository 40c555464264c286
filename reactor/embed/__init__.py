"""Reactors in other programs' loops: a module for each kind of host, with a function `attach`.

    asyncio (uvloop too), trio, glib, qt, tk, twisted, gevent, frames

Each imports its host, and is imported by nobody but the program that has it.
"""

from reactor.embed.embedding import BUDGET, Embedding, HostLoop

__all__ = ["BUDGET", "Embedding", "HostLoop"]
