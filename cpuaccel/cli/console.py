"""Where the commands print: results to stdout, everything else to stderr."""

import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.table import Table

from cpuaccel.errors import CpuaccelError

PIPE_WIDTH = 140
"""Columns for tables where nobody says how wide the output is, as in a CI log."""

FAILURE, USAGE, INTERRUPTED = 1, 2, 130
"""What the commands exit with."""

stderr = Console(stderr=True)


def stdout() -> Console:
    """The console for results: as wide as the terminal, or wide enough for a log."""
    sized = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(width=None if sized else PIPE_WIDTH)


def say(text: str = "") -> None:
    """Print a line as it is: no markup, no wrapping."""
    stdout().print(text, markup=False, highlight=False, soft_wrap=True)


def heading(text: str) -> None:
    """Print a heading."""
    stdout().print(f"\n[bold]{text}[/]")


def section(title: str, lines: Iterable[str]) -> None:
    """Print a heading with lines below it; nothing where there are no lines."""
    for number, line in enumerate(lines):
        if not number:
            heading(title)
        say(f"  {line}")


def new_table(*columns: str, numbers: frozenset[str] = frozenset()) -> Table:
    """A table in the style of all commands.

    Args:
        columns: headers, in order.
        numbers: headers of the columns that hold figures.
    """
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        if column in numbers:
            table.add_column(column, justify="right", no_wrap=True)
        else:
            table.add_column(column, overflow="fold")
    return table


@contextmanager
def progress_bar() -> Iterator[Callable[[float, str], None]]:
    """A progress bar on stderr; without a terminal, a line whenever something else is done.

    Yields:
        A function to tell the share that is done, from 0 to 1, and what is being done.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=stderr, transient=True) as bar:
        task = bar.add_task("", total=1.0)
        last = ""

        def advance(share: float, doing: str) -> None:
            nonlocal last
            bar.update(task, completed=share, description=doing)
            if not stderr.is_terminal and doing != last:
                stderr.print(f"{share:4.0%}  {doing}", markup=False, highlight=False)
            last = doing

        yield advance


def print_json(data: Mapping[str, object]) -> None:
    """Print data for machines; an infinity becomes a string, for JSON knows none."""
    sys.stdout.write(json.dumps(_finite(data), indent=2, allow_nan=False, default=str) + "\n")


@contextmanager
def rescued(data: Mapping[str, object]) -> Iterator[None]:
    """Print to stderr, as JSON, what the body can't print to stdout: a full disk loses no results.

    Args:
        data: what the body prints.

    Raises:
        CpuaccelError: stdout can't be written; says where the data is.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        with open(os.devnull, "w", encoding="utf-8") as nothing:
            os.dup2(nothing.fileno(), sys.stdout.fileno())  # or Python fails again on leaving
        text = json.dumps(_finite(data), indent=2, allow_nan=False, default=str)
        sys.stderr.write(text + "\n")
        raise CpuaccelError(
            f"the results can't be written to standard output: {error.strerror}. They are above, "
            "on standard error, as JSON"
        ) from error


def _finite(data: object) -> object:
    if isinstance(data, float) and not math.isfinite(data):
        return str(data)
    if isinstance(data, Mapping):
        return {str(key): _finite(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_finite(value) for value in data]
    return data
