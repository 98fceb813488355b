"""The languages of data, tokenizers and metrics."""

from collections.abc import Collection
from typing import Any

from transformers import PreTrainedTokenizerBase

from common.exits import UsageError
from cpuaccel.errors import did_you_mean
from translation.arguments import TranslationArguments


def short_code(language: str) -> str:
    """Return the code without its region: en for en_XX."""
    return language.partition("_")[0]


def named_in(languages: Collection[str], language: str) -> str:
    """Return the name that data has for a language: itself, or without its region."""
    return language if language in languages else short_code(language)


def first_token(tokenizer: PreTrainedTokenizerBase, data: TranslationArguments) -> int | None:
    """Set the languages of a multilingual tokenizer, and find the first token of translations.

    Returns:
        The number of the token; None for the model's own.

    Raises:
        UsageError: the tokenizer has no such language, or no such token.
    """
    languages: Any = tokenizer
    assert data.source_lang is not None
    assert data.target_lang is not None
    if hasattr(tokenizer, "src_lang"):
        tokens = {
            option: _language_token(tokenizer, option, getattr(data, option))
            for option in ("source_lang", "target_lang")
        }
        languages.src_lang, languages.tgt_lang = data.source_lang, data.target_lang
        if data.forced_bos_token is None:
            return tokens["target_lang"]
    if data.forced_bos_token is None:
        return None
    return _token(tokenizer, "forced_bos_token", data.forced_bos_token)


def _language_token(tokenizer: PreTrainedTokenizerBase, option: str, language: str) -> int:
    to_token = getattr(tokenizer, "lang_code_to_token", {})  # M2M100 writes en as __en__
    known = to_token or getattr(tokenizer, "lang_code_to_id", ())
    if known and language not in known:
        raise UsageError(
            f"unknown --{option} {language}{did_you_mean(language, known)} The tokenizer has "
            f"{', '.join(sorted(known))}"
        )
    return _token(tokenizer, option, to_token.get(language, language))


def _token(tokenizer: PreTrainedTokenizerBase, option: str, token: str) -> int:
    number = tokenizer.convert_tokens_to_ids(token)
    if not isinstance(number, int) or number == tokenizer.unk_token_id:
        raise UsageError(f"unknown --{option} {token}: the tokenizer has no such token")
    return number
