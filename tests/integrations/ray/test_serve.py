"""Ray Serve on a real cluster: the HTTP application in replicas."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

httpx = pytest.importorskip("httpx")
ray = pytest.importorskip("ray")

from ray import serve  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402
from sentence_transformers import SentenceTransformer  # noqa: E402

from cpuaccel.errors import CpuaccelError  # noqa: E402
from cpuaccel.integrations import ray as accelerated  # noqa: E402
from cpuaccel.integrations.ray.serve import Replica, application  # noqa: E402
from tests.integrations.http.servers import free_port  # noqa: E402
from tests.integrations.parts import TEXTS  # noqa: E402

pytestmark = pytest.mark.filterwarnings("default")

MESSAGES = [{"role": "user", "content": "w3 w14 w15"}]


@pytest.fixture
def address(cluster: Cluster) -> Iterator[str]:
    port = free_port()
    serve.start(http_options={"port": port})
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()


def test_routes_and_streams_in_replicas(
    address: str, cluster: Cluster, folders: dict[str, Path]
) -> None:
    model = accelerated.share(folders["embeddings"], pipeline=["onednn"])
    chat = accelerated.share(folders["chat"], "generate", pipeline=["onednn"])
    options: dict[str, Any] = {"num_replicas": 2, "ray_actor_options": {"num_cpus": 1}}
    serve.run(application(embeddings=model, chat=chat, name="mine", **options))
    expected = SentenceTransformer(str(folders["embeddings"]), device="cpu").encode(TEXTS)
    for _ in range(6):
        answer = httpx.post(f"{address}/v1/embeddings", json={"input": TEXTS}, timeout=60)
        assert answer.status_code == 200, answer.text
        found = [item["embedding"] for item in answer.json()["data"]]
        np.testing.assert_allclose(found, expected, atol=1e-5)
    body = {"messages": MESSAGES, "stream": True, "max_tokens": 8}
    with httpx.stream("POST", f"{address}/v1/chat/completions", json=body, timeout=60) as stream:
        lines = [line for line in stream.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    pieces = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks]
    whole = httpx.post(
        f"{address}/v1/chat/completions", json={"messages": MESSAGES, "max_tokens": 8}, timeout=60
    )
    assert "".join(pieces) == whole.json()["choices"][0]["message"]["content"] != ""
    assert httpx.get(f"{address}/health", timeout=60).json() == {"status": "ok"}


def test_a_replica_with_a_switched_off_variant_is_unhealthy(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cpuaccel.integrations.ray.serve.use_assigned_cpus", lambda: 1)
    replica = Replica({"embeddings": folders["embeddings"]}, ["jit"], {})
    replica.check_health()
    replica.tasks["embeddings"].model.variants[0].off = "too many faults"
    with pytest.raises(CpuaccelError, match="too many faults"):
        replica.check_health()
