"""Echo by the framework on a reactor that another loop drives; with `--host none`, on its own `run`."""

import asyncio
import importlib
import signal
from collections.abc import Callable
from typing import Any

from reactor import Reactor
from tao import MessageRegistry, Server
from tests.bench.peers.common import HOST, announce, peer_parser, prepare_process
from tests.bench.peers.tao_server import MAX_CONNECTIONS, Echo, register
from tests.display import open_display


def adapter(name: str) -> Any:
    """The module of that host."""
    return importlib.import_module(f"reactor.embed.{name}")


def run_reactor(reactor: Reactor) -> None:
    reactor.run()


def run_asyncio(reactor: Reactor, loop: asyncio.AbstractEventLoop | None = None) -> None:
    async def serve() -> None:
        with adapter("asyncio").attach(reactor):
            await asyncio.get_running_loop().create_future()

    with asyncio.Runner(loop_factory=lambda: loop or asyncio.new_event_loop()) as runner:
        runner.run(serve())


def run_uvloop(reactor: Reactor) -> None:
    run_asyncio(reactor, importlib.import_module("uvloop").new_event_loop())


def run_trio(reactor: Reactor) -> None:
    trio = importlib.import_module("trio")

    async def serve() -> None:
        async with trio.open_nursery() as nursery:
            adapter("trio").attach(reactor, nursery)

    trio.run(serve)


def run_glib(reactor: Reactor) -> None:
    adapter("glib").attach(reactor)
    importlib.import_module("gi.repository.GLib").MainLoop().run()


def run_qt(reactor: Reactor) -> None:
    application = importlib.import_module("PySide6.QtCore").QCoreApplication([])
    adapter("qt").attach(reactor)
    application.exec()


def run_tk(reactor: Reactor) -> None:
    open_display()
    root = importlib.import_module("tkinter").Tk()
    root.withdraw()
    adapter("tk").attach(reactor, root)
    root.mainloop()


def run_twisted(reactor: Reactor) -> None:
    host = importlib.import_module("twisted.internet.reactor")
    adapter("twisted").attach(reactor)
    host.run(installSignalHandlers=False)


def run_gevent(reactor: Reactor) -> None:
    adapter("gevent").attach(reactor)
    importlib.import_module("gevent.event").Event().wait()


HOSTS: dict[str, Callable[[Reactor], None]] = {
    "none": run_reactor,
    "asyncio": run_asyncio,
    "uvloop": run_uvloop,
    "trio": run_trio,
    "glib": run_glib,
    "qt": run_qt,
    "tk": run_tk,
    "twisted": run_twisted,
    "gevent": run_gevent,
}


def main() -> None:
    parser = peer_parser("embedded")
    parser.add_argument("--handlers", choices=("pool", "inline"), default="pool")
    parser.add_argument("--host", choices=HOSTS, default="none")
    options = parser.parse_args()
    prepare_process(options.cpu)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # it has nothing to put in order

    registry = MessageRegistry()
    register(registry, Echo, None, options.handlers == "inline")
    reactor = Reactor()
    server = Server(registry=registry, max_connections=MAX_CONNECTIONS, reactor=reactor)
    announce(server.listen((HOST, 0))[1])
    HOSTS[options.host](reactor)


if __name__ == "__main__":
    main()
