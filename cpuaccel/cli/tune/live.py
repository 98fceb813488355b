"""Progress of ``cpuaccel tune``, and its results so far if it does not finish."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from cpuaccel.cli.console import INTERRUPTED, fitted, print_json, rescued, say, stderr
from cpuaccel.cli.tune.table import DROPPABLE, ranking, show_unfinished
from cpuaccel.errors import CpuaccelError
from cpuaccel.plugin.host import Host
from cpuaccel.tuning.progress import Progress, Snapshot


@contextmanager
def show_progress(model: str, host: Host, *, json: bool) -> Iterator[Progress]:
    """Show the progress of a search, and print its results so far if it does not finish."""
    progress = Progress()
    try:
        with _live_table(progress):
            yield progress
    except KeyboardInterrupt:
        _show_unfinished(model, host, progress.latest, json=json, interrupted=True)
        raise typer.Exit(INTERRUPTED) from None
    except CpuaccelError:
        if progress.latest is not None and progress.latest.rows:
            _show_unfinished(model, host, progress.latest, json=json, interrupted=False)
        raise


@contextmanager
def _live_table(progress: Progress) -> Iterator[None]:
    """Show a live table on stderr or, without a terminal, a line for each activity."""
    if not stderr.is_terminal:
        progress.show = _print_line
        yield
        return

    def draw() -> RenderableType:
        latest = progress.latest
        if latest is None:
            return Text("preparing the search")
        state = (
            f"{latest.elapsed:.0f} of {latest.budget:.0f} s, {latest.waiting} candidates left: "
            f"{latest.doing}"
        )
        table = fitted(ranking(latest.rows), stderr, DROPPABLE)
        return Group(table, Text(state))

    # Only twice per second: drawing disturbs the timing.
    with Live(get_renderable=draw, console=stderr, refresh_per_second=2, transient=True) as live:
        progress.show = lambda snapshot: live.refresh()
        yield


def _print_line(snapshot: Snapshot) -> None:
    line = f"{snapshot.elapsed:4.0f} s  {snapshot.doing}"
    stderr.print(line, markup=False, highlight=False)


def _show_unfinished(
    model: str, host: Host, latest: Snapshot | None, *, json: bool, interrupted: bool
) -> None:
    rows = () if latest is None else latest.rows
    data = {
        "model": model,
        "host": host.to_dict(),
        "interrupted": interrupted,
        "rows": [row.to_dict() for row in rows],
    }
    with rescued(data):
        if json:
            print_json(data)
        elif rows:
            show_unfinished(rows)
        else:
            say("Interrupted: no results yet, and nothing was written.")
