"""Classification of texts and of their tokens, with Transformers' post-processing."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from cpuaccel.integrations.tasks.openmp import end_openmp_threads
from cpuaccel.integrations.tasks.rows import TextRow, padded
from cpuaccel.integrations.tasks.served import (
    EXAMPLES,
    PipelineLike,
    ServedModel,
    load_model,
    save_with_tokenizer,
)
from cpuaccel.optimized import OptimizedModel


@dataclass(frozen=True)
class Label:
    """The most probable label of a text, and its probability."""

    label: str
    score: float


class Classify(ServedModel):
    """Classifies texts as ``transformers.pipeline("text-classification")`` does."""

    def __init__(
        self, model: OptimizedModel, tokenizer: transformers.PreTrainedTokenizerBase
    ) -> None:
        super().__init__(model)
        make: Any = transformers.pipeline  # its overloads know no optimized models
        self.pipeline = make("text-classification", model=model, tokenizer=tokenizer)

    def encode(self, items: Sequence[str]) -> list[TextRow]:
        """Tokenize. Texts that are too long for the model are truncated."""
        with self.tokenizing:
            encoded = self.pipeline.tokenizer(list(items), truncation=True) if items else {}
        return [TextRow(dict(zip(encoded, row))) for row in zip(*encoded.values())]

    def run(self, rows: Sequence[TextRow]) -> list[Label]:
        """Compute the labels."""
        batch = padded(self.pipeline.tokenizer, rows)
        with torch.inference_mode():
            logits = self.model(**batch).logits
        answers = (self.pipeline.postprocess({"logits": row[None]}) for row in logits)
        return [Label(answer["label"], answer["score"]) for answer in answers]

    def save(self, folder: Path) -> None:
        """Write an artifact with the tokenizer."""
        save_with_tokenizer(self.model, self.pipeline.tokenizer, folder)


@dataclass(frozen=True)
class TokenRow(TextRow):
    """A tokenized text with what is needed to find the places of its entities.

    Attributes:
        encoded: what the pipeline's ``preprocess`` returned, shape (1, length).
    """

    encoded: Any = None


class ClassifyTokens(ServedModel):
    """Finds entities as ``transformers.pipeline("token-classification")`` does."""

    def __init__(
        self,
        model: OptimizedModel,
        tokenizer: transformers.PreTrainedTokenizerBase,
        aggregation_strategy: str = "simple",
    ) -> None:
        super().__init__(model)
        make: Any = transformers.pipeline  # its overloads know no optimized models
        self.pipeline = make(
            "token-classification",
            model=model,
            tokenizer=tokenizer,
            aggregation_strategy=aggregation_strategy,
        )

    def encode(self, items: Sequence[str]) -> list[TextRow]:
        """Tokenize."""
        return [self._encode(text) for text in items]

    def _encode(self, text: str) -> TextRow:
        with self.tokenizing:
            encoded = next(iter(self.pipeline.preprocess(text, **self.pipeline._preprocess_params)))
        names = (name for name in self.pipeline.tokenizer.model_input_names if name in encoded)
        return TokenRow({name: encoded[name][0].tolist() for name in names}, encoded=encoded)

    def run(self, rows: Sequence[TextRow]) -> list[list[dict[str, Any]]]:
        """Compute the entities of each text, as the pipeline returns them."""
        batch = padded(self.pipeline.tokenizer, rows)
        with torch.inference_mode():
            logits = self.model(**batch).logits
        side = self.pipeline.tokenizer.padding_side
        answers = []
        for row, each in zip(rows, logits):
            assert isinstance(row, TokenRow)
            real = each[: row.tokens] if side == "right" else each[-row.tokens :]
            outputs = {**row.encoded, "logits": real[None]}
            answers.append(
                self.pipeline.postprocess([outputs], **self.pipeline._postprocess_params)
            )
        return answers

    def save(self, folder: Path) -> None:
        """Write an artifact with the tokenizer."""
        save_with_tokenizer(self.model, self.pipeline.tokenizer, folder)


def load_classifier(model: str | Path, pipeline: PipelineLike = None) -> Classify:
    """Load and optimize a model for text classification; see ``load_embedder``.

    ``model`` may also be a folder that ``OptimizedModel.save`` wrote with the tokenizer.
    """
    task = Classify(*load_model(model, "AutoModelForSequenceClassification", pipeline))
    task.run(task.encode(EXAMPLES))
    end_openmp_threads()
    return task


def load_token_classifier(model: str | Path, pipeline: PipelineLike = None) -> ClassifyTokens:
    """Load and optimize a model for token classification; see ``load_classifier``."""
    task = ClassifyTokens(*load_model(model, "AutoModelForTokenClassification", pipeline))
    task.run(task.encode(EXAMPLES))
    end_openmp_threads()
    return task
