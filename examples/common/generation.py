"""Texts that an encoder-decoder generates."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Seq2SeqTrainer

from cpuaccel.integrations.trainer import CpuaccelTrainer

PADDING = -100
"""The value with which Trainer pads tokens of batches that differ in length."""


class GeneratingTrainer(CpuaccelTrainer, Seq2SeqTrainer):
    """A trainer whose predictions are generated tokens."""


@dataclass(frozen=True)
class Generation:
    """How texts are generated.

    Attributes:
        tokenizer: of the model.
        options: arguments of ``generate`` besides the inputs.
        settings: those of the model, as JSON.
    """

    tokenizer: PreTrainedTokenizerBase
    options: Mapping[str, Any]
    settings: str

    @classmethod
    def of(
        cls, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, **options: object
    ) -> Self:
        """Take the settings of a model before its first prediction: Trainer adds to them.

        Args:
            model: an encoder-decoder.
            tokenizer: of the model.
            options: arguments of ``generate``; those that are None are left out.
        """
        chosen = {name: value for name, value in options.items() if value is not None}
        return cls(tokenizer, chosen, model.generation_config.to_json_string())

    def adding(self, **options: object) -> Self:
        """Return the same with more options."""
        return replace(self, options={**self.options, **options})

    @property
    def depends_on(self) -> list[object]:
        """What the texts depend on besides the model and the inputs."""
        return [dict(self.options), self.settings]

    def texts(self, tokens: np.ndarray[Any, Any]) -> list[str]:
        """Decode tokens, int64[rows, tokens], without special ones."""
        padding = self.tokenizer.pad_token_id
        padding = self.tokenizer.eos_token_id if padding is None else padding
        texts = self.tokenizer.batch_decode(
            np.where(tokens == PADDING, padding, tokens).tolist(), skip_special_tokens=True
        )
        return [str(text).strip() for text in texts]
