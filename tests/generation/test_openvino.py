"""Keys and values in OpenVINO's memory: who reads them, and what is refused."""

import copy
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from transformers.cache_utils import DynamicCache

import cpuaccel
from cpuaccel.generation.cache import Restorable, let_grow
from tests.generation.models import (
    LAYERS,
    accelerated,
    assert_served,
    decoder,
    left_padded,
    prompt,
    tokens_of,
)
from tests.required import OPENVINO_DECODING, requires

pytestmark = requires(*OPENVINO_DECODING)

CLOSE = {"rtol": 1e-3, "atol": 1e-4}
GREEDY = {"max_new_tokens": 12, "do_sample": False}


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the layers whose keys and values are read."""
    from cpuaccel_plugins.openvino.decoding.request import Request

    numbers: list[int] = []
    read = Request.read

    def counted(self: Request, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        numbers.append(layer)
        return read(self, layer)

    monkeypatch.setattr(Request, "read", counted)
    return numbers


@pytest.mark.parametrize("call", [{}, {"num_beams": 3}, {"do_sample": True}])
@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_a_text_stays_in_the_engines_memory(
    name: str, call: dict[str, Any], reads: list[int]
) -> None:
    model, fast = accelerated(name, "openvino")
    fast.prepare_generation()
    reads.clear()
    assert_served(fast, model, left_padded(), **call)
    assert reads == []


def test_it_is_read_where_tokens_are_rejected(reads: list[int]) -> None:
    model, fast = accelerated("llama", "openvino")
    fast.prepare_generation()
    reads.clear()
    inputs = {key: tensor.repeat(1, 3) for key, tensor in prompt(7).items()}
    assert_served(fast, model, inputs, prompt_lookup_num_tokens=4, max_new_tokens=20)
    assert reads[:LAYERS] == list(range(LAYERS))


def caches(name: str = "llama") -> tuple[Any, Any, DynamicCache, DynamicCache]:
    """A model, its stepper, and what both have in their caches after three prompts."""
    model, fast = accelerated(name, "openvino")
    fast.prepare_generation()
    forward = fast.report.generation.stepper.forward
    made = []
    for each in (forward, model):
        cache = DynamicCache(config=model.config)
        let_grow(cache)
        with torch.no_grad():
            each(**prompt(13, 3), past_key_values=cache)
        made.append(cache)
    return model, forward, *made  # type: ignore[return-value]


def a_step(rows: int, length: int = 13) -> dict[str, torch.Tensor]:
    """One token more."""
    return {
        "input_ids": torch.arange(3, 3 + rows)[:, None],
        "attention_mask": torch.ones(rows, length + 1, dtype=torch.int64),
        "position_ids": torch.full((rows, 1), length),
    }


def assert_same_contents(found: DynamicCache, expected: DynamicCache) -> None:
    assert found.get_seq_length() == expected.get_seq_length()
    for layer, other in zip(found.layers, expected.layers, strict=True):
        for name in ("keys", "values"):
            torch.testing.assert_close(getattr(layer, name), getattr(other, name), **CLOSE)


CHANGES: dict[str, Any] = {
    "reorder": lambda cache: cache.reorder_cache(torch.tensor([2, 0, 0])),
    "reorder twice": lambda cache: [
        cache.reorder_cache(torch.tensor(order)) for order in ([2, 0, 1], [0, 0, 1])
    ],
    "repeat": lambda cache: cache.batch_repeat_interleave(2),
    "select": lambda cache: cache.batch_select_indices(torch.tensor([2, 0])),
    "crop": lambda cache: cache.crop(-2),
    "one layer": lambda cache: setattr(cache.layers[1], "keys", cache.layers[1].keys * 2),
    "read": lambda cache: [layer.values.sum() for layer in cache.layers],
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_a_changed_cache(change: Any) -> None:
    """The engine goes on from what others made of the cache, and they from what it made."""
    model, forward, cache, expected = caches()
    for each in (cache, expected):
        change(each)
    rows, length = expected.layers[0].keys.shape[0], expected.get_seq_length()
    with torch.no_grad():
        found, logits = (
            each(**a_step(rows, length), past_key_values=past).logits
            for each, past in ((forward, cache), (model, expected))
        )
    torch.testing.assert_close(found, logits, **CLOSE)
    assert [type(layer.storage).__name__ for layer in cache.layers] == ["StateLayer"] * LAYERS
    assert cache.get_seq_length() == expected.get_seq_length() == length + 1


@pytest.mark.parametrize("order", [None, [2, 0, 1]])
def test_a_call_that_is_given_up(order: list[int] | None) -> None:
    """As where it returned NaN: the tokens before it are still there, in the order of the rows."""
    _, forward, cache, expected = caches()
    if order is not None:
        for each in (cache, expected):
            each.reorder_cache(torch.tensor(order))
    before = Restorable(cache)
    forward(**a_step(3), past_key_values=cache)
    before.restore()
    assert cache.get_seq_length() == 13
    assert_same_contents(cache, expected)


@pytest.mark.parametrize("order", [None, [2, 0, 1]])
def test_a_call_in_which_the_engine_fails(order: list[int] | None) -> None:
    """Its tokens are not read, and rows that it may have reordered are not either."""
    _, _, cache, expected = caches()
    if order is not None:
        cache.reorder_cache(torch.tensor(order))
    state = cache.layers[0].storage
    inputs = {**a_step(3), "input_ids": torch.ones(3, 1, 1, dtype=torch.int64)}
    with pytest.raises(RuntimeError):
        state.request.run(inputs, state.rows)
    if order is None:
        assert_same_contents(cache, expected)
    else:
        with pytest.raises(cpuaccel.BackendError, match="the cache is lost"):
            cache.layers[1].keys  # noqa: B018


def test_nan_goes_to_the_original() -> None:
    """A token whose embedding is infinite, in the second turn."""
    model = decoder("llama", num_hidden_layers=1)
    with torch.no_grad():
        model.model.embed_tokens.weight[450] = float("inf")
    fast: Any = cpuaccel.optimize(model, ["openvino"])
    call = {"do_sample": False, "return_dict_in_generate": True}
    kept = []
    for each in (fast, model):
        first = each.generate(**prompt(), max_new_tokens=4, **call)
        text = torch.cat([first.sequences, torch.tensor([[450]])], 1)
        each.generate(text, past_key_values=first.past_key_values, max_new_tokens=1, **call)
        kept.append(first.past_key_values.layers[0].keys)
    found, expected = (keys[:, :, :15] for keys in kept)
    assert found.shape[2] == 15
    torch.testing.assert_close(found, expected, **CLOSE)
    assert fast.report.calls == {"optimized": 1, "fallback:method": 1}
    assert "NaN" in fast.report.fallbacks["fallback:method"]


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_threads_generate_side_by_side(name: str) -> None:
    """Each has a request of its own."""
    model, fast = accelerated(name, "openvino")
    inputs = [
        {**prompt(5 + index, 1 + index % 3, seed=index), **GREEDY, "num_beams": 1 + index % 2}
        for index in range(8)
    ]
    expected = [model.generate(**each) for each in inputs]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda each: fast.generate(**each), inputs))
    assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize("order", ["fk", "kf"])
@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_a_conversation_with_another_backend(name: str, order: str) -> None:
    """Over one cache, which the kernels of ``onednn`` read."""
    model, fast = accelerated(name, "openvino")
    _, other = accelerated(name)
    text, cache = prompt(9)["input_ids"], None
    for kind in order:
        each = fast if kind == "f" else other
        output = each.generate(text, past_key_values=cache, return_dict_in_generate=True, **GREEDY)
        assert torch.equal(output.sequences, model.generate(text, **GREEDY))
        text = torch.cat([output.sequences, prompt(3)["input_ids"]], 1)
        cache = output.past_key_values


def test_a_cache_made_without_a_config() -> None:
    model, fast = accelerated("gemma3", "openvino")
    before = fast.report.calls
    found, expected = (
        tokens_of(each, prompt(), past_key_values=DynamicCache()) for each in (fast, model)
    )
    assert torch.equal(found, expected)
    assert fast.report.calls - before == {"optimized": 1}


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy])
def test_a_copied_layer_and_its_source(make: Any) -> None:
    """The copy has tensors, which the engine does not change."""
    _, forward, cache, expected = caches()
    copied = make(cache.layers[0])
    forward(**a_step(3), past_key_values=cache)
    torch.testing.assert_close(copied.keys, expected.layers[0].keys, **CLOSE)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "embeddings": ({"input_ids": None, "inputs_embeds": torch.zeros(3, 1, 64)}, "inputs_embeds"),
    "another argument": ({"token_type_ids": torch.zeros(3, 1)}, "token_type_ids"),
    "a mask of four dimensions": ({"attention_mask": torch.ones(3, 1, 1, 14)}, "mask"),
    "padding without positions": (
        {"position_ids": None, "attention_mask": torch.tensor([[0] + [1] * 13] * 3)},
        "positions",
    ),
    "a late position": ({"position_ids": torch.full((3, 1), 256)}, "256 of the model"),
    "no token": ({"input_ids": torch.ones(3, 0, dtype=torch.int64)}, "no tokens"),
    "a position below zero": ({"position_ids": torch.full((3, 1), -1)}, "256 of the model"),
    "an unknown token": ({"input_ids": torch.full((3, 1), 500)}, "vocabulary"),
    "another batch": (a_step(2), "2 rows"),
}


@pytest.mark.parametrize(("changes", "reason"), REFUSED.values(), ids=list(REFUSED))
def test_calls_that_the_graph_does_not_serve(changes: dict[str, Any], reason: str) -> None:
    _, forward, cache, expected = caches()
    with pytest.raises(cpuaccel.BackendError, match=reason):
        forward(**{**a_step(3), **changes}, past_key_values=cache)
    assert_same_contents(cache, expected)


SHAPES: dict[str, Any] = {
    "fewer tokens": lambda keys: keys[:, :, :-1],
    "fewer rows": lambda keys: keys[:2],
    "fewer heads": lambda keys: keys[:, :1],
}


@pytest.mark.parametrize("change", SHAPES.values(), ids=list(SHAPES))
def test_a_layer_with_another_shape(change: Any) -> None:
    """OpenVINO does not check it."""
    _, forward, cache, _ = caches()
    cache.layers[1].keys = change(cache.layers[1].keys)
    with pytest.raises(cpuaccel.BackendError, match="tensors of shape"):
        forward(**a_step(3), past_key_values=cache)


def test_embeddings_are_served_by_the_original() -> None:
    """And the tokens after them by the graph."""
    model, fast = accelerated("llama", "openvino")
    embeddings = model.get_input_embeddings()(prompt()["input_ids"]).detach()
    fast.prepare_generation()
    steps = fast.report.generation.meter.steps
    found, expected = (m.generate(inputs_embeds=embeddings, **GREEDY) for m in (fast, model))
    assert torch.equal(found, expected)
    assert "inputs_embeds" in fast.report.fallbacks["fallback:method"]
    assert fast.report.generation.meter.steps - steps == 11


def test_texts_longer_than_the_positions() -> None:
    """A table of positions ends, where a graph would read past it."""
    _, fast = accelerated("gpt2", "openvino")
    with pytest.raises(IndexError):
        fast.generate(**prompt(250), max_new_tokens=12, do_sample=False)
