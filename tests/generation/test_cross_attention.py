"""Caches with keys of an encoder's output: when they are copied, and who may extend them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.cache_utils import (
    DynamicCache,
    DynamicLayer,
    EncoderDecoderCache,
    StaticCache,
)

import cpuaccel
from cpuaccel.generation.cache import GrowingLayer, Restorable, let_grow, unsupported
from cpuaccel.generation.cross_cache import CrossLayer
from cpuaccel.report import Status
from tests.conftest import Offer
from tests.generation.encoder_decoders import (
    assert_same_text,
    assert_served,
    encoder_decoder,
    source,
    text_of,
)
from tests.generation.steppers import Step, as_it_is, stepping
from tests.generation.test_cache import is_same, states
from tests.models import generator

OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("reorder"), st.lists(st.integers(0, 5), min_size=6, max_size=6)),
        st.tuples(st.just("select"), st.lists(st.integers(0, 5), min_size=6, max_size=6)),
        st.tuples(st.sampled_from(["repeat", "reset", "replace", "share", "look"]), st.just([])),
    ),
    max_size=10,
)


def rows_of_beams(sequences: int, beams: int) -> tuple[torch.Tensor, torch.Tensor]:
    keys, values = states(sequences, 5)
    return keys.repeat_interleave(beams, 0), values.repeat_interleave(beams, 0)


@settings(max_examples=100)
@given(OPERATIONS)
def test_any_operations(operations: list[tuple[str, list[int]]]) -> None:
    torch.manual_seed(0)
    layers = CrossLayer(), DynamicLayer()
    for name, indices in [("replace", []), *operations]:
        batch = 0 if layers[1].keys is None else len(layers[1].keys)
        chosen = torch.tensor([index % batch for index in indices if batch], dtype=torch.int64)
        new = rows_of_beams(2, 3)
        for layer in layers:
            if name == "reorder" and batch:
                layer.reorder_cache(chosen[:1].repeat(batch) if batch != 6 else chosen)
            elif name == "select" and batch:
                layer.batch_select_indices(chosen)
            elif name == "repeat" and batch in (1, 2, 3):
                layer.batch_repeat_interleave(2)
            elif name == "reset":
                layer.reset()
            elif name == "replace":
                layer.reset()
                layer.update(*new)
        cross, plain = layers
        if name == "share":
            keys, values = states(2, 5)
            places = torch.tensor([1, 0, 0, 1, 1, 1])
            cross.share(keys, values, places)
            plain.reset()
            plain.update(keys[places], values[places])
        elif name == "look":
            assert is_same(cross.keys, plain.keys)
            assert is_same(cross.values, plain.values)
        else:  # without reading the rows
            shared = cross.shared()
            assert (shared is None) == (not plain.get_seq_length())
            if shared is not None:
                *held, places = shared
                assert name != "replace" or len(held[0]) == 2
                assert is_same(held[0][places], plain.keys)
                assert is_same(held[1][places], plain.values)
        assert cross.get_seq_length() == plain.get_seq_length()


def test_rows_may_be_held_in_fewer_bits_than_copies_have() -> None:
    layer, (keys, values) = CrossLayer(), states(2, 5)
    brief = keys.bfloat16(), values.bfloat16()
    layer.share(*brief, torch.tensor([0, 1, 1]), torch.float32)
    held = layer.shared()
    assert held is not None
    assert held[0].dtype is torch.bfloat16
    assert is_same(layer.keys, brief[0].float()[[0, 1, 1]])
    assert is_same(layer.values, brief[1].float()[[0, 1, 1]])


def test_rows_are_copied_only_where_they_differ() -> None:
    layer = CrossLayer()
    layer.update(*rows_of_beams(2, 3))
    begin = layer.keys.data_ptr()
    for beams in ([0, 0, 1, 3, 4, 5], [2, 1, 0, 5, 5, 3]):
        layer.reorder_cache(torch.tensor(beams))
        assert layer.keys.data_ptr() == begin
    layer.reorder_cache(torch.tensor([3, 4, 5, 0, 1, 2]))
    assert layer.keys.data_ptr() != begin


def test_rows_that_stay_in_place_are_not_copied() -> None:
    layer = GrowingLayer()
    for _ in range(3):
        layer.update(*states(3, 2))
    memory, expected = layer.keys.data_ptr(), layer.keys[[0, 2, 1]]
    layer.reorder_cache(torch.tensor([0, 2, 1]))
    assert layer.keys.data_ptr() == memory
    assert torch.equal(layer.keys, expected)


def test_beam_search_copies_no_keys_of_the_encoder(offer: Offer) -> None:
    seen = []

    def watch(model: Any, inputs: dict[str, Any]) -> object:
        layers = inputs["past_key_values"].cross_attention_cache.layers
        seen.append([layer.keys.data_ptr() for layer in layers if layer.keys is not None])
        return model(**inputs)

    offer(stepping(watch))
    model = encoder_decoder("m2m100")
    fast: Any = cpuaccel.optimize(model, ["stepping"])
    fast.prepare_generation()
    seen.clear()
    assert_served(fast, model, source("m2m100", model), num_beams=3)
    assert len(seen) == 12
    assert seen[0] == []
    assert len(seen[1]) == 2
    assert all(step == seen[1] for step in seen[1:])


UNSUPPORTED: dict[str, Any] = {
    "static": lambda: EncoderDecoderCache(StaticCache(config(), max_cache_len=8), DynamicCache()),
    "static cross": lambda: EncoderDecoderCache(
        DynamicCache(), StaticCache(config(), max_cache_len=8)
    ),
}


def config() -> Any:
    return encoder_decoder("bart").config


@pytest.mark.parametrize("make", UNSUPPORTED.values(), ids=list(UNSUPPORTED))
def test_unsupported_caches(make: Callable[[], object]) -> None:
    assert "StaticCache" in unsupported(make())


def test_a_static_cache_goes_to_the_original() -> None:
    model = encoder_decoder("bart")
    fast: Any = cpuaccel.optimize(model, ["onednn"])
    assert_same_text(fast, model, source("bart", model), cache_implementation="static")
    assert set(fast.report.calls) == {"fallback:method"}
    assert "StaticCache" in fast.report.fallbacks["fallback:method"]


def test_a_cache_is_set_back() -> None:
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    let_grow(cache)
    before = Restorable(cache)
    cache.self_attention_cache.update(*states(1, 2), 0)
    cache.cross_attention_cache.update(*states(1, 5), 0)
    cache.is_updated[0] = True
    before.restore()
    assert cache.get_seq_length() == 0
    assert cache.cross_attention_cache.get_seq_length() == 0
    assert not cache.is_updated


class Failure:
    """Lets one call of a stepper fail in its second layer, after the first has changed the cache.

    Attributes:
        countdown: number of the call that fails, counted from now on; 0 for none.
    """

    countdown = 0

    def forward(self, model: Any, inputs: dict[str, Any]) -> object:
        """Compute one call."""
        self.countdown -= 1
        if self.countdown:
            return model(**inputs)
        layer = next(m for m in model.get_decoder().modules() if type(m) is torch.nn.ModuleList)[1]
        hook = layer.register_forward_pre_hook(_raise)
        try:
            return model(**inputs)
        finally:
            hook.remove()


def _raise(*_: object) -> None:
    raise RuntimeError("illegal instruction, nearly")


@pytest.mark.parametrize("call", [1, 2, 5])
@pytest.mark.parametrize("name", ["m2m100", "blip"])
def test_the_original_goes_on(offer: Offer, name: str, call: int) -> None:
    failure = Failure()
    offer(stepping(failure.forward))
    model = encoder_decoder(name)
    fast: Any = cpuaccel.optimize(model, ["stepping"])
    fast.prepare_generation()
    failure.countdown = call
    assert_same_text(fast, model, source(name, model), num_beams=2)
    assert fast.report.calls == {"fallback:method": 1}  # later steps are served again
    assert "RuntimeError" in fast.report.fallbacks["fallback:method"]


@pytest.mark.usefixtures("any_bf16")
@pytest.mark.parametrize("call", [1, 5])
@pytest.mark.parametrize("name", ["whisper", "blip"])
def test_an_original_of_another_precision_goes_on(offer: Offer, name: str, call: int) -> None:
    """To the end: to what it has cached, the stepper can't add."""
    failure = Failure()
    offer(stepping(failure.forward))
    model = encoder_decoder(name)
    fast: Any = cpuaccel.optimize(model, ["stepping"], dtype="bfloat16")
    fast.prepare_generation()
    assert fast.report.generation.outcome.status is Status.APPLIED
    failure.countdown = call
    expected = text_of(model, source(name, model))
    assert text_of(fast, source(name, model)).shape == expected.shape
    assert set(fast.report.calls) == {"fallback:method"}


def _without_the_source(model: Any, inputs: dict[str, Any]) -> object:
    output = inputs["encoder_outputs"]
    return model(**{**inputs, "encoder_outputs": type(output)(output[0] * 0)})


def _without(name: str) -> Step:
    def forward(model: Any, inputs: dict[str, Any]) -> object:
        return model(**{key: value for key, value in inputs.items() if key != name})

    return forward


class Stubborn:
    """Goes on with the keys of the first call, in whatever order the rows are."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[object, list[tuple[torch.Tensor, torch.Tensor]]]] = {}

    def __call__(self, model: Any, inputs: dict[str, Any]) -> object:
        cache = inputs["past_key_values"]
        layers = cache.cross_attention_cache.layers
        if cache.get_seq_length() == 0:
            output = model(**inputs)
            self._kept[id(cache)] = cache, [(layer.keys, layer.values) for layer in layers]
            return output
        for layer, (keys, values) in zip(layers, self._kept[id(cache)][1], strict=True):
            layer.keys, layer.values = keys, values
        return model(**inputs)


WRONG: dict[str, Step] = {
    "ignores the source": _without_the_source,
    "ignores its mask": _without("attention_mask"),
    "ignores the decoder's mask": _without("decoder_attention_mask"),
    "ignores reorder": Stubborn(),
}


@pytest.mark.parametrize("fault", WRONG)
def test_wrong_steppers_are_refused(offer: Offer, fault: str) -> None:
    offer(stepping(WRONG[fault]))
    model = encoder_decoder("m2m100")
    fast: Any = cpuaccel.optimize(model, ["stepping"])
    assert_same_text(fast, model, source("m2m100", model))
    assert fast.report.generation.outcome.status is Status.FAILED
    assert "tolerance" in fast.report.generation.outcome.reason
    assert fast.report.calls == {"fallback:method": 1}


def test_a_right_stepper_is_accepted(offer: Offer) -> None:
    offer(stepping(as_it_is))
    model = encoder_decoder("m2m100")
    fast: Any = cpuaccel.optimize(model, ["stepping"])
    assert_served(fast, model, source("m2m100", model))


def test_an_encoder_whose_inputs_are_not_known(caplog: pytest.LogCaptureFixture) -> None:
    model = generator("speech2text").eval()
    fast: Any = cpuaccel.optimize(model, ["onednn"])
    inputs = torch.randn(2, 40, 80, generator=torch.Generator().manual_seed(0))
    call = {"max_new_tokens": 6, "do_sample": False}
    found, expected = (m.generate(inputs, **call) for m in (fast, model))
    assert torch.equal(found, expected)
    assert fast.report.calls == {"fallback:method": 1}
    assert "nothing is known of what Speech2TextEncoder reads" in caplog.text
    assert fast.report.generation.outcome.status is Status.SKIPPED
