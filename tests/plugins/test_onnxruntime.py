"""ONNX Runtime: fusions, dtypes of outputs, and what it does not support."""

import tempfile
from pathlib import Path

import pytest
import torch

import cpuaccel
from tests.conftest import Python
from tests.models import batch, encoder, right, unpadded
from tests.plugins.engines import FACTS, ForeignRuntimeContract
from tests.plugins.outputs import assert_outputs_match
from tests.required import requires

needs_engine = requires(*FACTS["onnxruntime"])


class TestContract(ForeignRuntimeContract):
    backend = "onnxruntime"
    dtypes = ("float32",)
    call = "torch.onnx.export"
    package = "onnxruntime"
    opt_out = "ORT_DISABLE_TELEMETRY"

    def test_evidence_of_nodes_and_fusions(self, bert_evidence: cpuaccel.Evidence) -> None:
        assert bert_evidence["provider"] == "CPUExecutionProvider"
        assert bert_evidence["fused_BiasGelu"] == 2, "one in each layer"
        assert bert_evidence["fused_SkipLayerNormalization"] == 4, "two in each layer"
        assert bert_evidence["fused_FusedMatMul"] == 2, "the scaled product in each attention"
        assert int(bert_evidence["nodes"]) > 30
        assert int(bert_evidence["weights_apart"]) > 12

    def test_optimization_disabled_fuses_nothing(self, bert_evidence: cpuaccel.Evidence) -> None:
        inputs = batch("bert-qa", 2, 24, right)
        fast = optimized(encoder("bert-qa"), inputs, optimization="disabled")
        evidence = fast.report.outcomes[0].evidence
        assert not [name for name in evidence if name.startswith("fused_")]
        assert int(evidence["nodes"]) > int(bert_evidence["nodes"])


def optimized(model: torch.nn.Module, inputs: object, **options: object) -> cpuaccel.OptimizedModel:
    step = cpuaccel.Step("onnxruntime", **options)
    return cpuaccel.optimize(model, [step], example_inputs=inputs, strict=True)  # type: ignore[arg-type]


@needs_engine
def test_a_build_from_one_row_serves_several() -> None:
    model = encoder("bert-qa")
    fast = optimized(model, batch("bert-qa", 1, 24, unpadded))
    for size in (1, 5):
        assert_outputs_match(fast, model, batch("bert-qa", size, 31, right))
    assert len(fast.report.variants) == 1
    assert fast.report.calls == {"optimized": 2}, fast.report


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


@needs_engine
def test_onnxruntime_itself_does_not_support_bfloat16(
    python: Python, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "1")
    assert python(BFLOAT16).stdout.split() == [], (
        "ONNX Runtime supports these now: let the backend accept bfloat16"
    )


class Masks(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x > 0, (x * 3).long()


@needs_engine
def test_outputs_of_booleans_and_integers() -> None:
    fast = optimized(Masks().eval(), torch.ones(2, 3))
    x = torch.randn(3, 5)
    positive, whole = fast(x)
    assert torch.equal(positive, x > 0)
    assert torch.equal(whole, (x * 3).long())


@needs_engine
def test_nothing_is_left_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    inputs = batch("bert-token", 2, 12, right)
    fast = optimized(encoder("bert-token"), inputs)
    fast(**inputs)
    assert list(tmp_path.iterdir()) == []
