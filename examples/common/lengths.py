"""How many tokens a model can read."""

import sys

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from common.exits import ExampleError


def longest(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> int:
    """How many tokens a model can read at once, as far as it or its tokenizer tells."""
    # Where a tokenizer has no limit, its figure fits no machine's integer.
    of_tokenizer = min(tokenizer.model_max_length, sys.maxsize)
    return min(of_tokenizer, getattr(model.config, "max_position_embeddings", of_tokenizer))


def check_length(
    max_seq_length: int, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel
) -> None:
    """See that no more tokens are asked for than the model can read.

    Raises:
        ExampleError: it reads fewer.
    """
    most = longest(tokenizer, model)
    if max_seq_length > most:
        raise ExampleError(
            f"--max_seq_length {max_seq_length} was asked for, but the model reads at most "
            f"{most} tokens. Pass --max_seq_length {most}"
        )
