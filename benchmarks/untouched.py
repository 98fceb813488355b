"""Compare eager in a process in which all engines have run with eager in a new process.

    python benchmarks/untouched.py minilm-l6 [--shape 1x128] [--rounds 60]

Two processes with the same model are called in turn while the other is idle. In one of them every
engine available on this host was built and called before, and is kept. Prints the ratio of the
times in that process and in the other, over pairs, with quartiles.
"""

import argparse
import multiprocessing
import statistics
import time
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection

import torch

import cpuaccel
from cpuaccel.cli.models.inputs import make_inputs
from cpuaccel.cli.models.load import load_model
from cpuaccel.timing import REST, Ratio, time_call

CALLS = 5
"""Calls in a turn; the median counts."""


def work(pipe: "Connection[object, object]", name: str, shape: str, engines: bool) -> None:
    """Prepare, then time eager on each request.

    Args:
        pipe: sends the list of engines once, then receives True for a turn and False to end.
        name: a model name as in ``cpuaccel bench config:NAME``.
        shape: rows and length, such as ``1x128``.
        engines: whether to run all engines first.
    """
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    model = load_model(f"config:{name}", None)
    rows, length = map(int, shape.split("x"))
    inputs = make_inputs(model, rows, length, 0.0)
    kept = []
    for backend, kind in cpuaccel.backends().items() if engines else ():
        if kind(kind.Options()).check(cpuaccel.host()):
            fast = cpuaccel.optimize(model, [backend], example_inputs=inputs)
            fast(**inputs)
            kept.append(f"{backend} {fast.report.outcomes[-1].status}")
    pipe.send(", ".join(kept) or "no engine")
    with torch.no_grad():
        while pipe.recv():
            pipe.send(statistics.median(_seconds(lambda: model(**inputs)) for _ in range(CALLS)))


def _seconds(call: Callable[[], object]) -> float:
    time.sleep(REST)
    return time_call(call)


def main() -> None:
    """Start both processes, and time them in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--shape", default="1x128")
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    pipes = []
    for engines in (True, False):
        pipe, theirs = spawn.Pipe()
        arguments = (theirs, options.model, options.shape, engines)
        spawn.Process(target=work, args=arguments, daemon=True).start()
        pipes.append(pipe)
    print("after:", pipes[0].recv(), flush=True)
    print("without:", pipes[1].recv(), flush=True)
    times: list[list[float]] = [[], []]
    for _ in range(options.rounds):
        for pipe, seconds in zip(pipes, times):
            pipe.send(True)
            seconds.append(pipe.recv())
    for pipe in pipes:
        pipe.send(False)
    after, fresh = (1000 * statistics.median(seconds) for seconds in times)
    ratio = Ratio.from_times(*times)
    print(f"eager after engines {after:.2f} ms, without {fresh:.2f} ms: ratio {ratio}")


if __name__ == "__main__":
    main()
