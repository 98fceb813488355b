"""Calls a second of a ``ProcessPool`` against so many times one pinned process, and their memory.

    python benchmarks/scale/throughput.py config:bert-base bettertransformer,onednn

Pools of one process and of all take turns in calls of the same batch, and so do bare loops: as many
pinned processes, each of which calls the model by itself. The loops show what the machine allows.
Memory is what all processes of a pool hold together (PSS), without that of processes that have only
imported the same.
"""

import argparse
import importlib
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import psutil

import cpuaccel
from cpuaccel.cli.models.inputs import make_inputs
from cpuaccel.cli.models.load import load_model
from cpuaccel.model.signature import Inputs
from cpuaccel.processes.pinned import PinnedProcess, core_sets


def calls_a_second(pool: cpuaccel.ProcessPool, batch: Inputs, seconds: float) -> float:
    """Call for so many seconds; each process always has its next call waiting."""
    futures = [pool.submit(**batch) for _ in range(2 * len(pool.processes))]
    begun, done = time.perf_counter(), 0
    while (taken := time.perf_counter() - begun) < seconds:
        futures.pop(0).result()
        futures.append(pool.submit(**batch))
        done += 1
    for future in futures:
        future.result()
    return done / taken


def loop(connection: Connection, folder: str, batch: Inputs) -> None:
    """Load the folder, then call the model for as many seconds as are received."""
    import torch

    torch.set_num_threads(1)
    model = cpuaccel.load(folder)
    connection.send(0.0)
    while (seconds := connection.recv()) is not None:
        begun, done = time.perf_counter(), 0
        while (taken := time.perf_counter() - begun) < seconds:
            model(**batch)
            done += 1
        connection.send(done / taken)


class Loops:
    """Bare loops in pinned processes."""

    def __init__(self, count: int, folder: str, batch: Inputs) -> None:
        self._connections = []
        for cores in core_sets(count, 1):
            here, there = multiprocessing.Pipe()
            PinnedProcess(cores, target=loop, args=(there, folder, batch), daemon=True).start()
            self._connections.append(here)
        for connection in self._connections:
            connection.recv()

    def calls_a_second(self, count: int, seconds: float) -> float:
        """Let so many of them run."""
        for connection in self._connections[:count]:
            connection.send(seconds)
        return sum(connection.recv() for connection in self._connections[:count])

    def close(self) -> None:
        """End all."""
        for connection in self._connections:
            connection.send(None)


def pss(*identities: int) -> float:
    """Return the proportional set size of processes, in MiB."""
    return sum(psutil.Process(one).memory_full_info().pss for one in identities) / 2**20


def import_only(connection: Connection, modules: list[str]) -> None:
    """Import what a process of the pool imports, and wait."""
    for module in modules:
        importlib.import_module(module)
    connection.send(None)
    connection.recv()


def pss_of_imports(modules: list[str]) -> float:
    """Return the PSS of a process that only imports."""
    here, there = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=import_only, args=(there, modules))
    process.start()
    here.recv()
    assert process.pid is not None
    size = pss(process.pid)
    here.send(None)
    process.join()
    return size


def pss_of_pool(pool: cpuaccel.ProcessPool, batch: Inputs) -> float:
    """Return the PSS of a pool's processes after calls of each."""
    calls_a_second(pool, batch, 1.0)
    return pss(*(process.pid for process in pool.processes if process.pid is not None))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("backends", help="names with commas")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--seq-len", type=int, default=128)
    parser.add_argument("--padding", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=3.0)
    arguments = parser.parse_args()

    model = load_model(arguments.model)
    batch = make_inputs(model, arguments.rows, arguments.seq_len, arguments.padding)
    fast = cpuaccel.optimize(
        model, arguments.backends.split(","), example_inputs=batch, strict=True
    )
    modules = ["cpuaccel.api", "cpuaccel.artifact.reading", type(model).__module__]
    count = cpuaccel.host().cores
    imports = pss_of_imports(modules)
    with tempfile.TemporaryDirectory() as folder:
        fast.save(folder)
        with cpuaccel.ProcessPool(folder, processes=1, threads=1) as one:
            alone = pss_of_pool(one, batch) - imports
        with cpuaccel.ProcessPool(folder, processes=count, threads=1) as many:
            together = pss_of_pool(many, batch) - count * imports
            loops = Loops(count, folder, batch)
            with cpuaccel.ProcessPool(folder, processes=1, threads=1) as one:
                rates = measure(one, many, loops, batch, arguments.rounds, arguments.seconds)
            loops.close()
    weights = sum(p.numel() * p.element_size() for p in model.parameters()) / 2**20
    for name, found in rates.items():
        print(f"{name}: {statistics.median(found):.2f} calls/s")
    for upper, lower, times in (
        ("pool of all", "pool of one", count),
        ("all loops", "one loop", count),
        ("pool of all", "all loops", 1),
    ):
        ratios = [a / (times * b) for a, b in zip(rates[upper], rates[lower])]
        low, high = min(ratios), max(ratios)
        middle = statistics.median(ratios)
        print(f"{upper}: {middle:.3f} [{low:.3f}, {high:.3f}] of {times} times {lower}")
    print(f"PSS without imports: {alone:.0f} MiB, {together:.0f} MiB; weights {weights:.0f} MiB")


def measure(
    one: cpuaccel.ProcessPool,
    many: cpuaccel.ProcessPool,
    loops: Loops,
    batch: Inputs,
    rounds: int,
    seconds: float,
) -> dict[str, list[float]]:
    """Let all take turns, every other round in the opposite order."""
    turns: dict[str, Callable[[], float]] = {
        "pool of one": lambda: calls_a_second(one, batch, seconds),
        "one loop": lambda: loops.calls_a_second(1, seconds),
        "pool of all": lambda: calls_a_second(many, batch, seconds),
        "all loops": lambda: loops.calls_a_second(len(many.processes), seconds),
    }
    rates: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(rounds):
        for name in list(turns) if number % 2 else list(turns)[::-1]:
            rates[name].append(turns[name]())
    return rates


if __name__ == "__main__":
    main()
