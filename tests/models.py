"""Tiny Transformers models of every kind with random weights, and inputs for them."""

from collections.abc import Callable
from typing import Any

import torch

from cpuaccel.testing.models import LAYERS, TEXT

Inputs = dict[str, torch.Tensor]

IMAGE = {**LAYERS, "image_size": 16, "patch_size": 4}
SPEECH = {
    "vocab_size": 64,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
}
T5 = {"vocab_size": 64, "d_model": 32, "num_layers": 2, "num_heads": 2, "d_kv": 16, "d_ff": 64}

Architecture = tuple[str, str, dict[str, Any]]
"""The model's class, its config's class and arguments of the config."""

ENCODERS: dict[str, Architecture] = {
    "bert": ("BertModel", "BertConfig", TEXT),
    "bert-qa": ("BertForQuestionAnswering", "BertConfig", TEXT),
    "bert-text": ("BertForSequenceClassification", "BertConfig", TEXT),
    "bert-masked": ("BertForMaskedLM", "BertConfig", TEXT),
    "bert-token": ("BertForTokenClassification", "BertConfig", TEXT),
    "roberta-qa": ("RobertaForQuestionAnswering", "RobertaConfig", TEXT),
    "roberta-text": ("RobertaForSequenceClassification", "RobertaConfig", TEXT),
    "roberta-token": ("RobertaForTokenClassification", "RobertaConfig", TEXT),
    "electra-token": ("ElectraForTokenClassification", "ElectraConfig", TEXT),
    "albert": ("AlbertModel", "AlbertConfig", {**TEXT, "embedding_size": 16}),
    **{
        f"distilbert-{task}": (
            f"DistilBertFor{head}",
            "DistilBertConfig",
            {"vocab_size": 64, "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64},
        )
        for task, head in {
            "qa": "QuestionAnswering",
            "text": "SequenceClassification",
            "token": "TokenClassification",
        }.items()
    },
    "modernbert-token": (
        "ModernBertForTokenClassification",
        "ModernBertConfig",
        {**TEXT, "pad_token_id": 0, "local_attention": 6, "global_attn_every_n_layers": 2},
    ),
    "eurobert": (
        "EuroBertModel",
        "EuroBertConfig",
        {**TEXT, "num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 1},
    ),
    "clip-text": (
        "CLIPTextModel",
        "CLIPTextConfig",
        {**TEXT, "max_position_embeddings": 20, "bos_token_id": 0, "eos_token_id": 63},
    ),
    "mpnet": ("MPNetModel", "MPNetConfig", TEXT),
    "gpt2": (
        "GPT2Model",
        "GPT2Config",
        {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 2, "use_cache": False},
    ),
    "t5-encoder": ("T5EncoderModel", "T5Config", T5),
    "vit": (
        "ViTForImageClassification",
        "ViTConfig",
        IMAGE,
    ),
    "wav2vec2": (
        "Wav2Vec2ForCTC",
        "Wav2Vec2Config",
        {
            **LAYERS,
            "vocab_size": 32,
            "conv_dim": (16, 16),
            "conv_stride": (5, 2),
            "conv_kernel": (10, 3),
            "num_feat_extract_layers": 2,
            "num_conv_pos_embeddings": 16,
            "num_conv_pos_embedding_groups": 4,
            "feat_extract_norm": "layer",
            "mask_time_prob": 0.0,
        },
    ),
}

GENERATORS: dict[str, Architecture] = {
    "gpt2": (
        "GPT2LMHeadModel",
        "GPT2Config",
        {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 256},
    ),
    "qwen2": (
        "Qwen2ForCausalLM",
        "Qwen2Config",
        {**TEXT, "num_attention_heads": 4, "num_key_value_heads": 2},
    ),
    "t5": (
        "T5ForConditionalGeneration",
        "T5Config",
        {**T5, "decoder_start_token_id": 0},
    ),
    "whisper": (
        "WhisperForConditionalGeneration",
        "WhisperConfig",
        {
            **SPEECH,
            "num_mel_bins": 80,
            "max_source_positions": 50,
            "max_target_positions": 40,
            "pad_token_id": 0,
            "bos_token_id": 2,
            "eos_token_id": 3,
            "decoder_start_token_id": 2,
        },
    ),
    "speech2text": (
        "Speech2TextForConditionalGeneration",
        "Speech2TextConfig",
        {
            **SPEECH,
            "conv_channels": 32,
        },
    ),
    "clip": (
        "CLIPModel",
        "CLIPConfig",
        {
            "text_config": TEXT,
            "vision_config": IMAGE,
            "projection_dim": 16,
        },
    ),
}
"""Models that have ``generate``, and CLIP, which has embeddings of two kinds."""


def encoder(name: str, **changes: object) -> torch.nn.Module:
    """Make one of ``ENCODERS``, with the same weights on every call, in eval mode.

    Args:
        name: a key of ``ENCODERS``.
        changes: arguments of the config.
    """
    return _make(ENCODERS[name], changes).eval()


def generator(name: str, **changes: object) -> Any:
    """Make one of ``GENERATORS`` as ``encoder`` does, but in training mode."""
    return _make(GENERATORS[name], changes)


def _make(architecture: Architecture, changes: dict[str, object]) -> torch.nn.Module:
    import transformers

    model_class, config_class, arguments = architecture
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = getattr(transformers, config_class)(**{**arguments, **changes})
        model: torch.nn.Module = getattr(transformers, model_class)(config)
    return model


def batch(name: str, size: int, length: int, pad: Callable[[torch.Tensor], None]) -> Inputs:
    """Inputs for a model; ``pad`` zeroes its attention mask where it likes."""
    generator = torch.Generator().manual_seed(size * 100 + length)
    if name == "vit":
        return {"pixel_values": torch.randn(size, 3, 16, 16, generator=generator)}
    if name == "wav2vec2":
        samples = length * 40
        mask = torch.ones(size, samples, dtype=torch.long)
        pad(mask)
        return {
            "input_values": torch.randn(size, samples, generator=generator) * mask,
            "attention_mask": mask,
        }
    mask = torch.ones(size, length, dtype=torch.long)
    pad(mask)
    return {
        "input_ids": torch.randint(3, 60, (size, length), generator=generator),
        "attention_mask": mask,
    }


def unpadded(mask: torch.Tensor) -> None:
    """All tokens are real."""


def right(mask: torch.Tensor) -> None:
    """Rows of different lengths, the longest shorter than the batch."""
    for row in range(len(mask)):
        mask[row, mask.shape[1] - 1 - row * 2 % (mask.shape[1] // 2) :] = 0


def left(mask: torch.Tensor) -> None:
    """Some rows begin with padding."""
    mask[::2, : mask.shape[1] // 3] = 0


def both(mask: torch.Tensor) -> None:
    """Padding on either side, in different rows."""
    right(mask)
    mask[-1] = 1
    mask[-1, : mask.shape[1] // 2] = 0
