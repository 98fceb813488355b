"""What the tests of all engines have in common."""

import gc

import pytest
import torch

import cpuaccel
from cpuaccel.testing.outputs import assert_same_output
from cpuaccel.testing.subject import TOLERANCE
from tests.models import batch, both, encoder, left, right, unpadded

ARCHITECTURES = ["bert-qa", "roberta-text", "distilbert-token", "vit", "wav2vec2"]

UNSEEN = [
    (1, 24, unpadded),
    (1, 17, right),
    (5, 31, right),
    (3, 20, left),
    (4, 12, both),
]
"""Batch size, length and padding: none of them the example's."""


def verdict_on(engine: str, host: cpuaccel.Host | None = None) -> cpuaccel.Verdict:
    """Whether a host, this one by default, can have an engine."""
    backend = cpuaccel.backends()[engine]
    return backend(backend.Options()).check(host or cpuaccel.host())


def needs(engine: str) -> pytest.MarkDecorator:
    """Skip where this host can't have an engine, with its verdict as the reason."""
    verdict = verdict_on(engine)
    return pytest.mark.skipif(not verdict, reason=str(verdict))


def assert_originals_answers_at_unseen_shapes(
    fast: cpuaccel.OptimizedModel,
    model: torch.nn.Module,
    name: str,
    tolerance: float = TOLERANCE["float32"],
) -> None:
    """One build gives the original's answers at batch sizes, lengths and paddings not seen."""
    for size, length, pad in UNSEEN:
        inputs = batch(name, size, length, pad)
        with torch.no_grad():
            expected = model(**inputs)
        assert_same_output(fast(**inputs), expected, inputs, tolerance)
    assert len(fast.report.variants) == 1
    assert set(fast.report.calls) == {"optimized"}, fast.report


def assert_earlier_answers_are_left_alone(engine: str) -> None:
    """What an engine answered stays as it is when it is called again, and when it is gone."""
    model = encoder("bert-token")
    example = batch("bert-token", 2, 12, right)
    fast = cpuaccel.optimize(model, [engine], example_inputs=example, strict=True)
    calls = [batch("bert-token", size, 12, unpadded) for size in (1, 2, 3, 2, 1)]
    answers = [fast(**inputs).logits for inputs in calls]
    del fast
    gc.collect()
    for inputs, answer in zip(calls, answers):
        with torch.no_grad():
            torch.testing.assert_close(answer, model(**inputs).logits)
