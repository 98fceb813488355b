"""Builds of OpenVINO's decoders: exports, evidence, weights in 8 and 4 bits, bfloat16, adapters."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

import cpuaccel
from cpuaccel.generation.cache import GrowingWindowLayer
from cpuaccel.report import Status
from tests.generation.models import (
    LAYERS,
    accelerated,
    add_adapters,
    assert_falls_back,
    assert_served,
    decoder,
    left_padded,
    prompt,
    tokens_of,
)
from tests.generation.test_models import assert_logits_close
from tests.required import BF16, OPENVINO_DECODING, requires

pytestmark = requires(*OPENVINO_DECODING)

GREEDY = {"max_new_tokens": 12, "do_sample": False}


def test_a_model_with_hooks() -> None:
    model = decoder("llama")
    model.model.layers[0].register_forward_hook(lambda *_: None)
    fast: Any = cpuaccel.optimize(model, ["openvino"])
    assert_falls_back(fast, model, prompt(), "hooks")
    assert fast.report.generation.outcome.status is Status.FAILED


def test_exports_at_once() -> None:
    """The exporter replaces functions of torch, and has to put back the real ones."""
    from cpuaccel_plugins.openvino.decoding.export import export

    before = torch.randint, torch.nn.functional.scaled_dot_product_attention
    models = [decoder("llama", num_hidden_layers=1, seed=seed) for seed in range(2)]
    with ThreadPoolExecutor(2) as pool:
        exported = list(pool.map(lambda model: export(model, "openvino"), models))
    assert [len(graph.get_variables()) for graph in exported] == [2, 2]
    assert (torch.randint, torch.nn.functional.scaled_dot_product_attention) == before


def test_a_window_during_an_export() -> None:
    """In another thread, where the exporter lets layers keep all tokens."""
    from transformers.exporters import exporter_dynamo  # noqa: F401
    from transformers.exporters.utils import apply_patches

    keys = torch.randn(1, 2, 9, 3)
    layer, expected = GrowingWindowLayer(4), DynamicSlidingWindowLayer(4)
    expected.update(keys, keys)
    with apply_patches("dynamo"):
        layer.update(keys, keys)
        assert DynamicSlidingWindowLayer.update is DynamicLayer.update
        sizes = layer.get_mask_sizes(1)
    assert torch.equal(layer.keys, expected.keys)
    assert sizes == expected.get_mask_sizes(1)


def test_evidence() -> None:
    _, fast = accelerated("mixtral", "openvino")
    fast.prepare_generation()
    generation = fast.report.generation
    evidence = generation.outcome.evidence
    assert evidence["attentions_in_place"] == LAYERS
    assert evidence["kv_cache"] == "f32"
    assert evidence["precision"] == "float32"
    assert {d.probe for d in generation.closeness.differences} >= {"the original over its cache"}


@pytest.mark.parametrize("name", ["llama", "mixtral"])
def test_bytes_that_a_step_reads(name: str) -> None:
    """The weights of linears, and of the experts that are chosen; two of four."""
    model, fast = accelerated(name, "openvino")
    fast.prepare_generation()
    of_experts = sum(p.numel() for n, p in model.named_parameters() if ".experts." in n)
    linears = [m.weight for m in model.modules() if isinstance(m, torch.nn.Linear)]
    routers = [p for n, p in model.named_parameters() if n.endswith("mlp.gate.weight")]
    of_others = sum(weight.numel() for weight in (*linears, *routers))
    assert fast.report.generation.stepper.bytes_per_step == 4 * (of_others + of_experts // 2)


def test_8_bits() -> None:
    fast: Any = cpuaccel.optimize(decoder("llama", num_hidden_layers=1), ["openvino_int8"])
    assert_logits_close(fast, fast.original)
    generation = fast.report.generation
    assert generation.outcome.evidence["weights"] == "int8"
    assert generation.outcome.evidence["products_in_int8"] == 7 + 1
    assert generation.outcome.evidence["kv_cache"] == "f32"
    other_products = "bfloat16" if cpuaccel.host().bf16() else "float32"
    assert generation.outcome.evidence["precision"] == other_products
    assert generation.closeness.largest_divergence == 0.05
    weights = sum(m.weight.numel() for m in fast.modules() if isinstance(m, torch.nn.Linear))
    assert weights < generation.stepper.bytes_per_step < 1.1 * weights


def test_4_bits_are_asked_for() -> None:
    step = cpuaccel.Step("openvino", weights="int4")
    model = decoder("qwen2", num_hidden_layers=1)
    fast: Any = cpuaccel.optimize(model, [step])
    output = fast.generate(**left_padded(), **GREEDY)
    assert output.shape == (3, 13 + 12)
    assert fast.report.calls == {"optimized": 1}
    generation = fast.report.generation
    assert generation.outcome.evidence["weights"] == "int4"
    assert generation.closeness.largest_divergence == 1.0
    assert max(d.relative for d in generation.closeness.differences) > 0.02


def test_other_weights_are_refused() -> None:
    with pytest.raises(cpuaccel.PipelineError, match="int4"):
        cpuaccel.optimize(decoder("llama"), [cpuaccel.Step("openvino", weights="int3")])


@requires(BF16)
def test_bfloat16_weights() -> None:
    model = decoder("llama", num_hidden_layers=1).to(torch.bfloat16)
    fast: Any = cpuaccel.optimize(model, ["openvino"])
    assert_logits_close(fast, model)
    evidence = fast.report.generation.outcome.evidence
    assert (evidence["precision"], evidence["kv_cache"]) == ("bfloat16", "bf16")
    call = {**GREEDY, "return_dict_in_generate": True}
    cache = fast.generate(**prompt(), **call).past_key_values
    assert {layer.keys.dtype for layer in cache.layers} == {torch.bfloat16}


@requires("peft>=0.17")
@pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute:UserWarning")
def test_another_adapter_is_used() -> None:
    model = decoder("llama", num_hidden_layers=1)
    add_adapters(model, "one", "two")
    fast: Any = cpuaccel.optimize(model, ["openvino"])
    generated = []
    for name in ("one", "two"):
        model.set_adapter(name)
        assert_served(fast, model, left_padded())
        generated.append(tokens_of(fast, left_padded()))
    assert not torch.equal(*generated)


def test_a_loaded_model_generates_as_the_saved_one(tmp_path: Path) -> None:
    model = decoder("llama", num_hidden_layers=1)
    fast: Any = cpuaccel.optimize(model, ["openvino"])
    fast.prepare_generation()
    fast.save(tmp_path / "saved")
    loaded: Any = cpuaccel.load(tmp_path / "saved")
    assert loaded.report.generation.stepper is not None
    assert_served(loaded, model, left_padded())
