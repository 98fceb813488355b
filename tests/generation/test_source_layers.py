"""Layers that read an encoder's output, all in one call: only where the model's code does that."""

import threading
from typing import Any

import pytest
import torch
from transformers.modeling_outputs import BaseModelOutput

import cpuaccel
from cpuaccel.generation.subject import new_cache
from cpuaccel_plugins.decoding.source_layers.chain import MOST_ROWS, Inputs, SourceChain
from tests.generation.encoder_decoders import (
    accelerated,
    assert_same_text,
    assert_served,
    encoder_decoder,
    source,
    text_of,
)

LAYERS = 2


class Calls:
    """Counts the calls in which chains computed, by their number of layers, while it is patched."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.computed: list[int] = []
        self.refused = 0
        self.held: list[int] = []
        compute = SourceChain.compute

        def counted(chain: SourceChain, inputs: Inputs) -> torch.Tensor | None:
            output = compute(chain, inputs)
            if output is None:
                self.refused += 1
            else:
                self.computed.append(len(chain._layers))
                cache: Any = inputs.cache
                layer = cache.cross_attention_cache.layers[chain._layers[0].index]
                self.held.append(len(layer.shared()[0]) if hasattr(layer, "shared") else 0)
            return output

        monkeypatch.setattr(SourceChain, "compute", counted)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls(monkeypatch)


@pytest.mark.parametrize("name", ["whisper", "bart", "m2m100", "trocr", "t5"])
def test_steps_are_chained(name: str, calls: Calls) -> None:
    """The first token too, and keys of beams are held once for each sequence."""
    model, fast = accelerated(name)
    fast.prepare_generation()
    for search in ({}, {"num_beams": 3}):
        calls.computed.clear()
        calls.held.clear()
        assert_served(fast, model, source(name, model), **search)
        assert calls.computed == [LAYERS] * 12
        assert calls.held == [2] * 12
    assert calls.refused == 0


@pytest.mark.parametrize("name", ["mbart", "pegasus", "mt5"])
def test_other_models_with_these_layers(name: str, calls: Calls) -> None:
    model = encoder_decoder(name)
    fast: Any = cpuaccel.optimize(model, ["onednn"])
    inputs = source(name, model)
    assert_served(fast, model, inputs)
    assert_served(fast, model, inputs, num_beams=3)
    assert fast.report.generation.outcome.evidence["fused_layers"] == LAYERS
    assert calls.computed[-24:] == [LAYERS] * 24


def test_a_hook_between_layers(calls: Calls) -> None:
    """The layer with the hook runs as it is, the other one by itself."""
    model = encoder_decoder("marian")
    layer = model.get_decoder().layers[1]
    layer.register_forward_pre_hook(lambda module, args: (args[0] * 1.5, *args[1:]))
    fast: Any = cpuaccel.optimize(model, ["onednn"])
    fast.prepare_generation()
    calls.computed.clear()
    assert_served(fast, model, source("marian", model))
    assert calls.computed == [1] * 12


def test_a_hook_on_all_modules(calls: Calls) -> None:
    model, fast = accelerated("m2m100")
    seen: list[str] = []
    handle = torch.nn.modules.module.register_module_forward_hook(
        lambda module, args, output: seen.append(type(module).__name__)
    )
    try:
        fast.prepare_generation()  # its layers are compared
        calls.computed.clear()
        assert_same_text(fast, model, source("m2m100", model))
    finally:
        handle.remove()
    assert "M2M100DecoderLayer" in seen
    assert calls.computed == []


@pytest.mark.parametrize("name", ["whisper", "t5", "bart"])
def test_more_rows_than_the_kernels_compute(name: str, calls: Calls) -> None:
    """A prompt of many tokens is computed as it is, and the steps after it over its cache."""
    model, fast = accelerated(name)
    fast.prepare_generation()
    inputs = source(name, model)
    random = torch.Generator().manual_seed(3)
    begin = torch.randint(4, 400, (2, MOST_ROWS // 2 + 1), generator=random)
    begin[:, 0] = 3
    for search in ({}, {"num_beams": 2}):
        calls.computed.clear()
        calls.refused = 0
        calls.held.clear()
        assert_served(fast, model, inputs, decoder_input_ids=begin, **search)
        assert calls.computed == [LAYERS] * 11
        assert calls.refused == 1
        assert calls.held == [2] * 11


def test_many_beams_run_as_they_are(calls: Calls) -> None:
    model, fast = accelerated("m2m100")
    fast.prepare_generation()
    calls.computed.clear()
    beams = MOST_ROWS // 2 + 1
    assert_served(fast, model, source("m2m100", model), num_beams=beams, max_new_tokens=6)
    assert calls.computed == []


def test_equal_sequences_share_their_keys(calls: Calls) -> None:
    """Two rows with the same text; the third one's is another, and so is its mask."""
    model, fast = accelerated("bart")
    fast.prepare_generation()
    inputs = {name: value[[0, 0, 1]] for name, value in source("bart", model).items()}
    calls.held.clear()
    assert_served(fast, model, inputs, num_beams=2)
    assert calls.held == [2] * 12


def test_threads() -> None:
    model, fast = accelerated("whisper")
    fast.prepare_generation()
    inputs = [source("whisper", model, seed=seed) for seed in range(3)]
    expected = [text_of(model, one) for one in inputs]
    found: dict[int, torch.Tensor] = {}

    def run(index: int) -> None:
        found[index] = fast.generate(
            **inputs[index], max_new_tokens=12, do_sample=False, no_repeat_ngram_size=2
        )

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, tokens in enumerate(expected):
        assert torch.equal(found[index], tokens)


@torch.no_grad()
def test_layers_of_the_cache_that_somebody_read(calls: Calls) -> None:
    """Rows of one layer are then numbered in another way; the answer stays the original's."""
    model, fast = accelerated("bart")
    fast.prepare_generation()
    stepper = fast.report.generation.stepper.forward
    encoded = model.get_encoder()(**source("bart", model))
    tokens = torch.tensor([[3], [3]])
    order = torch.tensor([1, 0])
    logits = []
    for each, reads in ((stepper, True), (stepper, False), (model, False)):
        cache = new_cache(model)
        states = BaseModelOutput(encoded.last_hidden_state)
        call = {"encoder_outputs": states, "past_key_values": cache, "use_cache": True}
        each(decoder_input_ids=tokens, **call)
        cache.reorder_cache(order)
        if reads:
            layer = cache.cross_attention_cache.layers[0]
            assert layer.keys is not None
            layer.keys, layer.values = layer.keys.clone(), layer.values.clone()
        call["encoder_outputs"] = BaseModelOutput(encoded.last_hidden_state[order])
        logits.append(each(decoder_input_ids=tokens + 4, **call).logits)
    torch.testing.assert_close(logits[0], logits[2])
    torch.testing.assert_close(logits[1], logits[2])
    assert calls.computed == [LAYERS] * 3
    assert calls.refused == 1
