"""Tiny decoders, prompts for them, and how their texts and logits are compared."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch

VOCABULARY = 200
LONGEST = 256
"""Most tokens of a prompt and its text."""

SPECIAL: Mapping[str, int | None] = {"bos_token_id": 1, "eos_token_id": None, "pad_token_id": 0}

SIZE: Mapping[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": LONGEST,
    "initializer_range": 0.2,  # by less, random weights repeat one token
    **SPECIAL,
}

CONFIGS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "llama": ("Llama", SIZE),
    "gpt2": (
        "GPT2",
        {
            **{"vocab_size": VOCABULARY, "n_positions": LONGEST, "initializer_range": 0.2},
            **{"n_embd": 64, "n_layer": 2, "n_head": 4},
            **SPECIAL,
        },
    ),
    "gemma3": (
        "Gemma3Text",
        {
            **SIZE,
            **{"head_dim": 16, "sliding_window": 8},
            "layer_types": ["sliding_attention", "full_attention"],
        },
    ),
    "mixtral": ("Mixtral", {**SIZE, "num_local_experts": 4}),
    "bloom": (
        "Bloom",
        {
            **{"vocab_size": VOCABULARY, "initializer_range": 0.2},
            **{"hidden_size": 64, "n_layer": 2, "n_head": 4},
            **SPECIAL,
        },
    ),
    "falcon": ("Falcon", {**SIZE, "new_decoder_architecture": False, "alibi": False}),
    "opt": ("OPT", {**SIZE, "ffn_dim": 128, "word_embed_proj_dim": 64}),
}
"""The name of each config's class without ``Config``, and its arguments."""


def tiny_decoder(architecture: str = "llama") -> Any:
    """Make a tiny decoder of Transformers with random weights, in eval mode.

    Args:
        architecture: a key of ``CONFIGS``.
    """
    import transformers

    prefix, arguments = CONFIGS[architecture]
    auto: Any = transformers.AutoModelForCausalLM
    config = getattr(transformers, f"{prefix}Config")(**arguments)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return auto.from_config(config).eval()


def prompt(length: int, rows: int = 1, *, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random tokens, as arguments of ``generate``."""
    random = torch.Generator().manual_seed(seed)
    ids = torch.randint(2, VOCABULARY, (rows, length), generator=random)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def left_padded() -> dict[str, torch.Tensor]:
    """Three prompts of different lengths, padded on the left."""
    inputs = prompt(13, 3)
    for row, padding in enumerate((0, 4, 11)):
        inputs["input_ids"][row, :padding] = 0
        inputs["attention_mask"][row, :padding] = 0
    return inputs


def prompts() -> dict[str, dict[str, torch.Tensor]]:
    """Prompts by what they are."""
    return {
        "a prompt": prompt(24),
        "a prompt of one token": prompt(1, seed=1),
        "three rows": prompt(9, 3, seed=2),
        "rows padded on the left": left_padded(),
    }


def generated(model: Any, inputs: Mapping[str, torch.Tensor], **call: object) -> torch.Tensor:
    """Generate 24 tokens by greedy search, or as ``call`` says; shape (rows, tokens)."""
    arguments = {"max_new_tokens": 24, "do_sample": False, **call}
    output = model.generate(**inputs, **arguments)
    sequences = getattr(output, "sequences", output)
    assert isinstance(sequences, torch.Tensor)
    return sequences


def grown_cache(model: Any) -> Any:
    """An empty cache like those that a stepper gets."""
    from transformers.cache_utils import DynamicCache

    from cpuaccel.generation.cache import let_grow

    cache = DynamicCache(config=model.config.get_text_config(decoder=True))
    let_grow(cache)
    return cache


@torch.no_grad()
def logits_of(forward: Any, ids: torch.Tensor, cache: Any) -> torch.Tensor:
    """One call of a model or a stepper; shape (rows, tokens, vocabulary)."""
    logits = forward(input_ids=ids, past_key_values=cache, use_cache=True).logits
    assert isinstance(logits, torch.Tensor)
    return logits


def assert_close(found: torch.Tensor, expected: torch.Tensor, tolerance: float, what: str) -> None:
    """Assert that logits differ by at most a tolerance, relative to the largest one."""
    assert found.shape == expected.shape, what
    difference = (found.float() - expected.float()).abs().max() / expected.float().abs().max()
    assert difference <= tolerance, f"{what}: the logits differ by {difference:.2g}"


@torch.no_grad()
def assert_greedy(
    model: Any,
    found: torch.Tensor,
    expected: torch.Tensor,
    inputs: Mapping[str, torch.Tensor],
    tolerance: float,
    what: str,
) -> None:
    """Assert that a text is the original's, or that each token is nearly the original's best.

    Args:
        model: the original.
        found: the text with its prompt, shape (rows, tokens).
        expected: the original's.
        inputs: the prompt.
        tolerance: largest accepted difference of logits, relative to the largest one.
        what: names the text in a failure's message.
    """
    begin = inputs["input_ids"].shape[1]
    assert found.shape == expected.shape, what
    assert torch.equal(found[:, :begin], inputs["input_ids"]), what
    if torch.equal(found, expected):
        return
    logits = _logits_after(model, found, inputs["attention_mask"])[:, begin - 1 : -1]
    chosen = logits.gather(-1, found[:, begin:, None])[..., 0]
    behind = (logits.amax(-1) - chosen).max() / logits.abs().max()
    assert behind <= 2 * tolerance, f"{what}: a token that is {behind:.2g} behind the best one"


@torch.no_grad()
def assert_as_likely(
    model: Any,
    found: torch.Tensor,
    expected: torch.Tensor,
    inputs: Mapping[str, torch.Tensor],
    tolerance: float,
    what: str,
) -> None:
    """Assert that texts are the original's, or nearly as likely; see ``assert_greedy``."""
    begin = inputs["input_ids"].shape[1]
    assert found.shape == expected.shape, what
    if torch.equal(found, expected):
        return
    likelihoods, largest = [], torch.tensor(0.0)
    for text in (found, expected):
        logits = _logits_after(model, text, inputs["attention_mask"])[:, begin - 1 : -1]
        largest = torch.maximum(largest, logits.abs().max())
        chosen = logits.log_softmax(-1).gather(-1, text[:, begin:, None])
        likelihoods.append(chosen.mean((1, 2)))
    worse = (likelihoods[1] - likelihoods[0]).max()
    assert worse <= 2 * tolerance * largest, f"{what}: a text that is less likely by {worse:.2g}"


def _logits_after(model: Any, text: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The original's logits for a text, whose prompt may be padded on the left."""
    mask = torch.cat([mask, mask.new_ones(len(text), text.shape[1] - mask.shape[1])], 1)
    named: dict[str, torch.Tensor] = {}
    if "position_ids" in inspect.signature(model.forward).parameters:
        named["position_ids"] = (mask.cumsum(-1) - 1).clamp_min(0)
    logits = model(input_ids=text, attention_mask=mask, use_cache=False, **named).logits
    assert isinstance(logits, torch.Tensor)
    return logits.float()
