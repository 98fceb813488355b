"""Decoders of many architectures generate the original's tokens, by every way of searching."""

from typing import Any

import pytest
import torch

import cpuaccel
from cpuaccel.report import Status
from tests.generation.models import (
    ARCHITECTURES,
    BACKENDS,
    LAYERS,
    accelerated,
    assert_same_tokens,
    assert_served,
    decoder,
    left_padded,
    prompt,
)
from tests.required import OPENVINO_DECODING, requires

SEARCHES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "beams": {"num_beams": 3},
    "sampling": {"do_sample": True, "temperature": 1.2, "top_k": 50},
    "sampled beams": {"do_sample": True, "num_beams": 2, "num_return_sequences": 2},
}


LIKE_OTHERS = {"qwen2", "qwen3", "phi3", "granite", "olmo2", "qwen3_moe"}
"""Models that OpenVINO computes like others of them: the export of each takes seconds.

phi and gpt2 have biases as qwen2 has, gemma3 norms of queries and keys as qwen3 has."""

each_model = pytest.mark.parametrize(
    ("name", "backend"),
    [
        *((name, "onednn") for name in ARCHITECTURES),
        *(
            pytest.param(name, "openvino", marks=requires(*OPENVINO_DECODING))
            for name in ARCHITECTURES
            if name not in LIKE_OTHERS
        ),
    ],
)


@pytest.mark.parametrize("search", SEARCHES.values(), ids=list(SEARCHES))
@each_model
def test_searches_of_a_padded_batch(name: str, backend: str, search: dict[str, Any]) -> None:
    model, fast = accelerated(name, backend)
    assert_served(fast, model, left_padded(), **search)


@each_model
def test_prompt_lookup(name: str, backend: str) -> None:
    model, fast = accelerated(name, backend)
    repeated = prompt(7)
    inputs = {key: tensor.repeat(1, 3) for key, tensor in repeated.items()}
    assert_served(fast, model, inputs, prompt_lookup_num_tokens=4, max_new_tokens=20)


@each_model
def test_assisted_decoding(name: str, backend: str) -> None:
    """The same model assists, so that candidates are accepted, or one whose are rejected."""
    model, fast = accelerated(name, backend)
    for assistant in (decoder(name), decoder("llama", seed=3, num_hidden_layers=1)):
        assert_served(fast, model, prompt(), assistant_model=assistant)


@pytest.mark.parametrize("length", [1, 2, 16, 17, 40])
@pytest.mark.parametrize("name", ["llama", "gemma3"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_prompts_of_every_length(name: str, backend: str, length: int) -> None:
    """The kernels compute at most 16 rows; the window of gemma3 has 8 tokens."""
    model, fast = accelerated(name, backend)
    assert_served(fast, model, prompt(length), max_new_tokens=20)


@pytest.mark.parametrize("batch", [8, 16, 17])
@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_batches_of_every_size(name: str, batch: int) -> None:
    model, fast = accelerated(name)
    assert_served(fast, model, prompt(3, batch))


@pytest.mark.parametrize("backend", BACKENDS)
def test_long_texts(backend: str) -> None:
    """The cache outgrows its memory several times."""
    model, fast = accelerated("llama", backend)
    assert_served(fast, model, prompt(5, 2), max_new_tokens=200)


@pytest.mark.parametrize("name", ["llama", "gemma3"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_prefill_in_parts(name: str, backend: str) -> None:
    model, fast = accelerated(name, backend)
    assert_served(fast, model, prompt(20), prefill_chunk_size=6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_guidance(backend: str) -> None:
    """A logits processor calls the model itself, with a cache of its own."""
    model, fast = accelerated("llama", backend)
    assert_same_tokens(fast, model, prompt(), guidance_scale=1.5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_early_exit(backend: str) -> None:
    """The first layers of the model assist it."""
    model, fast = accelerated("llama", backend)
    assert_same_tokens(fast, model, prompt(), assistant_early_exit=1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_optimized_assistant(backend: str) -> None:
    model, fast = accelerated("llama", backend)
    _, assistant = accelerated("qwen2")
    assert_served(fast, model, prompt(), assistant_model=assistant)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_prompt_of_embeddings(backend: str) -> None:
    model, fast = accelerated("llama", backend)
    inputs = prompt()
    embeddings = model.get_input_embeddings()(inputs["input_ids"]).detach()
    call = {"inputs_embeds": embeddings, "max_new_tokens": 12, "do_sample": False}
    assert torch.equal(fast.generate(**call), model.generate(**call))


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_eager_attention(name: str) -> None:
    """Its masks are numbers that are added."""
    model = decoder(name, attn_implementation="eager")
    fast: Any = cpuaccel.optimize(model, ["onednn"])
    for call in SEARCHES.values():
        assert_served(fast, model, left_padded(), **call)


def test_eager_attention_is_not_fused() -> None:
    fast: Any = cpuaccel.optimize(decoder("llama", attn_implementation="eager"), ["onednn"])
    fast.generate(**prompt(), max_new_tokens=2)
    assert fast.report.generation.outcome.evidence["fused_layers"] == 0


FUSED = dict.fromkeys(("llama", "qwen2", "qwen3", "gemma3", "mixtral", "qwen3_moe"), LAYERS)
FUSED["granite"] = 0


@pytest.mark.parametrize("name", FUSED)
def test_layers_of_the_kind_of_llama_are_fused(name: str) -> None:
    _, fast = accelerated(name)
    fast.generate(**prompt(), max_new_tokens=2)
    assert fast.report.generation.outcome.evidence["fused_layers"] == FUSED[name]


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe"])
def test_the_weights_of_chosen_experts_are_counted(name: str) -> None:
    """Two of four experts are chosen for a token."""
    model, fast = accelerated(name)
    fast.generate(**prompt(), max_new_tokens=2)
    generation = fast.report.generation
    assert generation.outcome.evidence["mixtures"] == LAYERS
    of_experts = sum(p.numel() for n, p in model.named_parameters() if ".experts." in n)
    of_others = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear))
    assert generation.stepper.bytes_per_step == 4 * (of_others + of_experts // 2)


@pytest.mark.parametrize("kind", ["onednn", "int8"])
@pytest.mark.parametrize("rows", [1, 5, 16, 17])
@torch.no_grad()
def test_experts_of_any_number_of_rows(rows: int, kind: str) -> None:
    """Each row is computed as if it were alone, by its own experts."""
    from cpuaccel_plugins.decoding.experts import FewRowsExperts, as_linear
    from cpuaccel_plugins.decoding.library import kernels
    from cpuaccel_plugins.decoding.linear import FewRowsLinear
    from cpuaccel_plugins.decoding.packed import Int8Linear

    original = decoder("qwen3_moe").model.layers[0].mlp.experts
    linear = FewRowsLinear if kind == "onednn" else Int8Linear
    weights = (original.gate_up_proj, original.down_proj)
    joint = (linear(as_linear(weight), kernels()) for weight in weights)
    experts = FewRowsExperts(original, *joint, kernels())
    hidden, shares = torch.randn(rows, 64), torch.rand(rows, 2)
    chosen = torch.stack([torch.randperm(4)[:2] for _ in range(rows)])
    assert torch.equal(experts(hidden, chosen, shares), original(hidden, chosen, shares))
    experts.finish_checking()
    assert experts.agrees
    found, expected = experts(hidden, chosen, shares), original(hidden, chosen, shares)
    tolerance = 1e-5 if kind == "onednn" else 3e-2
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()
    alone = torch.cat(
        [experts(*(t[r : r + 1] for t in (hidden, chosen, shares))) for r in range(rows)]
    )
    # An expert's activations have 8 bits where more than 4 rows chose it, and otherwise 16.
    limit = 1e-5 if kind == "onednn" else tolerance * float(found.abs().max())
    assert torch.allclose(alone, found, rtol=1e-4, atol=limit)


def test_layers_that_turn_pairs_of_neighbours_are_not_fused() -> None:
    """Ernie's layers have Llama's parts, but other rotations."""
    from transformers import Ernie4_5Config, Ernie4_5ForCausalLM

    from tests.generation.models import SIZE

    model = Ernie4_5ForCausalLM(Ernie4_5Config(**SIZE)).eval()
    fast: Any = cpuaccel.optimize(model, ["onednn"])
    assert_served(fast, model, left_padded())
    assert fast.report.generation.outcome.evidence["fused_layers"] == 0


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_bf16_weights(name: str) -> None:
    model = decoder(name).to(torch.bfloat16)
    fast: Any = cpuaccel.optimize(model, ["onednn"])
    assert_logits_close(fast, model)
    assert fast.report.generation.outcome.evidence["fused_layers"] == LAYERS


@pytest.mark.usefixtures("any_bf16")
@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2"])
def test_bf16_instead_of_float32(name: str) -> None:
    model = decoder(name)
    fast: Any = cpuaccel.optimize(model, ["onednn"], dtype="bfloat16")
    assert_logits_close(fast, model)
    assert max(d.relative for d in fast.report.generation.closeness.differences) > 1e-4


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2", "mixtral", "qwen3_moe"])
def test_weights_in_8_bits(name: str) -> None:
    """Logits of random models are nearly the same for all tokens: others may be chosen."""
    model = decoder(name)
    assert_logits_close(cpuaccel.optimize(model, ["int8"]), model, spared=int(name == "mixtral"))


def assert_logits_close(fast: Any, model: Any, spared: int = 0) -> None:
    """Compare the logits of generated tokens with those for the whole text at once.

    Of 24 tokens ``spared`` may differ: where a router finds two experts nearly as good.
    """
    inputs = left_padded()
    output = fast.generate(
        **inputs,
        **{"max_new_tokens": 8, "do_sample": False},
        **{"return_dict_in_generate": True, "output_logits": True},
    )
    mask = torch.cat([inputs["attention_mask"], torch.ones(3, 8, dtype=torch.int64)], 1)
    positions = (mask.cumsum(-1) - 1).clamp_min(0)
    with torch.no_grad():
        call = {"attention_mask": mask, "position_ids": positions, "use_cache": False}
        expected = model(output.sequences, **call).logits[:, -9:-1].float()
    found = torch.stack(output.logits, 1).float()
    differences = (found - expected).abs().amax(-1).flatten().sort().values
    assert differences[-1 - spared] <= 5e-2 * expected.abs().max()
    assert fast.report.calls == {"optimized": 1}
    assert fast.report.generation.outcome.status is Status.APPLIED
    assert fast.report.generation.closeness is not None
