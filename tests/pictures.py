"""The pictures of the live monitor page: ``python -m tests.pictures [FOLDER]``.

Starts a server with three kinds of handlers and a monitor, puts the benchmarks' load on it and some
clients of its own, and has Chromium take the pictures for the README when there is nearly a minute of
it. Traffic stays on this machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from tao import (
    ClientConn,
    Context,
    MessageRegistry,
    Server,
    WouldBlockError,
    WriteCloser,
    monitor_on,
)
from tests.bench.load import LoadSpec, compiled_load, run_load
from tests.bench.peers.frames import ECHO_TYPE
from tests.browser import Browser, lacks_browser
from tests.support import LOCAL, Sample, as_bytes


@dataclass(frozen=True, slots=True)
class Window:
    """How large, in pixels, and of what kind."""

    width: int
    height: int
    dark: bool = False
    phone: bool = False


PICTURES = {
    "monitor.png": Window(1080, 1100),
    "monitor-dark.png": Window(1080, 1100, dark=True),
}
PHONE = {"monitor-phone.png": Window(390, 2400, phone=True)}

BEHIND = 10.0
"""Seconds of load after the pictures were to be taken: to open a window takes its time."""

ECHO, LOOK_UP, REPORT, JOIN = ECHO_TYPE, 2, 3, 4

CLIENTS = 40


def make_server() -> Server:
    """Echo on the loop; a look-up and a report, which wait for something, on workers."""
    registry = MessageRegistry()

    def echo(ctx: Context[bytes], _conn: WriteCloser) -> Sample:
        return Sample(ECHO, ctx.message)

    def look_up(ctx: Context[bytes], _conn: WriteCloser) -> Sample:
        time.sleep(random.uniform(0.0005, 0.004))
        return Sample(LOOK_UP, bytes(200))

    def report(ctx: Context[bytes], _conn: WriteCloser) -> Sample:
        time.sleep(random.lognormvariate(-3.5, 0.7))
        return Sample(REPORT, bytes(20_000))

    def join(ctx: Context[bytes], conn: WriteCloser) -> None:
        conn.set_context_value("name", ctx.message)

    registry.register(ECHO, as_bytes, echo, inline=True)
    registry.register(LOOK_UP, as_bytes, look_up)
    registry.register(REPORT, as_bytes, report)
    registry.register(JOIN, as_bytes, join, inline=True)
    return Server(registry=registry)


def client_registry() -> MessageRegistry:
    """Answers are thrown away."""
    registry = MessageRegistry()
    for number in (LOOK_UP, REPORT):
        registry.register(number, as_bytes, lambda ctx, conn: None, inline=True)
    return registry


def talk(address: tuple[str, int], ended: threading.Event) -> None:
    """Some clients that come and go, and ask for this and that."""
    registry = client_registry()
    clients: list[ClientConn] = []
    try:
        while not ended.wait(0.02):
            if len(clients) < CLIENTS:
                client = ClientConn(address, registry=registry)
                client.start()
                client.wait_connected(5)
                clients.append(client)
                client.write(Sample(JOIN, b"somebody"))
            for client in random.sample(clients, min(len(clients), 6)):
                try:
                    client.write(Sample(random.choice([LOOK_UP] * 9 + [REPORT]), b"?"))
                except WouldBlockError:
                    pass
            if random.random() < 0.02:
                clients.pop(random.randrange(len(clients))).close()
    finally:
        for client in clients:
            client.abort()


def main() -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.pictures", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("docs"), help="default: docs")
    parser.add_argument("--seconds", type=float, default=55.0, help="of load; default: 55")
    parser.add_argument("--phone", action="store_true", help="one of a phone too")
    options = parser.parse_args()
    missing = lacks_browser()
    if missing is not None:
        print(f"no browser: {missing}", file=sys.stderr)
        return 1
    pictures = dict(PICTURES)
    if options.phone:
        pictures |= PHONE
    server = make_server()
    ended = threading.Event()
    with (
        compiled_load() as program,
        server.running(LOCAL) as address,
        monitor_on(0) as monitor,
        Browser() as browser,
    ):
        monitor.add("exchange", server.metrics)
        url = f"http://127.0.0.1:{monitor.address[1]}/"
        spec = LoadSpec(address[1], 20, 4, 64, options.seconds + BEHIND, 0.1, None)
        threads = [
            threading.Thread(target=talk, args=(address, ended)),
            threading.Thread(target=run_load, args=(program, spec)),
        ]
        for thread in threads:
            thread.start()
        try:
            tabs = {
                name: browser.open(url, **dataclasses.asdict(window))
                for name, window in pictures.items()
            }
            time.sleep(options.seconds)
            for name, tab in tabs.items():
                options.folder.mkdir(exist_ok=True)
                tab.save_picture(options.folder / name)
                print(options.folder / name, (options.folder / name).stat().st_size, "bytes")
                for error in tab.errors:
                    print(name, error, file=sys.stderr)
        finally:
            ended.set()
            for thread in threads:
                thread.join()
    return 0


if __name__ == "__main__":
    sys.exit(main())
