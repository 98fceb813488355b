"""How many cores this process may really use."""

import math
import os
from pathlib import Path

import psutil


def usable_cores(filesystem: Path = Path("/")) -> int:
    """Count the cores this process may use, at least 1.

    The smaller of its CPU affinity and its control group's CPU quota, rounded up: a container
    limited to 2 CPUs on a 64-core machine answers 2.

    Args:
        filesystem: root below which ``sys/fs/cgroup`` is looked for.
    """
    process = psutil.Process()
    if hasattr(process, "cpu_affinity"):  # absent on macOS
        allowed = len(process.cpu_affinity() or ())
    else:
        allowed = os.cpu_count() or 1
    quota = _cgroup_quota(filesystem / "sys/fs/cgroup")
    return max(1, allowed if quota is None else min(allowed, math.ceil(quota)))


def _cgroup_quota(cgroup: Path) -> float | None:
    """CPUs that the control group may use, None where it is not limited."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()  # version 2
    except (OSError, ValueError):
        try:
            quota = (cgroup / "cpu/cpu.cfs_quota_us").read_text().strip()  # version 1
            period = (cgroup / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if quota in {"max", "-1"}:
        return None
    try:
        return float(quota) / float(period)
    except (ValueError, ZeroDivisionError):
        return None
