"""Debian's torch 1.13 has the version 1.13.0a0, which optimum 1.8 rejects."""

import pytest
import torch

import cpuaccel
from tests.conftest import Python
from tests.models import batch, encoder, right
from tests.required import ROOT
from tests.stacks.cases import MODELS

VERSION = cpuaccel.host().packages["torch"]
RENAMED = """
import sys
import torch
torch.__version__ = "1.13.1"  # the version of PyTorch's own build
import cpuaccel, dataclasses
host = cpuaccel.host()
renamed = dataclasses.replace(host, packages={**host.packages, "torch": "1.13.1"})
backend = cpuaccel.backends()["bettertransformer"]
print(backend(backend.Options()).check(renamed))

import cpuaccel.planning.plan
cpuaccel.planning.plan.host = lambda: renamed
from tests.stacks.cases import PADDED_RIGHT, assert_cases_match, example_of, model_of
for name in sys.argv[1:]:
    model = model_of(name)
    for steps in (["bettertransformer"], ["bettertransformer", "jit"]):
        fast = cpuaccel.optimize(model, steps, example_inputs=example_of(name), strict=True)
        assert_cases_match(fast, model, name, PADDED_RIGHT)
        assert fast.report.applied == tuple(steps)
        assert set(fast.report.calls) == {"optimized"}, fast.report
    assert fast.report.outcomes[-1].evidence["encoder layer"] == 2
    print(name)
"""


def test_requirements_treat_it_as_1_13() -> None:
    assert VERSION.startswith("1.13.0a0")
    assert str(cpuaccel.host().version("torch")) == "1.13.0"
    assert cpuaccel.host().meets(("torch>=1.13",))


def test_optimum_itself_rejects_it() -> None:
    from optimum.bettertransformer import BetterTransformer

    with pytest.raises(ImportError, match=r"Found version 1\.13\.0a0, but only 1\.13\.0 and above"):
        BetterTransformer.transform(encoder("bert-qa"))


def test_the_verdict_explains_both_implementations() -> None:
    plan = cpuaccel.explain(encoder("bert-qa"), ["bettertransformer", "jit"])
    refused, jit = (step.verdict for step in plan.steps)
    assert refused.reason == (
        f"optimum 1.8.8 rejects torch {VERSION} as a pre-release older than 1.13.0; "
        f"the native implementation: torch {VERSION} is installed, >=2.4 is needed and "
        "transformers 4.30.2 is installed, >=5 is needed"
    )
    assert "torch" in refused.remedy
    assert jit


def test_jit_is_applied_without_it() -> None:
    model, inputs = encoder("bert-qa"), batch("bert-qa", 2, 12, right)
    fast = cpuaccel.optimize(model, ["bettertransformer", "jit"], example_inputs=inputs)
    assert fast.report.applied == ("jit",)
    with torch.no_grad():
        expected = model(**inputs)
    torch.testing.assert_close(fast(**inputs).start_logits, expected.start_logits)


def test_it_works_with_the_version_of_a_release(python: Python) -> None:
    """Only the version number is in the way: ``requires`` is right about torch 1.13."""
    done = python(RENAMED, *MODELS, path=(ROOT,))
    assert done.stdout.splitlines() == ["yes", *MODELS]
