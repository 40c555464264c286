"""What can be fuzzed, and one round of it.

Contents: Target, TARGETS, run_round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

from tests.fuzz.codec_input import check_codec, codec_inputs
from tests.fuzz.reference import Dialect, LineDialect, PrefixDialect, TypedDialect
from tests.fuzz.server_input import Host, server_inputs

__all__ = ["TARGETS", "Target", "run_round"]

MAX_LENGTH = 300_000
"""Bytes in the largest value that the servers take; the streams have some that are larger."""


@dataclass(frozen=True)
class Target:
    """Something to be fuzzed."""

    name: str
    inputs: SearchStrategy[Any]
    opened: Callable[[], AbstractContextManager[Callable[[Any], None]]]
    """Gives the check, which raises for an input that it does not withstand."""


@contextmanager
def _codec() -> Iterator[Callable[[Any], None]]:
    yield check_codec


def _codec_target(kind: str) -> Target:
    return Target(f"codec: {kind}", codec_inputs(kind), _codec)


def _server_target(kind: str, dialect: Dialect) -> Target:
    @contextmanager
    def opened() -> Iterator[Callable[[Any], None]]:
        with Host(dialect) as host:
            yield host.check

    return Target(f"server: {kind}", server_inputs(dialect), opened)


TARGETS = [
    _codec_target("type, length, value"),
    _codec_target("length, value"),
    _codec_target("lines"),
    _server_target("type, length, value", TypedDialect(MAX_LENGTH)),
    _server_target("length, value", PrefixDialect(4, "big", MAX_LENGTH)),
    _server_target("lines", LineDialect(b"\n", MAX_LENGTH)),
]


def run_round(
    target: Target, *, examples: int, number: int | None = None, smallest: bool = True
) -> int:
    """Check so many inputs; returns how many it were, raises what a check raises.

    That is for the smallest input that can be found, which takes a while, or for the first one.
    `number` is the seed: the same one, the same inputs. Without it they are others each time.
    """
    count = 0
    with target.opened() as check:

        def run(example: Any) -> None:
            nonlocal count
            count += 1
            check(example)

        test = given(target.inputs)(run)
        test = settings(
            max_examples=examples,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink] if smallest else [Phase.generate],
            report_multiple_bugs=False,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        )(test)
        if number is not None:
            test = seed(number)(test)
        test()
    return count
