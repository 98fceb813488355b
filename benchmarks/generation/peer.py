"""A program in an environment of its own, which answers each line with one line of JSON."""

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Peer:
    """The running program."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        """Talk to a process by its standard input and output."""
        self._process = process

    def ask(self, line: str = "") -> Any:
        """Write one line, and return the answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


@contextmanager
def running(python: str, script: str, arguments: Sequence[object]) -> Iterator[Peer]:
    """Run a script of this folder by the Python of another environment.

    Args:
        python: its interpreter.
        script: name of the file.
        arguments: of the script.
    """
    # Isolated: some files of this folder have the names of packages.
    command = [python, "-I", str(Path(__file__).with_name(script)), *map(str, arguments)]
    with subprocess.Popen(  # noqa: S603
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        yield Peer(process)
