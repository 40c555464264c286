"""Echo over TLS."""

from dataclasses import replace

from tests.bench.echo import (
    ASYNCIO_EACH,
    ASYNCIO_JOINED,
    ECHO_COLUMNS,
    ECHO_HEADLINE,
    TAO_INLINE,
    TAO_POOL,
    UVLOOP_EACH,
    UVLOOP_JOINED,
    load_spec,
    peers_named,
    sample_of_load,
)
from tests.bench.server_process import ServerProcess
from tests.bench.workload import Case, Conditions, Grid, Sample, Workload


def measure(server: ServerProcess, case: Case, conditions: Conditions) -> Sample:
    """The sample of an echo, with a generator that speaks TLS and checks the certificate."""
    assert conditions.tls is not None
    spec = replace(load_spec(server, case, conditions), ca_file=conditions.tls.ca_file)
    return sample_of_load(server, spec, conditions.tls.load_program)


WORKLOAD = Workload(
    name="tls-echo",
    summary="echo over TLS",
    peers=peers_named(
        TAO_POOL, TAO_INLINE, ASYNCIO_EACH, ASYNCIO_JOINED, UVLOOP_EACH, UVLOOP_JOINED
    ),
    grid=Grid(connections=(50,), in_flight=(1, 16), sizes=(64,)),
    reference=UVLOOP_EACH,
    headline=ECHO_HEADLINE,
    columns=ECHO_COLUMNS,
    measure=measure,
    note=(
        "The handshakes are over before the time begins. load cpu near 1 (marked !): the generator"
        " was the limit."
    ),
    needs_tls=True,
)
