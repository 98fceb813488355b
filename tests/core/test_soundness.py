"""Random modules: whatever their code depends on, an optimized model returns the original's output.

``benchmarks/soundness.py`` tries more modules, and other backends.
"""

import copy
from collections import Counter

import pytest
import torch

import cpuaccel
from cpuaccel.model.output import constants, leaves
from cpuaccel.report import Status, VariantReport
from tests.random_modules import RandomModule, random_calls

CALLS = 6
SEEDS = 15

STEPS = {
    "int8": cpuaccel.Step("int8", measure=False, float_kinds=()),
    "onednn": cpuaccel.Step("onednn", measure=False),
}
"""Steps that would otherwise leave alone the small operators of these modules."""

ALLOWED = 1e-3
"""Largest relative difference of an output, unless a backend declares a larger one."""


def difference(wanted: object, got: object, allowed: float = ALLOWED) -> str:
    """Describe how two outputs differ; empty if they don't."""
    one, other = leaves(wanted), leaves(got)
    if type(wanted) is not type(got) or [leaf.path for leaf in one] != [
        leaf.path for leaf in other
    ]:
        return "another structure"
    if constants(wanted) != constants(got):
        return f"{constants(got)} instead of {constants(wanted)}"
    for expected, found in zip(one, other):
        if expected.tensor.shape != found.tensor.shape:
            return f"{expected.path} of another shape"
        limit = allowed * max(1.0, float(expected.tensor.abs().max()))
        if not torch.allclose(expected.tensor, found.tensor, rtol=0, atol=limit, equal_nan=True):
            return f"{expected.path} differs"
    return ""


def try_module(seed: int, backends: str, counted: Counter[str], **options: object) -> list[str]:
    """Call a random module and its optimized copy alternately, and describe what differs.

    Args:
        seed: chooses the module and the calls.
        backends: names, with commas between.
        counted: receives the numbers of modules, calls, variants and optimized calls.
        options: arguments of ``optimize``.
    """
    module = RandomModule(seed).eval()
    eager, example = copy.deepcopy(module), random_calls(seed, 1)[0]
    kept = example.x.clone(), example.y.clone()
    with torch.no_grad():
        fast = cpuaccel.optimize(
            module,
            [STEPS.get(name, name) for name in backends.split(",")],
            example_inputs=(example.x, example.y),
            **options,  # type: ignore[arg-type]
        )
    faults = []
    if not (torch.equal(example.x, kept[0]) and torch.equal(example.y, kept[1])):
        faults.append("building changed the example")
    for number, call in enumerate(random_calls(seed + 1, CALLS)):
        if call.switched:
            module.flag, eager.flag = not module.flag, not eager.flag
        ours, theirs = (call.x.clone(), call.y.clone()), (call.x.clone(), call.y.clone())
        outputs: list[object] = []
        for model, inputs in ((eager, theirs), (fast, ours)):
            torch.manual_seed(number)
            try:
                with torch.no_grad():
                    outputs.append(model(*inputs))
            except Exception as error:
                outputs.append(type(error).__name__)
        counted["calls"] += 1
        allowed = max([ALLOWED, *(variant.tolerance for variant in fast.variants)])
        if found := difference(*outputs, allowed):
            faults.append(
                f"call {number} of x {list(call.x.shape)}, y {list(call.y.shape)}: {found}"
            )
        if not all(torch.equal(one, other) for one, other in zip(ours, theirs)):
            faults.append(f"call {number}: the inputs were changed otherwise")
    if not torch.allclose(module.state, eager.state):
        faults.append("the buffer differs")
    counted["modules"] += 1
    counted["variants"] += sum(Status.APPLIED in _statuses(v) for v in fast.report.variants)
    counted["optimized"] += fast.report.calls.get("optimized", 0)
    return [f"{backends}, {module.describe()}: {fault}" for fault in faults]


def _statuses(variant: VariantReport) -> set[Status]:
    return {outcome.status for outcome in variant.outcomes}


@pytest.mark.parametrize("part", range(4))
def test_random_modules_return_the_originals_outputs(part: int) -> None:
    counted: Counter[str] = Counter()
    faults = [
        fault
        for seed in range(part * SEEDS, part * SEEDS + SEEDS)
        for fault in try_module(100 * seed, "jit", counted, audit=False)
    ]
    assert faults == []
    assert counted["optimized"] > SEEDS  # some of them are served by the optimized model
