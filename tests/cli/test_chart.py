from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from cpuaccel.cli.bench.chart import panels, render, write_chart
from cpuaccel.cli.bench.results import EAGER, CallRow, GenerateRow, RowStatus
from cpuaccel.errors import CpuaccelError
from cpuaccel.timing import Ratio
from tests.cli.conftest import Run

RUN: dict[str, object] = {
    "model": "a<b>&c",
    "processor": "P",
    "threads": 1,
    "torch": "2.13.0",
    "padding": 0.5,
}
SVG = "{http://www.w3.org/2000/svg}"


def row(pipeline: str, ratio: Ratio | None, **changes: Any) -> CallRow:
    one = CallRow(
        dtype="float32",
        pipeline=pipeline,
        case="8 x 128",
        batch_size=8,
        seq_len=128,
        batches=1,
        status=RowStatus.EAGER if pipeline == EAGER else RowStatus.APPLIED,
        median_ms=1411.2,
        ratio=ratio,
    )
    return replace(one, **changes)


ROWS = [
    row(EAGER, None),
    row("jit", Ratio(1.5, 1.25, 1.75, 9), median_ms=940.0),
    row("slow", Ratio(0.5, 0.5, 0.5, 9)),
    row("half", Ratio(3.0, 3.0, 3.0, 9), status=RowStatus.PARTLY),
]


def texts(svg: str) -> list[str]:
    return [text.text or "" for text in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def widths(svg: str, kind: str) -> list[float]:
    bars = ElementTree.fromstring(svg).iter(f"{SVG}rect")
    return [float(bar.attrib["width"]) for bar in bars if bar.attrib["class"] == kind]


def test_lengths_are_proportional_to_speed() -> None:
    svg = render(RUN, panels(ROWS))
    (eager,), (best,), bars = widths(svg, "eager"), widths(svg, "best"), widths(svg, "bar")
    assert best == pytest.approx(1.5 * eager, abs=0.2)
    assert bars == pytest.approx([0.5 * eager, 0.0], abs=0.2)


def test_figures_and_conditions_are_written_out() -> None:
    shown = texts(render(RUN, panels(ROWS)))
    assert "1.00x, 1,411 ms" in shown
    assert "1.50x, 940 ms" in shown
    assert "Speed of a<b>&c, relative to eager" in shown
    assert "P, 1 thread, torch 2.13.0, 50% padding" in shown


def test_a_pipeline_that_is_not_fully_applied_has_no_speed() -> None:
    shown = texts(render(RUN, panels(ROWS)))
    assert "partly applied" in shown
    assert not [text for text in shown if text.startswith("3.00x")]


def test_a_panel_for_each_precision_and_batch() -> None:
    rows = [*ROWS, *(replace(one, dtype="bfloat16") for one in ROWS)]
    assert [panel.title for panel in panels(rows)] == ["float32, 8 x 128", "bfloat16, 8 x 128"]


def test_no_rows_make_a_valid_chart() -> None:
    assert texts(render(RUN, []))


def test_generate_shows_tokens_per_second() -> None:
    common = {"dtype": "float32", "case": "1 x 8", "batch_size": 1, "prompt_len": 8}
    rows = [
        GenerateRow(**common, pipeline=EAGER, status=RowStatus.EAGER, tokens_per_second=10.0),
        GenerateRow(
            **common,
            pipeline="int8",
            status=RowStatus.APPLIED,
            tokens_per_second=35.04,
            ratio=Ratio(3.5, 3.4, 3.6, 9),
        ),
    ]
    assert "3.50x, 35.0 tokens/s" in texts(render({**RUN, "tokens": 8}, panels(rows)))


def test_a_folder_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CpuaccelError, match="can't be written"):
        write_chart(tmp_path / "no" / "chart.svg", RUN, ROWS)


def test_bench_writes_the_chart(run: Run, tmp_path: Path) -> None:
    chart = tmp_path / "speed.svg"
    ran = run(
        *("bench", "config:bert-tiny", "--backends", "jit", "--seq-len", "8"),
        *("--rounds", "1", "--threads", "1", "--plot", chart),
    )
    assert ran.code == 0
    assert f"written: {chart}" in ran.out
    assert {"eager", "jit"} <= set(texts(chart.read_text(encoding="utf-8")))


def test_a_path_that_can_not_be_written_is_refused_first(run: Run, tmp_path: Path) -> None:
    bench = ("bench", "config:bert-tiny", "--backends", "jit", "--plot")
    assert run(*bench, tmp_path / "speed.png").code == 2
    ran = run(*bench, tmp_path / "no" / "speed.svg")
    assert ran.code == 1
    assert "calling the original" not in ran.err
