"""Beam search over the best tokens of each beam: the tokens are those of Transformers' search."""

from typing import Any

import pytest
import torch
from transformers import LogitsProcessor, MarianConfig, MarianMTModel
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinLengthLogitsProcessor,
    MinNewTokensLengthLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
)

import cpuaccel
from cpuaccel.generation.beams.best_tokens import BLOCK, best_tokens
from cpuaccel.generation.beams.processors import process
from cpuaccel.generation.beams.search import Candidates
from tests.generation.encoder_decoders import BART, accelerated, assert_served, source
from tests.generation.models import served_once

VOCABULARY = 40 * BLOCK + 7


@pytest.fixture(scope="module")
def marian() -> tuple[Any, Any]:
    """A model whose vocabulary has many blocks, of which sentences end early; and its stepper."""
    torch.manual_seed(0)
    model: Any = MarianMTModel(MarianConfig(**{**BART, "vocab_size": VOCABULARY})).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.mul_(8)  # or all sentences have the same text
        model.final_logits_bias.normal_()
    return model, cpuaccel.optimize(model, ["onednn"])


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths of the texts for which candidates were found."""
    lengths = []
    scores = Candidates.scores

    def watched(self: Candidates, ids: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        lengths.append(ids.shape[1])
        return scores(self, ids, _)

    monkeypatch.setattr(Candidates, "scores", watched)
    return lengths


def sentences(rows: int = 5) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    ids = torch.randint(4, VOCABULARY, (rows, 12), generator=random)
    mask = torch.ones_like(ids)
    for row in range(1, rows):
        ids[row, 12 - row :], mask[row, 12 - row :] = 0, 0
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("vocabulary", [8, BLOCK, 3 * BLOCK, 17 * BLOCK, 40 * BLOCK + 7])
def test_best_tokens(vocabulary: int) -> None:
    torch.manual_seed(0)
    scores = torch.randn(5, vocabulary)
    scores[1, 3:] = -float("inf")
    scores[2] = scores[2].round()  # ties
    scores[3, -1] = 9
    values, tokens = best_tokens(scores, 8)
    assert torch.equal(values, scores.topk(8).values)
    assert torch.equal(scores.gather(1, tokens), values)
    assert all(len({*row}) == 8 for row in tokens.tolist())


PROCESSORS = {
    "min length": MinLengthLogitsProcessor(5, [2, 7]),
    "min length reached": MinLengthLogitsProcessor(4, 2),
    "min new tokens": MinNewTokensLengthLogitsProcessor(1, 4, 2),
    "min new tokens reached": MinNewTokensLengthLogitsProcessor(1, 3, 2),
    "suppressed": SuppressTokensLogitsProcessor([3, 4, 900, -1]),
    "none suppressed": SuppressTokensLogitsProcessor([]),
    "at the begin": SuppressTokensAtBeginLogitsProcessor([5], 4),
    "after the begin": SuppressTokensAtBeginLogitsProcessor([5], 3),
    "no repetition": NoRepeatNGramLogitsProcessor(1),
}


@pytest.mark.parametrize("first", PROCESSORS)
@pytest.mark.parametrize("second", ["suppressed", "no repetition"])
def test_processors_change_scores_as_transformers_does(first: str, second: str) -> None:
    chosen: Any = LogitsProcessorList([PROCESSORS[first], PROCESSORS[second]])
    ids, scores = torch.tensor([[0, 1, 2, 3], [4, 5, 6, 7]]), torch.randn(2, 50)
    expected = chosen(ids, scores.clone())
    assert torch.equal(process(chosen, ids, scores.clone()), expected)


SEARCHES: dict[str, dict[str, Any]] = {
    "beams": {},
    "two beams": {"num_beams": 2},
    "several texts": {"num_return_sequences": 3},
    "long texts": {"length_penalty": 2.0},
    "short texts": {"length_penalty": -1.0},
    "early stopping": {"early_stopping": True},
    "never early": {"early_stopping": "never", "length_penalty": 1.0},
    "least length": {"min_new_tokens": 6},
    "no repetition": {"no_repeat_ngram_size": 2, "repetition_penalty": 1.3},
    "first token": {"forced_bos_token_id": 17},
    "last token": {"forced_eos_token_id": 2},
    "renormalized": {"renormalize_logits": True, "suppress_tokens": [5, 6, 7]},
}
ENDS: dict[str, Any] = {"one": 2, "many": [*range(4, VOCABULARY, 29)], "most": [*range(300, 900)]}


@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("search", SEARCHES)
def test_tokens_are_those_of_transformers(
    search: str, ends: str, marian: tuple[Any, Any], steps: list[int]
) -> None:
    model, fast = marian
    call = {"num_beams": 4, "max_new_tokens": 14, "eos_token_id": ENDS[ends], **SEARCHES[search]}
    expected = model.generate(**sentences(), **call)
    with served_once(fast):
        assert torch.equal(fast.generate(**sentences(), **call), expected)
    assert steps[:3] == [1, 2, 3]


class EndsInTurn(LogitsProcessor):
    """Lets each sentence of three beams end two tokens after the one before it."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        ended = input_ids.shape[1] >= 3 + 2 * (torch.arange(len(scores)) // 3)
        return (
            scores + ended[:, None] * torch.nn.functional.one_hot(torch.tensor(2), VOCABULARY) * 1e3
        )


@pytest.mark.parametrize("early", [True, False, "never"])
def test_sentences_end_at_different_times(
    early: bool | str, marian: tuple[Any, Any], steps: list[int]
) -> None:
    model, fast = marian
    call = {"num_beams": 3, "max_new_tokens": 20, "early_stopping": early}
    expected, found = (
        each.generate(**sentences(), **call, logits_processor=[EndsInTurn()])
        for each in (model, fast)
    )
    assert len(expected.ne(model.config.eos_token_id).sum(1).unique()) == len(expected)
    assert torch.equal(found, expected)
    assert steps


class Kept(LogitsProcessor):
    """Keeps the scores that it gets, and changes some of them."""

    def __init__(self) -> None:
        self.seen: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.seen.append(scores)
        return scores - scores.clamp(min=-50).roll(1, -1) / 4


def test_other_processors_get_all_scores(marian: tuple[Any, Any], steps: list[int]) -> None:
    model, fast = marian
    kept = Kept(), Kept()
    call = {"num_beams": 3, "max_new_tokens": 6, "min_new_tokens": 4}
    expected = model.generate(**sentences(), **call, logits_processor=[kept[0]])
    found = fast.generate(**sentences(), **call, logits_processor=[kept[1]])
    assert torch.equal(found, expected)
    assert len(steps) == 6
    for one, other in zip(kept[0].seen, kept[1].seen, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)


def test_returned_scores_are_of_the_whole_vocabulary(
    marian: tuple[Any, Any], steps: list[int]
) -> None:
    model, fast = marian
    asked = {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}
    call = {"num_beams": 3, "max_new_tokens": 6, **asked}
    one, other = (each.generate(**sentences(), **call) for each in (model, fast))
    assert torch.equal(one.sequences, other.sequences)
    torch.testing.assert_close(one.sequences_scores, other.sequences_scores)
    for name in ("scores", "logits"):
        for first, second in zip(one[name], other[name], strict=True):
            torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-3)
    assert not steps


def test_returned_texts_and_cache(marian: tuple[Any, Any], steps: list[int]) -> None:
    model, fast = marian
    call = {"num_beams": 3, "max_new_tokens": 6, "return_dict_in_generate": True}
    one, other = (each.generate(**sentences(), **call) for each in (model, fast))
    assert torch.equal(one.sequences, other.sequences)
    assert torch.equal(one.beam_indices, other.beam_indices)
    assert one.past_key_values.get_seq_length() == other.past_key_values.get_seq_length()
    assert len(steps) == 6


def test_sampled_beams_are_those_of_transformers(marian: tuple[Any, Any], steps: list[int]) -> None:
    model, fast = marian
    found = []
    for each in (model, fast):
        torch.manual_seed(3)
        found.append(each.generate(**sentences(), num_beams=3, do_sample=True, max_new_tokens=8))
    assert torch.equal(*found)
    assert not steps


@pytest.mark.parametrize("name", ["whisper", "blip", "t5"])
def test_other_models(name: str, steps: list[int]) -> None:
    model, fast = accelerated(name)
    assert_served(fast, model, source(name, model), num_beams=3)
    assert steps


def test_a_search_of_its_own_stays(marian: tuple[Any, Any], steps: list[int]) -> None:
    class Searching(MarianMTModel):
        def _beam_search(self, *args: Any, **kwargs: Any) -> Any:
            return super()._beam_search(*args, **kwargs)

    model = Searching(marian[0].config).eval()
    model.load_state_dict(marian[0].state_dict())
    fast: Any = cpuaccel.optimize(model, ["onednn"])
    call = {"num_beams": 3, "max_new_tokens": 6}
    assert torch.equal(fast.generate(**sentences(), **call), model.generate(**sentences(), **call))
    assert not steps
