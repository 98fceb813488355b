"""zentorch for real, where there is an AMD processor and the zentorch for this torch."""

import os
import shutil
import subprocess
import sys
from typing import ClassVar

import pytest
import torch

import cpuaccel
from cpuaccel.testing import BackendContract, fake_host
from cpuaccel.testing.outputs import assert_same_output
from cpuaccel.testing.state import changed, global_state
from cpuaccel_plugins.zentorch.loading import WEIGHT_CACHE
from tests.models import batch, encoder, right
from tests.plugins.engines import (
    ARCHITECTURES,
    assert_originals_answers_at_unseen_shapes,
    needs,
    verdict_on,
)

real = needs("zentorch")

EPYC = {
    "processor": "AMD EPYC 9654 96-Core Processor",
    "isa": frozenset({"avx2", "avx512f"}),
    "packages": {"torch": "2.13.0+cpu", "zentorch": "2.13.0.2"},
}


class TestContract(BackendContract):
    backend = "zentorch"
    needs: ClassVar[dict[str, bool]] = {
        "an AMD processor": "AMD" in cpuaccel.host().processor,
        "AVX512": "avx512f" in cpuaccel.host().isa,
        "a C++ compiler": shutil.which("g++") is not None,
    }


@real
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_answers_are_the_originals_at_unseen_shapes_and_paddings(name: str) -> None:
    model = encoder(name)
    before = global_state()
    fast = cpuaccel.optimize(
        model, ["zentorch"], example_inputs=batch(name, 2, 24, right), strict=True
    )
    assert fast.report.applied == ("zentorch",)
    assert_originals_answers_at_unseen_shapes(fast, model, name)
    evidence = fast.report.outcomes[0].evidence
    assert evidence["compilations"] == 2, "one graph for a row, one for several"
    assert evidence["recompilations"] == 0
    linears = sum(int(count) for what, count in evidence.items() if what.startswith("linear"))
    assert linears >= 8, f"query, key and value in one, and three more in each layer: {evidence}"
    assert changed(before, global_state()) == []


@real
def test_bfloat16_runs_in_bfloat16() -> None:
    if not (verdict := cpuaccel.host().bf16()):
        pytest.skip(str(verdict))
    model, inputs = encoder("bert-qa"), batch("bert-qa", 3, 24, right)
    fast = cpuaccel.optimize(
        model, ["zentorch"], dtype="bfloat16", example_inputs=inputs, strict=True
    )
    with torch.no_grad():
        expected = model(**inputs)
    assert_same_output(fast(**inputs), expected, inputs, tolerance=5e-2)
    assert int(fast.report.outcomes[-1].evidence["linear_unary"]) > 0


IMPORTED = """
import sys, cpuaccel, torch

def refused():
    try:
        cpuaccel.optimize(
            torch.nn.Linear(2, 2), ["zentorch"], example_inputs=torch.ones(2, 2), strict=True
        )
    except cpuaccel.StepError as error:
        print(error)

sys.modules["zentorch"] = None  # importing it raises
refused()
del sys.modules["zentorch"]
import zentorch
refused()
"""


@real
def test_without_the_import_that_it_needs_it_is_no_success() -> None:
    environment = {name: value for name, value in os.environ.items() if name != WEIGHT_CACHE}
    process = subprocess.run(
        [sys.executable, "-c", IMPORTED], env=environment, capture_output=True, text=True
    )
    gone, too_late = process.stdout.splitlines()
    assert "it raised ModuleNotFoundError: import of zen" in gone
    assert (
        "zentorch was imported before cpuaccel could switch off its cache of weights, which goes "
        "by their addresses and mistakes one model's for another's. "
        "Set ZENDNNL_MATMUL_WEIGHT_CACHE=0 before the process starts" in too_late
    )


@real
def test_a_model_without_anything_for_it_is_no_success() -> None:
    fast = cpuaccel.optimize(torch.nn.Tanh().eval(), ["zentorch"], example_inputs=torch.ones(2, 2))
    (outcome,) = fast.report.outcomes
    assert outcome.status == "failed"
    assert str(outcome) == (
        "zentorch: failed. none of zentorch's operators was executed in Tanh. "
        "Leave zentorch out, and try inductor, onednn or openvino."
    )


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        (
            {"packages": {"torch": "2.13.0+cpu"}},
            'zentorch is not installed. Install "torch>=2.13" and "zentorch>=2.13"',
        ),
        (
            {"packages": {"torch": "2.13.0+cpu", "zentorch": "2.14.0.1"}},
            "zentorch 2.14.0.1 works with torch 2.14 only, and this environment has torch "
            '2.13.0+cpu. Install "zentorch==2.13.*"',
        ),
        (
            {"processor": "Intel(R) Xeon(R) Platinum 8480C"},
            "zentorch is made for AMD's processors, and this is Intel(R) Xeon(R) Platinum 8480C. "
            "Leave zentorch out, and try inductor, onednn or openvino",
        ),
        (
            {"isa": frozenset({"avx2"})},
            "zentorch optimizes only with AVX512, which this processor does not have. "
            "Leave zentorch out, and try inductor, onednn or openvino",
        ),
    ],
    ids=["not installed", "another torch", "another processor", "no AVX512"],
)
def test_the_verdict_says_what_is_true_and_what_to_do(
    changes: dict[str, object], verdict: str
) -> None:
    assert str(verdict_on("zentorch", fake_host(**{**EPYC, **changes}))) == verdict


def test_after_bettertransformer_it_is_refused() -> None:
    with pytest.raises(cpuaccel.PipelineError) as caught:
        cpuaccel.explain(encoder("bert-token"), ["bettertransformer", "zentorch"])
    assert "which torch.compile can't put into one graph" in str(caught.value)
