"""Throughput of several processes side by side, each pinned to its cores by torch's launcher."""

import os
import statistics
import sys
import time
from contextlib import closing
from typing import IO

from cpuaccel.tuning.decisions.result import CandidateStatus, Instances
from cpuaccel.tuning.workers.messages import Job, Refused
from cpuaccel.tuning.workers.parent import WorkerFailure, Workers
from cpuaccel.tuning.workload import Workload

LAUNCHER = "torch.backends.xeon.run_cpu"
"""Torch's launcher, which pins processes to their cores."""

SECONDS = 3.0
"""For which all instances are called at the same time."""


def splits(cores: int) -> list[int]:
    """Return the numbers of processes that share the cores evenly: 1, 2, 4 and so on."""
    return [2**n for n in range(cores.bit_length()) if 2**n <= cores]


def measure_instances(
    subject: IO[bytes],
    workload: Workload,
    job: Job,
    count: int,
    *,
    memory_limit: int,
    deadline: float,
) -> Instances:
    """Build the job's candidate in several processes and call all of them at the same time."""
    allowed = sorted(os.sched_getaffinity(0))[: count * job.threads]
    launcher = [
        *(sys.executable, "-P", "-m", LAUNCHER),
        *("--ninstances", str(count), "--ncores-per-instance", str(job.threads)),
        *("--core-list", ",".join(map(str, allowed))),
        # The winner was measured with torch's own OpenMP and allocator.
        *("--disable-iomp", "--use-default-allocator"),
        "--no-python",  # the launcher's own -m takes only a file
    ]
    workers = Workers([job] * count, subject, memory_limit * count, launcher)
    with closing(workers) as instances:
        for built in instances.built(deadline - time.monotonic()):
            if isinstance(built, Refused):
                raise WorkerFailure(CandidateStatus.REFUSED, built.reason)
        replies = instances.run(SECONDS, deadline - time.monotonic())
    rows_per_second = 0.0
    for passes in replies:
        seconds = [statistics.fmean(times) for times in zip(*passes)]
        mean_seconds = sum(w * s for w, s in zip(workload.weights, seconds))
        rows_per_second += workload.mean_rows / mean_seconds
    return Instances(count, job.threads, rows_per_second)
