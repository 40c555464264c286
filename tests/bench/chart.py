"""Draws results as one SVG file, from what ``--json`` has written.

``python -m tests.bench.chart FILE.json... > chart.svg``: a long run need not be repeated for its chart,
and what was measured in parts can be drawn as one. Owns the layout, and measures nothing.

A group of bars for each case: the median of the ratio to the reference as a bar, the range over the
rounds as a whisker, the figure itself as text. A bar that would dwarf the others is cut, and shows it.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from textwrap import wrap
from typing import Any, Self
from xml.etree import ElementTree

from tests.bench.errors import BenchError
from tests.bench.provenance import Provenance
from tests.bench.results import Spread

# Pixels, at the width at which a README shows it.
WIDTH = 800
MARGIN = 20
NAME_RIGHT = 180  # where the names of the peers end
BAR_LEFT, BAR_RIGHT = 190, 590
RATIO_RIGHT = 640
ROW = 20
BAR = 11
CAP = 3  # half the height of a whisker's ends
CAPTION_LINE = 15

# In characters, for want of the font's widths.
CAPTION_WIDTH = 126
LONGEST_NAME = 26

# A bar this many times as long as the next is cut, or the others could not be told apart.
DWARFS = 2.5
# Of a bar that is cut, how far it goes past the longest of the others.
CUT_SHARE = 1.12
MOST_TICKS = 6
TICK_LABEL = 14  # closer to another than this a label is left out
STEPS = (0.1, 0.2, 0.25, 0.5, 1.0, 2.0, 2.5, 5.0, 10.0, 20.0, 25.0, 50.0, 100.0)

STYLE = """
svg { font-family: system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
text { fill: #1f2328; font-size: 12px; font-variant-numeric: tabular-nums; }
.page { fill: #ffffff; }
.workload { font-size: 15px; font-weight: 600; }
.case { font-size: 12px; font-weight: 600; }
.muted { fill: #59636e; font-size: 11px; }
.command { font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.ours { font-weight: 600; }
.bar { fill: #aab4be; }
.ours-bar { fill: #2f81f7; }
.grid { stroke: #d8dee4; }
.reference { stroke: #59636e; stroke-dasharray: 3 3; }
.whisker { stroke: #1f2328; stroke-width: 1.2; fill: none; }
.cut { stroke: #ffffff; stroke-width: 3; }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc; }
  .page { fill: #0d1117; }
  .muted { fill: #9198a1; }
  .bar { fill: #4d5763; }
  .ours-bar { fill: #1f6feb; }
  .grid { stroke: #2b323b; }
  .reference { stroke: #9198a1; }
  .whisker { stroke: #f0f6fc; }
  .cut { stroke: #0d1117; }
}
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One peer in one case. `ratio` is None when the reference was not measured beside it."""

    peer: str
    figure: Spread
    ratio: Spread | None

    @property
    def is_ours(self) -> bool:
        """Whether it is the framework's own, which stands out."""
        return self.peer == "tao" or self.peer.startswith("tao-")


@dataclass(frozen=True, slots=True)
class Group:
    """One case."""

    title: str
    rows: tuple[Row, ...]

    def scale_end(self) -> float:
        """The ratio at which the axis ends: past the whiskers, except of a bar that is cut."""
        ratios = [row.ratio for row in self.rows if row.ratio is not None]
        medians = sorted((ratio.median for ratio in ratios), reverse=True)
        if len(medians) > 1 and medians[0] > DWARFS * max(medians[1], 1.0):
            ratios = [ratio for ratio in ratios if ratio.median < medians[0]]
            return CUT_SHARE * max(1.0, *(ratio.high for ratio in ratios))
        return max(1.0, *(ratio.high for ratio in ratios)) if ratios else 1.0


@dataclass(frozen=True, slots=True)
class Chapter:
    """One workload, as far as it is drawn."""

    summary: str
    reference: str
    figure_title: str
    decimals: int
    less_is_better: bool
    groups: tuple[Group, ...]

    @classmethod
    def read(cls, workload: Any, is_drawn: "Choice") -> Self:
        """From the report's JSON."""
        headline = workload["headline"]
        groups = (
            Group(
                case["title"],
                tuple(
                    Row(peer, Spread(**values["figure"]), _spread(values["ratio"]))
                    for peer, values in case["peers"].items()
                    if is_drawn.peer(peer)
                ),
            )
            for case in workload["cases"]
            if is_drawn.case(case["title"])
        )
        return cls(
            summary=workload["summary"],
            reference=workload["reference"],
            figure_title=headline["title"],
            decimals=headline["decimals"],
            less_is_better=headline["less_is_better"],
            groups=tuple(group for group in groups if group.rows),
        )


@dataclass(frozen=True, slots=True)
class Choice:
    """What of a report is drawn, as patterns; none of a kind is all of it."""

    workloads: Sequence[str] = ()
    cases: Sequence[str] = ()
    peers: Sequence[str] = ()

    def workload(self, name: str) -> bool:
        return _matches(name, self.workloads)

    def case(self, title: str) -> bool:
        return _matches(title, self.cases)

    def peer(self, name: str) -> bool:
        return _matches(name, self.peers)


def draw(reports: Sequence[Any], choice: Choice | None = None) -> str:
    """The SVG of one or more reports, as `json_report` makes them.

    Raises BenchError for what is no such report, for reports of different machines, and when nothing
    is left to draw.
    """
    choice = Choice() if choice is None else choice
    try:
        origins = [Provenance(**report["provenance"]) for report in reports]
        chapters = [
            Chapter.read(workload, choice)
            for report in reports
            for workload in report["workloads"]
            if choice.workload(workload["name"])
        ]
    except (KeyError, TypeError) as error:
        raise BenchError(f"not a report of this version of tests.bench: {error!r}") from error
    chapters = [chapter for chapter in chapters if chapter.groups]
    if not chapters:
        raise BenchError("there is nothing to draw")
    return _Drawing().draw(chapters, _caption(origins))


def _caption(origins: Sequence[Provenance]) -> list[str]:
    """The commands, then what they have in common."""
    circumstances: dict[str, None] = {}
    machines = set()
    for origin in origins:
        _, *lines = origin.lines()
        circumstances.update(dict.fromkeys(lines))
        machines.add((origin.python, origin.system, origin.processor, origin.processors))
    if len(machines) > 1:
        raise BenchError("the reports are of different machines or versions of Python")
    return [*(origin.command for origin in origins), *circumstances]


class _Drawing:
    """Grows downwards: `_y` is where the next thing begins."""

    def __init__(self) -> None:
        self._root = ElementTree.Element(
            "svg", {"xmlns": "http://www.w3.org/2000/svg", "role": "img"}
        )
        self._y = float(MARGIN)

    def draw(self, chapters: Iterable[Chapter], caption: Iterable[str]) -> str:
        self._element("title").text = "Benchmark results"
        self._element("style").text = STYLE
        page = self._element("rect", width=WIDTH, rx=6)
        page.set("class", "page")
        for chapter in chapters:
            self._draw_chapter(chapter)
        for paragraph in caption:
            is_command = paragraph.startswith("python ")
            for line in wrap(paragraph, CAPTION_WIDTH - 15 * is_command):
                self._y += CAPTION_LINE
                self._text(line, MARGIN, "muted command" if is_command else "muted")
        height = self._y + MARGIN
        page.set("height", _number(height))
        for name, value in (("width", WIDTH), ("height", height)):
            self._root.set(name, _number(value))
        self._root.set("viewBox", f"0 0 {WIDTH} {_number(height)}")
        ElementTree.indent(self._root)
        return ElementTree.tostring(self._root, encoding="unicode") + "\n"

    def _draw_chapter(self, chapter: Chapter) -> None:
        self._y += 16
        self._text(chapter.summary, MARGIN, "workload")
        better = "less" if chapter.less_is_better else "more"
        self._y += 17
        self._text(
            f"bars: ratio to {chapter.reference}, median; whiskers: range over the rounds; "
            f"{better} is better",
            MARGIN,
            "muted",
        )
        for group in chapter.groups:
            self._draw_group(chapter, group)
        self._y += 20

    def _draw_group(self, chapter: Chapter, group: Group) -> None:
        self._y += 26
        self._text(group.title, MARGIN, "case")
        self._text("ratio", RATIO_RIGHT, "muted", anchor="end")
        self._text(chapter.figure_title, WIDTH - MARGIN, "muted", anchor="end")
        self._y += 8
        end = group.scale_end()
        bottom = self._y + ROW * len(group.rows)
        labelled = -math.inf
        for tick in ticks(end):
            x = _x(tick, end)
            kind = "reference" if tick == 1.0 else "grid"
            self._line(kind, x, self._y, x, bottom)
            if x - labelled >= TICK_LABEL:
                self._text(f"{tick:g}", x, "muted", anchor="middle", y=bottom + 12)
                labelled = x
        for row in group.rows:
            self._draw_row(chapter, row, end)
            self._y += ROW
        self._y = bottom + 14

    def _draw_row(self, chapter: Chapter, row: Row, end: float) -> None:
        baseline = self._y + ROW / 2 + 4
        emphasis = "ours" if row.is_ours else ""
        name = self._text(row.peer, NAME_RIGHT, emphasis, anchor="end", y=baseline)
        if len(row.peer) > LONGEST_NAME:
            name.set("textLength", _number(NAME_RIGHT - MARGIN / 2))
            name.set("lengthAdjust", "spacingAndGlyphs")
        figure = f"{row.figure.median:,.{chapter.decimals}f}"
        self._text(figure, WIDTH - MARGIN, emphasis, anchor="end", y=baseline)
        if row.ratio is None:
            self._text("-", RATIO_RIGHT, emphasis, anchor="end", y=baseline)
            return
        ratio = f"{row.ratio.median:.2f}"
        self._text(ratio, RATIO_RIGHT, emphasis, anchor="end", y=baseline)
        self._draw_bar(row, row.ratio, end)

    def _draw_bar(self, row: Row, ratio: Spread, end: float) -> None:
        top, middle = self._y + (ROW - BAR) / 2, self._y + ROW / 2
        right = _x(min(ratio.median, end), end)
        bar = self._element("rect", x=BAR_LEFT, y=top, width=right - BAR_LEFT, height=BAR)
        bar.set("class", "ours-bar" if row.is_ours else "bar")
        if ratio.median > end:
            x = BAR_RIGHT - 18
            self._line("cut", x - 3, top + BAR + 2, x + 3, top - 2)
            self._line("cut", x + 4, top + BAR + 2, x + 10, top - 2)
            return
        low, high = _x(ratio.low, end), _x(min(ratio.high, end), end)
        path = f"M{_number(low)} {_number(middle)}H{_number(high)}"
        path += "".join(f"M{_number(x)} {_number(middle - CAP)}v{2 * CAP}" for x in (low, high))
        self._element("path", d=path).set("class", "whisker")

    def _element(self, tag: str, **attributes: float | str) -> ElementTree.Element:
        values = {
            name: value if isinstance(value, str) else _number(value)
            for name, value in attributes.items()
        }
        return ElementTree.SubElement(self._root, tag, values)

    def _line(self, kind: str, x1: float, y1: float, x2: float, y2: float) -> None:
        self._element("line", x1=x1, y1=y1, x2=x2, y2=y2).set("class", kind)

    def _text(
        self, text: str, x: float, kind: str, *, anchor: str = "start", y: float | None = None
    ) -> ElementTree.Element:
        element = self._element("text", x=x, y=self._y if y is None else y)
        if kind:
            element.set("class", kind)
        if anchor != "start":
            element.set("text-anchor", anchor)
        element.text = text
        return element


def ticks(end: float) -> list[float]:
    """Round ratios from 0 to `end`, not too many; 1, the reference's own, is always among them."""
    step = next((step for step in STEPS if end / step <= MOST_TICKS), end / MOST_TICKS)
    count = int(end / step + 1e-9)
    regular = [step * index for index in range(count + 1)]
    # One that comes too close to the reference's gives way to it; but an axis begins at 0.
    apart = [tick for tick in regular if abs(tick - 1.0) >= 0.5 * step]
    return sorted({0.0, *apart, 1.0})


def _x(ratio: float, end: float) -> float:
    return BAR_LEFT + (BAR_RIGHT - BAR_LEFT) * ratio / end


def _number(value: float) -> str:
    """Short: a hundredth of a pixel is nothing."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _spread(values: Any) -> Spread | None:
    return None if values is None else Spread(**values)


def _matches(text: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatchcase(text, pattern) for pattern in patterns)


def main() -> int:
    """Read reports, write the SVG to standard output; the value is the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.chart", description="Draws results that --json has written."
    )
    add = parser.add_argument
    add("files", type=Path, nargs="+", metavar="FILE.json", help="drawn below one another")
    add("--workload", action="append", default=[], metavar="GLOB", help="may be repeated")
    add("--case", action="append", default=[], metavar="GLOB", help="titles; may be repeated")
    add("--only", action="append", default=[], metavar="GLOB", help="peers; may be repeated")
    options = parser.parse_args()
    choice = Choice(options.workload, options.case, options.only)
    try:
        reports = [json.loads(path.read_text()) for path in options.files]
        print(draw(reports, choice), end="")
    except (BenchError, OSError, json.JSONDecodeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
