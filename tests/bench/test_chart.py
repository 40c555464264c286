"""The chart: what is drawn of a report, where, and that all of it lies on the page."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.bench.chart import (
    BAR_LEFT,
    BAR_RIGHT,
    MARGIN,
    WIDTH,
    Choice,
    Group,
    Row,
    draw,
    ticks,
)
from tests.bench.errors import BenchError
from tests.bench.peer import Peer
from tests.bench.processors import Placement
from tests.bench.provenance import Provenance
from tests.bench.report import json_report
from tests.bench.results import Results, Spread
from tests.bench.server_process import ROOT
from tests.bench.workload import (
    AnyCase,
    Case,
    Column,
    Grid,
    Operation,
    Operations,
    Sample,
    Workload,
)

SVG = "{http://www.w3.org/2000/svg}"

ORIGIN = Provenance(
    command="python -m tests.bench some",
    python="CPython 3.11.0",
    system="Linux 6.0 x86_64",
    processor="A processor",
    processors=2,
    placement=str(Placement(server=1, load=0)),
    packages={"uvloop": "0.20"},
    rounds=2,
    seconds=2.0,
    warm_up=0.3,
)
CASE = Case(connections=50, in_flight=1, size=64)
OPERATION = Operation("add", 1000, resident=5)


def results_of(
    samples: dict[str, list[float]],
    *,
    name: str = "some",
    case: AnyCase = CASE,
    less_is_better: bool = False,
) -> Results:
    """Of a workload in ratio to the peer `theirs`, with the headline figures of each round."""

    def measure(*_: object) -> Sample:
        raise AssertionError("nothing is measured here")

    operations = Operations((case,)) if isinstance(case, Operation) else Grid((50,), (1,), (64,))
    workload = Workload(
        name=name,
        summary=f"summary of {name}",
        peers=tuple(Peer(peer, "no.module") for peer in samples),
        grid=operations,
        reference="theirs",
        headline=Column("figure", "things/s", decimals=1, less_is_better=less_is_better),
        columns=(),
        measure=measure,
    )
    results = Results(workload, [case])
    for peer, figures in samples.items():
        for number, figure in enumerate(figures):
            results.add(case, peer, number, {"figure": figure})
    return results


def report_of(*all_results: Results, origin: Provenance = ORIGIN) -> Any:
    """As it comes back from a file."""
    return json.loads(json.dumps(json_report(all_results, origin)))


SIMPLE = report_of(results_of({"tao-inline": [1500.0, 3000.0], "theirs": [1000.0, 1000.0]}))


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in parsed(svg).iter(f"{SVG}text")]


def bars(svg: str) -> list[tuple[str, float]]:
    """Class and length of each."""
    return [
        (element.attrib["class"], float(element.attrib["width"]))
        for element in parsed(svg).iter(f"{SVG}rect")
        if element.attrib["class"] != "page"
    ]


def test_ratios_are_bars_and_figures_are_text() -> None:
    svg = draw([SIMPLE])
    # Medians 2.25 and 1; the axis ends at the longest whisker, 3.
    full = BAR_RIGHT - BAR_LEFT
    assert [kind for kind, _ in bars(svg)] == ["ours-bar", "bar"]
    assert [length for _, length in bars(svg)] == pytest.approx([full * 0.75, full / 3], abs=0.01)
    shown = texts(svg)
    for text in ("summary of some", str(CASE), "tao-inline", "2.25", "2,250.0", "1.00", "1,000.0"):
        assert text in shown
    assert any("ratio to theirs" in text and "more is better" in text for text in shown)


def test_a_whisker_reaches_from_the_least_to_the_most() -> None:
    paths = [element.attrib["d"] for element in parsed(draw([SIMPLE])).iter(f"{SVG}path")]
    full = BAR_RIGHT - BAR_LEFT
    assert paths[0].startswith(f"M{BAR_LEFT + full / 2:g} ")
    assert f"H{BAR_RIGHT}" in paths[0]


def test_costs_are_said_to_be_costs() -> None:
    results = results_of({"tao": [1.0], "theirs": [2.0]}, case=OPERATION, less_is_better=True)
    shown = texts(draw([report_of(results)]))
    assert "add 1,000 beside 5 others" in shown
    assert any("less is better" in text for text in shown)


def test_the_caption_says_where_it_comes_from() -> None:
    shown = " ".join(texts(draw([SIMPLE])))
    for line in ORIGIN.lines():
        assert line in shown


def test_one_file_without_anything_from_outside() -> None:
    svg = draw([SIMPLE])
    assert svg.count("http") == 1  # the name space
    assert "@import" not in svg
    assert "url(" not in svg
    assert "prefers-color-scheme: dark" in svg


def test_all_of_it_is_on_the_page() -> None:
    names = {f"a-peer-with-a-rather-long-name-{number}": [1.0] for number in range(20)}
    svg = draw([report_of(results_of({"tao": [9.0, 1.0], "theirs": [1.0, 1.0], **names}))])
    root = parsed(svg)
    height = float(root.attrib["height"])
    assert root.attrib["viewBox"] == f"0 0 {WIDTH} {root.attrib['height']}"
    for text in root.iter(f"{SVG}text"):
        assert MARGIN <= float(text.attrib["x"]) <= WIDTH - MARGIN
        assert float(text.attrib["y"]) <= height - MARGIN / 2
    for _, length in bars(svg):
        assert length <= BAR_RIGHT - BAR_LEFT
    squeezed = [text for text in root.iter(f"{SVG}text") if "textLength" in text.attrib]
    assert len(squeezed) == len(names)


def test_markup_in_names_is_text() -> None:
    assert "<b>&" in texts(draw([report_of(results_of({"<b>&": [1.0], "theirs": [1.0]}))]))


def test_without_the_reference_there_is_no_bar() -> None:
    svg = draw([report_of(results_of({"tao": [5.0], "theirs": []}))])
    assert bars(svg) == []
    assert "5.0" in texts(svg)


def spread(median: float) -> Spread:
    return Spread(median, 0.9 * median, 1.1 * median)


def group(*medians: float) -> Group:
    rows = (Row(f"peer {number}", spread(1.0), spread(x)) for number, x in enumerate(medians))
    return Group("some", tuple(rows))


@pytest.mark.parametrize(
    ("medians", "end"),
    [
        ((1.0, 2.0), 2.2),
        ((0.5,), 1.0),  # the reference is always on the axis
        ((1.0, 2.0, 19.0), 1.12 * 2.2),  # one that dwarfs the others is cut
        ((1.0, 6.0, 19.0), 1.12 * 6.6),
        ((1.0, 9.0, 19.0), 20.9),
        ((0.01, 1.0), 1.1),  # what dwarfs the short ones is not cut: one is always seen
        ((), 1.0),
    ],
)
def test_where_the_axis_ends(medians: tuple[float, ...], end: float) -> None:
    assert group(*medians).scale_end() == pytest.approx(end)


def test_a_bar_that_is_cut_shows_it() -> None:
    samples = {"tao": [1.5], "theirs": [1.0], "floor": [20.0]}
    svg = draw([report_of(results_of(samples))])
    cuts = [line for line in parsed(svg).iter(f"{SVG}line") if line.attrib["class"] == "cut"]
    assert len(cuts) == 2
    assert bars(svg)[2] == ("bar", BAR_RIGHT - BAR_LEFT)
    assert "20.00" in texts(svg)


@pytest.mark.parametrize("end", [1.0, 1.01, 1.3, 2.0, 3.7, 7.0, 19.0, 480.0])
def test_ticks_are_few_and_one_is_among_them(end: float) -> None:
    found = ticks(end)
    assert found == sorted(set(found))
    assert found[0] == 0.0
    assert found[-1] <= end + 1e-9
    assert 1.0 in found
    assert 2 <= len(found) <= 8


def test_reports_are_drawn_below_one_another() -> None:
    other = report_of(
        results_of({"tao": [1.0], "theirs": [2.0]}, name="other"),
        origin=Provenance(**{**SIMPLE["provenance"], "command": "python -m tests.bench other"}),
    )
    shown = texts(draw([SIMPLE, other]))
    assert shown.index("summary of some") < shown.index("summary of other")
    assert "python -m tests.bench some" in shown
    assert "python -m tests.bench other" in shown
    assert sum("CPython" in text for text in shown) == 1


def test_machines_are_not_mixed() -> None:
    other = report_of(
        results_of({"tao": [1.0], "theirs": [2.0]}),
        origin=Provenance(**{**SIMPLE["provenance"], "processors": 64}),
    )
    with pytest.raises(BenchError, match="different machines"):
        draw([SIMPLE, other])


@pytest.mark.parametrize(
    ("choice", "is_drawn"),
    [
        (Choice(), True),
        (Choice(workloads=["so*"], cases=["50 *"], peers=["tao-*"]), True),
        (Choice(workloads=["other"]), False),
        (Choice(cases=["* 16 in flight*"]), False),
        (Choice(peers=["nobody"]), False),
    ],
)
def test_what_is_drawn_can_be_chosen(choice: Choice, is_drawn: bool) -> None:
    if is_drawn:
        assert "tao-inline" in texts(draw([SIMPLE], choice))
    else:
        with pytest.raises(BenchError, match="nothing to draw"):
            draw([SIMPLE], choice)


@pytest.mark.parametrize("report", [{}, {"provenance": {}}, {"workloads": []}, []])
def test_what_is_no_report_is_refused(report: Any) -> None:
    with pytest.raises(BenchError, match="not a report"):
        draw([report])


def chart(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.bench.chart", *arguments]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )


def test_the_command(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    file.write_text(json.dumps(SIMPLE))
    done = chart(str(file))
    assert done.returncode == 0
    assert done.stdout == draw([SIMPLE])
    file.write_text("no JSON")
    for arguments in ((str(file),), (str(tmp_path / "absent.json"),)):
        done = chart(*arguments)
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
        assert not done.stdout
