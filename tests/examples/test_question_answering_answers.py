"""The chosen answers are those of a search through all spans."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("datasets", reason="the examples need the library datasets")

from datasets import Dataset

from question_answering.answers import find_answers
from question_answering.arguments import QuestionAnsweringArguments
from question_answering.metrics import score

CONTEXT = " ".join(f"word{number:02}" for number in range(30))
SPANS = [(7 * number, 7 * number + 6) for number in range(30)]

QUESTIONS = Dataset.from_dict({"id": ["a"], "context": [CONTEXT]})


def windows() -> Dataset:
    """Make two windows of 20 tokens that share 10, after 4 tokens of a question."""
    return Dataset.from_dict(
        {
            "question": [0, 0],
            "offsets": [[(0, 0)] * 4 + SPANS[:20] + [(0, 0)], [(0, 0)] * 4 + SPANS[10:] + [(0, 0)]],
            "context_first": [4, 4],
            "context_last": [23, 23],
        }
    )


def logits(seed: int) -> Any:
    """Make distinct logits, with the largest ones on the padding after 25 tokens."""
    values = np.random.default_rng(seed).permutation(100).reshape(2, 50).astype(np.float32) / 10
    values[:, 25:] += 100
    return values


@pytest.mark.parametrize("most", [1, 3, 30])
@pytest.mark.parametrize("seed", range(5))
def test_answers_are_those_of_a_search_through_all_spans(seed: int, most: int) -> None:
    starts, ends = logits(seed), logits(seed + 100)
    data = QuestionAnsweringArguments(n_best_size=50, max_answer_length=most)
    spans = [
        (starts[window, s] + ends[window, e], window, s, e)
        for window in range(2)
        for s in range(4, 24)
        for e in range(s, min(24, s + most))
    ]
    best = sorted(spans, key=lambda span: -span[0])[:50]
    found = find_answers(QUESTIONS, windows(), starts, ends, data)
    entries = found.n_best["a"]
    np.testing.assert_allclose(
        [entry["start_logit"] + entry["end_logit"] for entry in entries],
        [span[0] for span in best],
        rtol=1e-6,
    )
    offsets = windows()["offsets"]
    _, window, s, e = best[0]
    assert found.best["a"] == CONTEXT[offsets[window][s][0] : offsets[window][e][1]]
    assert sum(entry["probability"] for entry in entries) == pytest.approx(1, abs=1e-5)


def test_no_answer_must_exceed_the_best_by_the_threshold() -> None:
    starts, ends = logits(0), logits(100)
    plain = find_answers(QUESTIONS, windows(), starts, ends, QuestionAnsweringArguments())
    best = plain.n_best["a"][0]
    null = min(starts[:, 0] + ends[:, 0])
    odds = float(null) - best["start_logit"] - best["end_logit"]
    for threshold, answer in ((odds - 0.01, ""), (odds + 0.01, plain.best["a"])):
        data = QuestionAnsweringArguments(
            version_2_with_negative=True, null_score_diff_threshold=threshold
        )
        found = find_answers(QUESTIONS, windows(), starts, ends, data)
        assert found.null_odds["a"] == pytest.approx(odds, abs=1e-5)
        assert found.best["a"] == answer
        assert any(entry["text"] == "" for entry in found.n_best["a"])


def test_a_window_without_context_gives_the_fallback() -> None:
    empty = windows().select([0]).to_dict()
    empty["context_first"], empty["context_last"] = [25], [-1]
    found = find_answers(
        QUESTIONS, Dataset.from_dict(empty), logits(0), logits(1), QuestionAnsweringArguments()
    )
    assert found.best["a"] == "empty"
    assert len(found.n_best["a"]) == 1


def test_metrics_are_those_of_squad() -> None:
    questions = Dataset.from_dict(
        {
            "id": ["a", "b", "c", "d"],
            "answers": [
                {"text": ["The Blue Cat!", "a dog"], "answer_start": [0, 9]},
                {"text": ["one two three"], "answer_start": [0]},
                {"text": [], "answer_start": []},
                {"text": [], "answer_start": []},
            ],
        }
    )
    found = score(questions, {"a": "blue cat", "b": "two three four", "c": "", "d": "words"})
    assert found == {
        "f1": pytest.approx(100 * (1 + 2 / 3 + 1 + 0) / 4, abs=1e-3),
        "exact_match": 50,
        "HasAns_f1": pytest.approx(100 * (1 + 2 / 3) / 2, abs=1e-3),
        "HasAns_exact_match": 50,
        "NoAns_f1": 50,
        "NoAns_exact_match": 50,
    }
