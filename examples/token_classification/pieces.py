"""Which pieces the tokenizer cut each word into."""

from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from common.data import tokenize_rows

WORDS = "words"
"""The column that the model is not called with: which word each piece is of, -1 for none."""


def cut(
    sentences: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    max_seq_length: int,
    workers: int | None,
) -> Dataset:
    """Tokenize sentences that are split into words.

    Args:
        sentences: with the column tokens.
        tokenizer: a fast one.
        max_seq_length: pieces to keep of a sentence, special tokens included.
        workers: processes that do it.

    Returns:
        The model's inputs, unpadded, and the column ``WORDS``.
    """

    def tokenize(batch: dict[str, Any]) -> dict[str, Any]:
        encoded = tokenizer(
            batch["tokens"], is_split_into_words=True, truncation=True, max_length=max_seq_length
        )
        words = (encoded.word_ids(row) for row in range(len(batch["tokens"])))
        return {
            **encoded,
            WORDS: [[-1 if word is None else word for word in row] for row in words],
        }

    return tokenize_rows(sentences, tokenize, workers)


def positions(words: list[int], count: int) -> list[list[int]]:
    """Where the pieces of each word are; nowhere where the model did not get to read it.

    Args:
        words: which word each piece is of, -1 for none.
        count: how many words there are.
    """
    found: list[list[int]] = [[] for _ in range(count)]
    for position, word in enumerate(words):
        if word >= 0:
            found[word].append(position)
    return found
