"""A tokenizer, texts and a comparison for the tests of integrations."""

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
"""Texts of different lengths, so that a batch of them has padding."""

QA = Path(__file__).resolve().parents[3] / "shared" / "qa"
"""Folder of a model trained on SQuAD, beside the repository if present."""


def letters_tokenizer(**settings: Any) -> Any:
    """Make a tokenizer like BERT's with 58 tokens, one for each letter."""
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


def assert_close_results(found: object, expected: object) -> None:
    """Assert that two results have the same structure and values, up to rounding of floats."""
    assert type(found) is type(expected)
    if isinstance(expected, Mapping):
        assert isinstance(found, Mapping)
        assert list(found) == list(expected)
        for key, value in expected.items():
            assert_close_results(found[key], value)
    elif isinstance(expected, (list, tuple)):
        assert isinstance(found, (list, tuple))
        assert len(found) == len(expected)
        for mine, theirs in zip(found, expected):
            assert_close_results(mine, theirs)
    elif isinstance(expected, (float, np.floating)):
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-5)
    else:
        assert found == expected
