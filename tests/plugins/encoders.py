"""Tiny Transformers encoders of every kind, with inputs for them."""

from collections.abc import Callable
from typing import Any

import torch

Inputs = dict[str, torch.Tensor]

TEXT = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
ARCHITECTURES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert-qa": ("BertForQuestionAnswering", "BertConfig", TEXT),
    "bert-text": ("BertForSequenceClassification", "BertConfig", TEXT),
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
    "mpnet": ("MPNetModel", "MPNetConfig", TEXT),
    "gpt2": (
        "GPT2Model",
        "GPT2Config",
        {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 2, "use_cache": False},
    ),
    "t5-encoder": (
        "T5EncoderModel",
        "T5Config",
        {"vocab_size": 64, "d_model": 32, "num_layers": 2, "num_heads": 2, "d_kv": 16, "d_ff": 64},
    ),
    "vit": (
        "ViTForImageClassification",
        "ViTConfig",
        {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "image_size": 16,
            "patch_size": 4,
        },
    ),
    "wav2vec2": (
        "Wav2Vec2ForCTC",
        "Wav2Vec2Config",
        {
            "vocab_size": 32,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
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


def encoder(name: str, **changes: object) -> torch.nn.Module:
    """A model with random weights, the same on every call, in eval mode."""
    import transformers

    architecture, config, arguments = ARCHITECTURES[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = getattr(transformers, config)(**{**arguments, **changes})
        model: torch.nn.Module = getattr(transformers, architecture)(made)
    return model.eval()


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
