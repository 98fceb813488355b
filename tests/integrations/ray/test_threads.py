"""Threads of real Ray workers: as many as CPUs were assigned."""

import pytest

ray = pytest.importorskip("ray")

from ray.cluster_utils import Cluster  # noqa: E402

pytestmark = pytest.mark.filterwarnings("default")


def threads() -> tuple[int, int, str]:
    import os

    import torch

    from cpuaccel.integrations.ray.assigned import use_assigned_cpus

    return use_assigned_cpus(), torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]


def test_threads_are_the_assigned_cpus(cluster: Cluster) -> None:
    for assigned, expected in ((0.5, 1), (1, 1), (2, 2)):
        found = ray.get(ray.remote(threads).options(num_cpus=assigned).remote())
        assert found == (expected, expected, str(expected))
