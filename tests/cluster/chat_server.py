"""One of the servers: `python -m tests.cluster.chat_server URL PORT TIME_TO_LIVE`.

What a client says goes to all, itself too. Who connects is told which server it has reached. What the
backplane reports, and at the end its counters, is printed as lines of JSON.
"""

from __future__ import annotations

import json
import socket
import sys

from tao import (
    Backoff,
    BackplaneReport,
    Context,
    MessageRegistry,
    RedisBackplane,
    Server,
    ServerConn,
    WriteCloser,
)
from tests.cluster.wire import HEARD, SAID, WELCOME
from tests.support import Sample, as_bytes


def main(url: str, port: int, time_to_live: float) -> None:
    """Serve until SIGTERM."""

    def on_report(report: BackplaneReport) -> None:
        say(event=report.event.name, count=report.count, detail=report.detail)

    def on_connect(conn: ServerConn) -> None:
        conn.write(Sample(WELCOME, server.member_id.encode()))

    def on_said(ctx: Context[bytes], _conn: WriteCloser) -> None:
        server.broadcast(Sample(HEARD, ctx.message))

    registry = MessageRegistry()
    registry.register(SAID, as_bytes, on_said)
    backplane = RedisBackplane(
        url,
        time_to_live=time_to_live,
        timeout=1.0,
        backoff=Backoff(first=0.05, maximum=0.5),
        on_report=on_report,
    )
    server = Server(registry=registry, on_connect=on_connect, worker_size=4, backplane=backplane)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", port))
    sock.listen(1024)
    server.listen(sock)
    say(listening=port, member_id=server.member_id)
    server.serve_forever()
    say(counters=dict(server.metrics().backplane))


def say(**fields: object) -> None:
    """A line of the output."""
    sys.stdout.write(f"{json.dumps(fields)}\n")  # in one piece: several threads say something
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
