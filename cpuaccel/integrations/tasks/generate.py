"""Text generation: in batches, or one stream at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from cpuaccel.integrations.tasks.openmp import end_openmp_threads
from cpuaccel.integrations.tasks.rows import IDS, TextRow
from cpuaccel.integrations.tasks.served import (
    PipelineLike,
    ServedModel,
    load_model,
    save_with_tokenizer,
)
from cpuaccel.model.signature import MASK
from cpuaccel.optimized import OptimizedModel

Messages = Sequence[dict[str, str]]


@dataclass(frozen=True)
class PromptRow(TextRow):
    """A tokenized prompt.

    Attributes:
        new_tokens: most tokens that will be generated.
    """

    new_tokens: int = 0

    @property
    def tokens(self) -> int:
        """Number of tokens of the prompt and of what is generated."""
        return len(self.inputs[IDS]) + self.new_tokens


class Generate(ServedModel):
    """Generates texts with Transformers' ``generate``."""

    def __init__(
        self,
        model: OptimizedModel,
        tokenizer: transformers.PreTrainedTokenizerBase,
        **options: Any,
    ) -> None:
        """Take a decoder and its tokenizer.

        Args:
            model: the optimized decoder.
            tokenizer: its tokenizer.
            **options: arguments of ``generate``, such as ``max_new_tokens``.
        """
        super().__init__(model)
        self.tokenizer: Any = tokenizer
        self.options = {"max_new_tokens": 128, **options}
        # Decoders without a padding token never look at what pads them.
        self._padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0

    def encode(self, items: Sequence[str | Messages]) -> list[TextRow]:
        """Tokenize prompts; messages by the chat template of the tokenizer."""
        with self.tokenizing:
            ids = [self._encode(item) for item in items]
        new = self.options["max_new_tokens"]
        return [PromptRow({IDS: row}, new_tokens=new) for row in ids]

    def _encode(self, item: str | Messages) -> list[int]:
        if isinstance(item, str):
            return list(self.tokenizer(item)[IDS])
        encoded = self.tokenizer.apply_chat_template(
            list(item), add_generation_prompt=True, return_dict=True
        )
        return list(encoded[IDS])

    def run(self, rows: Sequence[TextRow]) -> list[str]:
        """Generate a text for each prompt, without the prompt."""
        prompts = [row.inputs[IDS] for row in rows]
        longest = max(map(len, prompts))
        ids = [[self._padding] * (longest - len(prompt)) + prompt for prompt in prompts]
        mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        output = self.generate({IDS: torch.tensor(ids), MASK: torch.tensor(mask)})
        with self.tokenizing:
            texts: list[str] = self.tokenizer.batch_decode(
                output[:, longest:], skip_special_tokens=True
            )
        return texts

    def generate(self, inputs: dict[str, torch.Tensor], **options: Any) -> torch.Tensor:
        """Call ``generate``, and return prompts and tokens, shape (batch, length)."""
        generate: Any = self.model.generate
        ids: torch.Tensor = generate(
            **inputs, **{"pad_token_id": self._padding, **self.options, **options}
        )
        return ids

    def save(self, folder: Path) -> None:
        """Write an artifact with the tokenizer."""
        save_with_tokenizer(self.model, self.tokenizer, folder)

    @property
    def faults(self) -> list[str]:
        """Why ``generate`` is not accelerated, besides variants that are switched off."""
        generation: Any = self.report.generation
        failed = generation is not None and generation.stepper is None
        return [*super().faults, *([str(generation.outcome)] if failed else [])]


def load_generator(model: str | Path, pipeline: PipelineLike = None, **options: Any) -> Generate:
    """Load and optimize a decoder.

    Args:
        model: a folder, a hub id, or a folder that ``OptimizedModel.save`` wrote with a tokenizer.
        pipeline: see ``load_embedder``.
        **options: arguments of ``generate``, such as ``max_new_tokens``.
    """
    task = Generate(*load_model(model, "AutoModelForCausalLM", pipeline), **options)
    task.model.prepare_generation()
    end_openmp_threads()
    return task
