"""Linears are left in float, the most sensitive first, until outputs are close enough."""

from typing import Any

import pytest
import torch

import cpuaccel
from cpuaccel import CpuaccelError
from cpuaccel_plugins.int8 import sensitive_linears
from tests.models import batch, encoder, right
from tests.plugins.int8.host import needs_engine

pytestmark = needs_engine

BATCHES = [batch("bert-qa", 2, 24, right), batch("bert-qa", 3, 15, right)]
WORST = "bert.encoder.layer.1.output.dense"


def model_with_a_sensitive_linear() -> torch.nn.Module:
    """One linear has a weight in each channel that is so large that 8 bits lose all others."""
    model = encoder("bert-qa")
    with torch.no_grad():
        model.get_submodule(WORST).weight[:, 0] = 300.0
        # The input of these weights is 0, so that only the loss has an effect.
        before = model.get_submodule("bert.encoder.layer.1.intermediate.dense")
        before.weight[0] = 0
        before.bias[0] = 0
        model.get_submodule(WORST).weight[:, 1:] *= 20
    return model


def difference(model: torch.nn.Module, fast: Any) -> float:
    worst = 0.0
    for inputs in BATCHES:
        with torch.no_grad():
            expected = model(**inputs)
        real = inputs["attention_mask"].bool()
        for name, found in fast(**inputs).items():
            wanted = expected[name][real]
            worst = max(worst, float((found[real] - wanted).abs().max() / wanted.abs().max()))
    return worst


def test_only_the_sensitive_linear_is_named() -> None:
    model = model_with_a_sensitive_linear()
    assert sensitive_linears(model, BATCHES, most=0.05) == (WORST,)


def test_with_the_named_linears_in_float_the_bound_holds() -> None:
    model = model_with_a_sensitive_linear()
    names = sensitive_linears(model, BATCHES, most=0.05)
    fast = cpuaccel.optimize(
        model,
        [cpuaccel.Step("int8", float_names=names, measure=False)],
        example_inputs=BATCHES[0],
        strict=True,
    )
    everything = cpuaccel.optimize(
        model,
        [cpuaccel.Step("int8", measure=False)],
        example_inputs=BATCHES[0],
        tolerance=10,
        strict=True,
    )
    assert difference(model, fast) <= 0.05 < difference(model, everything)


def test_nothing_is_named_where_8_bits_are_close_enough() -> None:
    assert sensitive_linears(encoder("bert-qa"), BATCHES, most=0.1) == ()


def test_a_custom_measure() -> None:
    calls = []

    def harm(model: Any) -> float:
        calls.append(type(model(**BATCHES[0])).__name__)
        return 0.0

    assert sensitive_linears(encoder("bert-qa"), BATCHES, most=0.0, harm=harm) == ()
    assert calls == ["QuestionAnsweringModelOutput"]


def test_a_bound_that_float_exceeds_is_refused() -> None:
    with pytest.raises(CpuaccelError, match="is 1 with all linears in float"):
        sensitive_linears(encoder("bert-qa"), BATCHES, most=0.5, harm=lambda model: 1.0)


def test_no_batches() -> None:
    with pytest.raises(CpuaccelError, match="batches is empty"):
        sensitive_linears(encoder("bert-qa"), [], most=0.5)


def test_max_error_applies_it_to_the_example() -> None:
    step = cpuaccel.Step("int8", max_error=0.05, measure=False)
    fast = cpuaccel.optimize(
        model_with_a_sensitive_linear(), [step], example_inputs=BATCHES[0], strict=True
    )
    evidence = fast.report.outcomes[0].evidence
    assert evidence["in_float"] == (
        f"1 kind head: qa_outputs; 1 for a difference of at most 0.05: {WORST}"
    )
