"""Tiny models with random weights, in folders that are named like the hub's ids in the docs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.integrations.parts import letters_tokenizer
from tests.models import encoder

CHAT = "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}"


def _embedder(folder: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    _save(folder / "transformer", encoder("bert"))
    transformer = Transformer(str(folder / "transformer"))
    pooling = Pooling(transformer.get_embedding_dimension())
    SentenceTransformer(modules=[transformer, pooling], device="cpu").save(str(folder))


def _reranker(folder: Path) -> None:
    _save(folder, encoder("bert-text", num_labels=1))


def _classifier(folder: Path) -> None:
    _save(folder, encoder("distilbert-text"))


def _images(folder: Path) -> None:
    encoder("vit").save_pretrained(folder)  # type: ignore[operator]


def _speech(folder: Path) -> None:
    import tokenizers
    import transformers

    from tests.generation.encoder_decoders import FRAMES, MELS, encoder_decoder

    model = encoder_decoder("whisper")
    model.generation_config.update(max_new_tokens=8, max_length=None)
    model.save_pretrained(folder)
    extractor = transformers.WhisperFeatureExtractor(
        feature_size=MELS, hop_length=16000 // FRAMES, chunk_length=1
    )
    extractor.save_pretrained(folder)
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(["<pad>", "<s>", "</s>", *letters])}
    ends = dict.fromkeys(("unk_token", "bos_token", "eos_token", "pad_token"), "<pad>")
    transformers.WhisperTokenizer(vocab=vocabulary, merges=[], **ends).save_pretrained(folder)


def _chat(folder: Path) -> None:
    from tests.cli.generate.models import make_llama, make_tokenizer

    make_llama().save_pretrained(folder)
    tokenizer = make_tokenizer(CHAT)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(folder)


def _save(folder: Path, model: Any) -> None:
    model.save_pretrained(folder)
    letters_tokenizer().save_pretrained(folder)


CHECKPOINTS: dict[str, Callable[[Path], None]] = {
    "sentence-transformers/all-MiniLM-L6-v2": _embedder,
    "cross-encoder/ms-marco-MiniLM-L6-v2": _reranker,
    "distilbert/distilbert-base-uncased-finetuned-sst-2-english": _classifier,
    "google/vit-base-patch16-224": _images,
    "openai/whisper-base": _speech,
    "HuggingFaceTB/SmolLM2-135M-Instruct": _chat,
    "my-model": _chat,
}


def recording() -> dict[str, object]:
    """A second of noise, as pipelines for speech recognition take it."""
    generator = torch.Generator().manual_seed(0)
    return {"raw": torch.randn(16000, generator=generator).numpy() / 10, "sampling_rate": 16000}
