"""IPEX and optimum's BetterTransformer, with and without jit, on all kinds of encoders."""

import logging

import pytest

import cpuaccel
from tests.conftest import Python
from tests.required import BF16, ROOT, requires
from tests.stacks.cases import (
    MODELS,
    PADDED_LEFT,
    PADDED_RIGHT,
    TASKS,
    assert_cases_match,
    example_of,
    model_of,
)

TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2}
DTYPES = ["float32", pytest.param("bfloat16", marks=requires(BF16))]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("steps", [["ipex"], ["ipex", "jit"]], ids=",".join)
@pytest.mark.parametrize("name", MODELS)
def test_ipex_outputs_match(name: str, steps: list[str], dtype: str) -> None:
    model = model_of(name)
    fast = cpuaccel.optimize(
        model, steps, dtype=dtype, example_inputs=example_of(name), strict=True
    )
    assert fast.report.applied == tuple(steps)
    assert_cases_match(fast, model, name, PADDED_RIGHT + PADDED_LEFT, TOLERANCE[dtype])
    assert set(fast.report.calls) == {"optimized"}, fast.report
    assert len(fast.report.variants) == 1


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ("output_hidden_states", "return hidden states without padding, as nested tensors"),
        ("output_attentions", "return no attention weights"),
    ],
)
def test_what_optimums_layers_do_not_return_is_said(asked: str, reason: str) -> None:
    name = next(iter(TASKS))
    inputs = {**example_of(name), asked: True}
    fast = cpuaccel.optimize(model_of(name), ["bettertransformer"], example_inputs=inputs)
    (outcome,) = fast.report.outcomes
    assert outcome.reason == f"{asked} is requested, and optimum's layers {reason}"
    assert outcome.remedy == f"Leave out {asked}, or bettertransformer"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "steps", [["bettertransformer"], ["bettertransformer", "jit"]], ids=",".join
)
@pytest.mark.parametrize("name", MODELS)
def test_bettertransformer_outputs_match(name: str, steps: list[str], dtype: str) -> None:
    model = model_of(name)
    fast = cpuaccel.optimize(
        model, steps, dtype=dtype, example_inputs=example_of(name), strict=True
    )
    cast = ("dtype",) if dtype == "bfloat16" else ()
    assert fast.report.applied == (*cast, *steps)
    evidence = {o.step: o.evidence for o in fast.report.outcomes}
    assert evidence["bettertransformer"] == {"implementation": "optimum", "layers": 2}
    if "jit" in steps:
        assert evidence["jit"]["encoder layer"] == 2
    assert_cases_match(fast, model, name, PADDED_RIGHT, TOLERANCE[dtype])
    assert set(fast.report.calls) == {"optimized"}, fast.report
    assert len(fast.report.variants) == 1


@pytest.mark.parametrize("name", TASKS)
def test_padding_on_the_left_falls_back_and_is_counted(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = model_of(name)
    with caplog.at_level(logging.WARNING):
        fast = cpuaccel.optimize(
            model, ["bettertransformer", "jit"], example_inputs=example_of(name)
        )
        assert not caplog.messages
        fidelity = fast.report.variants[0].fidelity
        assert fidelity is not None
        assert fidelity.refused == ("left padding", "padding on both sides")
        assert_cases_match(fast, model, name, PADDED_LEFT)
    assert fast.report.calls == {"fallback:error": 2}
    (message,) = caplog.messages
    assert message.startswith("falling back to the original model: ")
    assert "RuntimeError" in message


@pytest.mark.parametrize("name", TASKS)
def test_without_a_mask_all_tokens_are_real(name: str) -> None:
    model = model_of(name)
    inputs = {"input_ids": example_of(name)["input_ids"]}
    for steps in (["ipex", "jit"], ["bettertransformer", "jit"]):
        fast = cpuaccel.optimize(model, steps, example_inputs=inputs, strict=True)
        assert fast.report.applied == tuple(steps)
        assert_cases_match(fast, model, name, PADDED_RIGHT)  # a mask gets a variant of its own
        assert set(fast.report.calls) == {"optimized"}, fast.report


@pytest.mark.parametrize("steps", [["ipex", "jit"], ["bettertransformer", "jit"]], ids=",".join)
def test_the_first_use_of_an_engine_emits_no_warnings(steps: list[str], python: Python) -> None:
    """In a process of its own, where the engine is not imported yet and warnings are errors."""
    done = python(
        f"""
import warnings
import transformers
warnings.simplefilter("error")
import cpuaccel
from tests.stacks.cases import example_of, model_of
model, inputs = model_of("bert-qa"), example_of("bert-qa")
fast = cpuaccel.optimize(model, {steps!r}, strict=True)
fast(**inputs)
print(fast.report.applied)
""",
        path=(ROOT,),
    )
    assert done.stdout.splitlines()[-1] == str(tuple(steps))
    assert "optimum" not in done.stderr
