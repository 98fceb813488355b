"""A real Ray cluster of several nodes on this machine."""

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ray = pytest.importorskip("ray")
pytest.importorskip("transformers", minversion="5")

with warnings.catch_warnings():  # Pydantic's, about Ray's own models
    warnings.simplefilter("ignore")
    import ray.serve

from ray.cluster_utils import Cluster  # noqa: E402

from tests.integrations.http.conftest import folders as folders  # noqa: E402

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A head with 1 CPU and two nodes with 2; each of these has a cache of its own."""
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
