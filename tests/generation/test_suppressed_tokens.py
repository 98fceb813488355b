"""Tokens that are never generated: the same scores as by Transformers' own processor."""

from typing import Any

import pytest
import torch
from transformers.generation.logits_process import (
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
)

from cpuaccel.generation.suppressed_tokens import SuppressedAtBegin, SuppressedTokens
from tests.generation.encoder_decoders import accelerated, assert_served, source, text_of


@pytest.mark.parametrize("tokens", [[], [3], [7, 1, 7], [0, 499], [2, 500, 900], [-1, 4]])
def test_scores_are_the_originals(tokens: list[int]) -> None:
    original = SuppressTokensLogitsProcessor(tokens)
    found = SuppressedTokens(original)
    for vocabulary in (500, 500, 600):
        scores = torch.randn(3, vocabulary)
        before = scores.clone()
        assert torch.equal(found(torch.zeros(3, 1), scores), original(torch.zeros(3, 1), scores))
        assert torch.equal(scores, before)


@pytest.mark.parametrize("tokens", [[3], [7, 1, 7], [2, 500, 900]])
def test_tokens_that_no_text_begins_with(tokens: list[int]) -> None:
    original = SuppressTokensAtBeginLogitsProcessor(tokens, 2)
    found = SuppressedAtBegin(original)
    for _ in range(2):
        for length in (1, 2, 3, 4):
            ids, scores = torch.zeros(3, length), torch.randn(3, 500)
            assert torch.equal(found(ids, scores.clone()), original(ids, scores.clone()))
        for one in (original, found):
            one.set_begin_index(4)


def test_whisper_never_generates_them(monkeypatch: pytest.MonkeyPatch) -> None:
    model, fast = accelerated("whisper")
    inputs = source("whisper", model)
    config = model.generation_config
    unwanted = text_of(model, inputs)[:, 2:5].flatten().tolist()
    used = []
    call = SuppressedTokens.__call__

    def counted(self: Any, *args: Any) -> torch.Tensor:
        used.append(self)
        return call(self, *args)

    monkeypatch.setattr(SuppressedTokens, "__call__", counted)
    monkeypatch.setattr(config, "suppress_tokens", unwanted)
    assert_served(fast, model, inputs)
    assert not {*unwanted} & {*text_of(fast, inputs).flatten().tolist()}
    assert len({id(one) for one in used}) == 2
    assert len(used) > 20
