"""Layers that grow hold what Transformers' own hold, and copy it rarely."""

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.cache_utils import (
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    StaticCache,
)

from cpuaccel.generation.cache import (
    SPARE,
    GrowingLayer,
    GrowingWindowLayer,
    Restorable,
    let_grow,
    unsupported,
)
from tests.generation.models import (
    WINDOW,
    accelerated,
    assert_served,
    decoder,
    left_padded,
    prompt,
)

HEADS, SIZE = 2, 3

Pair = tuple[GrowingLayer, DynamicLayer]

UPDATE = st.tuples(st.sampled_from(["update", "update in inference"]), st.integers(1, 5))
CHANGE = st.one_of(
    st.tuples(st.just("crop"), st.integers(0, 6)),
    st.tuples(st.sampled_from(["reorder", "select", "copy", "deepcopy", "reset", "store"])),
    st.tuples(st.just("repeat"), st.integers(1, 3)),
    st.tuples(st.just("update in bf16"), st.integers(1, 2)),
    st.tuples(st.just("record the past")),
)
OPERATIONS = st.lists(st.tuples(st.integers(0, 3), st.one_of(UPDATE, CHANGE)), max_size=24)


def states(
    batch: int, tokens: int, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(torch.randn(2, batch, HEADS, tokens, SIZE, dtype=dtype).unbind())  # type: ignore[return-value]


@dataclass(frozen=True)
class Memory:
    """A storage that has tensors, some of whose rows are wanted."""

    keys: torch.Tensor
    values: torch.Tensor
    rows: tuple[int, ...]

    @classmethod
    def of(cls, layer: DynamicLayer) -> "Memory":
        assert layer.keys is not None
        assert layer.values is not None
        return cls(layer.keys.clone(), layer.values.clone(), tuple(range(len(layer.keys))))

    @property
    def tokens(self) -> int:
        return self.keys.shape[2]

    @property
    def dtype(self) -> torch.dtype:
        return self.keys.dtype

    @property
    def nbytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes

    def read(self) -> tuple[torch.Tensor, torch.Tensor]:
        rows = torch.tensor(self.rows)
        return self.keys[rows], self.values[rows]

    def reorder(self, rows: Sequence[int]) -> "Memory":
        return replace(self, rows=tuple(self.rows[row] for row in rows))


def is_same(found: torch.Tensor | None, expected: torch.Tensor | None) -> bool:
    if found is None or expected is None or not expected.numel():
        return found is None or not found.numel()
    return found.dtype == expected.dtype and torch.equal(found, expected)


def public(layer: DynamicLayer) -> dict[str, object]:
    """Attributes that are plain values: the window, how many tokens there were, and the like."""
    return {k: v for k, v in vars(layer).items() if isinstance(v, int) and not k.startswith("_")}


def holds_the_same(layers: Pair) -> bool:
    growing, dynamic = layers
    assert growing.get_seq_length() == dynamic.get_seq_length()
    assert growing.is_initialized == dynamic.is_initialized
    assert growing.get_mask_sizes(3) == dynamic.get_mask_sizes(3)
    assert public(growing) == public(dynamic)
    if growing.storage is not None:  # what it has is compared when it is read
        return True
    return is_same(growing.keys, dynamic.keys) and is_same(growing.values, dynamic.values)


def raises(call: Any) -> str:
    try:
        call()
    except Exception as error:  # a window that was passed or is empty can't be cropped
        return str(error)
    return ""


def run(layers: Pair, name: str, number: int) -> list[Pair]:
    """Run one operation on both layers; returns the copies that it makes."""
    growing, dynamic = layers
    kept = dynamic.keys is not None and dynamic.keys.dim() == 4
    batch = len(dynamic.keys) if kept else 2
    if name == "update in inference":
        with torch.inference_mode():
            return run(layers, "update", number)
    if name.startswith("update"):
        new = states(batch, number, torch.bfloat16 if "bf16" in name else torch.float32)
        found, expected = (layer.update(*new) for layer in layers)
        assert all(map(torch.equal, found, expected))
    elif name in ("copy", "deepcopy"):
        return [tuple(getattr(copy, name)(layer) for layer in layers)]  # type: ignore[list-item]
    elif name == "store":
        if kept and dynamic.keys.shape[2] and not isinstance(dynamic, DynamicSlidingWindowLayer):
            growing.put(Memory.of(dynamic))
    elif name == "reset":
        for layer in layers:
            layer.reset()
    elif name == "crop":
        raised = [raises(lambda each=layer: each.crop(-number)) for layer in layers]
        assert raised[0] == raised[1]
    elif name == "record the past":
        for layer in layers:
            if isinstance(layer, DynamicSlidingWindowLayer):
                layer.activate_past_recording()
    elif name == "repeat":
        for layer in layers:
            layer.batch_repeat_interleave(number)
    else:
        indices = torch.randint(batch, (batch if name == "reorder" else max(1, batch - 1),))
        for layer in layers:
            (layer.reorder_cache if name == "reorder" else layer.batch_select_indices)(indices)
    return []


WINDOWS = (None, 1, 2, 5, 12)
"""Sizes of a sliding window; None for a layer without one."""


def make(window: int | None) -> Pair:
    if window is None:
        return GrowingLayer(), DynamicLayer()
    return GrowingWindowLayer(window), DynamicSlidingWindowLayer(window)


@settings(max_examples=400)
@given(st.sampled_from(WINDOWS), OPERATIONS)
def test_any_operations(window: int | None, operations: list[tuple[int, tuple[Any, ...]]]) -> None:
    """On a layer and its copies, in turns: none of them changes another one."""
    torch.manual_seed(0)
    pairs = [make(window)]
    for which, (name, *number) in operations:
        pairs += run(pairs[which % len(pairs)], name, *(number or [0]))
        assert all(map(holds_the_same, pairs))
    for growing, _ in pairs:
        growing.read()
    assert all(map(holds_the_same, pairs))


SLIDING = st.lists(
    st.one_of(
        st.tuples(st.just("update"), st.integers(1, 5)),
        st.tuples(st.sampled_from(["store", "reorder", "deepcopy"]), st.just(0)),
        st.tuples(st.just("crop"), st.integers(1, 3)),
    ),
    max_size=16,
)


@settings(max_examples=100)
@given(SLIDING, st.booleans())
def test_any_operations_on_a_sliding_window(
    operations: list[tuple[str, int]], record_past: bool
) -> None:
    """A storage has all tokens; whoever reads the layer sees those of the window."""
    torch.manual_seed(0)
    dynamic = DynamicSlidingWindowLayer(WINDOW)
    dynamic.record_past = record_past
    layer = GrowingWindowLayer.of(dynamic)
    everything: list[torch.Tensor] = []
    cropped = False  # cropped twice, Transformers' layer holds less than the window
    for name, number in operations:
        length = dynamic.get_seq_length()
        if name == "update":
            cropped = False
            new = states(2, number)
            found, expected = layer.update(*new), dynamic.update(*new)
            assert all(map(torch.equal, found, expected))
            everything = [torch.cat(pair, 2) for pair in zip(everything, new)] or list(new)
        elif name == "store" and length:
            layer.put(Memory(*everything, (0, 1)))
        elif name == "reorder" and length:
            for each in (layer, dynamic):
                each.reorder_cache(torch.tensor([1, 0]))
            everything = [part[[1, 0]] for part in everything]
        elif name == "deepcopy":
            layer = copy.deepcopy(layer)
        elif name == "crop" and number < length and not cropped:
            if length >= WINDOW and not record_past:
                continue
            cropped = True
            for each in (layer, dynamic):
                each.crop(-number)
            everything = [part[:, :, :-number] for part in everything]
        assert layer.get_seq_length() == dynamic.get_seq_length()
        assert layer.get_mask_sizes(3) == dynamic.get_mask_sizes(3)
    if everything:
        window = min(WINDOW - 1, dynamic.get_seq_length())
        assert torch.equal(layer.keys[:, :, -window:], dynamic.keys[:, :, -window:])
        assert torch.equal(layer.values[:, :, -window:], dynamic.values[:, :, -window:])


def test_single_tokens_are_written_into_the_same_memory() -> None:
    layer = GrowingLayer()
    layer.update(*states(2, 9))
    begins = {layer.update(*states(2, 1))[0].data_ptr() for _ in range(500)}
    assert layer.get_seq_length() == 509
    assert len(begins) <= 5


@pytest.mark.parametrize("length", [1, 30])
@pytest.mark.parametrize("window", [8, 1000])
def test_a_window_is_copied_once_for_each_window_of_tokens(window: int, length: int) -> None:
    """And what was returned stays as it is, wherever the window is by then."""
    layer, dynamic = make(window)
    layer.update(*(prefill := states(2, length)))
    dynamic.update(*prefill)
    begins, returned = [], []
    for _ in range(3 * 1000):
        new = states(2, 1)
        found, expected = layer.update(*new), dynamic.update(*new)
        assert all(map(torch.equal, found, expected))
        assert layer.keys is not None
        begins.append(layer.keys.untyped_storage().data_ptr())
        if len(begins) % 100 == 0:
            returned.append((found[0], expected[0]))
    changes = sum(one != other for one, other in itertools.pairwise(begins))
    assert changes <= 3 * 1000 // max(window - 1, SPARE) + 5
    assert layer.keys.untyped_storage().nbytes() <= 2 * HEADS * SIZE * 4 * (2 * window + SPARE)
    assert all(torch.equal(one, other) for one, other in returned)


@pytest.mark.parametrize("layers", [1, 2])
def test_a_window_that_is_restored(layers: int) -> None:
    """To before a step that failed half-way, or at its end."""
    cache, expected = (DynamicCache(config=decoder("gemma3").config) for _ in range(2))
    let_grow(cache)
    for _ in range(20):
        new = states(1, 1)
        for each in (cache, expected):
            each.update(*new, 0)
        before = Restorable(cache)
        for index in range(layers):
            cache.update(*states(1, 1), index)
        before.restore()
        assert cache.get_mask_sizes(1, 0) == expected.get_mask_sizes(1, 0)
        assert torch.equal(cache.layers[0].keys, expected.layers[0].keys)
        assert torch.equal(cache.layers[0].values, expected.layers[0].values)


@pytest.mark.parametrize("inputs", [prompt(30), left_padded()], ids=["one row", "padded"])
def test_kernels_read_a_window_wherever_it_is(inputs: dict[str, torch.Tensor]) -> None:
    """Over more tokens than the memory has room for."""
    model, fast = accelerated("gemma3")
    assert_served(fast, model, inputs, max_new_tokens=3 * SPARE)


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy])
def test_a_copy_and_its_source_do_not_overwrite_each_other(make: Any) -> None:
    source = GrowingLayer()
    source.update(*states(1, 4))
    copied = make(source)
    kept = source.keys.clone()
    first, second = states(1, 1), states(1, 1)
    source.update(*first)
    copied.update(*second)
    assert torch.equal(source.keys, torch.cat([kept, first[0]], 2))
    assert torch.equal(copied.values[:, :, 4:], second[1])
    assert torch.equal(copied.keys, torch.cat([kept, second[0]], 2))


def test_keys_that_a_caller_holds_stay_as_they_are() -> None:
    """As with Transformers' own layer, whatever happens to the cache."""
    layer = GrowingLayer()
    layer.update(*states(1, 6))
    held = layer.keys
    expected = held.clone()
    layer.crop(-3)
    layer.update(*states(1, 2))
    assert torch.equal(held, expected)


def test_a_filled_cache_grows_on() -> None:
    cache, expected = DynamicCache(), DynamicCache()
    for index in range(2):
        new = states(1, 7)
        for each in (cache, expected):
            each.update(*new, index)
    let_grow(cache)
    assert {type(layer) for layer in cache.layers} == {GrowingLayer}
    for index in range(3):
        new = states(1, 1)
        for each in (cache, expected):
            each.update(*new, index)
    assert [type(layer) for layer in cache.layers] == [GrowingLayer] * 3
    for found, layer in zip(cache.layers, expected.layers, strict=True):
        assert torch.equal(found.keys, layer.keys)
        assert torch.equal(found.values, layer.values)


def test_the_source_of_a_growing_layer_stays_as_it_is() -> None:
    source = DynamicLayer()
    source.update(*states(1, 5))
    kept = source.keys.clone()
    GrowingLayer.of(source).update(*states(1, 2))
    assert torch.equal(source.keys, kept)


@pytest.mark.parametrize("length", [0, 5, 30])
@pytest.mark.parametrize("records", [False, True])
def test_a_filled_window_grows_on(length: int, records: bool) -> None:
    cache, expected = (DynamicCache(config=decoder("gemma3").config) for _ in range(2))
    if records:
        for each in (cache, expected):
            each.activate_past_recording()
    for index in range(2):
        if length:
            new = states(1, length)
            for each in (cache, expected):
                each.update(*new, index)
    let_grow(cache)
    assert [type(layer) for layer in cache.layers] == [GrowingWindowLayer, GrowingLayer]
    assert unsupported(cache) == ""
    for _ in range(12):
        for index in range(2):
            new = states(1, 2)
            found, wanted = (each.update(*new, index) for each in (cache, expected))
            assert all(map(torch.equal, found, wanted))
    assert cache.get_seq_length() == expected.get_seq_length() == length + 24


class OtherCache(DynamicCache):
    """Another kind of cache, like quantized ones."""


class OtherLayer(DynamicLayer):
    """Another kind of layer, like quantized ones."""


def offloaded() -> DynamicCache:
    cache = DynamicCache()
    cache.offloading = True
    return cache


def with_another_layer() -> DynamicCache:
    cache = DynamicCache()
    cache.layers.append(OtherLayer())
    return cache


UNSUPPORTED: dict[str, tuple[Any, str]] = {
    "none": (lambda: None, "use_cache=False"),
    "tensors": (lambda: (states(1, 2),), "no cache"),
    "static": (lambda: StaticCache(decoder("llama").config, max_cache_len=8), "StaticCache"),
    "quantized": (OtherCache, "OtherCache"),
    "offloaded": (offloaded, "DynamicCache"),
    "quantized layers": (with_another_layer, "OtherLayer"),
}


@pytest.mark.parametrize(("make", "reason"), UNSUPPORTED.values(), ids=list(UNSUPPORTED))
def test_unsupported_caches(make: Any, reason: str) -> None:
    assert reason in unsupported(make())


def test_supported_caches() -> None:
    assert unsupported(DynamicCache()) == ""
    assert unsupported(DynamicCache(config=decoder("llama").config)) == ""
