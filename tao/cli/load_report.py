"""What a load has shown, for people and for programs.

Contents: bars, ceiling, as_json, as_text, show.

Owns the words and the units. Times are nanoseconds within, and milliseconds on paper.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TextIO

from tao.address import format_address
from tao.cli.load import NANOSECONDS, Plan, Result
from tao.cli.progress import has_rich

__all__ = ["as_json", "as_text", "bars", "ceiling", "show"]

PERCENTILES = (0.5, 0.9, 0.99, 0.999)

BAR = 40
"""Characters in the longest bar."""

BUSY = 0.9
"""The share of a processor from which on the generator itself is what limits the load."""


def rate(result: Result) -> float:
    """Replies per second."""
    return result.received * NANOSECONDS / (result.elapsed or 1)


def busy(result: Result) -> float:
    """The share of a processor that each generator used, on the average: 1 is all of it."""
    return result.processor / (result.elapsed or 1) / result.processes


def ceiling(result: Result) -> float:
    """Messages per second that these generators could do, by the time that each message took them."""
    if not result.received or not result.processor:
        return 0.0
    return result.received * NANOSECONDS / result.processor * result.processes


def as_json(plan: Plan, result: Result) -> dict[str, object]:
    """Everything, times in seconds."""
    latency = {"min": result.latency.minimum, "mean": result.latency.mean()} | {
        f"p{share * 100:g}": result.latency.percentile(share) for share in PERCENTILES
    }
    return {
        "address": format_address(plan.address),
        "codec": plan.codec,
        "connections": plan.connections,
        "in_flight": plan.in_flight,
        "size": plan.size,
        "rate": plan.rate,
        "connected": result.connected,
        "sent": result.sent,
        "received": result.received,
        "wrong": result.wrong,
        "unanswered": result.unanswered,
        "unsent": result.unsent,
        "errors": result.errors,
        "seconds": result.elapsed / NANOSECONDS,
        "per_second": rate(result),
        "bytes_sent": result.bytes_sent,
        "bytes_received": result.bytes_received,
        "latency_from": "sending" if plan.rate is None else "the time due",
        "latency": {
            name: value / NANOSECONDS
            for name, value in (latency | {"max": result.latency.maximum}).items()
        },
        "sent_late_p99": result.lateness.percentile(0.99) / NANOSECONDS,
        "generator": {
            "processes": result.processes,
            "busy": busy(result),
            "ceiling_per_second": ceiling(result),
        },
    }


def bars(result: Result) -> Iterator[tuple[str, int, float]]:
    """The histogram: up to how long, how many, and the share of all of them.

    By the series of 1, 2 and 5, without the empty ends.
    """
    histogram, total = result.latency, result.latency.count
    if not total:
        return
    before, limit, step = 0, 1_000, 0  # from a microsecond on
    while before < total:
        until = total if histogram.maximum < limit else histogram.below(limit)
        if until or before:
            yield f"< {milliseconds(limit)}", until - before, (until - before) / total
        before = until
        limit = 10 ** (3 + (step := step + 1) // 3) * (1, 2, 5)[step % 3]


def milliseconds(nanoseconds: float) -> str:
    """With three digits that count."""
    value = nanoseconds / 1_000_000
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.3g} ms"


def _bytes_per_second(count: int, result: Result) -> str:
    return f"{count * NANOSECONDS / (result.elapsed or 1) / 1_048_576:,.2f} MiB/s"


def summary(plan: Plan, result: Result) -> list[tuple[str, str]]:
    """What is known, and its name."""
    asked = f"{plan.connections:,} connections" if plan.connections > 1 else "1 connection"
    content = f"{plan.size:,} bytes" if plan.value is None else "the message given"
    rows = [
        ("server", f"{format_address(plan.address)}, {plan.codec}{', TLS' if plan.tls else ''}"),
        ("load", f"{asked}, up to {plan.in_flight:,} in flight on each, {content}"),
        (
            "replies",
            f"{result.received:,} in {result.elapsed / NANOSECONDS:.2f} s: {rate(result):,.0f}/s"
            + ("" if plan.rate is None else f", of {plan.rate:,.0f}/s asked for"),
        ),
        (
            "bytes",
            f"{_bytes_per_second(result.bytes_sent, result)} out, "
            f"{_bytes_per_second(result.bytes_received, result)} in",
        ),
    ]
    if plan.rate is not None:
        late = milliseconds(result.lateness.percentile(0.99))
        rows.append(("sent late", f"99 % by less than {late}"))
    return rows


def problems(plan: Plan, result: Result) -> list[str]:
    """What was not as it should be."""
    found = [f"{count:,} times {reason}" for reason, count in sorted(result.errors.items())]
    if result.wrong:
        found.append(f"{result.wrong:,} replies were not what was sent: {result.example}")
    if result.unanswered:
        found.append(
            f"{result.unanswered:,} messages had no reply; how long they would have taken is not "
            f"in the times"
        )
    if result.unsent:
        found.append(f"{result.unsent:,} messages were due and could not be sent in time")
    if not (found or result.received):
        found.append("no reply came")
    return found


def generator(result: Result) -> str:
    """How much more the generator could have done."""
    text = f"{result.processes} processes" if result.processes > 1 else "1 process"
    text += f", {busy(result):.0%} busy"
    if not ceiling(result):
        return text
    cost = result.processor / result.received / 1_000
    text += f"; {cost:.3g} us of a processor for each message: {ceiling(result):,.0f}/s at the most"
    if busy(result) >= BUSY:
        text += (
            ". It is the limit here, not the server, and its own delays are in the times: "
            "pass more --processes, or less load"
        )
    return text


def as_text(plan: Plan, result: Result) -> str:
    """On plain paper."""
    lines = [f"{name:10} {text}" for name, text in summary(plan, result)]
    lines += [f"{'PROBLEM':10} {text}" for text in problems(plan, result)]
    lines += ["", f"latency, from {'sending' if plan.rate is None else 'when each was due'}"]
    lines += [f"  {name:6} {value:>10}" for name, value in times(result)]
    lines.append("")
    drawn = list(bars(result))
    largest = max((share for _, _, share in drawn), default=0.0)
    lines += [
        f"  {limit:>10} {count:>12,} {share:6.1%}  {'#' * round(share / largest * BAR)}".rstrip()
        for limit, count, share in drawn
    ]
    return "\n".join([*lines, "", f"{'generator':10} {generator(result)}"])


def times(result: Result) -> list[tuple[str, str]]:
    """The percentiles, and what is beside them."""
    latency = result.latency
    return [
        ("least", milliseconds(latency.minimum)),
        *((f"{share * 100:g} %", milliseconds(latency.percentile(share))) for share in PERCENTILES),
        ("most", milliseconds(latency.maximum)),
        ("mean", milliseconds(latency.mean())),
    ]


def show(plan: Plan, result: Result, stream: TextIO) -> None:
    """As tables where there is a terminal, and the extra `cli`; else as text."""
    if not (stream.isatty() and has_rich()):
        print(as_text(plan, result), file=stream)
        return
    _show_tables(plan, result, stream)


def _show_tables(plan: Plan, result: Result, stream: TextIO) -> None:
    from rich.bar import Bar
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=stream)
    facts = Table(show_header=False, box=None)
    for name, text in summary(plan, result):
        facts.add_row(Text(name, style="bold"), Text(text))
    for text in problems(plan, result):
        facts.add_row(Text("problem", style="bold red"), Text(text, style="red"))
    facts.add_row(Text("generator", style="bold"), Text(generator(result)))
    console.print(facts)
    origin = "sending" if plan.rate is None else "when each was due"
    latency = Table(title=f"Latency, from {origin}")
    row = times(result)
    for name, _ in row:
        latency.add_column(name, justify="right")
    latency.add_row(*(value for _, value in row))
    console.print(latency)
    drawn = list(bars(result))
    largest = max((share for _, _, share in drawn), default=1.0) or 1.0
    histogram = Table("took", "replies", "share", "", box=None)
    for column in histogram.columns[:3]:
        column.justify = "right"
    for limit, count, share in drawn:
        histogram.add_row(limit, f"{count:,}", f"{share:.1%}", Bar(largest, 0, share, width=BAR))
    console.print(histogram)
