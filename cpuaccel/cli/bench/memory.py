"""How much memory building takes."""

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_PEAK = "VmHWM:"
_RESET = "5"
"""What sets the peak back, written to ``clear_refs``; see proc(5)."""


@dataclass
class Peak:
    """What was found.

    Attributes:
        bytes: resident memory at its highest, above what the process held before; ``None`` where
            the system does not tell. Linux does.
    """

    bytes: int | None = None


@contextmanager
def peak_memory(process: Path = Path("/proc/self")) -> Iterator[Peak]:
    """Watch this process's memory while a block runs.

    Args:
        process: where the kernel tells of it.

    Yields:
        The peak, known when the block is left.
    """
    found = Peak()
    gc.collect()
    try:
        # What was freed before would otherwise be taken again without being seen.
        ctypes.CDLL(None).malloc_trim(0)
        (process / "clear_refs").write_text(_RESET)
        before = _peak(process)
    except (OSError, AttributeError, TypeError):  # not Linux, not glibc, or not allowed
        yield found
        return
    yield found
    found.bytes = _peak(process) - before


def _peak(process: Path) -> int:
    lines = (process / "status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(_PEAK))
    return int(line.split()[1]) * 1024
