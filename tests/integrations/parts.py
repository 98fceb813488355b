"""Tokenizers, texts and comparisons that the integrations' tests share."""

import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import transformers

SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
MASK = "[MASK]"

TEXTS = [
    "a short one",
    "one that is a good deal longer than the first of them",
    "x",
    "the quick brown fox jumps over the lazy dog again",
    "nothing to add",
]
"""Of different lengths, so that a batch of them has padding."""

QA = Path(__file__).resolve().parents[3] / "shared" / "qa"
"""A model trained on SQuAD, beside the repository where it is there at all."""


def letters_tokenizer(**settings: Any) -> Any:
    """A tokenizer of 58 tokens like BERT's: every letter is one."""
    words = [*SPECIAL.values(), MASK, *string.ascii_lowercase]
    words += [f"##{letter}" for letter in string.ascii_lowercase] + ["."]
    vocabulary = {word: number for number, word in enumerate(words)}
    backend = tokenizers.Tokenizer(
        tokenizers.models.WordPiece(vocabulary, unk_token=SPECIAL["unk_token"])
    )
    backend.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    backend.post_processor = tokenizers.processors.BertProcessing(
        (SPECIAL["sep_token"], vocabulary[SPECIAL["sep_token"]]),
        (SPECIAL["cls_token"], vocabulary[SPECIAL["cls_token"]]),
    )
    backend.decoder = tokenizers.decoders.WordPiece()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        mask_token=MASK,
        model_max_length=128,
        **{**SPECIAL, **settings},
    )


def assert_alike(found: object, expected: object) -> None:
    """The same structure and the same values, up to rounding in floats."""
    assert type(found) is type(expected)
    if isinstance(expected, Mapping):
        assert isinstance(found, Mapping)
        assert list(found) == list(expected)
        for key, value in expected.items():
            assert_alike(found[key], value)
    elif isinstance(expected, (list, tuple)):
        assert isinstance(found, (list, tuple))
        assert len(found) == len(expected)
        for mine, theirs in zip(found, expected):
            assert_alike(mine, theirs)
    elif isinstance(expected, (float, np.floating)):
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-5)
    else:
        assert found == expected
