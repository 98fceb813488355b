"""zentorch: its import, its operators, and the processors and versions that it needs."""

import os
import subprocess
import sys

import pytest
import torch

import cpuaccel
from cpuaccel.testing import fake_host
from cpuaccel_plugins.zentorch.backend import WEIGHT_CACHE
from tests.models import batch, encoder, right
from tests.plugins.engines import FACTS, TorchCompileContract, verdict_on
from tests.plugins.outputs import assert_outputs_match
from tests.required import BF16, requires

needs_engine = requires(*FACTS["zentorch"])

EPYC = {
    "processor": "AMD EPYC 9654 96-Core Processor",
    "isa": frozenset({"avx2", "avx512f"}),
    "packages": {"torch": "2.13.0+cpu", "zentorch": "2.13.0.2"},
}


class TestContract(TorchCompileContract):
    backend = "zentorch"
    architectures = ("bert-qa", "vit")

    # Inductor's test_inductor.py tests how the code of a model is captured: the same for both.
    test_outputs_are_right_whatever_the_code_depends_on = None
    test_a_changed_attribute_is_noticed = None
    test_building_leaves_the_example_as_it_was = None

    def check_evidence(self, evidence: cpuaccel.Evidence) -> None:
        super().check_evidence(evidence)
        linears = [int(n) for name, n in evidence.items() if name.startswith("linear")]
        assert sum(linears) >= 4, "query, key and value in one, and three more"


@requires(*FACTS["zentorch"], BF16)
def test_bfloat16_runs_in_bfloat16() -> None:
    model, inputs = encoder("bert-qa", num_hidden_layers=1), batch("bert-qa", 3, 24, right)
    fast = cpuaccel.optimize(
        model, ["zentorch"], dtype="bfloat16", example_inputs=inputs, strict=True
    )
    assert_outputs_match(fast, model, inputs, tolerance=5e-2)
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


@needs_engine
def test_an_import_that_fails_or_comes_too_early() -> None:
    environment = {name: value for name, value in os.environ.items() if name != WEIGHT_CACHE}
    process = subprocess.run(
        [sys.executable, "-c", IMPORTED], env=environment, capture_output=True, text=True
    )
    gone, too_late = process.stdout.splitlines()
    assert "it raised ModuleNotFoundError: import of zen" in gone
    assert "zentorch was imported with its weight cache enabled" in too_late
    assert "Set ZENDNNL_MATMUL_WEIGHT_CACHE=0 before the process starts" in too_late


@needs_engine
def test_a_model_without_its_operators_fails() -> None:
    fast = cpuaccel.optimize(torch.nn.Tanh().eval(), ["zentorch"], example_inputs=torch.ones(2, 2))
    (outcome,) = fast.report.outcomes
    assert outcome.status == "failed"
    assert str(outcome) == (
        "zentorch: failed. Tanh executes no operator of zentorch. Use inductor, onednn or openvino."
    )


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        (
            {"packages": {"torch": "2.13.0+cpu"}},
            'zentorch is not installed. Run: pip install "torch>=2.13" "zentorch>=2.13"',
        ),
        (
            {"packages": {"torch": "2.13.0+cpu", "zentorch": "2.14.0.1"}},
            "zentorch 2.14.0.1 works with torch 2.14 only, and this environment has torch "
            '2.13.0+cpu. Run: pip install "zentorch==2.13.*"',
        ),
        (
            {"processor": "Intel(R) Xeon(R) Platinum 8480C"},
            "zentorch needs an AMD processor, and this is Intel(R) Xeon(R) Platinum 8480C. "
            "Use inductor, onednn or openvino",
        ),
        (
            {"isa": frozenset({"avx2"})},
            "zentorch needs AVX512, which this processor does not have. "
            "Use inductor, onednn or openvino",
        ),
    ],
    ids=["not installed", "another torch", "another processor", "no AVX512"],
)
def test_the_verdict_says_what_is_true_and_what_to_do(
    changes: dict[str, object], verdict: str
) -> None:
    assert str(verdict_on("zentorch", fake_host(**{**EPYC, **changes}))) == verdict
