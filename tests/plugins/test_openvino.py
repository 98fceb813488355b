"""OpenVINO: precisions, evidence and its cache of compiled models."""

from pathlib import Path

import pytest
import torch

import cpuaccel
from tests.models import batch, encoder, left, right, unpadded
from tests.plugins.engines import FACTS, Build, ForeignRuntimeContract
from tests.plugins.outputs import assert_outputs_match
from tests.required import BF16, NATIVE, requires

OPENVINO = FACTS["openvino"]


class TestContract(ForeignRuntimeContract):
    backend = "openvino"
    call = "openvino.convert_model"
    package = "openvino"
    opt_out = "CI"

    def test_evidence_of_precision_and_fusions(self, build: Build) -> None:
        evidence = build("bert-qa").report.outcomes[0].evidence
        assert evidence["precision"] == "float32"
        assert evidence["threads"] == torch.get_num_threads()
        assert int(evidence["nodes"]) >= int(evidence["nodes_in_float32"]) > 0
        assert "nodes_in_bfloat16" not in evidence
        assert evidence["fused_FullyConnected"] == 2, "linear+gelu, one in each layer"


def optimized(
    model: torch.nn.Module,
    inputs: dict[str, torch.Tensor],
    dtype: str | None = None,
    **options: object,
) -> cpuaccel.OptimizedModel:
    step = cpuaccel.Step("openvino", **options)
    return cpuaccel.optimize(model, [step], dtype=dtype, example_inputs=inputs, strict=True)


@requires(*OPENVINO, BF16)
@pytest.mark.parametrize("name", ["bert-qa", "vit"])
def test_bfloat16_runs_in_bfloat16_and_keeps_the_output_dtype(name: str) -> None:
    model, inputs = encoder(name), batch(name, 3, 24, right)
    fast = optimized(model, inputs, "bfloat16")
    evidence = fast.report.outcomes[0].evidence
    assert evidence["precision"] == "bfloat16"
    assert int(evidence["nodes_in_bfloat16"]) > 0
    assert all(tensor.dtype is torch.float32 for tensor in fast(**inputs).values())
    assert_outputs_match(fast, model, inputs, tolerance=5e-2)


@requires(*OPENVINO, BF16)
def test_a_model_in_bfloat16_keeps_its_precision() -> None:
    model, inputs = encoder("bert-token").bfloat16(), batch("bert-token", 2, 12, right)
    fast = optimized(model, inputs)
    assert fast.report.outcomes[0].evidence["precision"] == "bfloat16"
    assert fast(**inputs).logits.dtype is torch.bfloat16


@requires(*OPENVINO, *NATIVE)
def test_bettertransformer_removes_padding_before_it() -> None:
    model = encoder("bert-token")
    fast = cpuaccel.optimize(
        model,
        ["bettertransformer", "openvino"],
        example_inputs=batch("bert-token", 4, 24, right),
        strict=True,
    )
    for pad in (unpadded, right, left):
        assert_outputs_match(fast, model, batch("bert-token", 3, 17, pad))
    assert set(fast.report.calls) == {"optimized"}, fast.report


@requires(*OPENVINO)
def test_the_next_build_loads_the_cache(tmp_path: Path) -> None:
    model, inputs = encoder("bert-token"), batch("bert-token", 2, 12, right)
    reports = [optimized(model, inputs, cache_dir=tmp_path).report for _ in range(2)]
    loaded = [report.outcomes[0].evidence["loaded_from_cache"] for report in reports]
    assert loaded == ["no", "yes"]


@requires(*OPENVINO)
def test_weights_in_float16_are_refused() -> None:
    model, inputs = encoder("bert-token").half(), batch("bert-token", 2, 12, unpadded)
    plan = cpuaccel.explain(model, ["openvino"], example_inputs=inputs)
    assert str(plan.steps[0].verdict) == (
        "the model has weights in float16, and openvino supports bfloat16 or float32 only. "
        "Use weights in bfloat16 or float32, or leave openvino out"
    )


@requires(*OPENVINO)
def test_the_reason_names_the_operator_that_is_not_converted() -> None:
    class Sparse(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.to_sparse()

    fast = cpuaccel.optimize(Sparse(), ["openvino"], example_inputs=torch.ones(2, 3))
    assert fast.report.outcomes[0].reason == (
        "openvino.convert_model failed on Sparse: no conversion rule for aten::to_sparse"
    )
