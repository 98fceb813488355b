"""Answers from the logits of all tokens."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from datasets import Dataset

from question_answering.arguments import QuestionAnsweringArguments

Array = np.ndarray[Any, Any]

NOTHING_FOUND = "empty"
"""The answer without any candidate, as in the example of Transformers."""


@dataclass
class Found:
    """Answers by the ids of the questions.

    Attributes:
        best: the best answer; empty for none.
        n_best: the best answers in order, with their logits and probabilities.
        null_odds: by how much the score for no answer exceeds that of the best answer.
    """

    best: dict[str, str] = field(default_factory=dict)
    n_best: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    null_odds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Candidate:
    """A span of the context that may be the answer; the empty span means no answer."""

    span: tuple[int, int]
    start_logit: Any
    end_logit: Any
    score: Any


def find_answers(
    questions: Dataset,
    windows: Dataset,
    start_logits: Array,
    end_logits: Array,
    data: QuestionAnsweringArguments,
) -> Found:
    """Choose the best spans.

    Args:
        questions: rows with the columns id and context.
        windows: the result of ``windows.cut``.
        start_logits: float32[windows, tokens].
        end_logits: float32[windows, tokens].
        data: how many answers to consider, and of what length.
    """
    of_question: list[list[int]] = [[] for _ in range(len(questions))]
    for window, question in enumerate(windows["question"]):
        of_question[question].append(window)
    offsets, first, last = (
        list(windows[name]) for name in ("offsets", "context_first", "context_last")
    )
    found = Found()
    for row, (name, context) in enumerate(zip(questions["id"], questions["context"])):
        candidates: list[Candidate] = []
        null: Candidate | None = None
        for window in of_question[row]:
            # Logits of padding are not answers, and differ between pipelines.
            starts = start_logits[window, : len(offsets[window])]
            ends = end_logits[window, : len(offsets[window])]
            candidates += _candidates(
                starts, ends, offsets[window], (first[window], last[window]), data
            )
            if null is None or starts[0] + ends[0] < null.score:
                null = Candidate((0, 0), starts[0], ends[0], starts[0] + ends[0])
        assert null is not None
        if data.version_2_with_negative:
            candidates.append(null)
        # Stable: the first of equal scores.
        candidates = sorted(candidates, key=lambda each: -each.score)[: data.n_best_size]
        if data.version_2_with_negative and all(each.span != (0, 0) for each in candidates):
            candidates.append(null)
        entries = _entries(candidates, context)
        found.n_best[name] = entries
        found.best[name] = entries[0]["text"]
        if data.version_2_with_negative:
            best = next((entry for entry in entries if entry["text"]), entries[0])
            odds = float(null.score) - best["start_logit"] - best["end_logit"]
            found.null_odds[name] = odds
            found.best[name] = "" if odds > data.null_score_diff_threshold else best["text"]
    return found


def _candidates(
    starts: Array,
    ends: Array,
    offsets: Sequence[Sequence[int]],
    context: tuple[int, int],
    data: QuestionAnsweringArguments,
) -> list[Candidate]:
    """The window's best spans, at most ``n_best_size`` of them."""
    first, last = context
    best_starts, best_ends = (
        # Stable: in bfloat16 many are equal, and which is taken must not depend on the machine.
        np.argsort(-logits, kind="stable")[: data.n_best_size]
        for logits in (starts, ends)
    )
    best_starts = best_starts[(best_starts >= first) & (best_starts <= last)]
    best_ends = best_ends[(best_ends >= first) & (best_ends <= last)]
    tokens = best_ends[None, :] - best_starts[:, None] + 1
    at_start, at_end = np.nonzero((tokens >= 1) & (tokens <= data.max_answer_length))
    start, end = best_starts[at_start], best_ends[at_end]
    scores = starts[start] + ends[end]
    best = np.argsort(-scores, kind="stable")[: data.n_best_size]
    return [
        Candidate((offsets[s][0], offsets[e][1]), starts[s], ends[e], score)
        for s, e, score in zip(start[best].tolist(), end[best].tolist(), scores[best])
    ]


def _entries(candidates: Sequence[Candidate], context: str) -> list[dict[str, Any]]:
    texts = [context[first:last] for first, last in (each.span for each in candidates)]
    logits = [(each.start_logit, each.end_logit) for each in candidates]
    scores = [each.score for each in candidates]
    if texts in ([], [""]):
        texts, logits, scores = [NOTHING_FOUND, *texts], [(0.0, 0.0), *logits], [0.0, *scores]
    exponentials = np.exp(np.array(scores) - np.max(scores))
    probabilities = exponentials / exponentials.sum()
    return [
        {
            "start_logit": float(start),
            "end_logit": float(end),
            "text": text,
            "probability": float(probability),
        }
        for text, (start, end), probability in zip(texts, logits, probabilities)
    ]
