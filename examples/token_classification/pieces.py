"""The pieces that the tokenizer makes of each word."""

from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from common.data import tokenize_rows

WORDS = "words"
"""The column with the word of each piece, -1 for none; not an input of the model."""


def cut(
    sentences: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    max_seq_length: int,
    workers: int | None,
) -> Dataset:
    """Tokenize sentences that are split into words.

    Args:
        sentences: rows with the column tokens.
        tokenizer: a fast tokenizer.
        max_seq_length: most pieces of a sentence, including special tokens.
        workers: number of processes.

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
    """Return the positions of the pieces of each word; none for a word that was cut off.

    Args:
        words: the word of each piece, -1 for none.
        count: number of words.
    """
    found: list[list[int]] = [[] for _ in range(count)]
    for position, word in enumerate(words):
        if word >= 0:
            found[word].append(position)
    return found
