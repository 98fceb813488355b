"""Verify outputs and memory use over thousands of calls.

For each backend that this host supports: calls with changing batch sizes and lengths, then calls
from several threads at the same time. Every output is compared with the original's. Prints the
growth of resident memory after the first tenth of the calls, in which caches are filled. Exits with
1 if an output differs, or the original served a call.

    python benchmarks/soak.py --calls 10000 --seconds 180 [--backends jit,onednn]
"""

import argparse
import gc
import json
import random
import subprocess
import sys
import threading
import time

import psutil
import torch

import cpuaccel
from cpuaccel.testing.models import tiny_text_model
from cpuaccel.testing.outputs import assert_same_output

THREADS = 4
MAX_BATCH, MAX_LENGTH = 6, 48


def inputs(batch: int, length: int) -> dict[str, torch.Tensor]:
    """Return tokens with padding in every other row."""
    mask = torch.ones(batch, length, dtype=torch.long)
    mask[1::2, length - length // 3 :] = 0
    return {"input_ids": torch.randint(3, 60, (batch, length)), "attention_mask": mask}


def resident() -> float:
    """Return the resident memory of this process in MB."""
    gc.collect()
    return float(psutil.Process().memory_info().rss) / 2**20


class Soak:
    """One backend with a tiny BERT."""

    def __init__(self, backend: str) -> None:
        self.model = tiny_text_model()
        # Tiny linear layers are not faster in 8 bits, and would be skipped.
        options = {"measure": False} if backend in ("int8", "onednn") else {}
        step = cpuaccel.Step(backend, **options)
        self.tolerance = max(1e-4, cpuaccel.backends()[backend].tolerance)
        self.fast = cpuaccel.optimize(self.model, [step], example_inputs=inputs(2, 12), strict=True)

    def call(self, random_sizes: random.Random) -> None:
        """Call with a random size, and compare the output."""
        batch = inputs(random_sizes.randint(1, MAX_BATCH), random_sizes.randint(3, MAX_LENGTH))
        with torch.no_grad():
            expected = self.model(**batch)
            assert_same_output(self.fast(**batch), expected, batch, self.tolerance)

    def shapes(self, calls: int) -> dict[str, float]:
        """Call with changing shapes; return the memory before and after, in MB."""
        sizes = random.Random(0)  # noqa: S311
        for _ in range(calls // 10):
            self.call(sizes)
        before = resident()
        for _ in range(calls - calls // 10):
            self.call(sizes)
        after = resident()
        return {"rss before MB": round(before, 1), "rss after MB": round(after, 1)}

    def threads(self, seconds: float) -> dict[str, float]:
        """Call from several threads at the same time."""
        before, end = resident(), time.monotonic() + seconds
        counts, errors = [0] * THREADS, list[BaseException]()

        def work(number: int) -> None:
            sizes = random.Random(number)  # noqa: S311
            try:
                while time.monotonic() < end and not errors:
                    self.call(sizes)
                    counts[number] += 1
            except BaseException as error:
                errors.append(error)

        workers = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        if errors:
            raise errors[0]
        return {"calls": sum(counts), "threads growth MB": round(resident() - before, 1)}


def main() -> None:
    """Run each backend in a process of its own, or one in this process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--backends", default="")
    parser.add_argument("--here", action="store_true", help="in this process; one backend")
    arguments = parser.parse_args()
    if arguments.here:
        torch.set_num_threads(1)
        soak = Soak(arguments.backends)
        figures = {**soak.shapes(arguments.calls), **soak.threads(arguments.seconds)}
        report = soak.fast.report
        assert set(report.calls) == {"optimized"}, report
        print(json.dumps({**figures, "optimized": report.calls.total()}))
        return
    host = cpuaccel.host()
    offered = {name: kind(kind.Options()).check(host) for name, kind in cpuaccel.backends().items()}
    names = (
        arguments.backends.split(",")
        if arguments.backends
        else [n for n, v in offered.items() if v]
    )
    failed = False
    for name in names:
        command = [sys.executable, __file__, "--here", "--backends", name]
        command += ["--calls", str(arguments.calls), "--seconds", str(arguments.seconds)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        failed |= done.returncode != 0
        lines = done.stdout.splitlines() or done.stderr.splitlines() or ["no output"]
        print(f"{name:<18} {lines[-1]}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
