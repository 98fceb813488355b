"""``cpuaccel inspect``."""

from pathlib import Path
from typing import Annotated

import typer

from cpuaccel.cli.arguments import JsonOption
from cpuaccel.cli.console import print_json, say


def inspect(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder that `cpuaccel optimize` wrote.")
    ],
    json: JsonOption = False,
) -> None:
    """Hold every file of a saved model against its hash, and tell what it is and where it was made.

    Nothing is loaded: neither the model nor TorchScript. The exit code is 1 where a file is not
    what was saved.

    For example:

    - `cpuaccel inspect fast/`
    """
    from cpuaccel.artifact.summary import summarize

    summary = summarize(folder)
    if json:
        print_json(summary.to_dict())
    else:
        say(str(summary))
