"""The table that ``cpuaccel bench`` prints."""

from collections.abc import Mapping, Sequence

from rich.markup import escape

from cpuaccel.cli.bench.results import EAGER, Result, RowStatus
from cpuaccel.cli.console import new_table, say, section, stdout
from cpuaccel.cli.models.demo import Neighbour

_COLOURS = {
    RowStatus.EAGER: "dim",
    RowStatus.APPLIED: "green",
    RowStatus.PARTLY: "bold yellow",
    RowStatus.NOT_APPLIED: "bold red",
    RowStatus.REFUSED: "bold red",
}


def show(
    run: Mapping[str, object], results: Sequence[Result], neighbours: Mapping[str, Neighbour]
) -> None:
    """Print the results of a benchmark; ``run`` has its settings as in the JSON output."""
    where = f"on {run['processor']}, {run['threads']} threads, torch {run['torch']}"
    if neighbours:
        say(f"\n{run['model']}: real text {where}")
    else:
        say(f"\n{run['model']} {where}, padding {float(str(run['padding'])):.0%}")
    table = new_table(
        *("dtype", "batch x len", "pipeline", ">median ms", ">p95 ms", ">rounds", ">x eager"),
        *(">error", ">build", ">peak MiB", "status"),
    )
    previous: object = None
    for result in results:
        group = (result.dtype, result.case)
        if group != previous and previous is not None:
            table.add_row()
        table.add_row(*(group if group != previous else ("", "")), *_cells(result))
        previous = group
    stdout().print(table, highlight=False)
    _show_notes(results)
    _show_neighbours(neighbours)
    if run["interrupted"]:
        say("\nInterrupted: these are the finished results.")


def _cells(result: Result) -> list[str]:
    status = f"[{_COLOURS[result.status]}]{result.status.upper()}[/]"
    if result.status in (RowStatus.APPLIED, RowStatus.EAGER):
        status = status.lower()
    if result.median_ms is None or result.p95_ms is None or result.error is None:
        return [escape(result.pipeline), *["-"] * 7, status]
    return [
        escape(result.pipeline),
        f"{result.median_ms:.2f}",
        f"{result.p95_ms:.2f}",
        str(result.rounds),
        escape(str(result.ratio)) if result.ratio else "1",
        f"{result.error:.1e}" if result.error else "0",
        f"{result.optimize_seconds:.1f} s" if result.pipeline != EAGER else "-",
        f"{result.peak_bytes / 2**20:.0f}" if result.peak_bytes is not None else "-",
        status,
    ]


def _show_notes(results: Sequence[Result]) -> None:
    by_note: dict[tuple[str, str], list[Result]] = {}
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
    say("peak: additional memory while building")
    say("error: largest relative difference from the float32 original, over real tokens")


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
