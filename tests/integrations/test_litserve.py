"""LitServe with a real server process."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

litserve = pytest.importorskip("litserve")
pytest.importorskip("transformers", minversion="5")

import httpx  # noqa: E402
from sentence_transformers import SentenceTransformer  # noqa: E402

from cpuaccel.integrations.litserve import TaskAPI  # noqa: E402
from cpuaccel.integrations.tasks import load_embedder  # noqa: E402
from tests.integrations.http.conftest import folders as folders  # noqa: E402
from tests.integrations.http.servers import free_port, wait_for  # noqa: E402
from tests.integrations.parts import TEXTS  # noqa: E402

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture
def server(folders: dict[str, Path]) -> Iterator[str]:
    import multiprocessing

    port = free_port()
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=run, args=(str(folders["embeddings"]), port))
    process.start()
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(f"{url}/health")
        yield url
    finally:
        assert process.pid is not None
        os.killpg(process.pid, signal.SIGTERM)
        process.join()


def run(folder: str, port: int) -> None:
    os.setpgrp()  # LitServe's own processes outlive it
    api = TaskAPI(load_embedder, folder, ["jit"], tokens=32, max_batch_size=8, batch_timeout=0.01)
    litserve.LitServer(api, accelerator="cpu").run(
        host="127.0.0.1", port=port, generate_client_file=False, log_level="warning"
    )


def test_a_bad_request_fails_alone(server: str) -> None:
    bodies = [{"input": TEXTS[0]}, {}, {"input": 7}, {"input": TEXTS[1]}] * 4

    def call(body: dict[str, object]) -> int:
        answer = client.post("/predict", json=body)
        assert ("output" in answer.json()) == (answer.status_code == 200)
        return answer.status_code

    with httpx.Client(base_url=server, timeout=60) as client, ThreadPoolExecutor(16) as pool:
        assert list(pool.map(call, bodies)) == [200, 422, 422, 200] * 4


def test_embeddings_of_many_clients(server: str, folders: dict[str, Path]) -> None:
    expected = SentenceTransformer(str(folders["embeddings"]), device="cpu").encode(TEXTS)

    def call(number: int) -> list[float]:
        answer = client.post("/predict", json={"input": TEXTS[number % 5]})
        assert answer.status_code == 200, answer.text
        output: list[float] = answer.json()["output"]
        return output

    with httpx.Client(base_url=server, timeout=60) as client, ThreadPoolExecutor(16) as pool:
        found = list(pool.map(call, range(60)))
    for number, output in enumerate(found):
        np.testing.assert_allclose(output, expected[number % 5], atol=1e-5)
