"""Echo on a reactor that another loop drives: what it costs to be a guest."""

from tests.bench.embedded import embedded_echo

WORKLOAD = embedded_echo("embedded", "inline echo on a reactor in another loop", "inline")
