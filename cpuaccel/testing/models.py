"""Tiny models to test backends with."""

import importlib.util
from typing import Any, NamedTuple

import pytest
import torch

LAYERS: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
"""The size of tiny Transformers models, as arguments of a config."""

TEXT: dict[str, Any] = {"vocab_size": 64, **LAYERS}
"""The size of those that read text."""


class Encoded(NamedTuple):
    """The output of ``MaskedEncoder``.

    Attributes:
        states: one vector for each token, [batch, length, width].
        pooled: mean of the real tokens' states, [batch, width].
    """

    states: torch.Tensor
    pooled: torch.Tensor


class MaskedEncoder(torch.nn.Module):
    """A tiny text encoder: embedding, one layer of masked attention, masked mean pooling."""

    def __init__(self, words: int = 50, width: int = 16) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(words, width)
        self.query_key_value = torch.nn.Linear(width, 3 * width)
        self.feed = torch.nn.Sequential(
            torch.nn.Linear(width, 2 * width), torch.nn.GELU(), torch.nn.Linear(2 * width, width)
        )
        self.norm = torch.nn.LayerNorm(width)

    @classmethod
    def seeded(cls, seed: int = 0) -> "MaskedEncoder":
        """Make a model in eval mode whose weights depend only on the seed.

        torch's global random state is unchanged.
        """
        with torch.random.fork_rng():
            model = cls().eval()
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
        return model

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> Encoded:
        """Encode tokens.

        Args:
            input_ids: [batch, length].
            attention_mask: [batch, length], 0 for padding; without it every token is real.
        """
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        embedded = self.embedding(input_ids)
        real = attention_mask.to(embedded.dtype)
        query, key, value = self.query_key_value(embedded).chunk(3, dim=-1)
        scores = query @ key.transpose(1, 2) / query.shape[-1] ** 0.5
        scores = scores.masked_fill(attention_mask[:, None, :] == 0, torch.finfo(scores.dtype).min)
        attended = embedded + scores.softmax(-1) @ value
        states = self.norm(attended + self.feed(attended))
        weights = real[:, :, None]
        return Encoded(states, (states * weights).sum(1) / weights.sum(1))


def tiny_text_model(architecture: str = "BertModel") -> torch.nn.Module:
    """Make a tiny Transformers model with random weights, in eval mode.

    Skips the test where Transformers is not installed.

    Args:
        architecture: one of BERT's classes, such as ``BertForQuestionAnswering``.
    """
    if importlib.util.find_spec("transformers") is None:
        pytest.skip("transformers is not installed")
    import transformers

    config = transformers.BertConfig(**TEXT, max_position_embeddings=64)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: torch.nn.Module = getattr(transformers, architecture)(config)
    return model.eval()
