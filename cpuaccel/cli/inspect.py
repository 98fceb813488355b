"""``cpuaccel inspect``."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cpuaccel.cli.arguments import JsonOption
from cpuaccel.cli.console import print_json, say


def inspect(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="A folder that `cpuaccel optimize` wrote."),
    ],
    json: JsonOption = False,
) -> None:
    """Verify the checksums of a saved model, and show its pipeline, its calls and what changed.

    It loads neither the model nor TorchScript. It compares this machine and its versions with
    those that the model was saved with. The exit code is 1 if a file is missing or changed.

    For example:

    - `cpuaccel inspect fast/`
    """
    from cpuaccel.artifact.summary import summarize

    summary = summarize(folder)
    if json:
        print_json(asdict(summary))
    else:
        say(str(summary))
