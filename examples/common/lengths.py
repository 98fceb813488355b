"""The longest input of a model."""

import sys

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from common.exits import ExampleError


def longest(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> int:
    """Return the longest input in tokens, as far as the tokenizer and the config say."""
    # A tokenizer without a limit has a number above the range of C integers.
    of_tokenizer = min(tokenizer.model_max_length, sys.maxsize)
    return min(of_tokenizer, getattr(model.config, "max_position_embeddings", of_tokenizer))


def check_length(
    max_seq_length: int, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel
) -> None:
    """Check a maximal length against the limit of the model.

    Raises:
        ExampleError: it is above the limit.
    """
    most = longest(tokenizer, model)
    if max_seq_length > most:
        raise ExampleError(
            f"--max_seq_length must be <= {most}, the limit of the model, got {max_seq_length}"
        )
