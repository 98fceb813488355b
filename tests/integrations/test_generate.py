"""Generation with an optimized model: the original's tokens, and a warning in the log."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

transformers = pytest.importorskip("transformers", minversion="4.48")

import cpuaccel  # noqa: E402
from cpuaccel.report import Status  # noqa: E402
from tests.integrations.parts import TEXTS, letters_tokenizer  # noqa: E402
from tests.models import generator  # noqa: E402

NOT_ACCELERATED = "fallback:method"
TOLD = (
    "falling back to the original model: generate is not accelerated (logged once, counted in "
    "report.calls)"
)

CAUSAL = ["gpt2", "qwen2"]


def left_padded() -> dict[str, torch.Tensor]:
    tokenizer = letters_tokenizer(padding_side="left")
    encoded = tokenizer(TEXTS, padding=True, return_tensors="pt", return_token_type_ids=False)
    assert int(encoded["attention_mask"][:, 0].min()) == 0
    return dict(encoded)


SEARCHES: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "sampling": {"do_sample": True, "temperature": 1.3, "top_k": 20},
    "beams": {"do_sample": False, "num_beams": 3},
    "without a cache": {"do_sample": False, "use_cache": False},
}


@pytest.mark.parametrize("search", SEARCHES.values(), ids=list(SEARCHES))
@pytest.mark.parametrize("name", CAUSAL)
def test_tokens_match_the_original_and_a_warning_is_logged(
    name: str, search: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    model, inputs = generator(name).eval(), left_padded()
    call = {"max_new_tokens": 12, "pad_token_id": 0, **search}
    fast = cpuaccel.optimize(model, ["jit"])
    for _ in range(2):
        torch.manual_seed(3)
        expected = model.generate(**inputs, **call)
        torch.manual_seed(3)
        found = fast.generate(**inputs, **call)  # type: ignore[operator]
        assert torch.equal(found, expected)
    assert found.shape[1] > inputs["input_ids"].shape[1]
    assert fast.report.calls == {NOT_ACCELERATED: 2}
    assert [r.getMessage() for r in caplog.records if r.name == "cpuaccel"] == [TOLD]
    assert f"calls     2 {NOT_ACCELERATED}" in str(fast.report)


def test_strict_raises_instead_of_falling_back() -> None:
    fast = cpuaccel.optimize(generator("gpt2"), ["jit"], strict=True)
    with pytest.raises(cpuaccel.StepError) as caught:
        fast.generate(**left_padded())  # type: ignore[operator]
    assert str(caught.value) == (
        "strict=True, but this call needs the original: generate is not accelerated"
    )


def test_a_model_in_training_mode_generates_without_dropout() -> None:
    """An optimized model is always in eval mode; the caller's model keeps its mode."""
    model = generator("gpt2")
    fast = cpuaccel.optimize(model, ["jit"])
    call = {"max_new_tokens": 12, "pad_token_id": 0, "do_sample": False}
    found = fast.generate(**left_padded(), **call)  # type: ignore[operator]
    assert model.training
    assert torch.equal(found, model.eval().generate(**left_padded(), **call))
    fast.train()
    fast.generate(**left_padded(), **call)  # type: ignore[operator]
    assert fast.report.calls == {NOT_ACCELERATED: 1, "fallback:training": 1}


def test_the_generation_config_can_be_changed() -> None:
    model, inputs = generator("qwen2").eval(), left_padded()
    fast = cpuaccel.optimize(model, ["jit"])
    longest = inputs["input_ids"].shape[1]
    for count in (2, 5):
        fast.generation_config.max_new_tokens = count  # type: ignore[attr-defined]
        fast.generation_config.pad_token_id = 0  # type: ignore[attr-defined]
        assert fast.generate(**inputs).shape[1] == longest + count  # type: ignore[operator]
    assert torch.equal(fast.generate(**inputs), model.generate(**inputs))  # type: ignore[operator]
    fast.generation_config = transformers.GenerationConfig(max_new_tokens=3, pad_token_id=0)
    assert fast.generate(**inputs).shape[1] == longest + 3  # type: ignore[operator]


@pytest.mark.parametrize("name", CAUSAL)
def test_a_pipeline_for_text_generation(name: str, caplog: pytest.LogCaptureFixture) -> None:
    model, tokenizer = generator(name).eval(), letters_tokenizer(padding_side="left")
    fast = cpuaccel.optimize(model, ["jit"])
    original, pipe = (
        transformers.pipeline("text-generation", model=m, tokenizer=tokenizer)
        for m in (model, fast)
    )
    call = {"max_new_tokens": 8, "do_sample": False, "batch_size": 2}
    assert pipe(TEXTS, **call) == original(TEXTS, **call)
    assert fast.report.calls == {NOT_ACCELERATED: 3}  # five texts in batches of two
    assert [r.getMessage() for r in caplog.records if r.name == "cpuaccel"] == [TOLD]


def test_a_single_call_of_a_decoder_is_optimized() -> None:
    """Without a cache, for example to score a text."""
    model, inputs = generator("gpt2").eval(), left_padded()
    fast = cpuaccel.optimize(model, ["jit"])
    with torch.no_grad():
        expected = model(**inputs, use_cache=False).logits
    torch.testing.assert_close(fast(**inputs, use_cache=False).logits, expected)
    assert fast.report.calls == {"optimized": 1}


def test_outputs_of_a_decoder_that_returns_its_cache() -> None:
    """A cache of tensors is supported; an object, as in transformers 5, is not."""
    model, inputs = generator("gpt2").eval(), left_padded()
    fast = cpuaccel.optimize(model, ["jit"], example_inputs=inputs)
    with torch.no_grad():
        expected = model(**inputs)
    torch.testing.assert_close(fast(**inputs).logits, expected.logits)
    (outcome,) = fast.report.outcomes
    if outcome.status is Status.APPLIED:
        assert fast.report.calls == {"optimized": 1}
    else:
        assert "use_cache=False" in outcome.remedy
        assert fast.report.calls == {"fallback:not_applied": 1}


def test_an_encoder_and_decoder() -> None:
    model = generator("t5").eval()
    tokenizer = letters_tokenizer()
    inputs = tokenizer(TEXTS, padding=True, return_tensors="pt", return_token_type_ids=False)
    fast = cpuaccel.optimize(model, ["jit"])
    for call in ({"num_beams": 2}, {"num_beams": 1}):
        found = fast.generate(**inputs, **call, max_new_tokens=9)  # type: ignore[operator]
        assert torch.equal(found, model.generate(**inputs, **call, max_new_tokens=9))
    assert fast.report.calls == {NOT_ACCELERATED: 2}


def test_a_pipeline_for_speech_by_generation(caplog: pytest.LogCaptureFixture) -> None:
    """The pipeline knows by the name of the model's class that it generates."""
    model = generator("speech2text").eval()
    random = np.random.default_rng(0)
    sounds = [random.standard_normal(n).astype(np.float32) for n in (8000, 12000)]
    fast = cpuaccel.optimize(model, ["jit"])
    parts = {
        "tokenizer": letters_tokenizer(),
        "feature_extractor": transformers.Speech2TextFeatureExtractor(),
    }
    original, pipe = (
        transformers.pipeline("automatic-speech-recognition", model=m, **parts)
        for m in (model, fast)
    )
    call = {"generate_kwargs": {"num_beams": 1, "do_sample": False, "max_new_tokens": 8}}
    assert pipe(list(sounds), **call) == original(list(sounds), **call)
    assert fast.report.calls == {NOT_ACCELERATED: 2}
    assert [r.getMessage() for r in caplog.records if r.name == "cpuaccel"] == [TOLD]


def test_whisper_with_its_own_generate() -> None:
    model = generator("whisper").eval()
    features = torch.randn(2, 80, 100, generator=torch.Generator().manual_seed(0))
    fast = cpuaccel.optimize(model, ["jit"])
    call = {"max_new_tokens": 8, "do_sample": False}
    found = fast.generate(input_features=features, **call)  # type: ignore[operator]
    assert torch.equal(found, model.generate(input_features=features, **call))
    assert fast.report.calls == {NOT_ACCELERATED: 1}


FEATURES: dict[str, Callable[[], dict[str, torch.Tensor]]] = {
    "get_text_features": lambda: {"input_ids": torch.arange(3, 15).view(2, 6)},
    "get_image_features": lambda: {"pixel_values": torch.linspace(-1, 1, 768).view(1, 3, 16, 16)},
}


@pytest.mark.parametrize("method", list(FEATURES))
def test_features_of_one_kind_are_optimized(method: str) -> None:
    model, inputs = generator("clip").eval(), FEATURES[method]()
    fast = cpuaccel.optimize(model, ["jit"])
    found, expected = getattr(fast, method)(**inputs), getattr(model, method)(**inputs)
    first = found if isinstance(found, torch.Tensor) else found[0]
    torch.testing.assert_close(
        first, (expected if isinstance(expected, torch.Tensor) else expected[0]).detach()
    )
    assert not first.requires_grad
    assert fast.report.calls == {"optimized": 1}
    (part,) = fast.report.parts.values()
    assert part.applied == ("jit",)


def test_a_model_without_generate() -> None:
    fast = cpuaccel.optimize(torch.nn.Linear(2, 2), ["jit"])
    assert not hasattr(fast, "generate")
