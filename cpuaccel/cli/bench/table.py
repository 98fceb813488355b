"""The table that ``cpuaccel bench`` prints."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from rich.markup import escape

from cpuaccel.cli.bench.results import EAGER, CallRow, GenerateRow, Row, RowStatus
from cpuaccel.cli.console import fitted, new_table, say, section, stdout
from cpuaccel.cli.models.demo import Neighbour

_COLOURS = {
    RowStatus.EAGER: "dim",
    RowStatus.APPLIED: "green",
    RowStatus.PARTLY: "bold yellow",
    RowStatus.NOT_APPLIED: "bold red",
    RowStatus.REFUSED: "bold red",
}
_DROPPABLE = ("p95 ms", "peak MiB", "rounds", "MB/token", "bandwidth", "build", "error")
"""Columns that a narrow terminal does without, in this order; ``--json`` has them."""

RowT = TypeVar("RowT", bound=Row)


def show(
    run: Mapping[str, object], results: Sequence[CallRow], neighbours: Mapping[str, Neighbour]
) -> None:
    """Print the results of a benchmark; ``run`` has its settings as in the JSON output."""
    _show_conditions(run, real_text=bool(neighbours))
    shown = _show_rows(
        results,
        (">median ms", ">p95 ms", ">rounds", ">x eager", ">error", ">build", ">peak MiB"),
        _call_cells,
    )
    _show_notes(results)
    if "peak MiB" in shown:
        say("peak: additional memory while building")
    if "error" in shown:
        say("error: largest relative difference from the float32 original, over real tokens")
    _show_neighbours(neighbours)
    _show_interruption(run)


def show_generate(run: Mapping[str, object], results: Sequence[GenerateRow]) -> None:
    """Print the results of a benchmark of ``generate``."""
    _show_conditions(run)
    speech = any(result.real_time_factor is not None for result in results)
    beams = any(result.num_beams > 1 for result in results)
    columns = [">tokens/s", ">x eager", *([] if beams else [">MB/token", ">bandwidth"])]
    columns = [*([] if beams else [">first token", ">x eager"]), *columns, ">error", ">build"]
    whole = [">real time", ">x eager"] if speech else []

    def cells(result: GenerateRow) -> list[str]:
        if result.call_ms is None:
            return []
        return [
            *(_whole_cells(result) if speech else []),
            *([] if beams else _first_token_cells(result)),
            *_rate_cells(result),
            *([] if beams else _bandwidth_cells(result)),
            _figure(result.error, ".1e"),
            _build_cell(result),
        ]

    _show_rows(results, [*whole, *columns], cells)
    _show_notes(results)
    if speech:
        say("real time: seconds of a whole call for a second of speech")
    if beams:
        say(f"{run['num_beams']} beams; tokens/s: of the whole call, over all rows")
    else:
        say("tokens/s: after the first token, over all rows")
        say("MB/token: weights and cache read for a token; bandwidth: their share of the memory's")
    say("error: largest difference from the float32 original's logits, relative to the largest")
    _show_interruption(run)


def _show_conditions(run: Mapping[str, object], *, real_text: bool = False) -> None:
    where = f"on {run['processor']}, {run['threads']} threads, torch {run['torch']}"
    if real_text:
        say(f"\n{run['model']}: real text {where}")
    else:
        say(f"\n{run['model']} {where}, padding {float(str(run['padding'])):.0%}")


def _show_rows(
    results: Sequence[RowT], columns: Sequence[str], cells: Callable[[RowT], list[str]]
) -> set[object]:
    """Print a table, and return the titles that fit.

    ``cells`` returns the cells of the columns, nothing for a row without figures.
    """
    table = new_table("dtype", "batch x len", "pipeline", *columns, "status")
    previous: object = None
    for result in results:
        group = (result.dtype, result.case)
        if group != previous and previous is not None:
            table.add_row()
        status = f"[{_COLOURS[result.status]}]{result.status.upper()}[/]"
        if result.status in (RowStatus.APPLIED, RowStatus.EAGER):
            status = status.lower()
        table.add_row(
            *(group if group != previous else ("", "")),
            escape(result.pipeline),
            *(cells(result) or ["-"] * len(columns)),
            status,
        )
        previous = group
    console = stdout()
    constant = (("dtype", {r.dtype for r in results}), ("batch x len", {r.case for r in results}))
    same = [title for title, values in constant if len(values) == 1]
    table = fitted(table, console, [*_DROPPABLE, *same])
    console.print(table, highlight=False)
    return {column.header for column in table.columns}


def _call_cells(result: CallRow) -> list[str]:
    if result.median_ms is None or result.p95_ms is None or result.error is None:
        return []
    return [
        f"{result.median_ms:,.2f}",
        f"{result.p95_ms:,.2f}",
        str(result.rounds),
        escape(str(result.ratio)) if result.ratio else "1",
        f"{result.error:.1e}" if result.error else "0",
        _build_cell(result),
        _figure(None if result.peak_bytes is None else result.peak_bytes / 2**20, ".0f"),
    ]


def _whole_cells(result: GenerateRow) -> list[str]:
    ratio = escape(str(result.call_ratio)) if result.call_ratio else "1"
    return [_figure(result.real_time_factor, ".4f"), ratio]


def _first_token_cells(result: GenerateRow) -> list[str]:
    ratio = f"{result.first_token_ratio.median:.2f}x" if result.first_token_ratio else "1"
    return [f"{_figure(result.first_token_ms, '.0f')} ms", ratio]


def _rate_cells(result: GenerateRow) -> list[str]:
    unpaired = "-" if result.tokens_per_second is None or result.pipeline != EAGER else "1"
    ratio = escape(str(result.ratio)) if result.ratio else unpaired
    return [_figure(result.tokens_per_second, ".2f"), ratio]


def _bandwidth_cells(result: GenerateRow) -> list[str]:
    megabytes = result.megabytes_per_token
    return [
        _figure(megabytes, ".0f" if (megabytes or 0) >= 10 else ".2g"),
        _figure(result.share_of_bandwidth, ".0%"),
    ]


def _build_cell(result: Row) -> str:
    return f"{result.optimize_seconds:.1f} s" if result.pipeline != EAGER else "-"


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _show_notes(results: Sequence[Row]) -> None:
    by_note: dict[tuple[str, str], list[Row]] = {}
    for result in results:
        for note in result.notes:
            by_note.setdefault((result.pipeline, note), []).append(result)
    lines = []
    for (pipeline, note), rows in by_note.items():
        dtypes = " and ".join(dict.fromkeys(row.dtype for row in rows))
        cases = dict.fromkeys(row.case for row in rows)
        everywhere = len(cases) == len({result.case for result in results})
        where = "" if everywhere else f", {' and '.join(cases)}"
        lines.append(f"{pipeline} ({dtypes}{where}): {note}")
    section("Pipelines not fully applied", lines)
    say("\nx eager: speedup over eager in the same dtype: median of the pairs [quartiles]")


def _show_interruption(run: Mapping[str, object]) -> None:
    if run["interrupted"]:
        say("\nInterrupted: these are the finished results.")


def _show_neighbours(neighbours: Mapping[str, Neighbour]) -> None:
    if not neighbours:
        return
    lines = [f"nearest to {next(iter(neighbours.values())).query!r}"]
    for name, neighbour in neighbours.items():
        lines.append(f"{name:<35} {neighbour.sentence!r} (cosine {neighbour.cosine:.3f})")
    if len(neighbours) == 1:
        lines.append("No pipeline was fully applied, so there is nothing to compare.")
    else:
        same = len({neighbour.sentence for neighbour in neighbours.values()}) == 1
        lines.append("Same result." if same else "DIFFERENT results.")
    section("Proof", lines)
