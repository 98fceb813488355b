"""ONNX Runtime for real, where it is installed, and its verdicts everywhere."""

import sys
import tempfile
from pathlib import Path

import pytest
import torch

import cpuaccel
from cpuaccel.testing import BackendContract, fake_host
from cpuaccel.testing.outputs import assert_same_output
from tests.conftest import Python
from tests.models import batch, encoder, right, unpadded
from tests.plugins.engines import (
    ARCHITECTURES,
    assert_earlier_answers_are_left_alone,
    assert_originals_answers_at_unseen_shapes,
    needs,
    verdict_on,
)
from tests.plugins.models import Nested

real = needs("onnxruntime")


class TestContract(BackendContract):
    backend = "onnxruntime"
    dtypes = ("float32",)


def optimized(model: torch.nn.Module, inputs: object, **options: object) -> cpuaccel.OptimizedModel:
    step = cpuaccel.Step("onnxruntime", **options)
    return cpuaccel.optimize(model, [step], example_inputs=inputs, strict=True)  # type: ignore[arg-type]


@real
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_answers_are_the_originals_at_unseen_shapes_and_paddings(name: str) -> None:
    model = encoder(name)
    fast = optimized(model, batch(name, 2, 24, right))
    assert fast.report.applied == ("onnxruntime",)
    assert_originals_answers_at_unseen_shapes(fast, model, name)


@real
def test_a_build_from_one_row_serves_several() -> None:
    model = encoder("bert-qa")
    fast = optimized(model, batch("bert-qa", 1, 24, unpadded))
    assert_originals_answers_at_unseen_shapes(fast, model, "bert-qa")


@real
def test_evidence_says_what_ran_and_what_was_fused() -> None:
    fast = optimized(encoder("bert-qa"), batch("bert-qa", 2, 24, right))
    evidence = fast.report.outcomes[0].evidence
    assert evidence["provider"] == "CPUExecutionProvider"
    assert evidence["threads"] == torch.get_num_threads()
    assert evidence["fused_BiasGelu"] == 2, "one in each layer"
    assert evidence["fused_SkipLayerNormalization"] == 4, "two in each layer"
    assert evidence["fused_FusedMatMul"] == 2, "the scaled product in each layer's attention"
    assert int(evidence["nodes"]) > 30
    assert int(evidence["weights_apart"]) > 12


@real
def test_optimization_disabled_fuses_nothing() -> None:
    model, inputs = encoder("bert-qa"), batch("bert-qa", 2, 24, right)
    plain = optimized(model, inputs, optimization="disabled").report.outcomes[0].evidence
    full = optimized(model, inputs).report.outcomes[0].evidence
    assert not [name for name in plain if name.startswith("fused_")]
    assert int(plain["nodes"]) > int(full["nodes"])


@real
def test_bfloat16_is_refused_with_the_reason() -> None:
    if not (verdict := cpuaccel.host().bf16()):
        pytest.skip(str(verdict))
    with pytest.raises(cpuaccel.StepError) as caught:
        cpuaccel.optimize(
            encoder("bert-qa"),
            ["onnxruntime"],
            dtype="bfloat16",
            example_inputs=batch("bert-qa", 2, 24, right),
            strict=True,
        )
    assert (
        "onnxruntime: skipped. the model has weights in bfloat16, and onnxruntime supports "
        "float32 only. Use weights in float32, or leave onnxruntime out"
    ) in str(caught.value)


BFLOAT16 = """
import onnx, onnxruntime
from onnx import TensorProto, helper
a, b, c = (helper.make_tensor_value_info(n, TensorProto.BFLOAT16, [2, 2]) for n in "abc")
for kind in ("Add", "MatMul", "Softmax"):
    inputs = ["a"] if kind == "Softmax" else ["a", "b"]
    graph = helper.make_graph([helper.make_node(kind, inputs, ["c"])], "g", [a, b], [c])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    try:
        onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        print(kind)
    except Exception as error:
        assert "NOT_IMPLEMENTED" in str(error), error
"""


@real
def test_onnxruntime_itself_still_has_no_bfloat16(
    python: Python, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "1")
    assert python(BFLOAT16).stdout.split() == [], (
        "it has these now: let onnxruntime accept bfloat16"
    )


@real
def test_later_calls_leave_earlier_answers_alone() -> None:
    assert_earlier_answers_are_left_alone("onnxruntime")


@real
def test_inputs_that_are_views_and_carry_gradients() -> None:
    model = Nested().eval()
    fast = optimized(model, {"x": torch.ones(2, 4)})
    x = torch.randn(4, 3, requires_grad=True).t()
    assert not x.is_contiguous()
    with torch.no_grad():
        expected = model(x.detach())
    answer = fast(x=x)
    assert_same_output(answer, expected, {})
    before = x.detach().clone()
    for tensor in (answer["last"], *answer["states"][1]):
        tensor.zero_()
    assert torch.equal(x, before)


class _Masks(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x > 0, (x * 3).long()


@real
def test_answers_that_are_bool_or_whole_numbers() -> None:
    fast = optimized(_Masks().eval(), torch.ones(2, 3))
    x = torch.randn(3, 5)
    positive, whole = fast(x)
    assert torch.equal(positive, x > 0)
    assert torch.equal(whole, (x * 3).long())


@real
def test_nothing_is_left_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    inputs = batch("bert-token", 2, 12, right)
    fast = optimized(encoder("bert-token"), inputs)
    fast(**inputs)
    assert list(tmp_path.iterdir()) == []


TELEMETRY = """
import os
import cpuaccel
import torch
from tests.plugins.models import Nested
inputs = torch.ones(2, 4)
fast = cpuaccel.optimize(Nested().eval(), ["onnxruntime"], example_inputs=inputs, strict=True)
print(os.environ.get("ORT_DISABLE_TELEMETRY"))
"""


@real
def test_no_usage_statistics_are_kept_or_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, python: Python
) -> None:
    for name in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    done = python(TELEMETRY, path=(Path(__file__).parents[2],))
    assert done.stdout.strip() == "None"
    assert done.stderr == ""
    assert not list(tmp_path.iterdir()), "ONNX Runtime keeps an identifier of its user in ~/.cache"


class _Unexportable(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(x.numpy().copy()) if not torch.compiler.is_exporting() else _no()


def _no() -> torch.Tensor:
    raise ValueError("this model is not to be exported\nfor reasons of its own")


@real
def test_a_model_that_cannot_be_exported_fails_with_the_reason() -> None:
    fast = cpuaccel.optimize(
        _Unexportable().eval(), ["onnxruntime"], example_inputs=torch.ones(2, 2)
    )
    (outcome,) = fast.report.outcomes
    assert outcome.status == "failed"
    assert outcome.reason == (
        "torch.onnx.export failed on _Unexportable: ValueError: this model is not to be exported"
    )
    assert outcome.remedy == "Leave onnxruntime out for this model"


@real
def test_an_engine_that_is_gone_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # importing it raises
    with pytest.raises(cpuaccel.StepError, match="ONNX Runtime failed on Nested: Modu"):
        optimized(Nested().eval(), torch.ones(2, 4))


def test_after_bettertransformer_it_is_refused() -> None:
    with pytest.raises(cpuaccel.PipelineError) as caught:
        cpuaccel.explain(encoder("bert-token"), ["bettertransformer", "onnxruntime"])
    assert "which no export to ONNX can follow" in str(caught.value)


def test_without_onnxruntime_the_verdict_says_what_to_install() -> None:
    assert str(verdict_on("onnxruntime", fake_host())) == (
        "onnxruntime is not installed and onnxscript is not installed. "
        'Install "torch>=2.13" and "onnxruntime>=1.32" and "onnxscript>=0.7"'
    )
