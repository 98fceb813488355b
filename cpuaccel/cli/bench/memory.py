"""Peak memory of a build."""

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_PEAK = "VmHWM:"
_RESET = "5"
"""Resets the peak when written to ``clear_refs``; see proc(5)."""


@dataclass
class Peak:
    """The peak memory of a block minus that before it; None on systems other than Linux."""

    bytes: int | None = None


@contextmanager
def peak_memory(process: Path = Path("/proc/self")) -> Iterator[Peak]:
    """Measure the peak memory of this process in a block; it is set at the end of the block."""
    peak = Peak()
    gc.collect()
    try:
        # Otherwise the block could reuse freed memory without raising the peak.
        ctypes.CDLL(None).malloc_trim(0)
        (process / "clear_refs").write_text(_RESET)
        before = _peak(process)
    except (OSError, AttributeError, TypeError):  # not Linux, not glibc, or not allowed
        yield peak
        return
    yield peak
    peak.bytes = _peak(process) - before


def _peak(process: Path) -> int:
    lines = (process / "status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(_PEAK))
    return int(line.split()[1]) * 1024
