"""The tables that ``cpuaccel tune`` prints."""

from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from cpuaccel.cli.console import fitted, new_table, say, section, stdout
from cpuaccel.plugin.host import Host
from cpuaccel.tuning.decisions.result import CandidateStatus, Row, Tuning

DROPPABLE = ("memory", "rounds", "pays off after", "build", "error")
"""Columns that a narrow terminal does without, in this order."""

_COLOURS = {CandidateStatus.CHOSEN: "bold green", CandidateStatus.MEASURED: "default"}


def show(model: str, tuning: Tuning, host: Host, written: Sequence[Path]) -> None:
    """Print the result of a search."""
    say(f"\n{model} on {host.processor}, {tuning.threads} threads, torch {host.packages['torch']}")
    for shape, weight in zip(tuning.shapes, tuning.weights):
        say(f"  {shape}" + (f", {weight:.0%} of calls" if len(tuning.shapes) > 1 else ""))
    if tuning.rows:
        say()
        chosen_first = sorted(tuning.rows, key=lambda r: r.status is not CandidateStatus.CHOSEN)
        _print(ranking(chosen_first))
    _show_failed(tuning.rows)
    section("Not tried", (f"{one.name}: {one.reason}" for one in tuning.not_tried))
    if tuning.best_instances is not None:
        run = f"run the saved model with: {tuning.best_instances.call}"
        section("Instances", [*map(str, tuning.instances), run])
    chosen = [tuning.summary]
    if tuning.rule is not None:
        gain = f"{tuning.rule.gain:.2f}x as fast as one pipeline for all calls"
        chosen.append(f"{tuning.rule} ({gain})")
    chosen += [f"final build: {line}" for line in tuning.rebuilt]
    if tuning.more_time:
        chosen.append(f"{tuning.more_time} (--budget)")
    if tuning.source != "search":
        chosen.append(f"read from {tuning.source}, without a search")
    section("Chosen", [*chosen, *(f"written: {path}" for path in written)])


def show_unfinished(rows: Sequence[Row]) -> None:
    """Print the results of a search that did not finish."""
    say("The search did not finish, and nothing was written. Results so far:")
    _print(ranking(rows))
    _show_failed(rows)


def _print(table: Table) -> None:
    console = stdout()
    console.print(fitted(table, console, DROPPABLE), highlight=False)


def ranking(rows: Sequence[Row]) -> Table:
    """Return a table with a row for each candidate."""
    table = new_table(
        *("pipeline", "precision", ">median ms", ">rounds", ">x eager", ">error", ">build"),
        *(">pays off after", ">memory", "status"),
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
        "-" if row.median_ms is None else f"{row.median_ms:,.2f}",
        str(len(row.rounds)) if row.rounds else "-",
        escape(str(row.speedup)) if row.speedup else "-",
        "-" if row.error is None else f"{row.error:.1e}" if row.error else "0",
        f"{row.build_seconds:.1f} s" if row.build_seconds else "-",
        "-" if row.break_even is None else f"{row.break_even:,.0f} calls",
        f"{row.peak_bytes / 2**20:,.0f} MiB" if row.peak_bytes else "-",
        f"[{colour}]{row.status}[/]",
    ]


def _show_failed(rows: Sequence[Row]) -> None:
    failed = (f"{row.candidate}: {row.reason}" for row in rows if row.reason)
    section("Refused or failed", failed)
