"""SmolLM2-135M-Instruct with its trained weights: real text, and the quality of 8 bits."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from transformers.cache_utils import DynamicCache

import cpuaccel
from cpuaccel.cli.generate.load import load
from cpuaccel.cli.models.demo import sentences
from cpuaccel.generation.cache import let_grow
from tests.generation.models import assert_served
from tests.required import ROOT, SMOLLM2, requires

pytestmark = requires(*SMOLLM2)

QUESTIONS = ["What is the capital of France?", "Why is the sky blue?", "Write a line of verse."]

MOST_DIVERGENCE, LEAST_AGREEMENT, MOST_PERPLEXITY = 0.01, 0.9, 1.02
"""Limits of 8 bits: mean divergence in nats, share of equal best tokens, times the perplexity, of
which the standard error is 0.005 on so few tokens."""


@pytest.fixture(scope="module")
def smollm2() -> tuple[Any, Any]:
    """The model and its tokenizer."""
    return load("smollm2", None)


def chats(tokenizer: Any) -> dict[str, torch.Tensor]:
    """Questions, padded on the left."""
    tokenizer.padding_side = "left"
    asked = [[{"role": "user", "content": question}] for question in QUESTIONS]
    encoded = tokenizer.apply_chat_template(
        asked, add_generation_prompt=True, return_tensors="pt", return_dict=True, padding=True
    )
    return {name: encoded[name] for name in ("input_ids", "attention_mask")}


def test_text_is_the_originals(smollm2: tuple[Any, Any]) -> None:
    model, tokenizer = smollm2
    fast: Any = cpuaccel.optimize(model, ["onednn"])
    assert_served(fast, model, chats(tokenizer), max_new_tokens=24)
    assert fast.report.generation.outcome.evidence["fused_layers"] == 30


def test_8_bits_keep_the_quality(smollm2: tuple[Any, Any]) -> None:
    """The next token of real text: divergence, best token and perplexity, in steps of 16 tokens."""
    model, tokenizer = smollm2
    fast: Any = cpuaccel.optimize(model, ["int8"])
    fast.prepare_generation()
    ids = tokenizer(" ".join(sentences()), return_tensors="pt")["input_ids"][:, :512]
    found = logits_of(model, fast.report.generation.stepper.forward, ids).log_softmax(-1)
    with torch.no_grad():
        expected = model(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)
    divergence = (expected.exp() * (expected - found)).sum(-1).mean()
    agreement = (found.argmax(-1) == expected.argmax(-1)).float().mean()
    losses = [-logits[:-1].gather(1, ids[0, 1:, None]).mean() for logits in (found, expected)]
    assert divergence <= MOST_DIVERGENCE
    assert agreement >= LEAST_AGREEMENT
    assert (losses[0] - losses[1]).exp() <= MOST_PERPLEXITY


def logits_of(model: Any, forward: Callable[..., Any], ids: torch.Tensor) -> torch.Tensor:
    """Compute the logits with a cache, shape (tokens, vocabulary)."""
    cache = DynamicCache(config=model.config)
    let_grow(cache)
    with torch.no_grad():
        parts = [
            forward(input_ids=part, past_key_values=cache, use_cache=True).logits[0]
            for part in ids.split(16, dim=1)
        ]
    return torch.cat(parts)


def test_the_example_of_the_docs(
    smollm2: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As it stands there, but with the weights of the package instead of the hub's."""
    model, tokenizer = smollm2
    page = (ROOT / "docs" / "how_to" / "chat.md").read_text(encoding="utf-8")
    code = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0]
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", lambda _: model)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda _: tokenizer)
    names: dict[str, Any] = {}
    exec(code, names)
    assert "'role': 'assistant'" in capsys.readouterr().out
    assert names["fast"].report.calls == {"optimized": 1}
