"""Processes that run on cores of their own."""

import contextlib
import os
from collections.abc import Iterator
from multiprocessing.context import SpawnProcess
from typing import Any

from cpuaccel.errors import CpuaccelError
from cpuaccel.plugin.host import host


class PinnedProcess(SpawnProcess):
    """A process that is pinned before it begins, so that engines count only its cores."""

    def __init__(self, cores: tuple[int, ...], **arguments: Any) -> None:
        """Take the numbers of its cores, and the arguments of ``multiprocessing.Process``."""
        super().__init__(**arguments)
        self.cores = cores

    def start(self) -> None:
        """Start it. It inherits the affinity of this thread, which is restored."""
        with on_cores(self.cores):
            super().start()


@contextlib.contextmanager
def on_cores(cores: tuple[int, ...]) -> Iterator[None]:
    """Let this thread run on these cores only, until the block ends."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def core_sets(processes: int, threads: int) -> list[tuple[int, ...]]:
    """Assign so many cores to each process, no core twice.

    Raises:
        CpuaccelError: a number is below 1, or there are not as many cores.
    """
    for name, value in (("processes", processes), ("threads", threads)):
        if value < 1:
            raise CpuaccelError(f"{name} must be >= 1, got {value}")
    # A quota of the control group may allow less time than there are cores in the affinity.
    usable = host().cores
    if processes * threads > usable:
        raise CpuaccelError(
            f"{processes} processes with {threads} threads need {processes * threads} cores, but "
            f"this process may use {usable}. Pass fewer processes= or threads="
        )
    allowed = sorted(os.sched_getaffinity(0))
    return [tuple(allowed[n * threads : (n + 1) * threads]) for n in range(processes)]
