"""Interrupting a command, as Ctrl-C does."""

import signal
import subprocess
from collections.abc import Sequence


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
