"""The chart of ``cpuaccel bench --plot``: one SVG file, for light and for dark backgrounds."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from xml.etree import ElementTree

from cpuaccel.artifact.atomic_write import write_file
from cpuaccel.cli.bench.results import EAGER, GenerateRow, Row, RowStatus
from cpuaccel.errors import CpuaccelError, first_line
from cpuaccel.timing import Ratio, format_ms

WIDTH = 760
_MARGIN = 24
_BAR = 20
_LINE = 30
_FIGURES = 190
"""Pixels to the right of the longest bar, for its figures."""
_LETTER = 7.3
"""Pixels of an average letter in a label."""

_STYLE = """
text { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
.title { font-size: 17px; font-weight: 600; }
.small { font-size: 12px; }
.bold { font-weight: 600; }
.card { fill: #ffffff; stroke: #d8dee4; }
text { fill: #1f2328; }
.quiet { fill: #59636e; }
.eager { fill: #afb8c1; }
.bar { fill: #54aeff; }
.best { fill: #1a7f5a; }
.spread { stroke: #1f2328; }
.axis { stroke: #afb8c1; stroke-dasharray: 3 3; }
@media (prefers-color-scheme: dark) {
  .card { fill: #0d1117; stroke: #30363d; }
  text { fill: #e6edf3; }
  .quiet { fill: #9198a1; }
  .eager { fill: #656c76; }
  .bar { fill: #388bfd; }
  .best { fill: #3fb950; }
  .spread { stroke: #e6edf3; }
  .axis { stroke: #656c76; }
}
"""


@dataclass(frozen=True)
class Bar:
    """One pipeline. ``ratio`` is None for eager, and where nothing was measured."""

    label: str
    ratio: Ratio | None
    figure: str

    @property
    def speed(self) -> float:
        """Speed relative to eager; 0 where nothing was measured."""
        return self.ratio.median if self.ratio else float(self.label == EAGER)


@dataclass(frozen=True)
class Panel:
    """The pipelines of one precision and batch."""

    title: str
    bars: Sequence[Bar]


def write_chart(path: Path, run: Mapping[str, object], rows: Sequence[Row]) -> None:
    """Write the chart of a benchmark; ``run`` has its settings as in the JSON output."""
    try:
        write_file(path, render(run, panels(rows)))
    except OSError as error:
        raise CpuaccelError(
            f"{path} can't be written: {first_line(error)}. Choose another path"
        ) from error


def panels(rows: Iterable[Row]) -> list[Panel]:
    """Return a panel for each precision and batch, in the order of the table."""
    return [
        Panel(f"{dtype}, {case}", [_bar(row) for row in members])
        for (dtype, case), members in groupby(rows, lambda row: (row.dtype, row.case))
    ]


def _bar(row: Row) -> Bar:
    if row.status not in (RowStatus.EAGER, RowStatus.APPLIED):
        return Bar(row.pipeline, None, row.status)  # its speed would not be the pipeline's
    if isinstance(row, GenerateRow):
        rate = row.tokens_per_second
        return Bar(row.pipeline, row.ratio, "-" if rate is None else f"{rate:.1f} tokens/s")
    median: float | None = getattr(row, "median_ms", None)
    ratio: Ratio | None = getattr(row, "ratio", None)
    return Bar(row.pipeline, ratio, "-" if median is None else format_ms(median))


def render(run: Mapping[str, object], shown: Sequence[Panel]) -> str:
    """Return the chart as SVG."""
    bars = [bar for panel in shown for bar in panel.bars]
    left = _MARGIN + 12 + max((len(bar.label) for bar in bars), default=0) * _LETTER
    longest = max((bar.ratio.high if bar.ratio else bar.speed for bar in bars), default=0.0) or 1.0
    pixels = (WIDTH - left - _FIGURES) / longest
    height = 96 + sum(44 + _LINE * len(panel.bars) for panel in shown)
    svg = _Drawing(WIDTH, height)
    svg.add("rect", "card", x=0.5, y=0.5, width=WIDTH - 1, height=height - 1, rx=8)
    svg.text(f"Speed of {run['model']}, relative to eager", "title", _MARGIN, 36)
    svg.text(_conditions(run), "small quiet", _MARGIN, 58)
    y = 70.0
    for panel in shown:
        svg.text(panel.title, "bold", _MARGIN, y + 22)
        y += 36
        best = max((bar.speed for bar in panel.bars), default=0.0)
        for bar in panel.bars:
            _draw(svg, bar, left, y, pixels, best=bar.speed == best > 1)
            y += _LINE
        end = y - (_LINE - _BAR)
        svg.add(
            "line",
            "axis",
            x1=left + pixels,
            x2=left + pixels,
            y1=y - _LINE * len(panel.bars),
            y2=end,
        )
        y += 8
    what = "Tokens a second after the first" if "tokens" in run else "Calls"
    note = f"Longer is faster. {what}, timed in turn with eager: median and quartiles of the pairs."
    svg.text(note, "small quiet", _MARGIN, height - 14)
    return str(svg)


def _draw(svg: "_Drawing", bar: Bar, left: float, y: float, pixels: float, *, best: bool) -> None:
    middle = y + _BAR / 2
    weight = " bold" if best else ""
    svg.text(bar.label, weight.strip(), left - 10, middle + 4.5, anchor="end")
    length = bar.speed * pixels
    kind = "best" if best else "eager" if bar.label == EAGER else "bar"
    svg.add("rect", kind, x=left, y=y, width=length, height=_BAR, rx=3)
    right = left + length
    if bar.ratio is not None:
        low, high = left + bar.ratio.low * pixels, left + bar.ratio.high * pixels
        svg.add("line", "spread", x1=low, x2=high, y1=middle, y2=middle)
        right = max(right, high)
    figures = f"{bar.speed:.2f}x, {bar.figure}" if bar.speed else bar.figure
    svg.text(figures, weight.strip(), right + 8, middle + 4.5)


def _conditions(run: Mapping[str, object]) -> str:
    padding = float(str(run["padding"]))
    padded = f", {padding:.0%} padding" if padding else ""
    threads = "1 thread" if run["threads"] == 1 else f"{run['threads']} threads"
    return f"{run['processor']}, {threads}, torch {run['torch']}{padded}"


class _Drawing:
    """An SVG document of elements with a class."""

    def __init__(self, width: float, height: float) -> None:
        self._root = ElementTree.Element(
            "svg",
            xmlns="http://www.w3.org/2000/svg",
            viewBox=f"0 0 {width:g} {height:g}",
            width=f"{width:g}",
            height=f"{height:g}",
            role="img",
        )
        ElementTree.SubElement(self._root, "style").text = _STYLE

    def add(self, name: str, kind: str, **numbers: float) -> None:
        """Add a shape."""
        attributes = {key: f"{number:.1f}" for key, number in numbers.items()}
        ElementTree.SubElement(self._root, name, {"class": kind, **attributes})

    def text(self, text: str, kind: str, x: float, y: float, anchor: str = "start") -> None:
        """Add a line of text."""
        at = {"class": kind, "x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor}
        ElementTree.SubElement(self._root, "text", at).text = text

    def __str__(self) -> str:
        return ElementTree.tostring(self._root, encoding="unicode") + "\n"
