"""Echo by the framework while somebody looks at its monitor's page: what it costs to be watched.

The watcher is a thread of the same process, which asks as the page does. A browser's part of that would be
another process's: the cost is a little more here than it is there.
"""

import http.client
import threading
import time
from typing import Any

from tao import Server, monitor_on
from tests.bench.peers import tao_server

EVERY = 1.0
"""Seconds between two looks, as the page has it."""


def watch(address: tuple[str, int]) -> None:
    """Ask for ever, by one connection. A failure ends the program's watching, and shows on its errors."""
    connection = http.client.HTTPConnection(*address)
    while True:
        connection.request("GET", "/status?sort=bytes&limit=50&since=1e9")
        answer = connection.getresponse()
        assert answer.status == http.HTTPStatus.OK, answer.read()
        answer.read()
        time.sleep(EVERY)


class WatchedServer(Server):
    """A server with a monitor, and somebody who watches."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        monitor = monitor_on(0)
        monitor.add("echo", self.metrics)
        threading.Thread(target=watch, args=(monitor.address,), daemon=True).start()


def main() -> None:
    tao_server.main(WatchedServer)


if __name__ == "__main__":
    main()
