"""The entry point ``cpuaccel``: its commands, and how mistakes are told."""

import logging
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

import cpuaccel
from cpuaccel.cli.bench.command import bench
from cpuaccel.cli.console import FAILURE, USAGE, stderr
from cpuaccel.cli.doctor import doctor
from cpuaccel.cli.explain import explain
from cpuaccel.cli.inspect import inspect
from cpuaccel.cli.optimize import optimize
from cpuaccel.cli.plugins import plugins
from cpuaccel.cli.tune.command import tune
from cpuaccel.errors import CpuaccelError, PipelineError

app = typer.Typer(
    name="cpuaccel",
    rich_markup_mode="markdown",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    epilog="Begin with `cpuaccel doctor`, then `cpuaccel bench demo`.",
)
for command in (doctor, plugins, explain, bench, tune, optimize, inspect):
    app.command(no_args_is_help=command in (explain, bench, tune, optimize, inspect))(command)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"cpuaccel {cpuaccel.__version__}")
        raise typer.Exit


@app.callback()
def cpuaccel_(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Run PyTorch and Transformers models as fast as this CPU allows, with the same answers."""
    from rich.logging import RichHandler

    # Through rich, or warnings would tear a progress bar apart.
    handler = RichHandler(console=stderr, show_time=False, show_path=False)
    logging.getLogger("cpuaccel").handlers = [handler]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line.

    Exits with 0, with 2 for a mistake in what was asked, with 1 for a failure, with 130 when
    interrupted. No mistake of the user's ends in a traceback.

    Args:
        arguments: what follows the program's name, by default the process's own.
    """
    try:
        app(arguments)
    except CpuaccelError as error:
        stderr.print("[bold red]error:[/]", end=" ")
        stderr.print(str(error), markup=False, highlight=False, soft_wrap=True)
        sys.exit(USAGE if isinstance(error, PipelineError) else FAILURE)
