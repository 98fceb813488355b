"""Weights and adapters that change, threads, and caches that are used again."""

import copy
import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

import cpuaccel
from tests.generation.models import (
    BACKENDS,
    LAYERS,
    accelerated,
    add_adapters,
    assert_same_tokens,
    assert_served,
    decoder,
    left_padded,
    prompt,
    tokens_of,
)
from tests.required import requires


def change_in_place(model: Any) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)


CHANGES: dict[str, Any] = {
    "in place": lambda model, fast: change_in_place(model),
    "one weight in place": lambda model, fast: change_in_place(model.model.layers[1].mlp.up_proj),
    "loaded into the original": lambda model, fast: model.load_state_dict(
        decoder("llama", seed=1).state_dict()
    ),
    "loaded into the optimized model": lambda model, fast: fast.load_state_dict(
        decoder("llama", seed=1).state_dict()
    ),
    "a hook": lambda model, fast: model.model.layers[0].self_attn.register_forward_hook(
        lambda module, inputs, output: (output[0] * 3, *output[1:])
    ),
    "another module": lambda model, fast: setattr(
        model.model.layers[0], "mlp", decoder("llama", seed=1).model.layers[0].mlp
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_weights_are_used(change: str) -> None:
    model = decoder("llama")
    fast: Any = cpuaccel.optimize(model, ["onednn"])
    assert_served(fast, model, left_padded())
    before, built = fast.generate(**prompt(), max_new_tokens=30), fast.report.generation
    CHANGES[change](model, fast)
    assert_served(fast, model, left_padded())
    assert not torch.equal(fast.generate(**prompt(), max_new_tokens=30), before)
    assert fast.report.generation is not built


def test_hooks_are_called() -> None:
    """As often as by the original, also in layers that are otherwise fused."""
    model = decoder("llama")
    calls: list[str] = []
    for name in ("self_attn", "mlp", "self_attn.q_proj", "post_attention_layernorm"):
        module = model.model.layers[0].get_submodule(name)
        module.register_forward_hook(lambda *_, name=name: calls.append(name))
        module.register_forward_pre_hook(lambda *_, name=name: calls.append(f"before {name}"))
    fast: Any = cpuaccel.optimize(model, ["onednn"])
    fast.generate(**prompt(), max_new_tokens=2)
    called = []
    for each in (fast, model):
        calls.clear()
        each.generate(**prompt(), max_new_tokens=8)
        called.append(list(calls))
    assert called[0] == called[1]
    assert fast.report.calls == {"optimized": 2}
    assert fast.report.generation.outcome.evidence["fused_layers"] == 1


def test_layers_stay_fused_after_the_original_returned_hidden_states() -> None:
    """Transformers leaves hooks behind that record them."""
    model = decoder("llama")
    fast: Any = cpuaccel.optimize(model, ["onednn"])
    assert_served(fast, model, prompt())
    model(**prompt(), output_hidden_states=True)
    assert_served(fast, model, prompt())
    assert fast.report.generation.outcome.evidence["fused_layers"] == LAYERS


def test_weights_in_8_bits_are_quantized_again() -> None:
    model = decoder("llama")
    fast: Any = cpuaccel.optimize(model, ["int8"])
    call = {"max_new_tokens": 1, "return_dict_in_generate": True, "output_logits": True}
    for _ in range(2):
        found, expected = (m.generate(**prompt(), **call).logits[0] for m in (fast, model))
        assert (found - expected).abs().max() < 0.05 * expected.abs().max()
        change_in_place(model)
    assert fast.report.calls == {"optimized": 2}


@pytest.mark.parametrize("backend", BACKENDS)
def test_it_is_built_once_for_unchanged_weights(backend: str) -> None:
    _, fast = accelerated("llama", backend)
    fast.generate(**prompt(), max_new_tokens=2)
    built = fast.report.generation
    fast.generate(**prompt(), max_new_tokens=2)
    assert fast.report.generation is built


def test_training_mode() -> None:
    model = decoder("llama")
    fast: Any = cpuaccel.optimize(model, ["onednn"])
    assert_served(fast, model, prompt())
    fast.train()
    fast.generate(**prompt(), max_new_tokens=2)
    fast.eval()
    change_in_place(model)
    assert_served(fast, model, prompt())
    assert fast.report.calls == {"optimized": 2, "fallback:training": 1}


def test_a_copy_generates() -> None:
    model = decoder("llama")
    fast: Any = cpuaccel.optimize(model, ["onednn"])
    assert_served(fast, model, prompt())
    assert_served(copy.deepcopy(fast), model, prompt())


def test_released_weights() -> None:
    """The kernels read the original's weights, wherever they are."""
    model, expected = decoder("llama"), decoder("llama")
    inputs = {**prompt(), "use_cache": False}
    step = cpuaccel.Step("onednn", measure=False)
    fast: Any = cpuaccel.optimize(model, [step], example_inputs=inputs, keep_original=False)
    assert_served(fast, expected, left_padded())
    with torch.no_grad():
        torch.testing.assert_close(fast(**inputs).logits, expected(**inputs).logits)
    assert_served(fast, expected, left_padded())


@requires("peft>=0.17")
@pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute:UserWarning")
def test_another_adapter_is_used() -> None:
    model = decoder("llama")
    add_adapters(model, "one", "two")
    fast: Any = cpuaccel.optimize(model, ["onednn"])
    generated = []
    for name in ("one", "two", "one"):
        model.set_adapter(name)
        assert_served(fast, model, left_padded())
        generated.append(tokens_of(fast, left_padded()))
    model.disable_adapters()
    assert_served(fast, model, left_padded())
    generated.append(tokens_of(fast, left_padded()))
    first, second, again, without = generated
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert not torch.equal(first, without)


def first_logits(model: Any) -> torch.Tensor:
    call = {"max_new_tokens": 2, "do_sample": False, "return_dict_in_generate": True}
    logits: torch.Tensor = model.generate(**left_padded(), output_logits=True, **call).logits[0]
    return logits


@requires("peft>=0.17")
@pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute:UserWarning")
@pytest.mark.parametrize(("int4_names", "largest"), [([], 0.05), (["model.layers.*"], 0.25)])
def test_adapters_around_packed_weights(int4_names: list[str], largest: float) -> None:
    """peft casts activations to the dtype of the weight."""
    model = decoder("llama")
    add_adapters(model, "one", "two")
    fast: Any = cpuaccel.optimize(model, [cpuaccel.Step("int8", int4_names=int4_names)])
    expected = []
    for change in (
        lambda: model.set_adapter("one"),
        lambda: model.set_adapter("two"),
        lambda: change_in_place(model.model.layers),
        model.disable_adapters,
    ):
        change()
        expected.append(first_logits(model))
        difference = (first_logits(fast) - expected[-1]).abs().max() / expected[-1].abs().max()
        assert difference < largest
    assert set(fast.report.calls) == {"optimized"}
    steps = [(a - b).abs().max() / b.abs().max() for a, b in itertools.pairwise(expected)]
    assert min(steps) > 2 * largest


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_threads_generate_side_by_side(name: str) -> None:
    """They build it at once, and each has its own cache."""
    model = decoder(name)
    fast: Any = cpuaccel.optimize(model, ["onednn"])
    inputs = [prompt(5 + index, 1 + index % 3, seed=index) for index in range(8)]
    call = {"max_new_tokens": 12, "do_sample": False}
    expected = [model.generate(**each, **call) for each in inputs]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda each: fast.generate(**each, **call), inputs))
    assert all(map(torch.equal, found, expected))
    assert fast.report.calls == {"optimized": 8}
    assert fast.report.generation.meter.steps == 8 * 11


def turns(
    models: list[Any], cache: Any = None, **call: object
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Let models take turns in a conversation over one cache."""
    text = prompt(9)["input_ids"]
    found = []
    for turn, model in enumerate(models):
        output = model.generate(
            text,
            past_key_values=cache,
            **{"attention_mask": torch.ones_like(text), "max_new_tokens": 6, "do_sample": False},
            return_dict_in_generate=True,
            **call,
        )
        cache = output.past_key_values
        found.append(output.sequences)
        answer = prompt(3, seed=turn + 1)["input_ids"].expand(len(output.sequences), -1)
        text = torch.cat([output.sequences, answer], 1)
    return found, cache.layers[1].keys


@pytest.mark.parametrize("order", ["fff", "fof", "off", "foo", "ofo"])
@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_conversation_over_one_cache(name: str, order: str, backend: str) -> None:
    """Of turns by the optimized model and by the original, in any order."""
    model, fast = accelerated(name, backend)
    before = fast.report.calls
    found, keys = turns([fast if kind == "f" else model for kind in order])
    expected, keys_of_original = turns([model] * 3)
    assert all(map(torch.equal, found, expected))
    torch.testing.assert_close(keys, keys_of_original, rtol=1e-3, atol=1e-3)
    assert fast.report.calls - before == {"optimized": order.count("f")}


@pytest.mark.usefixtures("any_bf16")
@pytest.mark.parametrize("order", ["off", "fof"])
@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2"])
def test_a_conversation_in_two_precisions(name: str, order: str) -> None:
    """The cache has keys in float32 of the original's turns, and keys in bfloat16."""
    model = decoder(name)
    fast: Any = cpuaccel.optimize(model, ["onednn"], dtype="bfloat16")
    found, _ = turns([fast if kind == "f" else model for kind in order])
    assert [sequences.shape[1] for sequences in found] == [15, 24, 33]
    text = found[-1][0]
    logits = model(text[None]).logits[0, :-1]
    behind = logits.amax(-1) - logits.gather(1, text[1:, None])[:, 0]
    for begin in (9, 18, 27):  # each answer has the best next tokens, or nearly
        assert bool((behind[begin - 1 : begin + 5] <= 5e-2 * logits.abs().max()).all())


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_cache_of_the_caller(backend: str) -> None:
    """It is extended in place, as by the original."""
    from transformers import DynamicCache

    model, fast = accelerated("llama", backend)
    caches = [DynamicCache(config=model.config) for _ in range(2)]
    found, expected = (
        tokens_of(m, prompt(), past_key_values=cache)
        for m, cache in zip((fast, model), caches, strict=True)
    )
    assert torch.equal(found, expected)
    assert [cache.get_seq_length() for cache in caches] == [found.shape[1] - 1] * 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_copied_prefix_is_used_for_several_texts(backend: str) -> None:
    """As the documentation of Transformers does it for a common prompt."""
    model, fast = accelerated("llama", backend)
    prefix = prompt(20)["input_ids"]
    results = []
    for each in (fast, model):
        call = {"max_new_tokens": 1, "return_dict_in_generate": True}
        cache = each.generate(prefix, **call).past_key_values
        tokens = []
        for seed in range(3):
            text = torch.cat([prefix, prompt(4, seed=seed)["input_ids"]], 1)
            mask = torch.ones_like(text)
            inputs = {"input_ids": text, "attention_mask": mask}
            tokens.append(tokens_of(each, inputs, past_key_values=copy.deepcopy(cache)))
        results.append(tokens)
    assert all(map(torch.equal, *results))


@pytest.mark.parametrize("key_heads", [2, 4])
def test_calls_of_the_original_with_gradients_over_a_cache(key_heads: int) -> None:
    """For example to score an answer; the cache was written without gradients."""
    model = decoder("llama", num_key_value_heads=key_heads)
    fast: Any = cpuaccel.optimize(model, ["onednn"])
    gradients = []
    for each in (fast, model):
        cache = each.generate(
            **prompt(), max_new_tokens=4, return_dict_in_generate=True
        ).past_key_values
        ids = prompt(2, seed=3)["input_ids"]
        first = model(ids, past_key_values=cache).logits
        second = model(ids, past_key_values=cache).logits
        model.zero_grad()
        (first.square().mean() + second.square().mean()).backward()
        gradients.append(model.model.layers[0].mlp.up_proj.weight.grad.clone())
        model.zero_grad()
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-5)


def test_a_changed_generation_config() -> None:
    model = decoder("llama")
    fast: Any = cpuaccel.optimize(model, ["onednn"])
    assert_served(fast, model, prompt())
    built = fast.report.generation
    fast.generation_config.repetition_penalty = 5.0
    assert_same_tokens(fast, model, prompt())
    assert model.generation_config.repetition_penalty == 5.0
    assert fast.report.calls == {"optimized": 2}
    assert fast.report.generation is built
