"""Scores of pairs of texts, by sentence-transformers with an optimized cross-encoder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import CrossEncoder

from cpuaccel.errors import ModelError
from cpuaccel.integrations.tasks.encoders import default_prompt, optimized_encoder, save_encoder
from cpuaccel.integrations.tasks.openmp import end_openmp_threads
from cpuaccel.integrations.tasks.rows import TextRow, padded, unpadded
from cpuaccel.integrations.tasks.served import EXAMPLES, PipelineLike, ServedModel
from cpuaccel.optimized import OptimizedModel


class Rerank(ServedModel):
    """Scores pairs of a query and a document as ``CrossEncoder.predict`` does."""

    def __init__(self, encoder: CrossEncoder) -> None:
        """Take a model that ``accelerated.optimize`` returned.

        Raises:
            ModelError: it has more than one score for a pair.
        """
        transformer = encoder[0].model
        assert isinstance(transformer, OptimizedModel)
        if encoder.num_labels != 1:
            raise ModelError(
                f"a reranker has one score for a pair, but this model has {encoder.num_labels} "
                "labels. Use a classifier instead"
            )
        super().__init__(transformer)
        self.encoder = encoder
        self._activation: Any = encoder.activation_fn

    def encode(self, items: Sequence[tuple[str, str]]) -> list[TextRow]:
        """Tokenize pairs of a query and a document."""
        pairs = [list(pair) for pair in items]
        prompt = default_prompt(self.encoder)
        with self.tokenizing:
            return unpadded(self.encoder.preprocess(pairs, prompt)) if pairs else []

    def run(self, rows: Sequence[TextRow]) -> list[float]:
        """Compute the scores."""
        batch = padded(self.encoder.tokenizer, rows)
        with torch.inference_mode():
            scores = self._activation(self.encoder(batch)["scores"])
        return [float(score) for score in scores.float().reshape(len(rows))]

    def save(self, folder: Path) -> None:
        """Write the model of sentence-transformers, with the artifact of its transformer."""
        save_encoder(self.encoder, self.model, folder)


def load_reranker(model: str | Path, pipeline: PipelineLike = None) -> Rerank:
    """Load and optimize a cross-encoder; see ``load_embedder`` for the arguments."""
    encoder = CrossEncoder(str(model), device="cpu")
    task = Rerank(optimized_encoder(encoder, model, pipeline))
    task.run(task.encode([EXAMPLES]))
    end_openmp_threads()
    return task
