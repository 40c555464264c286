"""Echo on several processes, by the machinery of `tao serve`, with handlers that compute for long.

Processes are what is measured here: they stay on no processor of their own, and what `--cpu` says is not
done.
"""

import os
import sys

from tao import MessageRegistry, Server
from tao.processes import Listeners, Notifier, Plan, Supervisor
from tests.bench.peers.common import BACKLOG, HOST, announce, peer_parser, prepare_process
from tests.bench.peers.tao_server import MAX_CONNECTIONS, Echo, register
from tests.bench.peers.work import compute_for_long

GRACE = 1.0  # seconds: the load has ended by then


def make_server() -> Server:
    """What each worker serves."""
    registry = MessageRegistry()
    register(registry, Echo, compute_for_long, inline=False)
    return Server(registry=registry, max_connections=MAX_CONNECTIONS)


def main() -> int:
    parser = peer_parser("tao_workers")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--listener", choices=("each", "shared"), default="each")
    options = parser.parse_args()
    prepare_process(None)
    listeners = Listeners(
        [(HOST, 0)],
        slots=options.workers,
        backlog=BACKLOG,
        spread=options.listener == "each",
    )
    port = listeners.addresses[0][1]
    assert isinstance(port, int)
    environment = dict(os.environ)
    plan = Plan(
        target="tests.bench.peers.tao_workers:make_server",
        workers=options.workers,
        grace=GRACE,
        log_level="warning",
    )
    supervisor = Supervisor(
        plan,
        listeners,
        environment=environment,
        notifier=Notifier(environment),
        on_serving=lambda: announce(port),
    )
    return supervisor.run()


if __name__ == "__main__":
    sys.exit(main())
