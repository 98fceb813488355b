"""Compare the winner of a search with the fastest single engine and eager, in the same search.

    python benchmarks/tune.py config:bert-base --task question-answering --shape 8x384
        [--padding 0.5] [--precisions float32,bfloat16] [--budget 200] [--searches 1] [--again 30]

Searches without the cache, and prints JSON for each search. With ``--again`` the winner and the
best single engines are built in new processes and timed in turn for so many seconds, to verify the
choice.
"""

import argparse
import json
import logging
import statistics
import tempfile
import time
from contextlib import ExitStack, closing

import torch

import cpuaccel
from cpuaccel.cli.models.inputs import make_inputs, modality
from cpuaccel.cli.models.load import load_model
from cpuaccel.timing import Speedup
from cpuaccel.tuning.decisions.result import Row, Tuning
from cpuaccel.tuning.workers.messages import Job, Refused
from cpuaccel.tuning.workers.parent import Workers
from cpuaccel.tuning.workers.pickling import dump_model
from cpuaccel.tuning.workers.proof import Original
from cpuaccel.tuning.workers.timing import ratios
from cpuaccel.tuning.workload import Workload

COMPARED = 3
"""Number of single engines that are timed again with the winner."""


def main() -> None:
    """Search and compare."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--task")
    parser.add_argument("--shape", default="1x128")
    parser.add_argument("--padding", type=float, default=0.0)
    parser.add_argument("--precisions", default="float32")
    parser.add_argument("--budget", type=float, default=200.0)
    parser.add_argument("--searches", type=int, default=1)
    parser.add_argument("--again", type=float, default=0.0, metavar="SECONDS")
    arguments = parser.parse_args()
    logging.getLogger("cpuaccel").setLevel(logging.ERROR)

    model = load_model(arguments.model, arguments.task).float()
    rows, length = map(int, arguments.shape.split("x"))
    padding = 0.0 if modality(model) == "pixel_values" else arguments.padding
    batch = make_inputs(model, rows, length, padding)
    for left in reversed(range(arguments.searches)):
        begun = time.perf_counter()
        fast = cpuaccel.optimize(
            model,
            "auto",
            example_inputs=batch,
            precisions=arguments.precisions.split(","),
            budget=arguments.budget,
            cache=False,
        )
        tuning = fast.report.tuning
        assert tuning is not None
        result = {
            "model": arguments.model,
            "shape": arguments.shape,
            "padding": padding,
            "winner": str(tuning.winner),
            "why": tuning.why,
            "single": _against_singles(tuning),
            "rebuilt": tuning.rebuilt,
            "search_seconds": round(tuning.seconds, 1),
            "seconds": round(time.perf_counter() - begun, 1),
            "rows": [_line(row) for row in tuning.rows],
            "not_tried": [f"{one.name}: {one.reason[:80]}" for one in tuning.not_tried],
        }
        print(json.dumps(result, indent=1), flush=True)
        if arguments.again and not left:
            _again(model, batch, tuning, arguments.again)


def _line(row: Row) -> str:
    if row.speedup is None:
        return f"{row.candidate}: {row.status}, {row.reason[:120]}"
    median = sorted(row.seconds)[len(row.rounds) // 2]
    return (
        f"{row.candidate}: {row.speedup} of eager, {1000 * median:.2f} ms"
        f"{f', run-off {row.runoff}' if row.runoff else ''}, built in {row.build_seconds:.1f} s, "
        f"tried in {row.tried_seconds:.1f} s"
    )


def _singles(tuning: Tuning) -> list[Row]:
    """Return the measured single engines, the fastest first, by the run-off if they took part."""
    singles = [row for row in tuning.rows if row.speedup and len(row.candidate.steps) <= 1]

    def order(row: Row) -> tuple[bool, float]:
        speedup = row.runoff or row.speedup
        assert speedup is not None
        return row.runoff is None, -speedup.median

    return sorted(singles, key=order)


def _against_singles(tuning: Tuning) -> str:
    winner, singles = tuning.row(tuning.winner), _singles(tuning)
    if winner is None or winner.speedup is None or not singles:
        return "nothing to compare"
    single = singles[0]
    if single.candidate == winner.candidate:
        return "the winner is the fastest single engine"
    assert single.speedup is not None
    if single.runoff is None:
        times = winner.speedup.median / single.speedup.median
        return f"{times:.3f} times as fast as {single.candidate}, by speedups over eager"
    low, high = 1 / single.runoff.high, 1 / single.runoff.low
    times = 1 / single.runoff.median
    return (
        f"{times:.3f} [{low:.3f}, {high:.3f}] times as fast as {single.candidate}, in the run-off"
    )


def _again(
    model: torch.nn.Module, batch: dict[str, object], tuning: Tuning, seconds: float
) -> None:
    workload = Workload.from_batches(model, batch)
    probes = Original(model, workload).probes
    singles = [row.candidate for row in _singles(tuning)[:COMPARED]]
    with ExitStack() as stack:
        subject = stack.enter_context(tempfile.TemporaryFile())
        dump_model(model, probes, subject)
        workers = {}
        for candidate in dict.fromkeys((tuning.winner, *singles)):
            job = Job(
                candidate.steps,
                candidate.precision,
                tuning.threads,
                None,
                workload.weights,
                (0.0,),
            )
            worker = stack.enter_context(closing(Workers([job], subject, 2**40)))
            (built,) = worker.built(300.0)
            if isinstance(built, Refused):
                print(f"again: {candidate} refused: {built.reason}")
                continue
            (rounds,) = worker.measure(seconds / 4, 300.0)
            eager = Speedup.from_ratios(ratios(rounds, workload.weights))
            print(f"again: {candidate} {eager} of eager", flush=True)
            workers[candidate] = worker
        times: dict[object, list[float]] = {candidate: [] for candidate in workers}
        begun = time.perf_counter()
        while time.perf_counter() - begun < seconds:
            for candidate, worker in workers.items():
                (passes,) = worker.run(0.3, 300.0)
                times[candidate].append(statistics.median(t for (t,) in passes))
    for candidate in singles:
        if candidate != tuning.winner and candidate in times:
            pairs = zip(times[candidate], times[tuning.winner])
            print(f"again: winner {Speedup.from_ratios([c / w for c, w in pairs])} of {candidate}")


if __name__ == "__main__":
    main()
