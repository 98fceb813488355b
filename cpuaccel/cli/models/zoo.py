"""Well-known architectures, made with random weights so that they need no download."""

from collections.abc import Mapping
from dataclasses import dataclass, field

_TEXT = "feature-extraction"
GENERATION = "text-generation"
SPEECH = "automatic-speech-recognition"
TRANSLATION = "translation"


@dataclass(frozen=True)
class Architecture:
    """An architecture in one size."""

    model_type: str
    task: str = _TEXT
    config: Mapping[str, object] = field(default_factory=dict)


_TINY: dict[str, object] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
_TINY_TEXT = {**_TINY, "vocab_size": 512}
_ROBERTA: dict[str, object] = {
    "vocab_size": 50265,
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
}
_BASE: dict[str, object] = {
    "hidden_size": 768,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
}
_SPECIAL_TOKENS: dict[str, object] = {
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "cls_token_id": 1,
    "sep_token_id": 2,
}

_QWEN: dict[str, object] = {
    "vocab_size": 151936,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}

_WHISPER: dict[str, object] = {
    "d_model": 512,
    "encoder_layers": 6,
    "decoder_layers": 6,
    "encoder_attention_heads": 8,
    "decoder_attention_heads": 8,
    "encoder_ffn_dim": 2048,
    "decoder_ffn_dim": 2048,
}
_MARIAN: dict[str, object] = {
    **_WHISPER,
    "vocab_size": 58101,
    "pad_token_id": 58100,
    "decoder_start_token_id": 58100,
    "activation_function": "swish",
    "scale_embedding": True,
}
_SEQ2SEQ_TINY: dict[str, object] = {
    "vocab_size": 512,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 3,
}

ZOO = {
    "bert-base": Architecture("bert"),
    "bert-tiny": Architecture("bert", config=_TINY_TEXT),
    "roberta-base": Architecture("roberta", config=_ROBERTA),
    "roberta-tiny": Architecture("roberta", config={**_ROBERTA, **_TINY_TEXT}),
    "distilbert-base": Architecture("distilbert"),
    "distilbert-tiny": Architecture(
        "distilbert",
        config={"vocab_size": 512, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64},
    ),
    "minilm-l6": Architecture(
        "bert", config={"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536}
    ),
    "minilm-tiny": Architecture("bert", config={**_TINY_TEXT, "num_hidden_layers": 1}),
    "albert-base": Architecture("albert", config=_BASE),
    "albert-tiny": Architecture("albert", config={**_TINY_TEXT, "embedding_size": 16}),
    "electra-base": Architecture("electra", config={**_BASE, "embedding_size": 768}),
    "electra-tiny": Architecture("electra", config={**_TINY_TEXT, "embedding_size": 16}),
    "modernbert-base": Architecture("modernbert"),
    "modernbert-tiny": Architecture("modernbert", config={**_TINY_TEXT, **_SPECIAL_TOKENS}),
    "smollm2-135m": Architecture(
        "llama",
        GENERATION,
        {
            "vocab_size": 49152,
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "max_position_embeddings": 8192,
            "tie_word_embeddings": True,
        },
    ),
    "qwen2.5-0.5b": Architecture(
        "qwen2",
        GENERATION,
        {
            **_QWEN,
            "hidden_size": 896,
            "intermediate_size": 4864,
            "num_hidden_layers": 24,
            "num_attention_heads": 14,
        },
    ),
    "qwen2.5-1.5b": Architecture(
        "qwen2",
        GENERATION,
        {
            **_QWEN,
            "hidden_size": 1536,
            "intermediate_size": 8960,
            "num_hidden_layers": 28,
            "num_attention_heads": 12,
        },
    ),
    "llama-tiny": Architecture(
        "llama", GENERATION, {**_TINY_TEXT, **_SPECIAL_TOKENS, "num_key_value_heads": 2}
    ),
    "vit-base": Architecture("vit", "image-classification"),
    "vit-tiny": Architecture(
        "vit", "image-classification", {**_TINY, "image_size": 32, "patch_size": 8}
    ),
    "marian-base": Architecture("marian", TRANSLATION, _MARIAN),
    "marian-tiny": Architecture(
        "marian", TRANSLATION, {**_SEQ2SEQ_TINY, "max_position_embeddings": 256}
    ),
    "whisper-base": Architecture("whisper", SPEECH, _WHISPER),
    "whisper-tiny": Architecture(
        "whisper",
        SPEECH,
        {
            **_SEQ2SEQ_TINY,
            "num_mel_bins": 16,
            "max_source_positions": 32,
            "max_target_positions": 128,
            "begin_suppress_tokens": [],
        },
    ),
    "wav2vec2-base": Architecture("wav2vec2", SPEECH),
    "wav2vec2-tiny": Architecture(
        "wav2vec2",
        SPEECH,
        {
            **_TINY,
            "conv_dim": (32,) * 7,
            "num_conv_pos_embeddings": 16,
            "num_conv_pos_embedding_groups": 4,
        },
    ),
}
"""Architectures by the name that follows ``config:``. Tests use those that end in ``-tiny``."""
