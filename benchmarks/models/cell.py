"""Try one case with one pipeline in this process, and print what came out as one line of JSON.

    python benchmarks/models/cell.py "BERT" bettertransformer+onednn

The user's object is made twice with the same weights. One stays as it is; in the other, the module
is optimized. Both get the same calls, in two rounds with different values.
"""

import argparse
import json
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import preload  # noqa: F401  # before any package
import torch
from cases import audio, diffusion, other, text, vision, wrapped
from cases.case import Case, Object

import cpuaccel

CASES = {
    case.name: case
    for module in (text, vision, audio, wrapped, diffusion, other)
    for case in module.CASES
}
PIPELINES = ("jit", "openvino", "onnxruntime", "onednn", "inductor", "bettertransformer+onednn")
TOLERANCE = 1e-3
"""Relative differences up to here are not wrong. The builds themselves allow 1e-4."""


@dataclass
class Result:
    """What came out of one cell.

    Attributes:
        case: name of the case.
        pipeline: backends joined with ``+``.
        status: applied, partly, refused, WRONG, CRASHED or TIMED OUT.
        applied: the steps that were applied in every variant.
        served: calls of the module that the optimized model served.
        calls: all calls of the module.
        difference: the largest difference from the original, relative to its largest magnitude.
        reasons: why steps or calls were left to the original, or what is wrong.
        commit: of cpuaccel, where it runs from a clone.
        processor: of the machine, and the instructions that torch uses.
    """

    case: str
    pipeline: str
    status: str
    applied: list[str] = field(default_factory=list)
    served: int = 0
    calls: int = 0
    difference: float = 0.0
    reasons: list[str] = field(default_factory=list)
    commit: str = ""
    processor: str = ""


def run(case: Case, pipeline: str) -> Result:
    """Run all calls on both objects."""
    original, thing = _make(case), _make(case)
    result = Result(case.name, pipeline, "applied", commit=_commit(), processor=_processor())
    fast = case.optimize(thing, pipeline.split("+"))
    for number, call in enumerate(list(case.calls) * 2):
        torch.manual_seed(100 + number)
        expected = call(original)
        torch.manual_seed(100 + number)
        try:
            got = call(fast)
        except Exception as error:
            result.reasons.append(f"call {number} raises {type(error).__name__}: {error}")
            result.status = "WRONG"
            break
        difference, mismatch = compare(expected, got)
        result.difference = max(result.difference, difference)
        if mismatch or difference > TOLERANCE:
            result.reasons.append(f"call {number}: {mismatch or f'differs by {difference:.2g}'}")
            result.status = "WRONG"
    _read_report(case.report(fast), result)
    return result


def _processor() -> str:
    host = cpuaccel.host()
    return f"{host.processor} ({host.microarchitecture}, torch with {host.torch_isa})"


def _commit() -> str:
    folder = Path(cpuaccel.__file__).parent
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty"]
    done = subprocess.run(command, capture_output=True, text=True)  # noqa: S603
    return done.stdout.strip()


def _make(case: Case) -> Object:
    torch.manual_seed(0)
    return case.make()


def _read_report(report: cpuaccel.Report, result: Result) -> None:
    calls: Counter[str] = report.calls
    result.calls, result.served = calls.total(), calls["optimized"]
    outcomes = [variant.outcomes for variant in report.variants] or [report.outcomes]
    result.applied = [
        step
        for step in result.pipeline.split("+")
        if all(_is_applied(step, variant) for variant in outcomes)
    ]
    result.reasons += dict.fromkeys(
        f"{o.step}: {o.reason}" for variant in outcomes for o in variant if o.status != "applied"
    )
    fallbacks = report.fallbacks
    result.reasons += [
        f"{key}: {fallbacks[key]}" if key in fallbacks else key
        for key in calls
        if key not in ("optimized", "fallback:not_applied")
    ]
    if result.status == "WRONG":
        return
    if not result.served:
        result.status = "refused"
    elif result.served < result.calls or result.applied != result.pipeline.split("+"):
        result.status = "partly"


def _is_applied(step: str, outcomes: Sequence[cpuaccel.Outcome]) -> bool:
    return any(outcome.step == step and outcome.status == "applied" for outcome in outcomes)


def compare(expected: object, got: object) -> tuple[float, str]:
    """Compare two answers.

    Returns:
        The largest relative difference of any tensor or number, and what else differs.
    """
    wanted, found = list(_leaves(expected)), list(_leaves(got))
    if len(wanted) != len(found):
        return 0.0, f"{len(found)} values instead of {len(wanted)}"
    worst = 0.0
    for left, right in zip(wanted, found):
        if not isinstance(left, torch.Tensor):
            if left != right:
                return worst, f"{right!r} instead of {left!r}"
            continue
        if not isinstance(right, torch.Tensor) or left.shape != right.shape:
            return worst, f"{getattr(right, 'shape', right)} instead of {tuple(left.shape)}"
        if left.numel():
            scale = left.abs().max().item() or 1.0
            difference = (left - right).abs().max().item() / scale
            worst = max(worst, difference if difference == difference else float("inf"))
    return worst, ""


def _leaves(value: object) -> Iterator[object]:
    if isinstance(value, torch.Tensor | np.ndarray | np.floating | float):
        yield torch.as_tensor(value, dtype=torch.float64)
    elif isinstance(value, Mapping):
        for key in value:
            yield from _leaves(value[key])
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def try_cell(case: str, pipeline: str) -> Result:
    """Run one cell quietly, with one thread."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    return run(CASES[case], pipeline)


def main() -> None:
    """Run the cell that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", choices=CASES)
    parser.add_argument("pipeline")
    options = parser.parse_args()
    result = try_cell(options.case, options.pipeline)
    sys.stdout.flush()
    print(json.dumps(asdict(result)), flush=True)


if __name__ == "__main__":
    main()
