"""The threads of a Ray worker: as many as it has CPUs."""

import os
from typing import Any

import ray

_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
"""What torch, its libraries and tokenizers read when they are imported or first used."""


def use_assigned_cpus() -> int:
    """Let engines use the CPUs that Ray assigned to this worker, and return how many.

    Call it before engines are imported: some read the number only then. A fraction of a CPU is one
    thread.
    """
    worker: Any = ray.get_runtime_context()
    assigned = worker.get_assigned_resources().get("CPU", 1)
    threads = max(1, int(assigned))
    os.environ.update(dict.fromkeys(_VARIABLES, str(threads)))
    import torch

    torch.set_num_threads(threads)
    return threads
