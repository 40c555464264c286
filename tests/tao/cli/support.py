"""What the tests of the commands share: servers to talk to.

Contents: echo, where, environment_without_ours.
"""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Callable, Iterator
from typing import Any

from tao import Codec, Context, MessageRegistry, Server, WriteCloser
from tao.address import format_address
from tests.support import LOCAL, Sample

__all__ = ["Answer", "serving", "variables", "where"]

Answer = Callable[[Context[Sample], WriteCloser], Sample | None]


def where(address: object) -> str:
    """As it is typed."""
    return format_address(address)


@contextlib.contextmanager
def serving(
    answer: Answer | None = None,
    *,
    address: Any = LOCAL,
    codec: Codec | None = None,
    tls: ssl.SSLContext | None = None,
    number: int = 1,
) -> Iterator[str]:
    """A server for messages of one number, which it sends back unless there is an `answer`."""
    registry = MessageRegistry()

    def echo(ctx: Context[Sample], _conn: WriteCloser) -> Sample:
        return ctx.message

    registry.register(number, lambda value: Sample(number, value), answer or echo)
    server = Server(registry=registry, codec=codec, tls=tls)
    with server.running(address) as bound:
        yield where(bound)


def variables() -> list[str]:
    """Those of the environment that the commands look at."""
    return [name for name in os.environ if name.startswith("TAO_")]
