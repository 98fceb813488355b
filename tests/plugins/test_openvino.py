"""OpenVINO for real, where it is installed, and its verdicts everywhere."""

import logging
import os
import sys
from pathlib import Path

import pytest
import torch

import cpuaccel
from cpuaccel.testing import BackendContract, fake_host
from cpuaccel.testing.outputs import assert_same_output
from tests.conftest import Python
from tests.models import batch, encoder, left, right, unpadded
from tests.plugins.engines import (
    ARCHITECTURES,
    assert_earlier_answers_are_left_alone,
    assert_originals_answers_at_unseen_shapes,
    needs,
    verdict_on,
)
from tests.plugins.models import Nested

real = needs("openvino")


class TestContract(BackendContract):
    backend = "openvino"


def optimized(
    model: torch.nn.Module, inputs: dict[str, torch.Tensor], **options: object
) -> cpuaccel.OptimizedModel:
    step = cpuaccel.Step("openvino", **options)
    return cpuaccel.optimize(model, [step], example_inputs=inputs, strict=True)


@real
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_answers_are_the_originals_at_unseen_shapes_and_paddings(name: str) -> None:
    model = encoder(name)
    fast = optimized(model, batch(name, 2, 24, right))
    assert fast.report.applied == ("openvino",)
    assert_originals_answers_at_unseen_shapes(fast, model, name)


@real
def test_evidence_says_what_ran_in_which_precision() -> None:
    fast = optimized(encoder("bert-qa"), batch("bert-qa", 2, 24, right))
    evidence = fast.report.outcomes[0].evidence
    assert evidence["precision"] == "float32"
    assert evidence["threads"] == torch.get_num_threads()
    assert int(evidence["nodes"]) >= int(evidence["nodes_in_float32"]) > 0
    assert "nodes_in_bfloat16" not in evidence
    assert evidence["fused_FullyConnected"] == 2, "linear+gelu, one in each layer"


@real
@pytest.mark.parametrize("name", ["bert-qa", "vit"])
def test_bfloat16_runs_in_bfloat16_and_keeps_the_output_dtype(name: str) -> None:
    if not (verdict := cpuaccel.host().bf16()):
        pytest.skip(str(verdict))
    model, inputs = encoder(name), batch(name, 3, 24, right)
    fast = cpuaccel.optimize(
        model, ["openvino"], dtype="bfloat16", example_inputs=inputs, strict=True
    )
    (outcome,) = fast.report.outcomes
    assert outcome.evidence["precision"] == "bfloat16"
    assert int(outcome.evidence["nodes_in_bfloat16"]) > 0
    with torch.no_grad():
        expected = model(**inputs)
    answer = fast(**inputs)
    assert all(tensor.dtype is torch.float32 for tensor in answer.values())
    assert_same_output(answer, expected, inputs, tolerance=5e-2)


@real
def test_a_model_in_bfloat16_keeps_its_precision_unless_asked() -> None:
    if not (verdict := cpuaccel.host().bf16()):
        pytest.skip(str(verdict))
    model, inputs = encoder("bert-token").bfloat16(), batch("bert-token", 2, 12, right)
    fast = optimized(model, inputs)
    assert fast.report.outcomes[0].evidence["precision"] == "bfloat16"
    assert fast(**inputs).logits.dtype is torch.bfloat16


@real
def test_padding_is_removed_before_it() -> None:
    model = encoder("bert-token")
    inputs = batch("bert-token", 4, 24, right)
    steps = ["bettertransformer", "openvino"]
    plan = cpuaccel.explain(model, steps)
    if not all(planned.verdict for planned in plan.steps):
        pytest.skip(str(plan))
    fast = cpuaccel.optimize(model, steps, example_inputs=inputs, strict=True)
    for pad in (unpadded, right, left):
        varied = batch("bert-token", 3, 17, pad)
        with torch.no_grad():
            expected = model(**varied)
        assert_same_output(fast(**varied), expected, varied)
    assert set(fast.report.calls) == {"optimized"}, fast.report


@real
def test_later_calls_leave_earlier_answers_alone() -> None:
    assert_earlier_answers_are_left_alone("openvino")


@real
def test_inputs_that_are_views_and_carry_gradients() -> None:
    model = Nested().eval()
    fast = optimized(model, {"x": torch.ones(2, 4)})
    x = torch.randn(4, 3, requires_grad=True).t()
    assert not x.is_contiguous()
    with torch.no_grad():
        expected = model(x.detach())
    assert_same_output(fast(x=x), expected, {})


@real
def test_the_cache_is_loaded_by_the_next_build(tmp_path: Path) -> None:
    model, inputs = encoder("bert-token"), batch("bert-token", 2, 12, right)
    loaded = [
        optimized(model, inputs, cache_dir=tmp_path)
        .report.outcomes[0]
        .evidence["loaded_from_cache"]
        for _ in range(2)
    ]
    assert loaded == ["no", "yes"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("CI", raising=False)
    return tmp_path


TELEMETRY = """
import cpuaccel
import torch
from tests.plugins.models import Nested
inputs = torch.ones(2, 4)
fast = cpuaccel.optimize(Nested().eval(), ["openvino"], example_inputs=inputs, strict=True)
print(fast.report.outcomes[0].restored)
"""


@real
def test_no_usage_statistics_are_kept_or_sent(home: Path, python: Python) -> None:
    done = python(TELEMETRY, path=(Path(__file__).parents[2],))
    assert done.stdout.strip() == "()"
    assert not list(home.iterdir()), "OpenVINO's converter notes its user in ~/intel"
    assert "CI" not in os.environ


class _Untraceable(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(x.numpy().copy()) if not torch.jit.is_tracing() else self.refuse()

    def refuse(self) -> torch.Tensor:
        raise ValueError("this model is not to be traced\nfor reasons of its own")


@real
def test_a_model_that_cannot_be_converted_fails_with_the_reason(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, logger="cpuaccel"):
        fast = cpuaccel.optimize(
            _Untraceable().eval(), ["openvino"], example_inputs=torch.ones(2, 2)
        )
    (outcome,) = fast.report.outcomes
    assert outcome.status == "failed"
    assert outcome.reason.startswith("openvino.convert_model failed on _Untraceable: ")
    assert outcome.remedy == "Leave openvino out for this model"


@real
def test_an_engine_that_is_gone_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)  # importing it raises
    with pytest.raises(cpuaccel.StepError, match="openvino: failed"):
        optimized(Nested().eval(), {"x": torch.ones(2, 4)})


@real
def test_weights_in_float16_are_refused() -> None:
    model = encoder("bert-token").half()
    plan = cpuaccel.explain(
        model, ["openvino"], example_inputs=batch("bert-token", 2, 12, unpadded)
    )
    assert str(plan.steps[0].verdict) == (
        "the model has weights in float16, and openvino supports bfloat16 or float32 only. "
        "Use weights in bfloat16 or float32, or leave openvino out"
    )


def test_without_openvino_the_verdict_says_what_to_install() -> None:
    assert str(verdict_on("openvino", fake_host())) == (
        'openvino is not installed. Install "torch>=2.8" and "openvino>=2026.4"'
    )
