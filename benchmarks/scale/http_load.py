"""Rows a second and seconds of a request over HTTP, with many clients.

    python benchmarks/scale/http_load.py URL SQUAD.json --clients 32 --requests 3000
    python benchmarks/scale/http_load.py URL SQUAD.json --clients 32 --requests 10000 --faults

With ``--faults``, some requests are malformed, oversized, slow or abandoned, and every answer is
compared with that of sentence-transformers.
"""

import argparse
import asyncio
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from texts import mixed_texts

from cpuaccel.cli.models.source import demo_folder


class Load:
    """What the clients send, and what came back."""

    def __init__(self, texts: list[str], expected: "np.ndarray[Any, Any] | None") -> None:
        self.texts = texts
        self.expected = expected
        self.outcomes: Counter[str] = Counter()
        self.seconds: list[float] = []

    async def good(self, client: httpx.AsyncClient, number: int) -> None:
        """Embed one text."""
        index = number % len(self.texts)
        begun = time.perf_counter()
        answer = await client.post("/v1/embeddings", json={"input": self.texts[index]})
        self.seconds.append(time.perf_counter() - begun)
        if answer.status_code != 200:
            self.outcomes[f"good: {answer.status_code}"] += 1
            return
        found = np.array(answer.json()["data"][0]["embedding"], np.float32)
        right = self.expected is None or np.abs(found - self.expected[index]).max() < 1e-4
        self.outcomes["good: right" if right else "good: WRONG"] += 1

    async def malformed(self, client: httpx.AsyncClient, number: int) -> None:
        """Send what is no JSON."""
        headers = {"content-type": "application/json"}
        answer = await client.post("/v1/embeddings", content=b"{", headers=headers)
        self.outcomes[f"malformed: {answer.status_code}"] += 1

    async def oversized(self, client: httpx.AsyncClient, number: int) -> None:
        """Send more than the server accepts."""
        try:
            answer = await client.post("/v1/embeddings", content=b"x" * (5 * 2**20))
            self.outcomes[f"oversized: {answer.status_code}"] += 1
        except httpx.TransportError:
            self.outcomes["oversized: connection closed"] += 1

    async def leaving(self, client: httpx.AsyncClient, number: int) -> None:
        """Ask, and leave before the answer."""
        call = client.post("/v1/embeddings", json={"input": self.texts[:20]})
        try:
            await asyncio.wait_for(call, 0.01)
            self.outcomes["leaving: answered"] += 1
        except TimeoutError:
            self.outcomes["leaving: left"] += 1

    async def slow(self, client: httpx.AsyncClient, number: int) -> None:
        """Send a body in pieces, within the time for it."""

        async def pieces() -> Any:
            yield b'{"input": "a slow'
            await asyncio.sleep(0.5)
            yield b' text"}'

        headers = {"content-type": "application/json"}
        answer = await client.post("/v1/embeddings", content=pieces(), headers=headers)
        self.outcomes[f"slow: {answer.status_code}"] += 1


async def run(url: str, load: Load, clients: int, requests: int, faults: bool) -> float:
    """Send all requests, and return the seconds."""
    kinds = [load.good] * 20
    if faults:
        kinds[3], kinds[8], kinds[13], kinds[18] = (
            load.malformed,
            load.oversized,
            load.leaving,
            load.slow,
        )
    numbers = iter(range(requests))
    begun = time.perf_counter()

    async def one() -> None:
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            for number in numbers:
                try:
                    await kinds[number % 20](client, number)
                except httpx.TransportError:  # such as when a worker was killed
                    load.outcomes["connection lost"] += 1

    await asyncio.gather(*(one() for _ in range(clients)))
    return time.perf_counter() - begun


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("squad", type=Path)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--faults", action="store_true")
    arguments = parser.parse_args()
    texts = mixed_texts(arguments.squad, min(arguments.requests, 500))
    expected = None
    if arguments.faults:
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(str(demo_folder()), device="cpu")
        expected = model.encode(texts)
    asyncio.run(run(arguments.url, Load(texts, None), arguments.clients, 100, False))  # warm-up
    load = Load(texts, expected)
    taken = asyncio.run(
        run(arguments.url, load, arguments.clients, arguments.requests, arguments.faults)
    )
    p50, p99 = np.percentile(load.seconds, [50, 99]) * 1000
    print(f"{len(load.seconds) / taken:.0f} rows/s, p50 {p50:.0f} ms, p99 {p99:.0f} ms")
    for outcome, count in sorted(load.outcomes.items()):
        print(f"{count:7} {outcome}")


if __name__ == "__main__":
    main()
