"""A real Ray cluster of several nodes on this machine."""

import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integrations.http.conftest import folders as folders

# Pydantic warns about Ray's own models. Files of tests skip where Ray is missing.
with warnings.catch_warnings(), contextlib.suppress(ImportError):
    warnings.simplefilter("ignore")
    import ray.serve

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head with 1 CPU and two nodes with 2; each of these has a cache of its own."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    monkeypatch.setenv("CPUACCEL_CACHE", str(tmp_path / "head"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "plugins")]))
    cluster = Cluster(initialize_head=True, head_node_args=_node(1))
    for name in ("first", "second"):
        cluster.add_node(env_vars={"CPUACCEL_CACHE": str(tmp_path / name)}, **_node(2))
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def _node(cpus: int) -> dict[str, Any]:
    return {"num_cpus": cpus, "object_store_memory": 100 * 2**20, "include_dashboard": False}
