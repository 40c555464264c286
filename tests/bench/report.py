"""Turns results into text: a table for a terminal, the same in Markdown, and JSON."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from tests.bench.provenance import Provenance
from tests.bench.results import Results, Spread
from tests.bench.workload import AnyCase, Column

Row = Sequence[str]


def terminal_report(results: Results) -> str:
    """One aligned table per case, then the note."""
    tables = [f"{case}\n{_aligned(_rows(results, case))}" for case in results.cases]
    return "\n\n".join([results.workload.summary, *tables, results.workload.note]).rstrip()


def markdown_report(results: Results) -> str:
    """The same tables in Markdown."""
    tables = [f"### {case}\n\n{_markdown(_rows(results, case))}" for case in results.cases]
    return "\n\n".join([f"## {results.workload.summary}", *tables, results.workload.note]).rstrip()


def caption(provenance: Provenance) -> str:
    """What goes before the tables, whichever form they have."""
    return "\n".join(provenance.lines())


def markdown_caption(provenance: Provenance) -> str:
    """The same in Markdown: a command to copy, then the rest."""
    command, *rest = provenance.lines()
    return "\n".join(["```sh", command, "```", "", *rest])


def json_report(all_results: Iterable[Results], provenance: Provenance) -> Any:
    """Every sample of every round, and where they come from: for `json.dump`.

    `tests.bench.chart` reads it.
    """
    return {
        "provenance": asdict(provenance),
        "workloads": [_json_of(results) for results in all_results],
    }


def _json_of(results: Results) -> Any:
    workload = results.workload
    headline, reference = workload.headline, workload.reference
    cases = []
    for case in results.cases:
        peers = {}
        for peer in results.peers(case):
            ratio = results.ratio(case, peer, reference)
            peers[peer] = {
                "ratio": None if ratio is None else asdict(ratio),
                "figure": asdict(results.spread(case, peer, headline.key)),
                "samples": [
                    {"round": number, **sample}
                    for number, sample in results.samples(case, peer).items()
                ],
            }
        cases.append({**asdict(case), "title": str(case), "peers": peers})
    return {
        "name": workload.name,
        "summary": workload.summary,
        "reference": reference,
        "headline": asdict(headline),
        "cases": cases,
        "failures": results.failures,
    }


def _rows(results: Results, case: AnyCase) -> list[Row]:
    """The title row, then one row per peer."""
    workload = results.workload
    headline = workload.headline
    titles = ["peer", headline.title, "range", f"of {workload.reference}", "range"]
    rows: list[Row] = [titles + [column.title for column in workload.columns]]
    for peer in results.peers(case):
        figure = results.spread(case, peer, headline.key)
        ratio = results.ratio(case, peer, workload.reference)
        cells = [peer, *_spread_cells(figure, headline.decimals), *_spread_cells(ratio, 2)]
        for column in workload.columns:
            cells.append(_cell(column, results.spread(case, peer, column.key).median))
        rows.append(cells)
    return rows


def _spread_cells(spread: Spread | None, decimals: int) -> tuple[str, str]:
    if spread is None:
        return "-", "-"
    low, high = f"{spread.low:,.{decimals}f}", f"{spread.high:,.{decimals}f}"
    return f"{spread.median:,.{decimals}f}", f"{low}-{high}"


def _cell(column: Column, value: float) -> str:
    suspicious = column.suspicious_above is not None and value > column.suspicious_above
    return f"{value:,.{column.decimals}f}{'!' if suspicious else ''}"


def _aligned(rows: Sequence[Row]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells))
    return "\n".join(lines)


def _markdown(rows: Sequence[Row]) -> str:
    rule = ["---"] + ["---:"] * (len(rows[0]) - 1)
    return "\n".join(f"| {' | '.join(row)} |" for row in [rows[0], rule, *rows[1:]])
