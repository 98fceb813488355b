"""The tables that ``cpuaccel tune`` prints."""

from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from cpuaccel.cli.console import heading, new_table, say, stdout
from cpuaccel.plugin.host import Host
from cpuaccel.tuning.decisions.result import CandidateStatus, Row, Tuning

_COLOURS = {CandidateStatus.CHOSEN: "bold green", CandidateStatus.MEASURED: "default"}
_FIGURES = frozenset(
    {"median ms", "rounds", "x eager", "error", "build", "pays off after", "memory"}
)


def show(model: str, tuning: Tuning, host: Host, written: Sequence[Path]) -> None:
    """Print the result of a search."""
    say(f"\n{model} on {host.processor}, {tuning.threads} threads, torch {host.packages['torch']}")
    for shape, weight in zip(tuning.shapes, tuning.weights):
        say(f"  {shape}" + (f", {weight:.0%} of calls" if len(tuning.shapes) > 1 else ""))
    if tuning.rows:
        say()
        stdout().print(ranking(sorted(tuning.rows, key=_chosen_first)), highlight=False)
    _show_failed(tuning.rows)
    if tuning.not_tried:
        heading("Not tried")
        for one in tuning.not_tried:
            say(f"  {one.name}: {one.reason}")
    if tuning.best_instances is not None:
        heading("Instances")
        for instance in tuning.instances:
            say(f"  {instance}")
        say(f"  launch your program with: {tuning.best_instances.command}")
    heading("Chosen")
    say(f"  {tuning.winner}: {tuning.why}")
    if tuning.rule is not None:
        say(f"  {tuning.rule} ({tuning.rule.gain:.2f}x as fast as one pipeline for all calls)")
    for line in tuning.rebuilt:
        say(f"  final build: {line}")
    if tuning.source != "search":
        say(f"  read from {tuning.source}, without a search")
    for path in written:
        say(f"  written: {path}")


def show_unfinished(rows: Sequence[Row]) -> None:
    """Print the results of a search that did not finish."""
    say("The search did not finish, and nothing was written. Results so far:")
    stdout().print(ranking(rows), highlight=False)
    _show_failed(rows)


def ranking(rows: Sequence[Row]) -> Table:
    """Return a table with a row for each candidate."""
    table = new_table(
        "pipeline",
        "precision",
        "median ms",
        "rounds",
        "x eager",
        "error",
        "build",
        "pays off after",
        "memory",
        "status",
        numbers=_FIGURES,
    )
    for row in rows:
        table.add_row(*_cells(row))
    return table


def _cells(row: Row) -> list[str]:
    threads = f" ({row.candidate.threads} threads)" if row.candidate.threads else ""
    colour = _COLOURS.get(row.status, "red")
    return [
        escape(row.candidate.name + threads),
        row.candidate.precision,
        "-" if row.median_ms is None else f"{row.median_ms:.2f}",
        str(len(row.rounds)) if row.rounds else "-",
        escape(str(row.speedup)) if row.speedup else "-",
        "-" if row.error is None else f"{row.error:.1e}" if row.error else "0",
        f"{row.build_seconds:.1f} s" if row.build_seconds else "-",
        "-" if row.break_even is None else f"{row.break_even:.0f} calls",
        f"{row.peak_bytes / 2**20:.0f} MiB" if row.peak_bytes else "-",
        f"[{colour}]{row.status}[/]",
    ]


def _chosen_first(row: Row) -> bool:
    return row.status is not CandidateStatus.CHOSEN


def _show_failed(rows: Sequence[Row]) -> None:
    failed = [row for row in rows if row.reason]
    if failed:
        heading("Refused or failed")
    for row in failed:
        say(f"  {row.candidate}: {row.reason}")
