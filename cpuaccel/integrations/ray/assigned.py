"""The CPUs that Ray assigned to a worker."""

from typing import Any

import ray

from cpuaccel.integrations.workers.threads import use_cpus


def use_assigned_cpus() -> int:
    """Let engines use the CPUs that Ray assigned to this worker, and return how many."""
    worker: Any = ray.get_runtime_context()
    return use_cpus(worker.get_assigned_resources().get("CPU", 1))
