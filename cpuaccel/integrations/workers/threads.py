"""The threads of a worker: as many as the cluster assigned CPUs to it."""

import os

_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
"""What torch, its libraries and tokenizers read when they are imported or first used."""


def use_cpus(assigned: float) -> int:
    """Let engines use so many CPUs, and return how many threads these are.

    Call it before engines are imported: some read the number only then. A fraction of a CPU is one
    thread.
    """
    threads = max(1, int(assigned))
    os.environ.update(dict.fromkeys(_VARIABLES, str(threads)))
    import torch

    torch.set_num_threads(threads)
    return threads
