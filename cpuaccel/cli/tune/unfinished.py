"""Results of a search that was interrupted or could not save its decision."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from cpuaccel.cli.console import INTERRUPTED, print_json, rescued, say
from cpuaccel.cli.tune.live import live_table
from cpuaccel.cli.tune.table import show_unfinished
from cpuaccel.errors import CpuaccelError
from cpuaccel.plugin.host import Host
from cpuaccel.tuning.progress import Progress, Snapshot


@contextmanager
def report_unfinished(model: str, host: Host, *, json: bool) -> Iterator[Progress]:
    """Show the progress of a search, and print its results so far if it does not finish.

    Yields:
        The search's ``progress``.

    Raises:
        typer.Exit: the search was interrupted.
    """
    latest: Snapshot | None = None

    try:
        with live_table() as progress:

            def remember(snapshot: Snapshot) -> None:
                nonlocal latest
                latest = snapshot
                progress(snapshot)

            yield remember
    except KeyboardInterrupt:
        _show(model, host, latest, json=json, interrupted=True)
        raise typer.Exit(INTERRUPTED) from None
    except CpuaccelError:
        if latest is not None and latest.rows:
            _show(model, host, latest, json=json, interrupted=False)
        raise


def _show(
    model: str, host: Host, latest: Snapshot | None, *, json: bool, interrupted: bool
) -> None:
    rows, weights = ((), ()) if latest is None else (latest.rows, latest.weights)
    found = {
        "model": model,
        "host": host.to_dict(),
        "interrupted": interrupted,
        "rows": [row.to_dict(weights) for row in rows],
    }
    with rescued(found):
        if json:
            print_json(found)
        elif rows:
            show_unfinished(rows, weights)
        else:
            say("Interrupted: no results yet, and nothing was written.")
