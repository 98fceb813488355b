"""Keeping off the terminal what exporters print and log there before they raise."""

import io
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

logger = logging.getLogger("cpuaccel")

_LOGGERS = (
    *("torch.fx.experimental.symbolic_shapes", "torch.onnx", "onnxscript", "onnx_ir"),
    "transformers.exporters",
)
"""Loggers that warn about what an error says too, or about operators that are not used."""


class _Filter(io.TextIOBase):
    """A stream that keeps what quiet threads write, and passes on everything else."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.kept: dict[int, list[str]] = {}

    def write(self, text: str) -> int:
        kept = self.kept.get(threading.get_ident())
        if kept is None:
            return self.stream.write(text)
        kept.append(text)
        return len(text)

    def flush(self) -> None:
        self.stream.flush()

    def __getattr__(self, name: str) -> object:
        return getattr(self.stream, name)


_lock = threading.Lock()


@contextmanager
def quiet_export() -> Iterator[None]:
    """Keep off the terminal what this thread writes to standard error, and all warnings.

    ``torch.export`` prints the whole graph when it fails. What was written is logged at level
    DEBUG.
    """
    kept = _start()
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        for each, level in zip(loggers, levels):
            each.setLevel(level)
        _stop()
        if kept:
            logger.debug("written to standard error during an export:\n%s", "".join(kept))


def _start() -> list[str]:
    """Keep what this thread writes from here on; several threads share one filter."""
    with _lock:
        if not isinstance(sys.stderr, _Filter):
            sys.stderr = _Filter(sys.stderr)
        return sys.stderr.kept.setdefault(threading.get_ident(), [])


def _stop() -> None:
    with _lock:
        stream = sys.stderr
        if not isinstance(stream, _Filter):  # replaced in the meantime
            return
        stream.kept.pop(threading.get_ident(), None)
        if not stream.kept:
            sys.stderr = stream.stream
