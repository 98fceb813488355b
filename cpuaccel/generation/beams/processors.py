"""Transformers' processors of scores that only exclude tokens, without a mask of the vocabulary."""

from collections.abc import Callable, Iterable, Mapping
from typing import cast

import torch
from transformers.generation.logits_process import (
    LogitsProcessor,
    MinLengthLogitsProcessor,
    MinNewTokensLengthLogitsProcessor,
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
)

NONE = torch.empty(0, dtype=torch.int64)


def _before_min_length(processor: MinLengthLogitsProcessor, length: int) -> torch.Tensor:
    return processor.eos_token_id if length < processor.min_length else NONE


def _before_min_new_tokens(
    processor: MinNewTokensLengthLogitsProcessor, length: int
) -> torch.Tensor:
    least = processor.prompt_length_to_skip + processor.min_new_tokens
    return processor.eos_token_id if length < least else NONE


def _always(processor: SuppressTokensLogitsProcessor, length: int) -> torch.Tensor:
    return processor.suppress_tokens


def _at_begin(processor: SuppressTokensAtBeginLogitsProcessor, length: int) -> torch.Tensor:
    return processor.begin_suppress_tokens if length == processor.begin_index else NONE


EXCLUDED: Mapping[type, Callable[..., torch.Tensor]] = {
    MinLengthLogitsProcessor: _before_min_length,
    MinNewTokensLengthLogitsProcessor: _before_min_new_tokens,
    SuppressTokensLogitsProcessor: _always,
    SuppressTokensAtBeginLogitsProcessor: _at_begin,
}
"""How to find the tokens that a processor excludes, by its class: of it and of the texts' length."""


def process(
    processors: Iterable[LogitsProcessor], ids: torch.Tensor, scores: torch.Tensor
) -> torch.Tensor:
    """Let processors change scores, as ``LogitsProcessorList`` does.

    Args:
        processors: called in turn.
        ids: the texts, shape (rows, tokens).
        scores: shape (rows, vocabulary); they may be changed.
    """
    changeable = True  # as long as nobody else has seen them
    for processor in processors:
        excluded = EXCLUDED.get(type(processor))
        if excluded is None:
            scores = processor(cast(torch.LongTensor, ids), cast(torch.FloatTensor, scores))
            changeable = False
            continue
        tokens = excluded(processor, ids.shape[-1]).long()  # an empty list is one of floats
        tokens = tokens[(tokens >= 0) & (tokens < scores.shape[-1])]
        if len(tokens):
            scores = scores if changeable else scores.clone()
            scores.index_fill_(-1, tokens, -float("inf"))
    return scores
