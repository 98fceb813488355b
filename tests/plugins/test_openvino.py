"""OpenVINO: precisions, evidence and its cache of compiled models."""

from pathlib import Path

import pytest
import torch

import cpuaccel
from tests.models import batch, encoder, left, right, unpadded
from tests.plugins.engines import FACTS, ForeignRuntimeContract
from tests.plugins.outputs import assert_outputs_match
from tests.required import BF16, NATIVE, requires

OPENVINO = FACTS["openvino"]


class TestContract(ForeignRuntimeContract):
    backend = "openvino"
    call = "openvino.convert_model"
    package = "openvino"
    opt_out = "CI"

    def test_evidence_of_precision_and_fusions(self, bert_evidence: cpuaccel.Evidence) -> None:
        assert bert_evidence["precision"] == "float32"
        assert int(bert_evidence["nodes"]) >= int(bert_evidence["nodes_in_float32"]) > 0
        assert "nodes_in_bfloat16" not in bert_evidence
        assert bert_evidence["fused_FullyConnected"] == 2, "linear+gelu, one in each layer"


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
def test_the_reason_names_the_operator_that_is_not_converted() -> None:
    class Sparse(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.to_sparse()

    fast = cpuaccel.optimize(Sparse(), ["openvino"], example_inputs=torch.ones(2, 3))
    assert fast.report.outcomes[0].reason == (
        "openvino.convert_model failed on Sparse: no conversion rule for aten::to_sparse"
    )


class AddsMask(torch.nn.Module):
    """Attention with a mask that is added, boolean, or absent."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.linear = torch.nn.Linear(8, 8)

    def forward(self, hidden: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        mask = real[:, None, None, :].bool()
        heads = self.linear(hidden)[:, None]
        bias = torch.zeros(mask.shape).masked_fill(~mask, float("-inf"))
        attended: torch.Tensor = torch.nn.functional.scaled_dot_product_attention(
            heads, heads, heads, {"added": bias, "boolean": mask, "absent": None}[self.kind]
        )
        return attended.squeeze(1) + 1


@requires(*OPENVINO)
@pytest.mark.parametrize("kind", ["added", "boolean", "absent"])
def test_attention_to_no_key_is_zero(kind: str) -> None:
    model, hidden = AddsMask(kind).eval(), torch.randn(3, 5, 8)
    real = torch.ones(3, 5, dtype=torch.long)
    fast = optimized(model, {"hidden": hidden, "real": real})
    real = real.clone()
    real[1] = 0
    with torch.no_grad():
        expected = model(hidden, real)
    torch.testing.assert_close(fast(hidden, real), expected, rtol=1e-4, atol=1e-5)
    assert fast.report.calls == {"optimized": 1}


@requires(*OPENVINO, *NATIVE)
def test_causal_attention_with_left_padding_is_applied() -> None:
    """The first queries may attend to no key."""
    model = encoder("clip-text")
    inputs = {
        "input_ids": torch.randint(5, 63, (2, 12)),
        "attention_mask": torch.ones(2, 12, dtype=torch.long),
    }
    inputs["input_ids"][:, -1] = 63
    inputs["attention_mask"][1, 8:] = 0
    fast = optimized(model, inputs)
    assert not fast.report.variants[0].fidelity.refused  # type: ignore[union-attr]
    inputs["attention_mask"] = inputs["attention_mask"].flip(1)
    assert_outputs_match(fast, model, inputs)
    assert fast.report.calls == {"optimized": 1}


@requires(*OPENVINO)
def test_inputs_that_are_not_contiguous_keep_their_memory_during_the_call() -> None:
    class Sum(torch.nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
            return x + 2 * y + 4 * z

    model = Sum().eval()
    example = (torch.ones(64), torch.ones(64), torch.ones(64))
    fast = cpuaccel.optimize(model, ["openvino"], example_inputs=example, strict=True)
    for value in range(5):
        inputs = [torch.tensor([value + float(i)]).expand(64) for i in range(3)]
        torch.testing.assert_close(fast(*inputs), model(*inputs))
    assert fast.report.calls == {"optimized": 5}


class FewKeys(torch.nn.Module):
    """Attention of all positions to every eighth."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.fused = fused
        self.linear = torch.nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        keys = self.linear(x)[:, ::8]
        if self.fused:
            heads = (x[:, None], keys[:, None], keys[:, None])
            return torch.nn.functional.scaled_dot_product_attention(*heads)[:, 0]
        attended: torch.Tensor = (x @ keys.transpose(1, 2)).softmax(-1) @ keys
        return attended


@requires(*OPENVINO)
@pytest.mark.parametrize("fused", [False, True])
def test_attention_to_one_key_and_later_to_more(fused: bool) -> None:
    model = FewKeys(fused).eval()
    fast = optimized(model, {"x": torch.randn(2, 5, 8)})
    for length in (9, 57, 64):
        x = torch.randn(3, length, 8)
        torch.testing.assert_close(fast(x), model(x).detach(), rtol=1e-4, atol=1e-4)
    assert fast.report.calls == {"optimized": 3}
