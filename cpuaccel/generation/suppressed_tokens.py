"""Tokens that Whisper never generates, or not at first: found in the vocabulary once a text."""

import torch
from transformers import PreTrainedModel
from transformers.generation.logits_process import (
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
)

from cpuaccel.model.redirected import Method

METHODS = {"whisper": "_retrieve_logit_processors"}
"""Methods that make the processors, by ``model_type``. In a small model it takes a fifth of the
time of a step to compare each token of the vocabulary with each suppressed one."""


class SuppressedTokens(SuppressTokensLogitsProcessor):
    """Does what another processor does, with a mask that is computed once."""

    def __init__(self, original: SuppressTokensLogitsProcessor) -> None:
        self.suppress_tokens: torch.Tensor = original.suppress_tokens
        self._mask = torch.empty(0, dtype=torch.bool)

    def __call__(self, input_ids: torch.LongTensor, scores: torch.Tensor) -> torch.Tensor:
        """Take and return scores of shape (rows, vocabulary)."""
        vocabulary = scores.shape[-1]
        if len(self._mask) != vocabulary:
            tokens = self.suppress_tokens.long()  # of an empty list it is one of floats
            self._mask = torch.zeros(vocabulary, dtype=torch.bool)
            self._mask[tokens[(tokens >= 0) & (tokens < vocabulary)]] = True
        return torch.where(self._mask, -float("inf"), scores)


class SuppressedAtBegin(SuppressTokensAtBeginLogitsProcessor):
    """Does what another processor does, and nothing after the first token."""

    def __init__(self, original: SuppressTokensAtBeginLogitsProcessor) -> None:
        self.begin_suppress_tokens: torch.Tensor = original.begin_suppress_tokens
        self.begin_index: int = original.begin_index

    def __call__(self, input_ids: torch.LongTensor, scores: torch.Tensor) -> torch.Tensor:
        """Take and return scores of shape (rows, vocabulary)."""
        if input_ids.shape[-1] != self.begin_index:
            return scores
        processed: torch.Tensor = super().__call__(input_ids, scores)
        return processed


QUICK = {
    SuppressTokensLogitsProcessor: SuppressedTokens,
    SuppressTokensAtBeginLogitsProcessor: SuppressedAtBegin,
}
"""What takes the place of processors of exactly these types."""


def parts(model: PreTrainedModel) -> dict[str, object]:
    """Attributes by which ``generate`` of a model gets these processors."""
    name = METHODS.get(model.config.model_type, "")
    original = getattr(type(model), name, None)
    if original is None:
        return {}

    def retrieve(self: PreTrainedModel, *args: object, **kwargs: object) -> object:
        made = original(self, *args, **kwargs)
        if not isinstance(made, list):
            return made
        return [QUICK.get(type(one), lambda same: same)(one) for one in made]

    return {name: Method(retrieve)}
