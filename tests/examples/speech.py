"""Tiny encoder-decoders for speech with random weights, and recordings that they can read."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
import tokenizers
import torch
import transformers

from tests.examples.data import Rows, texts

RATE = 16000
WINDOW = 1
"""Seconds that the tiny Whisper reads at once."""

LANGUAGES = {"<|en|>": 4, "<|de|>": 5}
TASKS = {"transcribe": 6, "translate": 7}
SPECIAL = ["<pad>", "<s>", "</s>", "<start>", *LANGUAGES, *(f"<|{task}|>" for task in TASKS)]
WORDS = sorted({word for text in texts(40) for word in text.split()})[:60]
NO_TIMESTAMPS = len(SPECIAL) + len(WORDS)
TIMESTAMPS = [f"<|{number * 0.02:.2f}|>" for number in range(WINDOW * 50 + 1)]
VOCABULARY = [*SPECIAL, *WORDS, "<|notimestamps|>", *TIMESTAMPS]

SIZES = {
    **{"vocab_size": len(VOCABULARY), "d_model": 32, "encoder_layers": 1, "decoder_layers": 2},
    **{"encoder_attention_heads": 2, "decoder_attention_heads": 2},
    **{"encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_target_positions": 64},
    **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 3},
}

SETTINGS = {"max_length": 12, "no_repeat_ngram_size": 2, "suppress_tokens": [*range(2), 3]}


class Listener(NamedTuple):
    """A saved model, and what it hears in a recording, given arguments of ``generate``."""

    folder: Path
    hears: Callable[..., str]


def whisper(folder: Path, *, multilingual: bool = True) -> Listener:
    """Save a tiny Whisper."""
    config = transformers.WhisperConfig(
        **SIZES,
        **{"num_mel_bins": 16, "max_source_positions": 50},
    )
    model = _random(transformers.WhisperForConditionalGeneration, config)
    settings = model.generation_config
    settings.update(**SETTINGS, begin_suppress_tokens=[2])
    settings.is_multilingual = multilingual
    if multilingual:
        settings.lang_to_id, settings.task_to_id = LANGUAGES, TASKS
    settings.no_timestamps_token_id = NO_TIMESTAMPS
    settings.max_initial_timestamp_index = 1
    extractor = transformers.WhisperFeatureExtractor(feature_size=16, chunk_length=WINDOW)
    return _saved(folder, model, extractor)


def speech2text(folder: Path) -> Listener:
    """Save a tiny Speech2Text."""
    config = transformers.Speech2TextConfig(
        **SIZES,
        **{"input_feat_per_channel": 16, "conv_channels": 32},
    )
    model = _random(transformers.Speech2TextForConditionalGeneration, config)
    model.generation_config.update(**SETTINGS)
    extractor = transformers.Speech2TextFeatureExtractor(feature_size=16, num_mel_bins=16)
    return _saved(folder, model, extractor)


def write_recordings(folder: Path, seconds: Sequence[float]) -> list[Path]:
    """Write noise of these lengths, each with tones of its own."""
    folder.mkdir()
    random, paths = np.random.default_rng(0), []
    for number, length in enumerate(seconds):
        times = np.arange(int(length * RATE)) / RATE
        tones = sum(np.sin(2 * np.pi * pitch * times) for pitch in random.uniform(100, 7000, 3))
        path = folder / f"{number}.wav"
        soundfile.write(path, 0.2 * tones + 0.02 * random.standard_normal(len(times)), RATE)
        paths.append(path)
    return paths


def rows(paths: Sequence[Path], texts: Sequence[str]) -> Rows:
    """Return the list of recordings that an example reads."""
    return [{"audio": str(path), "text": text} for path, text in zip(paths, texts, strict=True)]


def _random(kind: Any, config: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = kind(config).eval()
        for parameter in model.parameters():  # texts that differ between recordings
            if parameter.dim() > 1 and parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=0.3)
    model.generation_config._from_model_config = False  # it has settings of its own
    return model


def _saved(folder: Path, model: Any, extractor: Any) -> Listener:
    backend = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({w: n for n, w in enumerate(VOCABULARY)}, unk_token="<pad>")
    )
    backend.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        **{"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"},
        additional_special_tokens=[*SPECIAL[3:], "<|notimestamps|>", *TIMESTAMPS],
    )
    for part in (model, extractor, tokenizer):
        part.save_pretrained(folder)

    def hears(path: Path, **options: object) -> str:
        sound, _ = soundfile.read(path, dtype="float32")
        long = len(sound) > WINDOW * RATE
        whole = {"truncation": False, "padding": "longest"} if long else {}
        inputs = extractor(
            sound, sampling_rate=RATE, return_tensors="pt", return_attention_mask=True, **whole
        )
        with torch.no_grad():
            tokens = model.generate(**inputs, **options)
        return str(tokenizer.decode(tokens[0], skip_special_tokens=True)).strip()

    return Listener(folder, hears)
