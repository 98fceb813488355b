"""The example's service under real uvicorn: faults of clients and of workers."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("transformers", minversion="5")

from sentence_transformers import SentenceTransformer  # noqa: E402

from cpuaccel.integrations.tasks import load_embedder  # noqa: E402
from tests.integrations.http.servers import serving  # noqa: E402
from tests.integrations.parts import TEXTS  # noqa: E402

MALFORMED = [b"{", b'{"input": []}', b'{"input": "a", "dimensions": 3}']


def environment(embeddings: Path) -> dict[str, str]:
    return {"EMBEDDINGS": str(embeddings), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def server(folders: dict[str, Path]) -> Iterator[str]:
    """The address of a server with one worker."""
    with serving(environment(folders["embeddings"])) as (url, _):
        yield url


@pytest.fixture(scope="module")
def saved(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedder as a saved build, which workers load without exporting the model."""
    folder = tmp_path_factory.mktemp("saved") / "embedder"
    load_embedder(folders["embeddings"], ["jit"]).save(folder)
    return folder


def test_what_a_client_left_is_not_computed(server: str) -> None:
    async def count(client: Any, name: str) -> float:
        """Read a counter of the batcher, which is absent before the first request."""
        key = f'cpuaccel_batcher_{name}_total{{batcher="embeddings"}} '
        _, found, rest = (await client.get("/metrics")).text.partition(key)
        return float(rest.split()[0]) if found else 0.0

    async def main() -> None:
        async with httpx.AsyncClient(base_url=server, timeout=60) as client:
            requests, cancelled = [await count(client, name) for name in ("requests", "cancelled")]
            body = {"input": TEXTS * 100}
            calls = [
                asyncio.create_task(client.post("/v1/embeddings", json=body)) for _ in range(9)
            ]
            while await count(client, "requests") < requests + 9:
                pass
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            while await count(client, "cancelled") <= cancelled:
                pass
            assert (await client.post("/v1/embeddings", json={"input": "a"})).status_code == 200

    asyncio.run(main())


def test_faults_of_some_requests_touch_no_others(server: str, folders: dict[str, Path]) -> None:
    expected = SentenceTransformer(str(folders["embeddings"]), device="cpu").encode(TEXTS)

    async def good(client: Any, number: int) -> None:
        answer = await client.post("/v1/embeddings", json={"input": TEXTS[number % 5]})
        assert answer.status_code in (200, 429), answer.text
        if answer.status_code == 200:
            found = answer.json()["data"][0]["embedding"]
            np.testing.assert_allclose(found, expected[number % 5], atol=1e-5)

    async def malformed(client: Any, number: int) -> None:
        headers = {"content-type": "application/json"}
        content = MALFORMED[number % len(MALFORMED)]
        answer = await client.post("/v1/embeddings", content=content, headers=headers)
        assert answer.status_code == 422

    async def oversized(client: Any, number: int) -> None:
        answer = await client.post("/v1/embeddings", content=b"x" * (5 * 2**20))
        assert answer.status_code == 413

    async def leaves(client: Any, number: int) -> None:
        call = client.post("/v1/embeddings", json={"input": TEXTS * 20})
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(call, 0.002)

    async def main() -> None:
        kinds = [good, good, good, malformed, good, oversized, good, leaves]
        room = asyncio.Semaphore(32)

        async def call(client: Any, number: int) -> None:
            async with room:
                await kinds[number % len(kinds)](client, number)

        async with httpx.AsyncClient(base_url=server, timeout=60) as client:
            await asyncio.gather(*(call(client, number) for number in range(400)))
            assert (await client.get("/health")).status_code == 200

    slow = []
    for _ in range(20):  # connected, and silent
        connection = socket.create_connection(("127.0.0.1", int(server.rpartition(":")[2])))
        connection.sendall(b"POST /v1/embeddings HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n{")
        slow.append(connection)
    asyncio.run(main())
    for connection in slow:
        connection.close()


def exchange(url: str, head: bytes, body: bytes) -> bytes:
    """Send all over a plain socket before reading, and return what comes until the end."""
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as connection:
        connection.sendall(b"POST /v1/embeddings HTTP/1.1\r\nhost: a\r\n" + head + b"\r\n\r\n")
        connection.sendall(body)
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize("http", ["httptools", "h11"])
def test_oversized_bodies_get_an_answer(saved: Path, http: str) -> None:
    size = 20 * 2**20
    chunks = (b"100000\r\n" + b"x" * 2**20 + b"\r\n") * 20 + b"0\r\n\r\n"
    with serving(environment(saved), "--http", http) as (url, _):
        for head, body in (
            (b"content-length: %d" % size, b"x" * size),
            (b"transfer-encoding: chunked", chunks),
        ):
            assert exchange(url, head, body).startswith(b"HTTP/1.1 413")
        assert first_data(url, b"content-length: %d" % size).startswith(b"HTTP/1.1 413")
        for _ in range(20):
            answer = httpx.post(f"{url}/v1/embeddings", content=b"x" * size)
            assert answer.status_code == 413
            assert "bytes" in answer.json()["error"]["message"]
        assert httpx.post(f"{url}/v1/embeddings", json={"input": "a"}).status_code == 200


def first_data(url: str, head: bytes) -> bytes:
    """Send only the head, and return what comes first."""
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as connection:
        connection.sendall(b"POST /v1/embeddings HTTP/1.1\r\nhost: a\r\n" + head + b"\r\n\r\n")
        return connection.recv(65536)


def test_a_stop_answers_what_is_under_way(saved: Path) -> None:
    with serving(environment(saved), "--log-config", "logs.json") as (url, process):

        async def main() -> list[int]:
            async with httpx.AsyncClient(base_url=url, timeout=60) as client:
                body = {"input": TEXTS * 40}
                calls = [
                    asyncio.create_task(client.post("/v1/embeddings", json=body)) for _ in range(8)
                ]
                accepted = 'cpuaccel_batcher_requests_total{batcher="embeddings"} 8.0'
                while accepted not in (await client.get("/metrics")).text:
                    pass
                process.send_signal(signal.SIGTERM)
                return [(await call).status_code for call in calls]

        assert asyncio.run(main()) == [200] * 8
        _, errors = process.communicate()
    assert process.returncode in (0, -signal.SIGTERM)
    lines = [json.loads(line) for line in errors.splitlines() if line.startswith("{")]
    served = [line for line in lines if line.get("path") == "/v1/embeddings"]
    assert len(served) == 8
    assert {line["status"] for line in served} == {200}


def test_a_killed_worker_is_replaced_and_no_answer_is_wrong(
    folders: dict[str, Path], saved: Path
) -> None:
    expected = SentenceTransformer(str(folders["embeddings"]), device="cpu").encode(TEXTS)
    with serving(environment(saved), "--workers", "2") as (url, process):
        workers = [
            child
            for child in psutil.Process(process.pid).children()
            if "spawn_main" in " ".join(child.cmdline())
        ]
        assert len(workers) == 2
        outcomes = {"answered": 0, "connection lost": 0}

        def call(number: int) -> bool:
            try:
                answer = client.post("/v1/embeddings", json={"input": TEXTS[number % 5]})
            except httpx.TransportError:
                outcomes["connection lost"] += 1
                return False
            assert answer.status_code == 200
            found = answer.json()["data"][0]["embedding"]
            np.testing.assert_allclose(found, expected[number % 5], atol=1e-5)
            outcomes["answered"] += 1
            return True

        # A connection for each call, so that both workers get some.
        new = httpx.Limits(max_keepalive_connections=0)
        with httpx.Client(base_url=url, timeout=60, limits=new) as client:
            assert all(call(number) for number in range(10))
            os.kill(workers[0].pid, signal.SIGKILL)
            for number in range(40):
                call(number)
        assert outcomes["answered"] >= 40
        while len(psutil.Process(process.pid).children()) < 3:  # with the resource tracker
            time.sleep(0.05)
