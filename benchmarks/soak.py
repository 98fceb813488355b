"""Whether an optimized model stays right, and memory flat, over thousands of calls.

For each backend that this host can have: calls whose batch and length change every time, then
threads that call at once for a while, and every answer held against the original's. Prints what
the process's resident memory grew by, after a tenth of the calls, when all that is kept is there.
Exits with 1 if an answer was wrong, or answered by the original.

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
    """Tokens, of which every other row has padding."""
    mask = torch.ones(batch, length, dtype=torch.long)
    mask[1::2, length - length // 3 :] = 0
    return {"input_ids": torch.randint(3, 60, (batch, length)), "attention_mask": mask}


def resident() -> float:
    """Resident memory of this process, in MB."""
    gc.collect()
    return float(psutil.Process().memory_info().rss) / 2**20


class Soak:
    """One backend on a tiny BERT."""

    def __init__(self, backend: str) -> None:
        self.model = tiny_text_model()
        # Tiny linears are no faster in 8 bits, and would be left alone.
        options = {"measure": False} if backend in ("int8", "onednn") else {}
        step = cpuaccel.Step(backend, **options)
        self.tolerance = max(1e-4, cpuaccel.backends()[backend].tolerance)
        self.fast = cpuaccel.optimize(self.model, [step], example_inputs=inputs(2, 12), strict=True)

    def call(self, random_sizes: random.Random) -> None:
        """One call of a size of its own, checked."""
        given = inputs(random_sizes.randint(1, MAX_BATCH), random_sizes.randint(3, MAX_LENGTH))
        with torch.no_grad():
            expected = self.model(**given)
            assert_same_output(self.fast(**given), expected, given, self.tolerance)

    def shapes(self, calls: int) -> dict[str, float]:
        """Call with changing shapes; memory before and after, in MB."""
        sizes = random.Random(0)  # noqa: S311
        for _ in range(calls // 10):
            self.call(sizes)
        before = resident()
        for _ in range(calls - calls // 10):
            self.call(sizes)
        after = resident()
        return {"rss before MB": round(before, 1), "rss after MB": round(after, 1)}

    def threads(self, seconds: float) -> dict[str, float]:
        """Call from several threads at once."""
        before, end = resident(), time.monotonic() + seconds
        counted, wrong = [0] * THREADS, list[BaseException]()

        def work(number: int) -> None:
            sizes = random.Random(number)  # noqa: S311
            try:
                while time.monotonic() < end and not wrong:
                    self.call(sizes)
                    counted[number] += 1
            except BaseException as error:
                wrong.append(error)

        workers = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        if wrong:
            raise wrong[0]
        return {"calls": sum(counted), "threads growth MB": round(resident() - before, 1)}


def main() -> None:
    """Run each backend in a process of its own, or one in this."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--backends", default="")
    parser.add_argument("--here", action="store_true", help="in this process; one backend")
    asked = parser.parse_args()
    if asked.here:
        torch.set_num_threads(1)
        soak = Soak(asked.backends)
        found = {**soak.shapes(asked.calls), **soak.threads(asked.seconds)}
        report = soak.fast.report
        assert set(report.calls) == {"optimized"}, report
        print(json.dumps({**found, "optimized": report.calls.total()}))
        return
    host = cpuaccel.host()
    offered = {name: kind(kind.Options()).check(host) for name, kind in cpuaccel.backends().items()}
    names = asked.backends.split(",") if asked.backends else [n for n, v in offered.items() if v]
    failed = False
    for name in names:
        command = [sys.executable, __file__, "--here", "--backends", name]
        command += ["--calls", str(asked.calls), "--seconds", str(asked.seconds)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        failed |= done.returncode != 0
        told = done.stdout.splitlines() or done.stderr.splitlines() or ["nothing"]
        print(f"{name:<18} {told[-1]}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
