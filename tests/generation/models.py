"""Tiny decoders with random weights, and comparisons of what they generate."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

import cpuaccel
from tests.required import OPENVINO_DECODING, requires

VOCABULARY = 500
LAYERS = 2
WINDOW = 8
"""Tokens of the sliding window of gemma3."""

BACKENDS = ("onednn", pytest.param("openvino", marks=requires(*OPENVINO_DECODING)))
"""Backends whose tokens are the original's."""

SIZE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": None,
    "pad_token_id": 0,
}

ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", SIZE),
    "qwen2": ("Qwen2", SIZE),
    "qwen3": ("Qwen3", {**SIZE, "head_dim": 16}),
    "gemma3": (
        "Gemma3Text",
        {
            **SIZE,
            "head_dim": 16,
            "sliding_window": WINDOW,
            "layer_types": ["sliding_attention", "full_attention"],
        },
    ),
    "phi": ("Phi", SIZE),
    "phi3": ("Phi3", SIZE),
    "gpt2": (
        "GPT2",
        {
            **{"vocab_size": VOCABULARY, "n_embd": 64, "n_layer": LAYERS, "n_head": 4},
            **{"n_positions": 256, "bos_token_id": 1, "eos_token_id": None, "pad_token_id": 0},
        },
    ),
    "mixtral": ("Mixtral", {**SIZE, "num_local_experts": 4}),
    "qwen3_moe": (
        "Qwen3Moe",
        {
            **SIZE,
            **{"head_dim": 16, "num_experts": 4, "num_experts_per_tok": 2},
            "moe_intermediate_size": 32,
        },
    ),
    "granite": ("Granite", {**SIZE, "residual_multiplier": 0.5}),
    "olmo2": ("Olmo2", SIZE),
}
"""The name of the config's class without ``Config``, and its arguments."""


def decoder(name: str, *, seed: int = 0, **changes: object) -> Any:
    """Make one of ``ARCHITECTURES`` in eval mode, with the same weights on every call.

    Args:
        name: a key of ``ARCHITECTURES``.
        seed: another one for other weights.
        changes: arguments of the config.
    """
    import transformers

    prefix, arguments = ARCHITECTURES[name]
    config = getattr(transformers, f"{prefix}Config")(**{**arguments, **changes})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(config)
    return model.eval()


@functools.cache
def accelerated(name: str, backend: str = "onednn") -> tuple[Any, Any]:
    """A decoder and what a backend makes of it, shared by the tests of a process."""
    model = decoder(name)
    return model, cpuaccel.optimize(model, [backend])


def add_adapters(model: Any, *names: str) -> None:
    """Add adapters with other weights each; peft is needed."""
    from peft import LoraConfig

    for seed, name in enumerate(names):
        torch.manual_seed(seed)
        config = LoraConfig(r=4, target_modules=["q_proj", "up_proj"], init_lora_weights=False)
        model.add_adapter(config, name)
    model.eval()


def prompt(length: int = 11, batch: int = 1, *, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random tokens, as arguments of ``generate``."""
    random = torch.Generator().manual_seed(seed)
    ids = torch.randint(2, VOCABULARY, (batch, length), generator=random)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def left_padded(length: int = 13) -> dict[str, torch.Tensor]:
    """Three prompts of different lengths, padded on the left."""
    inputs = prompt(length, 3)
    for row, padding in enumerate((0, 4, length - 2)):
        inputs["input_ids"][row, :padding] = 0
        inputs["attention_mask"][row, :padding] = 0
    return inputs


def tokens_of(model: Any, inputs: dict[str, torch.Tensor], **call: object) -> torch.Tensor:
    """Generate 12 tokens, with the same random numbers on every call."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        output = model.generate(**inputs, **{"max_new_tokens": 12, "do_sample": False, **call})
    assert isinstance(output, torch.Tensor)
    return output


def assert_same_tokens(
    fast: Any, model: Any, inputs: dict[str, torch.Tensor], **call: object
) -> None:
    """Assert that both models generate the same tokens."""
    expected = tokens_of(model, inputs, **call)
    assert expected.shape[1] > inputs["input_ids"].shape[1]
    assert torch.equal(tokens_of(fast, inputs, **call), expected)


@contextmanager
def served_once(fast: Any) -> Iterator[None]:
    """Assert that the stepper serves one call of ``generate``, and the original none."""
    before = fast.report.calls
    yield
    assert fast.report.calls - before == {"optimized": 1}, fast.report


def assert_served(fast: Any, model: Any, inputs: dict[str, torch.Tensor], **call: object) -> None:
    """Assert that the stepper serves one call of ``generate``, with the original's tokens."""
    with served_once(fast):
        assert_same_tokens(fast, model, inputs, **call)


def assert_falls_back(
    fast: Any, model: Any, inputs: dict[str, torch.Tensor], reason: str, **call: object
) -> None:
    """Assert that the original serves (a part of) one call of ``generate``, for a reason."""
    before = fast.report.calls
    assert_same_tokens(fast, model, inputs, **call)
    assert set(fast.report.calls - before) == {"fallback:method"}, fast.report
    assert reason in fast.report.fallbacks["fallback:method"]
