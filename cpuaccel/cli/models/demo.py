"""The demo: sentences and a pretrained model that embeds them."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources

import torch

from cpuaccel.cli.models.load import import_transformers
from cpuaccel.cli.models.source import demo_folder
from cpuaccel.model.signature import MASK, Inputs

PIPELINES = ("jit", "onednn", "bettertransformer,onednn")
"""Pipelines that ``cpuaccel bench demo`` compares."""

LONGEST = 256
"""Largest number of tokens in a sentence, from the model's configuration."""


def sentences() -> list[str]:
    """Read the sentences that cpuaccel ships."""
    text = resources.files("cpuaccel.cli.models").joinpath("demo.txt").read_text(encoding="utf-8")
    return text.splitlines()


def text_batches(batch_size: int) -> list[Inputs]:
    """Tokenize the sentences in order, each batch padded to its longest sentence."""
    tokenizer = import_transformers().AutoTokenizer.from_pretrained(str(demo_folder()))
    text = sentences()
    return [
        dict(
            tokenizer(
                text[start : start + batch_size],
                padding=True,
                truncation=True,
                max_length=LONGEST,
                return_tensors="pt",
            )
        )
        for start in range(0, len(text), batch_size)
    ]


@dataclass(frozen=True)
class Neighbour:
    """The nearest neighbour of the first sentence, by a model's embeddings."""

    query: str
    sentence: str
    cosine: float


def nearest(model: Callable[..., object], batches: list[Inputs]) -> Neighbour:
    """Embed all sentences and find the nearest neighbour of the first."""
    with torch.no_grad():
        embeddings = torch.cat([_embed(model, batch) for batch in batches])
    similarity = embeddings[1:] @ embeddings[0]
    best = int(similarity.argmax())
    text = sentences()
    return Neighbour(text[0], text[1 + best], float(similarity[best]))


def _embed(model: Callable[..., object], batch: Inputs) -> torch.Tensor:
    """Average the states of real tokens and normalize, as the model was trained."""
    states, mask = model(**batch).last_hidden_state, batch[MASK]  # type: ignore[attr-defined]
    assert isinstance(mask, torch.Tensor)
    weights = mask[:, :, None].to(states.dtype)
    pooled = (states * weights).sum(1) / weights.sum(1)
    normalized: torch.Tensor = torch.nn.functional.normalize(pooled, dim=1)
    return normalized
