"""Runs an asyncio server on either loop until SIGTERM."""

import argparse
import asyncio
import importlib
import signal
from collections.abc import Awaitable, Callable

from tests.bench.peers.common import announce

StartServer = Callable[[], Awaitable[asyncio.Server]]


def add_loop_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")


def serve(loop_name: str, start_server: StartServer) -> None:
    """Start a server on a new loop, announce its port, return after SIGTERM."""
    # By name, so that the type checker needs no uvloop.
    module = asyncio if loop_name == "asyncio" else importlib.import_module("uvloop")
    with asyncio.Runner(loop_factory=module.new_event_loop) as runner:
        runner.run(_serve_until_sigterm(start_server))


async def _serve_until_sigterm(start_server: StartServer) -> None:
    terminated = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminated.set)
    server = await start_server()
    announce(server.sockets[0].getsockname()[1])
    await terminated.wait()
    server.close()
