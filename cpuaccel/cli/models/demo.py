"""The demo: real sentences through real weights."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import resources

import torch

from cpuaccel.cli.models.load import demo_folder, import_transformers
from cpuaccel.model.signature import MASK, Inputs

PIPELINES = ("jit", "bettertransformer", "bettertransformer,jit")
"""What ``cpuaccel bench demo`` puts side by side."""

LONGEST = 256
"""Tokens, after which the model's own configuration cuts a sentence off."""


def sentences() -> list[str]:
    """The text that is shipped with cpuaccel."""
    text = resources.files("cpuaccel.cli.models").joinpath("demo.txt").read_text(encoding="utf-8")
    return text.splitlines()


def text_batches(batch_size: int) -> list[Inputs]:
    """The sentences as they come, tokenized, each batch padded to its longest.

    Raises:
        ModelError: the demo's tokenizer is not installed.
    """
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
    """The sentence that one model finds nearest to the first one of the text.

    Attributes:
        query: the first sentence.
        sentence: the one nearest to it.
        cosine: how near.
    """

    query: str
    sentence: str
    cosine: float

    def to_dict(self) -> dict[str, object]:
        """The same as data that JSON can hold."""
        return asdict(self)


def nearest(model: Callable[..., object], batches: list[Inputs]) -> Neighbour:
    """Embed all sentences and look up the neighbour of the first.

    Args:
        model: the encoder, or what was made of it.
        batches: from ``text_batches``.
    """
    with torch.no_grad():
        embeddings = torch.cat([_embed(model, batch) for batch in batches])
    similarity = embeddings[1:] @ embeddings[0]
    best = int(similarity.argmax())
    text = sentences()
    return Neighbour(text[0], text[1 + best], float(similarity[best]))


def _embed(model: Callable[..., object], batch: Inputs) -> torch.Tensor:
    """Mean of the real tokens' states, of length one: what this model was trained to give."""
    states, mask = model(**batch).last_hidden_state, batch[MASK]  # type: ignore[attr-defined]
    assert isinstance(mask, torch.Tensor)
    weights = mask[:, :, None].to(states.dtype)
    pooled = (states * weights).sum(1) / weights.sum(1)
    normalized: torch.Tensor = torch.nn.functional.normalize(pooled, dim=1)
    return normalized
