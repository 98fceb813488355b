"""Encoder-decoders on OpenVINO: their tokens are the original's, and what is not served."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

import cpuaccel
from cpuaccel.generation.cache import let_grow
from cpuaccel.report import Status
from tests.generation.encoder_decoders import (
    accelerated,
    assert_same_text,
    assert_served,
    encoder_decoder,
    source,
    text_of,
)
from tests.generation.test_encoder_decoders import CALLS, assistant
from tests.generation.test_speech import (
    ASR,
    features,
    multilingual,
    options_give_the_same,
    recordings,
    with_recordings,
)
from tests.required import BF16, OPENVINO_DECODING, requires

pytestmark = requires(*OPENVINO_DECODING)

FULLY = ("whisper", "t5")


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", FULLY)
def test_tokens_are_the_originals(name: str, call: str) -> None:
    model, fast = accelerated(name, "openvino")
    assert_served(fast, model, source(name, model), **CALLS[call])


@pytest.mark.parametrize("name", ["bart", "m2m100"])
def test_beams_of_other_models(name: str) -> None:
    model, fast = accelerated(name, "openvino")
    assert_served(fast, model, source(name, model), num_beams=2)


def test_a_decoder_whose_cross_attention_is_not_exported() -> None:
    model, fast = accelerated("blip", "openvino")
    assert_same_text(fast, model, source("blip", model))
    assert fast.report.calls == {"fallback:method": 1}
    assert "0 variables" in fast.report.fallbacks["fallback:method"]


@pytest.mark.parametrize("name", FULLY)
def test_steps_are_the_graphs(name: str) -> None:
    """The graph reads the keys of cross-attention where they are, and never its weights."""
    model, fast = accelerated(name, "openvino")
    fast.prepare_generation()
    generation = fast.report.generation
    assert generation.outcome.status is Status.APPLIED
    assert generation.outcome.evidence["attentions_in_place"] == 2
    linears = [m.weight for m in model.get_decoder().modules() if isinstance(m, torch.nn.Linear)]
    read = sum(weight.numel() for weight in linears) + 500 * 64 - 2 * 2 * 64 * 64
    assert generation.stepper.bytes_per_step == 4 * read


def test_a_text_stays_in_the_engines_memory() -> None:
    model, fast = accelerated("t5", "openvino")
    call = {"max_new_tokens": 6, "return_dict_in_generate": True, "num_beams": 3}
    cache = fast.generate(**source("t5", model), **call).past_key_values
    kinds = {type(layer.storage).__name__ for layer in cache.self_attention_cache.layers}
    assert kinds == {"StateLayer"}


@pytest.mark.parametrize("name", FULLY)
def test_the_output_of_an_encoder_is_passed(name: str) -> None:
    model, fast = accelerated(name, "openvino")
    inputs = source(name, model)
    with torch.no_grad():
        encoded = model.get_encoder()(**inputs).last_hidden_state
    passed: dict[str, Any] = {"encoder_outputs": BaseModelOutput(encoded)}
    if "attention_mask" in inputs:
        passed["attention_mask"] = inputs["attention_mask"]
    assert_served(fast, model, passed)


def test_decoders_begin_with_tokens() -> None:
    model, fast = accelerated("t5", "openvino")
    begin = torch.tensor([[3, 7, 9], [3, 8, 20]])
    assert_served(fast, model, source("t5", model), decoder_input_ids=begin)
    padded = {"decoder_input_ids": torch.tensor([[0, 3, 9], [3, 8, 20]])}
    padded["decoder_attention_mask"] = padded["decoder_input_ids"].ne(0).long()
    assert_served(fast, model, source("t5", model), **padded)


@pytest.mark.parametrize("by", ["prompt lookup", "another model"])
def test_assisted_decoding(by: str) -> None:
    model, fast = accelerated("whisper", "openvino")
    inputs = {key: value[:1] for key, value in source("whisper", model).items()}
    lookup = {"prompt_lookup_num_tokens": 2}
    call = lookup if by == "prompt lookup" else assistant("whisper")
    assert_served(fast, model, inputs, no_repeat_ngram_size=0, repetition_penalty=1.3, **call)


def test_threads_generate_side_by_side() -> None:
    model, fast = accelerated("t5", "openvino")
    fast.prepare_generation()
    inputs = [{**source("t5", model, seed=seed), "num_beams": 1 + seed % 2} for seed in range(4)]
    expected = [text_of(model, each) for each in inputs]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda each: text_of(fast, each), inputs))
    assert all(map(torch.equal, found, expected))


def test_8_bits() -> None:
    model = encoder_decoder("t5")
    fast: Any = cpuaccel.optimize(model, ["openvino_int8"])
    fast.prepare_generation()
    generation = fast.report.generation
    assert generation.outcome.evidence["weights"] == "int8"
    assert generation.closeness.same_best > 0.9
    inputs = source("t5", model)
    assert text_of(fast, inputs).shape == text_of(model, inputs).shape


@requires(BF16)
def test_another_precision() -> None:
    """Whisper's positions are in the graph, for which the exporter would trace zeros."""
    model = encoder_decoder("whisper")
    fast: Any = cpuaccel.optimize(model, ["openvino"], dtype="bfloat16")
    inputs = source("whisper", model)
    assert text_of(fast, inputs).shape == text_of(model, inputs).shape
    assert fast.report.calls == {"optimized": 1}
    assert fast.report.generation.outcome.evidence["precision"] == "bfloat16"


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "another argument": ({"decoder_inputs_embeds": torch.zeros(2, 1, 64)}, "inputs_embeds"),
    "a mask of another length": ({"attention_mask": torch.ones(2, 13)}, r"\(2, 13\)"),
    "an output of another length": (
        {"encoder_outputs": BaseModelOutput(torch.zeros(2, 13, 64))},
        r"\(2, 13, 64\)",
    ),
    "no output": ({"encoder_outputs": None}, "not passed"),
    "fewer tokens": ({"decoder_input_ids": torch.tensor([[5]])}, "does not have 1 rows"),
}


@pytest.mark.parametrize(("changes", "reason"), CHANGES.values(), ids=list(CHANGES))
def test_calls_that_the_graph_does_not_serve(changes: dict[str, Any], reason: str) -> None:
    model, fast = accelerated("t5", "openvino")
    fast.prepare_generation()
    forward = fast.report.generation.stepper.forward
    inputs = source("t5", model)
    with torch.no_grad():
        encoded = model.get_encoder()(**inputs).last_hidden_state
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        let_grow(cache)
        call = {
            "encoder_outputs": BaseModelOutput(encoded),
            "attention_mask": inputs["attention_mask"],
            "decoder_input_ids": torch.tensor([[3], [3]]),
            "past_key_values": cache,
        }
        forward(**call)
        with pytest.raises(cpuaccel.BackendError, match=reason):
            forward(**{**call, **changes})
        found, expected = (each(**call, use_cache=True).logits for each in (forward, model))
    assert found.shape == expected.shape
    assert cache.get_seq_length() == 3


@pytest.fixture(scope="module")
def small() -> tuple[Any, Any]:
    """A tiny Whisper of two languages, and what ``openvino`` makes of it."""
    model = multilingual()
    return model, cpuaccel.optimize(model, ["openvino"], strict=True)


@pytest.mark.parametrize("option", ["detected language", "prompt", "long", "conditioned"])
def test_options_of_whisper(small: tuple[Any, Any], option: str) -> None:
    options_give_the_same(*small, option)


@with_recordings
def test_transcripts_are_the_originals() -> None:
    """Three recordings, of which one is searched with beams, too."""
    import transformers

    model = transformers.WhisperForConditionalGeneration.from_pretrained(
        ASR / "model", dtype=torch.float32
    ).eval()
    processor = transformers.WhisperProcessor.from_pretrained(ASR / "model")
    fast: Any = cpuaccel.optimize(model, ["openvino"])
    inputs = [features(processor, recording) for recording in recordings()[1:4]]
    for each, call in [*((one, {}) for one in inputs), (inputs[0], {"num_beams": 4})]:
        found, expected = (m.generate(each, **call) for m in (fast, model))
        assert torch.equal(found, expected)
        assert found.shape[1] > 8
    assert fast.report.calls == {"optimized": 4}
