"""The summary of an evaluation, on the terminal and in files."""

import json
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

from common.files import write_json
from common.prediction import EAGER, OPTIMIZED, Predicted
from cpuaccel.timing import Ratio

Metrics = Mapping[str, float]


def summarize(
    stage: str,
    predicted: Predicted,
    metrics: Mapping[str, Metrics],
    output_dir: Path,
    *,
    unit: str = "example",
    **counts: int,
) -> None:
    """Print the summary, and write ``{stage}_results.json`` and ``all_results.json``.

    The report of an optimized model goes to ``{stage}_cpuaccel_report.json``.

    Args:
        stage: ``eval`` or ``predict``, the prefix of the names of all results.
        predicted: the predictions.
        metrics: metrics of each run; empty without labels.
        output_dir: the folder to write to.
        unit: noun for a row.
        counts: further counts.

    Raises:
        ExampleError: a file can't be written.
    """
    results: dict[str, object] = {**counts, **_figures(predicted, predicted.main, metrics)}
    if predicted.report is not None:
        results["jit_compilation_time"] = round(predicted.build_seconds, 4)
        for step, applied in predicted.applied.items():
            results[f"cpuaccel_{step}_applied"] = applied
        for key, batches in predicted.calls.items():
            results[f"cpuaccel_calls_{key}"] = batches
    ratio, whole = _speedups(predicted)
    if ratio is not None:
        for name, value in _figures(predicted, EAGER, metrics).items():
            results[f"{EAGER}_{name}"] = value
        results["speedup_median"] = ratio.median
        results["speedup_low"], results["speedup_high"] = ratio.low, ratio.high
        results["speedup_pairs"] = ratio.pairs
        results["speedup_whole"] = whole
    named = {f"{stage}_{name}": value for name, value in results.items()}
    write_json(output_dir / f"{stage}_results.json", named)
    everything = output_dir / "all_results.json"
    write_json(everything, {**_read(everything), **named})
    if predicted.report is not None:
        write_json(output_dir / f"{stage}_cpuaccel_report.json", predicted.report.to_dict())
    _print(stage, predicted, metrics, unit, counts)


def _figures(predicted: Predicted, name: str, metrics: Mapping[str, Metrics]) -> dict[str, float]:
    seconds = sum(predicted.runs[name].seconds)
    return {
        **metrics.get(name, {}),
        "samples": predicted.samples,
        "runtime": round(seconds, 4),
        "samples_per_second": round(predicted.samples / seconds, 3),
    }


def _speedups(predicted: Predicted) -> tuple[Ratio | None, float]:
    """Return the speedup over pairs of chunks, and that of the whole run."""
    if len(predicted.runs) < 2:
        return None, 1.0
    eager, optimized = (predicted.runs[name].seconds for name in (EAGER, OPTIMIZED))
    return Ratio.from_times(eager, optimized), sum(eager) / sum(optimized)


def _print(
    stage: str,
    predicted: Predicted,
    metrics: Mapping[str, Metrics],
    unit: str,
    counts: Mapping[str, int],
) -> None:
    console = Console(soft_wrap=True, highlight=False, markup=False)
    others = "".join(f", {name} {count}" for name, count in counts.items())
    console.print(f"\n{stage}: {unit}s {predicted.samples}{others}")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("")
    columns = list(dict.fromkeys(name for figures in metrics.values() for name in figures))
    for column in (*columns, f"{unit}s/s", "seconds"):
        table.add_column(column, justify="right")
    for name, run in predicted.runs.items():
        seconds = sum(run.seconds)
        figures = [f"{metrics.get(name, {}).get(column, float('nan')):.3f}" for column in columns]
        table.add_row(name, *figures, f"{predicted.samples / seconds:.1f}", f"{seconds:.1f}")
    console.print(table)
    ratio, whole = _speedups(predicted)
    if ratio is not None:
        console.print(
            f"speedup   {ratio} over {ratio.pairs} pairs of chunks; {whole:.2f}x for the whole run"
        )
    if predicted.report is not None:
        console.print(f"build     {predicted.build_seconds:.1f} s, not included above")
        console.print(str(predicted.report))


def _read(path: Path) -> dict[str, object]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
