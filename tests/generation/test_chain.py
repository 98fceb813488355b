"""All layers in one call: only where that is what the model's code does."""

from typing import Any

import pytest
import torch

import cpuaccel
from cpuaccel.generation.cache import let_grow
from cpuaccel_plugins.decoding.chain import Chain
from tests.generation.models import assert_same_tokens, assert_served, decoder, left_padded, prompt


class Calls:
    """Counts the calls in which a chain computed, while it is patched."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.computed = self.refused = 0
        compute = Chain._compute

        def counted(chain: Chain, *args: Any) -> torch.Tensor | None:
            output = compute(chain, *args)
            self.computed += output is not None
            self.refused += output is None
            return output

        monkeypatch.setattr(Chain, "_compute", counted)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls(monkeypatch)


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("inputs", [prompt(30), left_padded()], ids=["one row", "padded"])
def test_steps_are_chained(name: str, inputs: dict[str, torch.Tensor], calls: Calls) -> None:
    model = decoder(name)
    fast: Any = cpuaccel.optimize(model, ["onednn"])
    fast.prepare_generation()
    calls.computed = calls.refused = 0
    assert_served(fast, model, inputs)
    assert (calls.computed, calls.refused) == (11, 0)  # the first token is that of the prefill


@pytest.mark.parametrize("name", ["gemma3", "mixtral", "phi"])
def test_other_layers_are_not(name: str, calls: Calls) -> None:
    """Of several kinds of attention, with experts, or without the parts of Llama's layer."""
    model = decoder(name)
    fast: Any = cpuaccel.optimize(model, ["onednn"])
    assert_served(fast, model, prompt())
    assert calls.computed == 0


def test_a_hook_between_layers(calls: Calls) -> None:
    model = decoder("llama")
    model.model.layers[1].register_forward_pre_hook(lambda module, args: (args[0] * 1.5, *args[1:]))
    fast: Any = cpuaccel.optimize(model, ["onednn"])
    assert_same_tokens(fast, model, prompt())
    assert calls.computed == 0


def test_a_hook_on_all_modules(calls: Calls) -> None:
    model = decoder("llama")
    fast: Any = cpuaccel.optimize(model, ["onednn"])
    fast.prepare_generation()
    calls.computed = calls.refused = 0
    seen: list[str] = []
    handle = torch.nn.modules.module.register_module_forward_hook(
        lambda module, args, output: seen.append(type(module).__name__)
    )
    try:
        assert_same_tokens(fast, model, prompt())
    finally:
        handle.remove()
    assert "LlamaDecoderLayer" in seen
    assert calls.computed == 0


@torch.no_grad()
def test_layers_that_are_left_out(calls: Calls) -> None:
    """As an early exit does: the stepper computes as many as the configuration says."""
    model = decoder("llama", num_hidden_layers=3)
    fast: Any = cpuaccel.optimize(model, ["onednn"])
    fast.prepare_generation()
    stepper = fast.report.generation.stepper.forward
    stepper.config.num_hidden_layers = model.config.num_hidden_layers = 2
    calls.computed = calls.refused = 0
    found, expected = (
        each(input_ids=torch.tensor([[5]]), past_key_values=filled(model), use_cache=True).logits
        for each in (stepper, model)
    )
    assert torch.allclose(found, expected, atol=1e-5)
    assert calls.computed == 0


def filled(model: Any) -> Any:
    return model(input_ids=torch.tensor([[3, 4]]), use_cache=True).past_key_values


def test_a_cache_that_was_filled_with_gradients(calls: Calls) -> None:
    """By the original, as for a score of a text; the stepper goes on without them."""
    model = decoder("llama")
    fast: Any = cpuaccel.optimize(model, ["onednn"])
    fast.prepare_generation()
    stepper = fast.report.generation.stepper.forward
    calls.computed = calls.refused = 0
    for each in (stepper, model):
        cache = filled(model)
        let_grow(cache)
        assert cache.layers[0].keys.requires_grad
        with torch.no_grad():
            logits = each(input_ids=torch.tensor([[5]]), past_key_values=cache, use_cache=True)
        if each is stepper:
            found = logits.logits
    assert torch.allclose(found, logits.logits, atol=1e-5)
    assert (calls.computed, calls.refused) == (1, 0)
