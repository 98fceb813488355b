"""Interrupting a command, as Ctrl-C does."""

import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest


def interrupt_at(text: str, command: Sequence[str]) -> tuple[str, str]:
    """Run a command, and send SIGINT after a line on stderr that contains a text.

    Returns:
        What it wrote to stdout, and to stderr after that line.
    """
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 130, err[-2000:]
    assert "Traceback" not in err
    return out, err


def interrupt_bench_at(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``cpuaccel bench``, in this process, be interrupted when its progress names a text."""

    @contextmanager
    def progress_bar() -> Iterator[Callable[[float, str], None]]:
        def advance(share: float, doing: str) -> None:
            if text in doing:
                raise KeyboardInterrupt

        yield advance

    monkeypatch.setattr("cpuaccel.cli.bench.command.progress_bar", progress_bar)
