"""The entry point ``cpuaccel``: its commands, and how errors are printed."""

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
from cpuaccel.cli.generate.command import generate
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
    epilog="Start with `cpuaccel doctor`, then `cpuaccel bench config:minilm-l6`.",
)
for command in (doctor, plugins, explain, bench, tune, optimize, inspect, generate):
    app.command(no_args_is_help=command not in (doctor, plugins))(command)


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"cpuaccel {cpuaccel.__version__}")
        raise typer.Exit


@app.callback()
def cpuaccel_(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Make PyTorch and Transformers models fast on this CPU, with the same outputs."""
    from rich.logging import RichHandler

    # Through rich, so that warnings do not break a progress bar.
    handler = RichHandler(console=stderr, show_time=False, show_path=False)
    logging.getLogger("cpuaccel").handlers = [handler]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line.

    Exits with 0, 1 for a failure, 2 for invalid arguments or an invalid pipeline, and 130 after
    Ctrl-C. Errors that cpuaccel raises on purpose are printed without a traceback.
    """
    try:
        app(arguments)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        stderr.print("[bold red]error:[/] torch is not installed. Run: pip install torch")
        sys.exit(FAILURE)
    except CpuaccelError as error:
        stderr.print("[bold red]error:[/]", end=" ")
        stderr.print(str(error), markup=False, highlight=False, soft_wrap=True)
        sys.exit(USAGE if isinstance(error, PipelineError) else FAILURE)
