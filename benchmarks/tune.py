"""The winner of a search against every single engine, in one interleaved run of their own.

    python benchmarks/tune.py config:bert-base --task question-answering --shape 8x384
        [--padding 0.5] [--precisions float32,bfloat16] [--budget 200] [--searches 1]

Searches without the cache, then builds the winner and each backend by itself in one process and
times them in turn with eager. Prints a line of JSON for each search.
"""

import argparse
import json
import logging
import time

import torch

import cpuaccel
from cpuaccel.cli.inputs import make_inputs, modality
from cpuaccel.cli.models import load_model
from cpuaccel.report import Status
from cpuaccel.timing import Ratio, interleave


def main() -> None:
    """Search, and compare."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--task")
    parser.add_argument("--shape", default="1x128")
    parser.add_argument("--padding", type=float, default=0.0)
    parser.add_argument("--precisions", default="float32")
    parser.add_argument("--budget", type=float, default=200.0)
    parser.add_argument("--searches", type=int, default=1)
    parser.add_argument(
        "--engines", default="", help="A,B: others than the winner, to time it with"
    )
    parser.add_argument("--seconds", type=float, default=40.0, help="for the comparison")
    asked = parser.parse_args()
    logging.getLogger("cpuaccel").setLevel(logging.ERROR)

    model = load_model(asked.model, asked.task).float()
    rows, length = map(int, asked.shape.split("x"))
    padding = 0.0 if modality(model) == "pixel_values" else asked.padding
    batch = make_inputs(model, rows, length, padding)
    precisions = asked.precisions.split(",")
    for _ in range(asked.searches):
        begun = time.perf_counter()
        fast = cpuaccel.optimize(
            model,
            "auto",
            example_inputs=batch,
            precisions=precisions,
            budget=asked.budget,
            cache=False,
        )
        tuning = fast.report.tuning
        assert tuning is not None
        print(
            json.dumps(
                {
                    "model": asked.model,
                    "shape": asked.shape,
                    "padding": padding,
                    "winner": str(tuning.winner),
                    "why": tuning.why,
                    "rebuilt": tuning.rebuilt,
                    "search_seconds": round(tuning.seconds, 1),
                    "seconds": round(time.perf_counter() - begun, 1),
                    "rows": [
                        f"{row.candidate}: {row.speedup or row.reason[:80]}"
                        f"{f' (run-off {row.runoff})' if row.runoff else ''}"
                        f", built in {row.build_seconds:.1f} s, tried in {row.tried_seconds:.1f} s"
                        for row in tuning.rows
                    ],
                    "not_tried": [f"{one.name}: {one.reason[:80]}" for one in tuning.not_tried],
                },
                indent=1,
            ),
            flush=True,
        )
    if asked.engines:
        _compare(model, fast, batch, asked.engines.split(","), precisions[-1], asked.seconds)


def _compare(
    model: torch.nn.Module,
    winner: cpuaccel.OptimizedModel,
    batch: dict[str, object],
    engines: list[str],
    precision: str,
    seconds: float,
) -> None:
    """Time the winner and single engines in turn with eager."""
    calls = {"eager": lambda: model(**batch), "winner": lambda: winner(**batch)}
    for name in engines:
        built = cpuaccel.optimize(model, [name], dtype=precision, example_inputs=batch)
        failed = [str(o) for o in built.report.outcomes if o.status is not Status.APPLIED]
        if failed:
            print(f"{name}: {failed[0]}")
            continue
        calls[name] = lambda built=built: built(**batch)  # type: ignore[misc]
    with torch.no_grad():
        times = interleave(calls, rounds=200, seconds=seconds, warmup=2)
    for name, measured in times.items():
        print(
            f"{name:<20} {1000 * sorted(measured)[len(measured) // 2]:9.2f} ms  "
            f"{Ratio.of(times['eager'], measured)} of eager, "
            f"{Ratio.of(times['winner'], measured)} of the winner"
        )


if __name__ == "__main__":
    main()
