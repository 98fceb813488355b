"""Whisper with its trained weights: five recordings, and pipelines for speech recognition."""

import wave
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import cpuaccel
from tests.generation.encoder_decoders import FRAMES, MELS, encoder_decoder
from tests.required import ROOT, requires

ASR = ROOT.parent / "shared" / "asr"
RATE = 16000

with_recordings = requires("path: ../shared/asr")

Recording = dict[str, Any]


def recordings() -> list[Recording]:
    """The five utterances, as pipelines take them."""
    found = []
    for path in sorted((ASR / "recordings").glob("*.wav")):
        with wave.open(str(path)) as file:
            assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (RATE, 1, 2)
            samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)
        found.append({"raw": samples.astype(np.float32) / 2**15, "sampling_rate": RATE})
    assert len(found) == 5
    return found


def joined(*numbers: int) -> Recording:
    """Some of the utterances, one after the other."""
    known = recordings()
    return {
        "raw": np.concatenate([known[number]["raw"] for number in numbers]),
        "sampling_rate": RATE,
    }


@pytest.fixture(scope="module")
def whisper() -> tuple[Any, Any]:
    """The model in float32, and its processor."""
    model = transformers.WhisperForConditionalGeneration.from_pretrained(
        ASR / "model", dtype=torch.float32
    )
    return model.eval(), transformers.WhisperProcessor.from_pretrained(ASR / "model")


@pytest.fixture(scope="module")
def fast(whisper: tuple[Any, Any]) -> Any:
    """What ``onednn`` makes of it."""
    return cpuaccel.optimize(whisper[0], ["onednn"])


def features(processor: Any, recording: Recording) -> torch.Tensor:
    made = processor(recording["raw"], sampling_rate=RATE, return_tensors="pt").input_features
    assert isinstance(made, torch.Tensor)
    return made


@with_recordings
@pytest.mark.parametrize("number", range(5))
def test_transcripts_are_the_originals(whisper: tuple[Any, Any], fast: Any, number: int) -> None:
    model, processor = whisper
    inputs = features(processor, recordings()[number])
    before = fast.report.calls
    found, expected = fast.generate(inputs), model.generate(inputs)
    assert torch.equal(found, expected)
    assert found.shape[1] > 8
    assert fast.report.calls - before == {"optimized": 1}
    encoder = fast.report.generation.encoder
    assert set(encoder.calls) == {"optimized"}
    assert [outcome.status for outcome in encoder.outcomes] == ["applied"]


@with_recordings
def test_beams(whisper: tuple[Any, Any], fast: Any) -> None:
    model, processor = whisper
    inputs = features(processor, recordings()[1])
    before = fast.report.calls
    found, expected = (m.generate(inputs, num_beams=4) for m in (fast, model))
    assert torch.equal(found, expected)
    assert fast.report.calls - before == {"optimized": 1}


@with_recordings
def test_transcripts_in_8_bits(whisper: tuple[Any, Any]) -> None:
    """At most one word of those that the original hears is another one."""
    model, processor = whisper
    fast: Any = cpuaccel.optimize(model, ["int8"])
    wrong = 0
    for recording in recordings()[2:4]:
        inputs = features(processor, recording)
        found, expected = (
            processor.batch_decode(m.generate(inputs), skip_special_tokens=True)[0].split()
            for m in (fast, model)
        )
        wrong += abs(len(found) - len(expected))
        wrong += sum(a != b for a, b in zip(found, expected, strict=False))
    assert wrong <= 1
    assert fast.report.calls == {"optimized": 2}


def transcribed(model: Any, processor: Any, inputs: Any, **call: Any) -> Any:
    pipeline = transformers.pipeline(
        "automatic-speech-recognition",
        model=model,
        tokenizer=processor.tokenizer,
        feature_extractor=processor.feature_extractor,
    )
    pipeline.tokenizer.pad_token_id = model.generation_config.pad_token_id  # needed for batches
    # It pops from its inputs.
    copies = [dict(one) for one in inputs] if isinstance(inputs, list) else dict(inputs)
    return pipeline(copies, **call)


GREEDY = {"generate_kwargs": {"num_beams": 1}}

PIPELINES: dict[str, tuple[Any, dict[str, Any]]] = {
    "short": (lambda: recordings()[1], {}),  # in beams, by default
    "batched": (lambda: recordings()[1:3], {"batch_size": 2, **GREEDY}),
    "with timestamps": (lambda: recordings()[3], {"return_timestamps": True, **GREEDY}),
    "long-form": (lambda: joined(0, 1, 2, 3, 4, 0), {"return_timestamps": True, **GREEDY}),
    "chunked": (
        lambda: joined(3, 2),
        {"chunk_length_s": 8, "stride_length_s": 2, "batch_size": 2, **GREEDY},
    ),
}


@with_recordings
@pytest.mark.parametrize("way", PIPELINES)
def test_pipelines(whisper: tuple[Any, Any], fast: Any, way: str) -> None:
    model, processor = whisper
    make, call = PIPELINES[way]
    before = fast.report.calls
    found, expected = (transcribed(m, processor, make(), **call) for m in (fast, model))
    assert found == expected
    texts = [one["text"] for one in (found if isinstance(found, list) else [found])]
    assert all(len(text) > 20 for text in texts)
    assert set(fast.report.calls - before) == {"optimized"}
    if "return_timestamps" in call:
        assert all(chunk["timestamp"][0] is not None for chunk in found["chunks"])


@with_recordings
def test_word_timestamps_are_the_originals(whisper: tuple[Any, Any], fast: Any) -> None:
    """They come from cross-attention, which a stepper doesn't return."""
    model, processor = whisper
    before = fast.report.calls
    call = {"return_timestamps": "word", **GREEDY}
    found, expected = (transcribed(m, processor, recordings()[4], **call) for m in (fast, model))
    assert found == expected
    assert len(found["chunks"]) > 5
    assert set(fast.report.calls - before) == {"fallback:method"}
    assert "output_attentions" in fast.report.fallbacks["fallback:method"]


def multilingual() -> Any:
    """A tiny Whisper of two languages and two tasks."""
    model = encoder_decoder("whisper")
    config = model.generation_config
    config.is_multilingual = True
    config.lang_to_id = {"<|en|>": 10, "<|de|>": 11}
    config.task_to_id = {"transcribe": 12, "translate": 13}
    config.no_timestamps_token_id = 14
    config.max_initial_timestamp_index = 1
    return model


OPTIONS: dict[str, dict[str, Any]] = {
    "language": {"language": "de"},
    "task": {"language": "en", "task": "translate"},
    "detected language": {},
    "timestamps": {"language": "de", "return_timestamps": True},
    "sampling": {"language": "de", "do_sample": True, "temperature": 2.0},
    "prompt": {"language": "de", "prompt_ids": torch.tensor([40, 41, 42])},
    "long": {"language": "en", "return_timestamps": True},
    "several languages": {"language": ["de", "en"]},
    "conditioned": {
        "language": "en",
        "return_timestamps": True,
        "condition_on_prev_tokens": True,
        "temperature": (0.0, 0.4),
        "compression_ratio_threshold": 1.5,
        "logprob_threshold": -5.0,
    },
}


@pytest.fixture(scope="module")
def small() -> tuple[Any, Any]:
    """A tiny model, and what ``onednn`` makes of it."""
    model = multilingual()
    return model, cpuaccel.optimize(model, ["onednn"], strict=True)


def options_give_the_same(model: Any, fast: Any, option: str) -> None:
    """Assert that the stepper serves one of ``OPTIONS``, with the original's tokens."""
    length = 5 * FRAMES // 2 if option in ("long", "conditioned") else FRAMES
    inputs = torch.randn(2, MELS, length, generator=torch.Generator().manual_seed(7))
    mask = torch.ones(2, length, dtype=torch.int64)
    before = fast.report.calls
    outputs = []
    for each in (fast, model):
        with torch.random.fork_rng():
            torch.manual_seed(3)
            outputs.append(
                each.generate(inputs, attention_mask=mask, max_new_tokens=10, **OPTIONS[option])
            )
    found, expected = outputs
    assert torch.equal(found, expected)
    assert len(found.unique()) > 1
    assert fast.report.calls - before == {"optimized": 1}


NO_TIMESTAMPS = 449


def of_words() -> Any:
    """A tokenizer of Whisper's kind with a word for each number, and timestamps at the end."""
    known = {10: "<|en|>", 11: "<|de|>", 12: "<|transcribe|>", 13: "<|translate|>"}
    known |= {3: "<|startoftranscript|>", NO_TIMESTAMPS: "<|notimestamps|>", 2: "<|endoftext|>"}
    known |= {n: f"<|{(n - 450) * 0.02:.2f}|>" for n in range(NO_TIMESTAMPS + 1, 500)}
    special = [known[number] for number in sorted(known) if number <= NO_TIMESTAMPS]
    vocabulary = {known.get(number, f"\u0120w{number}"): number for number in range(500)}
    return transformers.WhisperTokenizer(
        vocab=vocabulary, merges=[], pad_token="\u0120w0", additional_special_tokens=special
    )


WAYS: dict[str, dict[str, Any]] = {
    "language": {"generate_kwargs": {"language": "de"}},
    "task": {"generate_kwargs": {"language": "en", "task": "translate"}},
    "detected language": {"return_language": True, "return_timestamps": True},
}


@pytest.fixture(scope="module")
def in_words() -> tuple[Any, Any]:
    """A tiny model whose timestamps are the last tokens, and what ``onednn`` makes of it."""
    model = multilingual()
    model.generation_config.update(
        no_timestamps_token_id=NO_TIMESTAMPS, no_repeat_ngram_size=2, max_new_tokens=12
    )
    return model, cpuaccel.optimize(model, ["onednn"], strict=True)


@pytest.mark.parametrize("way", WAYS)
def test_languages_and_tasks_in_a_pipeline(in_words: tuple[Any, Any], way: str) -> None:
    model, fast = in_words
    extractor = transformers.WhisperFeatureExtractor(feature_size=MELS, chunk_length=1)
    extractor.n_samples, extractor.nb_max_frames = FRAMES * 160, FRAMES
    sound = np.random.default_rng(5).normal(size=FRAMES * 150).astype(np.float32)
    before = fast.report.calls
    found, expected = (
        transformers.pipeline(
            "automatic-speech-recognition",
            model=m,
            tokenizer=of_words(),
            feature_extractor=extractor,
        )({"raw": sound, "sampling_rate": RATE}, **WAYS[way])
        for m in (fast, model)
    )
    assert found == expected
    assert len(found["text"].split()) > 3
    assert fast.report.calls - before == {"optimized": 1}


@pytest.mark.parametrize("option", OPTIONS)
def test_options(small: tuple[Any, Any], option: str) -> None:
    options_give_the_same(*small, option)
