"""Progress of ``cpuaccel tune``: a live table."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from cpuaccel.cli.console import stderr
from cpuaccel.cli.tune.table import ranking
from cpuaccel.tuning.progress import Progress, Snapshot


@contextmanager
def live_table() -> Iterator[Progress]:
    """Show a live table on stderr or, without a terminal, a line for each activity.

    Yields:
        The search's ``progress``.
    """
    if not stderr.is_terminal:
        yield _line
        return
    latest: Snapshot | None = None

    def render() -> RenderableType:
        return Text("preparing the search") if latest is None else _rendered(latest)

    # Only twice per second: drawing disturbs the timing.
    with Live(get_renderable=render, console=stderr, refresh_per_second=2, transient=True) as live:

        def progress(snapshot: Snapshot) -> None:
            nonlocal latest
            latest = snapshot
            live.refresh()

        yield progress


def _rendered(snapshot: Snapshot) -> RenderableType:
    elapsed = time.monotonic() - snapshot.begun
    state = Text(
        f"{elapsed:.0f} of {snapshot.budget:.0f} s, {snapshot.waiting} candidates left: "
        f"{snapshot.doing}"
    )
    return Group(ranking(snapshot.rows, snapshot.weights), state)


def _line(snapshot: Snapshot) -> None:
    elapsed = time.monotonic() - snapshot.begun
    stderr.print(f"{elapsed:4.0f} s  {snapshot.doing}", markup=False, highlight=False)
