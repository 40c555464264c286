"""A server that has few descriptors: `python -m tests.tao.scarce_server`.

Prints its port, and serves until its standard input ends. Message 1 echoes; message 2 is answered with
how many connections it has refused, and how many it has.
"""

from __future__ import annotations

import resource
import sys

from tao import Context, MessageRegistry, Server, WriteCloser
from tests.support import LOCAL, Sample, as_bytes, descriptors

ROOM = 12
"""Descriptors that it has left, in all, when it begins to serve."""


def main() -> None:
    """Run it."""
    registry = MessageRegistry()

    def count(_context: Context[bytes], _conn: WriteCloser) -> Sample:
        metrics = server.metrics()
        return Sample(2, b"%d %d" % (metrics.connections_refused, metrics.connections_open))

    registry.register(1, as_bytes, lambda context, conn: Sample(1, context.message))
    registry.register(2, as_bytes, count)
    server = Server(registry=registry)
    with server.running(LOCAL) as address:
        # The limit is on the numbers: one more than the highest that may be given out.
        limit = max(descriptors()) + 1 + ROOM
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
        print(address[1], flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
