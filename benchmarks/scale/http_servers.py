"""The server of ``examples/serving`` against that of infinity-emb, on the same weights.

    python benchmarks/scale/http_servers.py SQUAD.json --infinity ~/venv-infinity/bin/python

Both get the same requests of as many clients, in turns; the one whose turn it is not is stopped,
since some wait busily. Requests are of one text each. Prints medians of the rounds, and the medians
of paired ratios with the lowest and the highest.
"""

import argparse
import asyncio
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
from http_load import Load, run
from texts import mixed_texts

from cpuaccel.cli.models.source import demo_folder

SERVING = Path(__file__).parents[2] / "examples" / "serving"
START_SECONDS = 180.0


class Server:
    """A server in a process of its own, which is stopped between its turns."""

    def __init__(self, command: list[str], port: int, threads: int, **environment: str) -> None:
        self.url = f"http://127.0.0.1:{port}"
        variables = {**os.environ, "OMP_NUM_THREADS": str(threads), **environment}
        self._process = subprocess.Popen(  # noqa: S603
            command,
            env=variables,
            cwd=SERVING,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._wait()
        self._send(signal.SIGSTOP)

    def _wait(self) -> None:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self._process.poll() is None:
            try:
                httpx.get(f"{self.url}/health").raise_for_status()
            except httpx.HTTPError:
                time.sleep(0.5)
            else:
                return
        raise SystemExit(f"{self._process.args!r} did not start")

    def _send(self, number: signal.Signals) -> None:
        os.killpg(self._process.pid, number)

    def load(self, texts: list[str], clients: int, requests: int) -> tuple[float, float, float]:
        """Let all clients send; return requests a second, and p50 and p99 in seconds."""
        self._send(signal.SIGCONT)
        load = Load(texts, None)
        taken = asyncio.run(run(self.url, load, clients, requests, faults=False))
        self._send(signal.SIGSTOP)
        if set(load.outcomes) != {"good: right"}:
            raise SystemExit(f"not all requests were answered: {dict(load.outcomes)}")
        p50, p99 = np.percentile(load.seconds, [50, 99])
        return requests / taken, float(p50), float(p99)

    def close(self) -> None:
        """End the server and its workers."""
        self._send(signal.SIGKILL)
        self._process.wait()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("squad", type=Path)
    parser.add_argument("--infinity", required=True, help="Python of an environment with it")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--requests", type=int, default=1500)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    folder, threads = str(demo_folder()), arguments.threads
    texts = mixed_texts(arguments.squad, 500)
    mine = [sys.executable, "-m", "uvicorn", "service:app", "--port", "8801"]
    theirs = [str(Path(arguments.infinity).with_name("infinity_emb")), "v2", "--model-id", folder]
    theirs += ["--engine", "torch", "--device", "cpu", "--dtype", "float32", "--port", "8802"]
    theirs += ["--no-bettertransformer", "--no-compile", "--url-prefix", "/v1"]
    servers = {"cpuaccel": Server(mine, 8801, threads, EMBEDDINGS=folder)}
    try:
        servers["infinity"] = Server(theirs, 8802, threads, PYTHONPATH="")
        for server in servers.values():
            server.load(texts, arguments.clients, 200)  # warm-up
        found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in servers}
        for number in range(arguments.rounds):
            for name in list(servers) if number % 2 else list(servers)[::-1]:
                found[name].append(servers[name].load(texts, arguments.clients, arguments.requests))
    finally:
        for server in servers.values():
            server.close()
    for name, rounds in found.items():
        rate, p50, p99 = (statistics.median(values) for values in zip(*rounds))
        print(f"{name:9} {rate:5.0f} rows/s, p50 {p50 * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms")
    for what, place in (("rows/s", 0), ("p99", 2)):
        ratios = [a[place] / b[place] for a, b in zip(found["cpuaccel"], found["infinity"])]
        low, high = min(ratios), max(ratios)
        print(f"{what}: {statistics.median(ratios):.2f} [{low:.2f}, {high:.2f}] of infinity's")


if __name__ == "__main__":
    main()
