"""Output of the commands: results on stdout, everything else on stderr; and exit codes."""

import json
import math
import os
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from cpuaccel.errors import CpuaccelError

PIPE_WIDTH = 200
"""Columns where stdout is not a terminal, as in a CI log. COLUMNS says nothing about a pipe."""

REPORT_WIDTH = 100
"""Columns of a report where stdout is not a terminal: its sentences have no columns to keep."""

LABEL_WIDTH = 10
"""Columns of the label that a line of a report begins with."""

FAILURE, USAGE, INTERRUPTED = 1, 2, 130
"""Exit codes of the commands."""

SCHEMA_VERSION = 1
"""Version of the JSON that commands print: raised when a key changes its meaning or goes away."""

stderr = Console(stderr=True)

_UNLIMITED = 1000


def stdout() -> Console:
    """Make a console for results, as wide as the terminal or ``PIPE_WIDTH``."""
    return Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)


def say(text: str = "") -> None:
    """Print a line without markup or wrapping."""
    stdout().print(text, markup=False, highlight=False, soft_wrap=True)


def say_wrapped(text: str) -> None:
    """Print lines that begin with a label, wrapped to the terminal, or to ``REPORT_WIDTH``.

    Words, such as paths, stay in one piece.
    """
    width = stdout().width if sys.stdout.isatty() else REPORT_WIDTH
    for line in text.splitlines():
        say(
            textwrap.fill(
                line,
                width,
                subsequent_indent=" " * LABEL_WIDTH,
                break_long_words=False,
                break_on_hyphens=False,
            )
        )


def heading(text: str) -> None:
    """Print a heading."""
    stdout().print(f"\n[bold]{text}[/]")


def section(title: str, lines: Iterable[str]) -> None:
    """Print a heading and indented lines below it, or nothing if there are no lines."""
    for number, line in enumerate(lines):
        if not number:
            heading(title)
        say(f"  {line}")


def new_table(*columns: str) -> Table:
    """Make a table in the style of all commands; ``>`` marks a column of numbers."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        if column.startswith(">"):
            table.add_column(column[1:], justify="right", no_wrap=True)
        else:
            table.add_column(column, overflow="fold")
    return table


def fitted(table: Table, console: Console, droppable: Iterable[str]) -> Table:
    """Make a table fit the console, with its names in one piece.

    It leaves out the columns with these titles, in this order, until the rest fits; where that is
    not enough, numbers wrap.
    """
    for title in droppable:
        if _fits(table, console):
            return table
        table.columns[:] = [column for column in table.columns if column.header != title]
    if not _fits(table, console):
        for column in table.columns:
            column.no_wrap = column.justify != "right"
    return table


def _fits(table: Table, console: Console) -> bool:
    options = console.options.update(max_width=_UNLIMITED)
    return Measurement.get(console, options, table).maximum <= console.width


@contextmanager
def progress_bar() -> Iterator[Callable[[float, str], None]]:
    """Show a progress bar on stderr; without a terminal, print a line when the task changes."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=stderr, transient=True) as bar:
        task = bar.add_task("", total=1.0)
        last = ""

        def advance(share: float, description: str) -> None:
            nonlocal last
            bar.update(task, completed=share, description=description)
            if not stderr.is_terminal and description != last:
                stderr.print(f"{share:4.0%}  {description}", markup=False, highlight=False)
            last = description

        yield advance


def print_json(data: Mapping[str, object]) -> None:
    """Print data as JSON. Infinity and NaN become strings, because JSON has neither."""
    sys.stdout.write(_dump(data))


@contextmanager
def rescued(data: Mapping[str, object]) -> Iterator[None]:
    """Print the results on stderr as JSON if the body can't write to stdout, as on a full disk."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        with open(os.devnull, "w", encoding="utf-8") as nothing:
            os.dup2(nothing.fileno(), sys.stdout.fileno())  # otherwise Python fails again at exit
        sys.stderr.write(_dump(data))
        raise CpuaccelError(
            f"cannot write the results to stdout: {error.strerror}. They are printed above, on "
            "stderr, as JSON"
        ) from error


def _dump(data: Mapping[str, object]) -> str:
    versioned = {"schema_version": SCHEMA_VERSION, **data}
    return json.dumps(_finite(versioned), indent=2, allow_nan=False, default=str) + "\n"


def _finite(data: object) -> object:
    if isinstance(data, float) and not math.isfinite(data):
        return str(data)
    if isinstance(data, Mapping):
        return {str(key): _finite(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_finite(value) for value in data]
    return data
