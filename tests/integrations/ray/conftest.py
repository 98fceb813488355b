"""A real Ray cluster of several nodes on this machine."""

import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.caches import with_kernels
from tests.integrations.http.conftest import folders as folders

# Pydantic warns about Ray's own models. Files of tests skip where Ray is missing.
with warnings.catch_warnings(), contextlib.suppress(ImportError):
    warnings.simplefilter("ignore")
    import ray.serve

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the cache of each node."""
    return tmp_path_factory.mktemp("caches")


@pytest.fixture(scope="session")
def cluster(caches: Path) -> Iterator[Any]:
    """A head with 1 CPU and two nodes with 2; each of these has a cache of its own."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
        # By default 15: beside other tests they would wait for most of the time.
        patched.setenv("RAY_worker_niceness", "0")
        patched.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "plugins")]))
        first, second, head = (with_kernels(caches / name) for name in ("first", "second", "head"))
        patched.setenv("CPUACCEL_CACHE", str(head))
        cluster = Cluster(initialize_head=True, head_node_args=node_arguments(1))
        for folder in (first, second):
            add_node(cluster, folder)
        ray.init(address=cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def add_node(cluster: Any, cache: Path) -> None:
    """Add a node with 2 CPUs and a cache of its own."""
    cluster.add_node(env_vars={"CPUACCEL_CACHE": str(cache)}, **node_arguments(2))


def node_arguments(cpus: int) -> dict[str, Any]:
    return {"num_cpus": cpus, "object_store_memory": 100 * 2**20, "include_dashboard": False}
