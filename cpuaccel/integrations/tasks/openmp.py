"""The threads that OpenMP keeps for each thread that has called an operator."""

import ctypes
import os
from pathlib import Path

MAPS = Path("/proc/self/maps")
SOFT = 1
"""``omp_pause_soft``: what is ended starts again when it is needed."""


def end_openmp_threads() -> None:
    """End those of this thread, where another one is going to compute.

    With more threads than cores libgomp puts threads to sleep between operators instead of letting
    them wait actively: MiniLM embedded 10% fewer texts.
    """
    lines = MAPS.read_text().splitlines() if MAPS.exists() else []
    paths = {line.split(maxsplit=5)[5] for line in lines if "/libgomp" in line}
    # Packages bring their own, which an update may have deleted.
    for path in filter(os.path.exists, paths):
        library = ctypes.CDLL(path)
        if hasattr(library, "omp_pause_resource_all"):  # since GCC 9
            library.omp_pause_resource_all(SOFT)
