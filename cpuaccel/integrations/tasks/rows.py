"""Tokenized texts, and the padded batches made of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase
from transformers.data.data_collator import pad_without_fast_tokenizer_warning

from cpuaccel.model.signature import MASK

IDS = "input_ids"


@dataclass(frozen=True)
class TextRow:
    """One tokenized text, or pair of texts, without padding.

    Attributes:
        inputs: what the tokenizer returned for it, ``input_ids`` among them.
        shared: what is the same for all rows and not a tensor, such as the length of a prompt.
    """

    inputs: Mapping[str, list[int]]
    shared: tuple[tuple[str, object], ...] = ()

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return len(self.inputs[IDS])


def unpadded(features: Mapping[str, Any]) -> list[TextRow]:
    """Cut a padded batch into rows.

    Args:
        features: tensors of shape (batch, length), ``attention_mask`` among them, and other values.
    """
    mask = features[MASK].bool()
    shared = tuple((name, v) for name, v in features.items() if not isinstance(v, torch.Tensor))
    columns: dict[str, list[list[int]]] = {
        name: [row[real].tolist() for row, real in zip(tensor, mask)]
        for name, tensor in features.items()
        if isinstance(tensor, torch.Tensor)
    }
    return [TextRow(dict(zip(columns, row)), shared) for row in zip(*columns.values())]


def padded(tokenizer: PreTrainedTokenizerBase, rows: Sequence[TextRow]) -> dict[str, Any]:
    """Make one batch of rows, padded to the longest; tensors have shape (batch, length)."""
    inputs = {name: [row.inputs[name] for row in rows] for name in rows[0].inputs}
    batch = pad_without_fast_tokenizer_warning(tokenizer, inputs, return_tensors="pt")  # type: ignore[no-untyped-call]
    return {**batch, **dict(rows[0].shared)}
