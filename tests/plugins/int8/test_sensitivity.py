"""Linears are left in float until the answers are close enough, the worst first."""

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


def spoiled() -> torch.nn.Module:
    """One linear has, in each channel, a weight so large that 8 bits lose all the others."""
    model = encoder("bert-qa")
    with torch.no_grad():
        model.get_submodule(WORST).weight[:, 0] = 300.0
        # Its own input is kept at nothing, so that only the loss shows.
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


def test_the_linear_that_does_harm_is_found_and_it_alone() -> None:
    model = spoiled()
    assert sensitive_linears(model, BATCHES, most=0.05) == (WORST,)


def test_what_it_names_keeps_the_bound() -> None:
    model = spoiled()
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


def test_where_all_is_well_nothing_is_named() -> None:
    assert sensitive_linears(encoder("bert-qa"), BATCHES, most=0.1) == ()


def test_a_measure_of_ones_own() -> None:
    calls = []

    def harm(model: Any) -> float:
        calls.append(type(model(**BATCHES[0])).__name__)
        return 0.0

    assert sensitive_linears(encoder("bert-qa"), BATCHES, most=0.0, harm=harm) == ()
    assert calls == ["QuestionAnsweringModelOutput"]


def test_a_bound_that_float_itself_does_not_keep() -> None:
    with pytest.raises(CpuaccelError, match="is 1 with all linears in float"):
        sensitive_linears(encoder("bert-qa"), BATCHES, most=0.5, harm=lambda model: 1.0)


def test_no_batches() -> None:
    with pytest.raises(CpuaccelError, match="batches is empty"):
        sensitive_linears(encoder("bert-qa"), [], most=0.5)


def test_as_an_option_on_the_example() -> None:
    step = cpuaccel.Step("int8", max_error=0.05, measure=False)
    fast = cpuaccel.optimize(spoiled(), [step], example_inputs=BATCHES[0], strict=True)
    evidence = fast.report.outcomes[0].evidence
    assert evidence["in_float"] == (
        f"1 kind head: qa_outputs; 1 for a difference of at most 0.05: {WORST}"
    )
