"""Encoder-decoders: their tokens are the original's, by whatever way ``generate`` is called."""

from typing import Any

import pytest
import torch
import transformers
from transformers.modeling_outputs import BaseModelOutput

import cpuaccel
from cpuaccel.report import Status
from tests.generation.encoder_decoders import (
    MODELS,
    accelerated,
    assert_same_text,
    assert_served,
    encoder_decoder,
    source,
    text_of,
)

CALLS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "beams": {"num_beams": 3, "num_return_sequences": 2},
    "sampling": {"do_sample": True, "temperature": 2.0},
    "sampled beams": {"do_sample": True, "num_beams": 2},
}

NOT_EXPORTED = {"donut"}
"""Models whose encoders torch can't export."""


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", MODELS)
def test_tokens_are_the_originals(name: str, call: str) -> None:
    model, fast = accelerated(name)
    assert_served(fast, model, source(name, model), **CALLS[call])


@pytest.mark.parametrize("name", MODELS)
def test_the_report(name: str) -> None:
    model, fast = accelerated(name)
    inputs = source(name, model)
    fast.generate(**inputs, max_new_tokens=3)
    before = fast.report.generation.encoder.calls
    fast.generate(**inputs, max_new_tokens=3)
    generation = fast.report.generation
    assert generation.outcome.status is Status.APPLIED
    # Two layers: self-attention, cross-attention, two linears or three; the head, a layer before.
    assert generation.outcome.evidence["linears"] == {"flan_t5": 23, "blip": 22}.get(name, 21)
    assert generation.outcome.evidence["fused_layers"] == (0 if name == "blip" else 2)
    served = "fallback:not_applied" if name in NOT_EXPORTED else "optimized"
    assert generation.encoder.calls - before == {served: 1}
    assert "encoder   calls" in str(fast.report)
    assert generation.to_dict()["encoder"]["calls"] == generation.encoder.calls


@pytest.mark.parametrize("name", ["t5", "bart", "blip"])
def test_8_bits(name: str) -> None:
    model = encoder_decoder(name)
    fast: Any = cpuaccel.optimize(model, ["int8"])
    inputs = source(name, model)
    tokens = text_of(fast, inputs)
    assert tokens.shape == text_of(model, inputs).shape
    generation = fast.report.generation
    assert fast.report.calls == {"optimized": 1}
    assert generation.closeness.same_best > 0.9
    original = sum(4 * p.numel() for p in model.parameters())
    assert 0 < generation.stepper.bytes_per_step < original / 4


@pytest.mark.usefixtures("any_bf16")
@pytest.mark.parametrize("name", ["whisper", "t5", "blip"])
def test_another_precision(name: str) -> None:
    model = encoder_decoder(name)
    fast: Any = cpuaccel.optimize(model, ["onednn"], dtype="bfloat16")
    inputs = source(name, model)
    assert text_of(fast, inputs).shape == text_of(model, inputs).shape
    assert fast.report.calls == {"optimized": 1}


@pytest.mark.parametrize(("name", "head"), [("bart", 1), ("t5", 1), ("blip", 2)])
def test_bytes_of_a_step(name: str, head: int) -> None:
    """Keys and values of the encoder's output are computed in the first step only."""
    model, fast = accelerated(name)
    fast.prepare_generation()
    part = model.text_decoder if name == "blip" else model
    decoder = part.get_decoder() if name != "blip" else part.bert
    linears = [m.weight for m in decoder.modules() if isinstance(m, torch.nn.Linear)]
    read = sum(4 * weight.numel() for weight in linears)
    read += 4 * 500 * 64 + (head - 1) * 4 * 64 * 64
    of_source = 48 if name == "blip" else 64
    once = 2 * 2 * 4 * of_source * 64
    assert fast.report.generation.stepper.bytes_per_step == read - once


@pytest.mark.parametrize(("name", "part"), [("bart", "Attention"), ("t5", "LayerNorm")])
def test_a_layer_that_computes_something_else(
    name: str, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = getattr(transformers.models, name)
    kind = getattr(getattr(module, f"modeling_{name}"), f"{name.title()}{part}")
    original = kind.forward

    def louder(self: Any, *args: Any, **kwargs: Any) -> Any:
        output = original(self, *args, **kwargs)
        return (1.01 * output[0], output[1]) if isinstance(output, tuple) else 1.01 * output

    monkeypatch.setattr(kind, "forward", louder)
    model = encoder_decoder(name)
    fast: Any = cpuaccel.optimize(model, ["onednn"])
    assert_served(fast, model, source(name, model))
    assert fast.report.generation.outcome.evidence["fused_layers"] == 0


@pytest.mark.parametrize("part", ["encoder_attn", "fc1", ""])
def test_a_layer_with_a_hook_runs_as_it_is(part: str) -> None:
    model = encoder_decoder("bart")
    module = model.get_decoder().layers[0].get_submodule(part)
    module.register_forward_hook(
        lambda _module, _args, output: (
            (2 * output[0], output[1]) if isinstance(output, tuple) else 2 * output
        )
    )
    fast: Any = cpuaccel.optimize(model, ["onednn"])
    assert_served(fast, model, source("bart", model))
    assert fast.report.generation.outcome.evidence["fused_layers"] == 1


@pytest.mark.parametrize("name", ["whisper", "t5", "trocr"])
def test_the_output_of_an_encoder_is_passed(name: str) -> None:
    model, fast = accelerated(name)
    inputs = source(name, model)
    with torch.no_grad():
        encoded = model.get_encoder()(**inputs).last_hidden_state
    passed: dict[str, Any] = {"encoder_outputs": BaseModelOutput(encoded)}
    if "attention_mask" in inputs:
        passed["attention_mask"] = inputs["attention_mask"]
    before = fast.report.calls
    assert_same_text(fast, model, passed)
    assert fast.report.calls - before == {"optimized": 1}


@pytest.mark.parametrize("name", ["t5", "bart", "m2m100"])
def test_decoders_begin_with_tokens(name: str) -> None:
    model, fast = accelerated(name)
    begin = torch.tensor([[3, 7, 9], [3, 8, 20]])
    assert_served(fast, model, source(name, model), decoder_input_ids=begin)
    padded = {"decoder_input_ids": torch.tensor([[0, 3, 9], [3, 8, 20]])}
    padded["decoder_attention_mask"] = padded["decoder_input_ids"].ne(0).long()
    assert_served(fast, model, source(name, model), **padded)


def assistant(name: str) -> dict[str, Any]:
    """The model itself with other weights in its first layer: guesses that are right at times."""
    other = encoder_decoder(name)
    with torch.no_grad():
        for parameter in other.get_decoder().layers[0].parameters():
            parameter.mul_(0.9)
    return {"assistant_model": other}


@pytest.mark.parametrize("by", ["prompt lookup", "another model"])
@pytest.mark.parametrize("name", ["m2m100", "whisper"])
def test_assisted_decoding(name: str, by: str) -> None:
    model, fast = accelerated(name)
    inputs = {key: value[:1] for key, value in source(name, model).items()}
    lookup = {"prompt_lookup_num_tokens": 2}
    call = lookup if by == "prompt lookup" else assistant(name)
    assert_served(fast, model, inputs, no_repeat_ngram_size=0, repetition_penalty=1.3, **call)


def test_an_output_of_another_size() -> None:
    """The caller gets the original's error."""
    model, fast = accelerated("bart")
    for each in (model, fast):
        with pytest.raises(RuntimeError, match="shape"):
            each.generate(encoder_outputs=BaseModelOutput(torch.zeros(1, 5, 48)), max_new_tokens=3)


def test_without_a_cache() -> None:
    model, fast = accelerated("t5")
    assert_served(fast, model, source("t5", model), use_cache=False)


def test_outputs_are_complete() -> None:
    model, fast = accelerated("bart")
    call = {"max_new_tokens": 6, "return_dict_in_generate": True, "output_scores": True}
    inputs = source("bart", model)
    for search in ({}, {"num_beams": 3}):
        found, expected = (m.generate(**inputs, **call, **search) for m in (fast, model))
        assert type(found) is type(expected)
        assert torch.equal(found.sequences, expected.sequences)
        for step, of_original in zip(found.scores, expected.scores, strict=True):
            torch.testing.assert_close(step, of_original)
        kept, of_original = (output.past_key_values for output in (found, expected))
        for layer, other in zip(kept, of_original, strict=True):
            torch.testing.assert_close(layer, other)


def test_changed_weights_of_the_encoder() -> None:
    model = encoder_decoder("bart")
    fast: Any = cpuaccel.optimize(model, ["onednn"])
    inputs = source("bart", model)
    before = text_of(fast, inputs)
    with torch.no_grad():
        for parameter in model.get_encoder().layers.parameters():
            parameter.mul_(2)
    assert_same_text(fast, model, inputs)
    assert not torch.equal(text_of(fast, inputs), before)
    assert fast.report.calls == {"optimized": 3}


def test_extra_outputs_come_from_the_original() -> None:
    model, fast = accelerated("whisper")
    call = {"max_new_tokens": 4, "output_attentions": True, "return_dict_in_generate": True}
    inputs = source("whisper", model)
    model.set_attn_implementation("eager")
    try:
        found, expected = (m.generate(**inputs, **call) for m in (fast, model))
        calls = fast.report.generation.encoder.calls
    finally:
        model.set_attn_implementation("sdpa")
    assert torch.equal(found.sequences, expected.sequences)
    for step, of_original in zip(found.cross_attentions, expected.cross_attentions, strict=True):
        for layer, other in zip(step, of_original, strict=True):
            torch.testing.assert_close(layer, other)
    assert "output_attentions is" in fast.report.fallbacks["fallback:method"]
    assert calls == {"fallback:method": 1}


def test_strict() -> None:
    model = encoder_decoder("bart")
    fast: Any = cpuaccel.optimize(model, ["onednn"], strict=True)
    inputs = source("bart", model)
    assert_served(fast, model, inputs)
    with pytest.raises(cpuaccel.StepError, match="output_attentions"):
        fast.generate(**inputs, max_new_tokens=3, output_attentions=True)


@pytest.mark.parametrize("name", ["whisper", "bart", "blip"])
def test_save_and_load(name: str, tmp_path: Any) -> None:
    model, fast = accelerated(name)
    inputs = source(name, model)
    fast.prepare_generation()
    fast.save(tmp_path / name)
    loaded: Any = cpuaccel.load(tmp_path / name)
    assert loaded.report.generation.outcome.status is Status.APPLIED
    assert_served(loaded, model, inputs)
