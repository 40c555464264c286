"""Echo by handlers on the pool, on a reactor that another loop drives."""

from tests.bench.embedded import embedded_echo

WORKLOAD = embedded_echo("embedded-pool", "pooled echo on a reactor in another loop", "pool")
