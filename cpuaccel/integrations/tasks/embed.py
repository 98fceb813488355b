"""Embeddings, by sentence-transformers with an optimized transformer."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import truncate_embeddings

from cpuaccel.integrations.tasks.encoders import default_prompt, optimized_encoder, save_encoder
from cpuaccel.integrations.tasks.openmp import end_openmp_threads
from cpuaccel.integrations.tasks.rows import TextRow, padded, unpadded
from cpuaccel.integrations.tasks.served import EXAMPLES, PipelineLike, ServedModel
from cpuaccel.optimized import OptimizedModel

Embedding = np.ndarray[tuple[int], np.dtype[np.float32]]


class Embed(ServedModel):
    """Embeds texts as ``SentenceTransformer.encode`` does.

    Texts that are too long for the model are truncated, and get the model's default prompt.
    """

    def __init__(self, embedder: SentenceTransformer) -> None:
        """Take a model that ``accelerated.optimize`` returned."""
        transformer = embedder[0].model
        assert isinstance(transformer, OptimizedModel)
        super().__init__(transformer)
        self.embedder = embedder

    @property
    def dimensions(self) -> int:
        """Numbers in an embedding."""
        return self.embedder.get_embedding_dimension() or 0

    def encode(self, items: Sequence[str]) -> list[TextRow]:
        """Tokenize."""
        prompt = default_prompt(self.embedder)
        with self.tokenizing:
            return unpadded(self.embedder.preprocess(list(items), prompt)) if items else []

    def run(self, rows: Sequence[TextRow]) -> list[Embedding]:
        """Compute embeddings of shape (dimensions,), float32."""
        batch = padded(self.embedder.tokenizer, rows)
        with torch.inference_mode():
            embeddings = self.embedder(batch)["sentence_embedding"]
        embeddings = truncate_embeddings(embeddings, self.embedder.truncate_dim)
        return list(embeddings.float().numpy())

    def save(self, folder: Path) -> None:
        """Write the model of sentence-transformers, with the artifact of its transformer."""
        save_encoder(self.embedder, self.model, folder)


def load_embedder(model: str | Path, pipeline: PipelineLike = None) -> Embed:
    """Load and optimize a model of sentence-transformers.

    Args:
        model: a folder or a hub id.
        pipeline: names of backends, a TOML file or a ``Pipeline``. Default: see
            ``cpuaccel.optimize``.
    """
    embedder = SentenceTransformer(str(model), device="cpu")
    task = Embed(optimized_encoder(embedder, model, pipeline))
    task.run(task.encode(EXAMPLES))
    end_openmp_threads()
    return task
